package latency

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/parse"

	"github.com/resolute-dns/resolute/plugin/internal/trail"

	"github.com/miekg/dns"
)

const pluginName = "latency"

func init() { plugin.Register(pluginName, setup) }

func setup(c *caddy.Controller) error {
	conf, err := parseConfig(c)
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	if err := trail.Watch(c); err != nil {
		return plugin.Error(pluginName, err)
	}

	l := New(conf)
	l.search = newSearchRule(resolvConf)
	cfg := dnsserver.GetConfig(c)
	keys := slices.Clone(c.ServerBlockKeys)
	c.OnStartup(func() error {
		l.traced = cfg.Handler("trace") != nil
		l.start(servers(keys, cfg.ListenHosts))
		return nil
	})
	c.OnShutdown(func() error {
		l.stop()
		return nil
	})
	// A new configuration that can't be started is thrown away without a call to
	// its OnShutdown; its predecessor, which goes on serving, hears of it.
	var before int
	c.OnRestart(func() error {
		before = live.mark()
		return nil
	})
	c.OnRestartFailed(func() error {
		for _, failed := range live.since(before) {
			failed.stop()
		}
		return nil
	})
	cfg.AddPlugin(func(next plugin.Handler) plugin.Handler {
		l.Next = next
		return l
	})
	return nil
}

// resolvConf is the file that the search domains of the node are read from, see
// [searchRule]. It is a variable for tests.
var resolvConf = "/etc/resolv.conf"

// servers returns what metrics.WithServer will say in a server block with these
// keys and listen addresses, as dnsserver makes it.
func servers(keys, hosts []string) []string {
	var addrs []string
	for _, key := range keys {
		transport, zonePort := parse.Transport(key)
		port := zonePort[strings.LastIndex(zonePort, ":")+1:]
		for _, host := range hosts {
			a, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(host, port))
			if err != nil {
				continue // dnsserver has failed with it before
			}
			if addr := transport + "://" + a.String(); !slices.Contains(addrs, addr) {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs
}

// Config is the directive as it stands in the Corefile.
type Config struct {
	Zones []string // names to observe, in lower case

	// Slow is how long a query takes that is logged; 0: none is.
	Slow time.Duration
	// PerSecond is how many of them are logged at most.
	PerSecond int

	// Retries is how many recent lookups are remembered to recognise the retries
	// of clients; 0: none.
	Retries int

	// Window is how far quantiles and maximum look back.
	Window time.Duration
}

// The defaults, and what is valid.
const (
	defaultSlow      = time.Second
	minSlow, maxSlow = time.Millisecond, time.Hour

	defaultPerSecond = 10
	maxPerSecond     = 10_000

	// 65536 lookups of 64 bytes are 4 MB. A client is to be recognised for 12 s
	// (glibc comes back after 5 s, and again after 10 s), so they cover 5,000
	// lookups a second. The most, 1 GB, is for a machine of its own; fewer than
	// the least would forget a lookup before its retry on any server.
	defaultRetries         = 1 << 16
	minRetries, maxRetries = 1 << 10, 1 << 24

	defaultWindow        = time.Minute
	minWindow, maxWindow = time.Second, time.Hour
)

func parseConfig(c *caddy.Controller) (Config, error) {
	conf := Config{Slow: defaultSlow, PerSecond: defaultPerSecond, Retries: defaultRetries, Window: defaultWindow}
	for i := 0; c.Next(); i++ {
		if i > 0 {
			return conf, plugin.ErrOnce
		}
		args := c.RemainingArgs()
		for _, z := range args {
			if len(plugin.Host(z).NormalizeExact()) == 0 {
				return conf, c.Errf("zone: '%s' is not a zone", z)
			}
		}
		for _, z := range plugin.OriginsFromArgsOrServerBlock(args, c.ServerBlockKeys) {
			conf.Zones = append(conf.Zones, dns.CanonicalName(z))
		}
		seen := map[string]bool{}
		for c.NextBlock() {
			option := c.Val()
			if seen[option] {
				return conf, c.Errf("'%s' is set twice", option)
			}
			seen[option] = true
			if err := parseOption(c, option, &conf); err != nil {
				return conf, err
			}
		}
	}
	return conf, nil
}

func parseOption(c *caddy.Controller, option string, conf *Config) error {
	parse, ok := map[string]func(*caddy.Controller, []string, *Config) error{
		"slow":    parseSlow,
		"retries": parseRetries,
		"window":  parseWindow,
	}[option]
	if !ok {
		return c.Errf("unknown property '%s': valid are slow, retries, window", option)
	}
	args := c.RemainingArgs()
	if len(args) == 0 {
		return c.Errf("'%s' needs a value", option)
	}
	return parse(c, args, conf)
}

func parseSlow(c *caddy.Controller, args []string, conf *Config) error {
	if args[0] == "off" {
		conf.Slow = 0
		return noMore(c, "slow", args[1:])
	}
	d, err := time.ParseDuration(args[0])
	if err != nil || d < minSlow || d > maxSlow {
		return c.Errf("slow: '%s' is neither a duration of 1ms to 1h nor off", args[0])
	}
	conf.Slow = d
	if len(args) == 1 {
		return nil
	}
	n, err := strconv.Atoi(args[1])
	if err != nil || n < 1 || n > maxPerSecond {
		return c.Errf("slow: '%s' is not a number of lines a second of 1 to %d", args[1], maxPerSecond)
	}
	conf.PerSecond = n
	return noMore(c, "slow", args[2:])
}

func parseRetries(c *caddy.Controller, args []string, conf *Config) error {
	if args[0] == "off" {
		conf.Retries = 0
		return noMore(c, "retries", args[1:])
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < minRetries || n > maxRetries {
		return c.Errf("retries: '%s' is neither a number of entries of %d to %d nor off", args[0], minRetries, maxRetries)
	}
	conf.Retries = n
	return noMore(c, "retries", args[1:])
}

func parseWindow(c *caddy.Controller, args []string, conf *Config) error {
	d, err := time.ParseDuration(args[0])
	if err != nil || d < minWindow || d > maxWindow {
		return c.Errf("window: '%s' is not a duration of 1s to 1h", args[0])
	}
	conf.Window = d
	return noMore(c, "window", args[1:])
}

func noMore(c *caddy.Controller, option string, args []string) error {
	if len(args) > 0 {
		return c.Errf("%s: unexpected '%s'", option, args[0])
	}
	return nil
}
