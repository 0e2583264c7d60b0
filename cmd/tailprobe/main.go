// Command tailprobe looks names up from a pod as its programs do, finds the slow
// ones, and says what they had lost. Its doctor looks at what decides about
// lookups: resolv.conf, the C library, the kernel's counters, the name servers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v3"
)

// version is set when the binary is built.
var version = "dev"

// Exit codes.
const (
	exitPassed = 0
	exitFailed = 1 // a threshold was crossed, or the doctor found a problem
	exitError  = 2 // it could not be tried: wrong usage, missing file
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// errFailed is the end of a run that worked, with a bad result.
var errFailed = errors.New("failed")

// app is the program with its surroundings.
type app struct {
	in       io.Reader
	out, err io.Writer
}

// run carries out a command line and returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	a := &app{in: in, out: out, err: errs}
	err := a.command().Run(ctx, args)
	switch {
	case err == nil:
		return exitPassed
	case errors.Is(err, errFailed):
		return exitFailed
	}
	fmt.Fprintln(errs, "tailprobe:", err)
	return exitError
}

// command describes the command line.
func (a *app) command() *cli.Command {
	usage := func(_ context.Context, c *cli.Command, err error, _ bool) error {
		return fmt.Errorf("%w; %s", err, hint(c.Flags, err))
	}
	silent := func(context.Context, *cli.Command, error) {}
	return &cli.Command{
		Name: "tailprobe", Version: version, Writer: a.out, ErrWriter: a.err, Reader: a.in,
		CustomRootCommandHelpTemplate: shortHelp,
		HideHelpCommand:               true,
		DisableSliceFlagSeparator:     true, // -server has commas of its own
		OnUsageError:                  usage,
		ExitErrHandler:                silent,
		Flags:                         loadFlags(),
		Action:                        a.load,
		Commands: []*cli.Command{
			{
				Name: "doctor", Usage: "look for what makes lookups slow or fail in this pod",
				Flags: doctorFlags(), Action: a.doctor, OnUsageError: usage, HideHelpCommand: true, DisableSliceFlagSeparator: true, CustomHelpTemplate: "tailprobe doctor: look for what makes lookups slow or fail\n\n" + flagList(doctorFlags()),
			},
			{
				Name: "flags", Usage: "explain all flags", HideHelpCommand: true, OnUsageError: usage,
				Action: func(context.Context, *cli.Command) error {
					_, err := fmt.Fprint(a.out, flagList(loadFlags()))
					return err
				},
			},
		},
	}
}

// hint says what is valid for the flag that the library complains about.
func hint(flags []cli.Flag, err error) string {
	for _, f := range flags {
		if !strings.Contains(err.Error(), "flag -"+f.Names()[0]+":") {
			continue
		}
		switch f.(type) {
		case *cli.DurationFlag:
			return "valid is a time with its unit, as in 30s or 500ms"
		case *cli.IntFlag, *cli.Uint64Flag:
			return "valid is a whole number"
		case *cli.FloatFlag:
			return "valid is a number"
		}
	}
	return "tailprobe flags and tailprobe doctor -h show what is valid"
}
