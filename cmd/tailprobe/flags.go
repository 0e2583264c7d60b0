package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/resolvconf"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/stub"

	"github.com/urfave/cli/v3"
)

// The defaults: those of the tester that has found incident I2, and the 5 s that
// glibc waits for a lost packet.
const (
	defaultWorkers = 200
	defaultTime    = 30 * time.Second
	defaultLimit   = 5 * time.Second
	defaultSlow    = time.Second
	defaultGiveUp  = time.Minute // longer than glibc tries with two servers and ndots:5
)

func loadFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "c", Value: defaultWorkers, Usage: "workers of each target, each with one lookup at a time"},
		&cli.DurationFlag{Name: "d", Value: defaultTime, Usage: "for how long to start lookups"},
		&cli.IntFlag{Name: "n", Usage: "at most so many lookups of each target; 0: no limit"},
		&cli.FloatFlag{Name: "rate", Usage: "lookups a second of each target; latency counts from the intended start; 0: closed loop"},
		&cli.DurationFlag{Name: "limit", Value: defaultLimit, Usage: "show lookups that take longer, and fail if there are any; 0: off"},
		&cli.DurationFlag{Name: "slow", Value: defaultSlow, Usage: "from when on what a lookup lost is counted as slow"},
		&cli.StringSliceFlag{Name: "fail-over", Usage: "fail if a larger share takes longer: `TIME=PERCENT`, as in 1s=0.1% (repeatable)"},
		&cli.StringFlag{Name: "fail-errors", Usage: "fail if more than `PERCENT` of the lookups have no answer or an error"},
		&cli.StringSliceFlag{Name: "server", Usage: "name server `ADDRESSES` of a target, separated by commas, in place of resolv.conf's (repeatable: side by side)"},
		&cli.StringFlag{Name: "resolv-conf", Value: "/etc/resolv.conf", Usage: "take from `FILE` name servers, search list and options"},
		&cli.StringFlag{Name: "options", Usage: "add `OPTIONS` to those of resolv.conf: " + resolvconf.OptionNames},
		&cli.StringFlag{Name: "search", Usage: "`DOMAINS`, separated by spaces, in place of the search list"},
		&cli.StringFlag{Name: "libc", Value: "auto", Usage: "whose getaddrinfo to be: glibc, musl, or auto (that of this image; glibc if there is none)"},
		&cli.StringFlag{Name: "family", Value: "any", Usage: "address family: any (A and AAAA), 4 or 6"},
		&cli.BoolFlag{Name: "keep-state", Usage: "workers are threads that live on: as glibc's, they send one query at a time after a lost reply"},
		&cli.StringFlag{Name: "f", Usage: "read names, one a line, from `FILE`; - is the standard input"},
		&cli.BoolFlag{Name: "random", Usage: "put a random label before each name, which no cache has"},
		&cli.Uint64Flag{Name: "seed", Usage: "of random labels and query IDs; 0: a random one"},
		&cli.DurationFlag{Name: "give-up", Value: defaultGiveUp, Usage: "abandon a lookup after this time"},
		&cli.BoolFlag{Name: "json", Usage: "write the report as JSON"},
		&cli.StringFlag{Name: "svg", Usage: "draw the latency distribution into `FILE`"},
	}
}

func doctorFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "root", Value: "/", Usage: "directory to look at in place of /, as /proc/PID/root"},
		&cli.StringSliceFlag{Name: "server", Usage: "name server `ADDRESSES` to ask in place of resolv.conf's (repeatable)"},
		&cli.StringFlag{Name: "name", Usage: "ask them for `NAME` (default: kubernetes.default.svc of the search list, else the root)"},
		&cli.IntFlag{Name: "tries", Value: 3, Usage: "lookups of each name server"},
		&cli.DurationFlag{Name: "timeout", Value: time.Second, Usage: "of each try"},
		&cli.DurationFlag{Name: "wait", Value: 2 * time.Second, Usage: "at least, between two readings of the kernel's counters"},
		&cli.BoolFlag{Name: "json", Usage: "write the findings as JSON"},
	}
}

// parseServers reads addresses separated by commas: 10.0.0.1, 10.0.0.1:5353,
// fd00::1, [fd00::1]:5353.
func parseServers(text string) ([]netip.AddrPort, error) {
	var servers []netip.AddrPort
	for part := range strings.SplitSeq(text, ",") {
		addr, err := parseServer(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("-server %q: valid is an IP address, as in 10.96.0.10, 10.96.0.10:53 or [fd00::a]:53", part)
		}
		servers = append(servers, addr)
	}
	return servers, nil
}

func parseServer(text string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), resolvconf.DNSPort), nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return netip.AddrPort{}, err
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err == nil && n == 0 {
		err = fmt.Errorf("port 0")
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), err
}

// resolvConf reads a resolv.conf with what flags and environment change about it.
// Only a file that was asked for has to be there.
func resolvConf(c *cli.Command, libc stub.Libc) (resolvconf.Config, error) {
	config := resolvconf.Default()
	file := c.String("resolv-conf")
	text, err := os.ReadFile(file)
	switch {
	case err == nil:
		config.Parse(string(text))
	case c.IsSet("resolv-conf"):
		return config, fmt.Errorf("-resolv-conf: %w", err)
	}
	if libc == stub.Glibc {
		config.Env(os.Getenv)
		if host, err := os.Hostname(); err == nil {
			config.SearchFromHost(host)
		}
	}
	if c.IsSet("search") {
		config.SetSearch(strings.Fields(c.String("search")))
	}
	for _, o := range strings.Fields(c.String("options")) {
		if err := config.Option(o); err != nil {
			return config, fmt.Errorf("-options: %w", err)
		}
	}
	return config, nil
}
