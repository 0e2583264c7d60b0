package preflight

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"
)

// Command is the flags of a check.
type Command struct {
	check, json   bool
	names, ignore list
}

// list is a flag that may be given more than once, and with commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(s string) error {
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			*l = append(*l, v)
		}
	}
	return nil
}

// Flags adds the flags of a check to fs.
func Flags(fs *flag.FlagSet) *Command {
	c := new(Command)
	fs.BoolVar(&c.check, "check", false, "Read the Corefile, ask its upstreams, report and exit: 0 is good, 1 has findings, 2 would not start")
	fs.BoolVar(&c.json, "json", false, "With -check: report as JSON")
	fs.Var(&c.names, "check-name", "With -check: `name` to ask the upstreams for; may be repeated, or a list with commas")
	fs.Var(&c.ignore, "check-ignore", "With -check: `code` of findings that do not count, or all; may be repeated, or a list with commas")
	return c
}

// Given says whether a check is asked for, once the flags are parsed. It returns
// an error for flags that make no sense without.
func (c *Command) Given() (bool, error) {
	switch {
	case c.check:
		return true, nil
	case c.json || len(c.names) > 0 || len(c.ignore) > 0:
		return false, errors.New("-json, -check-name and -check-ignore need -check")
	}
	return false, nil
}

// Run loads the Corefile that the flags of CoreDNS name, checks it and writes
// the report to stdout. It returns the exit code. What is wrong with the flags
// goes to stderr; args are the arguments behind them.
func (c *Command) Run(stdout, stderr io.Writer, args []string) int {
	o, err := c.options(args)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return Failed.ExitCode()
	}
	var r *Report
	if o.Input, err = caddy.LoadCaddyfile(serverType); err != nil {
		r = &Report{Version: ReportVersion, Errors: []Error{{Message: err.Error()}}}
		r.conclude(nil)
	} else {
		r = Check(context.Background(), o)
	}
	write := r.WriteText
	if c.json {
		write = r.WriteJSON
	}
	if err := write(stdout); err != nil {
		fmt.Fprintln(stderr, err)
		return Failed.ExitCode()
	}
	return r.ExitCode
}

func (c *Command) options(args []string) (Options, error) {
	if len(args) > 0 {
		return Options{}, fmt.Errorf("extra command line arguments: %s", args)
	}
	o := Options{Ignore: c.ignore}
	for _, code := range c.ignore {
		if code != All && !slices.Contains(Codes(), code) {
			return o, fmt.Errorf("-check-ignore: unknown code '%s': valid are all, %s", code, strings.Join(Codes(), ", "))
		}
	}
	for _, name := range c.names {
		if _, ok := dns.IsDomainName(name); !ok {
			return o, fmt.Errorf("-check-name: '%s' is not a domain name", name)
		}
		if name = dns.CanonicalName(name); !slices.Contains(o.Names, name) {
			o.Names = append(o.Names, name)
		}
	}
	return o, nil
}
