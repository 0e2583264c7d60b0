package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/doctor"

	"github.com/urfave/cli/v3"
)

// doctor is the command of that name.
func (a *app) doctor(ctx context.Context, c *cli.Command) error {
	if c.NArg() > 0 {
		return fmt.Errorf("doctor takes no %q; the name to ask for is given with -name", c.Args().First())
	}
	o := doctor.Options{
		Version: version, Root: c.String("root"), Name: c.String("name"), Tries: c.Int("tries"),
		Timeout: c.Duration("timeout"), Wait: c.Duration("wait"), Rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}
	if o.Root == "/" {
		o.Getenv = os.Getenv // that of another root isn't known
	}
	for _, text := range c.StringSlice("server") {
		servers, err := parseServers(text)
		if err != nil {
			return err
		}
		o.Servers = append(o.Servers, servers...)
	}
	d, err := doctor.Examine(ctx, o)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = d.JSON(a.out)
	} else {
		err = d.Text(a.out)
	}
	if err == nil && d.Problems > 0 {
		return errFailed
	}
	return err
}
