package nodelocal

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"
)

const pluginName = "nodelocal"

var log = clog.NewWithPlugin(pluginName)

func init() { plugin.Register(pluginName, setup) }

const (
	defaultInterface = "nodelocaldns" // node-cache's, so that what it has left is taken over
	defaultSync      = time.Minute    // node-cache's

	// maxInterface is what the kernel has room for: IFNAMSIZ, with a NUL.
	maxInterface = 15

	// A look costs a few system calls, and a second without DNS is a second too
	// much. What is looked at less than once an hour is not being looked after.
	minSync, maxSync = time.Second, time.Hour
)

// planKey is the key of the plan in the storage of a caddy instance.
type planKey struct{}

// setup does not touch the host: it runs for a Corefile that is only checked,
// too.
func setup(c *caddy.Controller) error {
	conf, err := parse(c)
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	p, ok := c.Get(planKey{}).(*plan)
	if !ok {
		p = new(plan)
		c.Set(planKey{}, p)
		hook(c, p)
	}
	if err := p.add(*conf, listenPorts(c.ServerBlockKeys)); err != nil {
		return plugin.Error(pluginName, c.Err(err.Error()))
	}
	return nil
}

// hook makes caddy call the manager about a plan. Start-up callbacks run in the
// order of plugin.cfg and before the listeners are bound, so that the addresses
// are there for everything that binds one.
func hook(c *caddy.Controller, p *plan) {
	c.OnStartup(func() error {
		plainTCP()
		health := healthPorts(newest())
		for _, s := range p.settings {
			s.health = health
		}
		if err := active.start(p); err != nil {
			return plugin.Error(pluginName, err)
		}
		return nil
	})
	c.OnRestart(func() error {
		p.restarting = true
		return nil
	})
	c.OnRestartFailed(func() error {
		p.restarting = false
		return active.restore(p)
	})
	c.OnShutdown(func() error {
		// Else the process ends, and listens until after the last callback.
		if p.restarting {
			active.retire(p)
		}
		return nil
	})
}

func parse(c *caddy.Controller) (*config, error) {
	conf := &config{iface: defaultInterface, notrack: true, sync: defaultSync}
	for i := 0; c.Next(); i++ {
		if i > 0 {
			return nil, plugin.ErrOnce
		}
		args := c.RemainingArgs()
		if len(args) == 0 {
			return nil, c.Err("at least one IP address is needed")
		}
		for _, arg := range args {
			a, err := parseAddr(c, arg)
			if err != nil {
				return nil, err
			}
			if slices.Contains(conf.addrs, a) {
				return nil, c.Errf("address '%s' is there twice", arg)
			}
			conf.addrs = append(conf.addrs, a)
		}
		slices.SortFunc(conf.addrs, netip.Addr.Compare)
		for c.NextBlock() {
			if err := parseOption(c, conf); err != nil {
				return nil, err
			}
		}
	}
	return conf, nil
}

// parseAddr takes what pods can reach: not what means something else on every
// host and interface.
func parseAddr(c *caddy.Controller, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, c.Errf("'%s' is not an IP address", s)
	}
	a = a.Unmap()
	switch {
	case a.Zone() != "" || a.Is6() && a.IsLinkLocalUnicast():
		return a, c.Errf("'%s' is an address for one link only: choose a unique local one (fd00::/8)", s)
	case a.IsUnspecified(), a.IsMulticast(), a.IsLoopback():
		return a, c.Errf("'%s' can't be the address of an interface that pods reach", s)
	}
	return a, nil
}

// options are the properties of the directive.
var options = []string{"interface", "notrack", "sync", "skip_teardown"}

func parseOption(c *caddy.Controller, conf *config) error {
	option := c.Val()
	if !slices.Contains(options, option) {
		return c.Errf("unknown property '%s': valid are %s", option, strings.Join(options, ", "))
	}
	args := c.RemainingArgs()
	if option == "skip_teardown" {
		if len(args) > 0 {
			return c.Errf("'skip_teardown' has no value, got '%s'", strings.Join(args, " "))
		}
		conf.skipTeardown = true
		return nil
	}
	if len(args) != 1 {
		return c.Errf("'%s' needs one value", option)
	}
	arg := args[0]
	switch option {
	case "interface":
		if err := checkInterface(arg); err != "" {
			return c.Errf("interface '%s' %s", arg, err)
		}
		conf.iface = arg
	case "notrack":
		on, ok := map[string]bool{"on": true, "off": false}[arg]
		if !ok {
			return c.Errf("unknown notrack '%s': valid are on and off", arg)
		}
		conf.notrack = on
	case "sync":
		d, err := time.ParseDuration(arg)
		if err != nil || d < minSync || d > maxSync {
			return c.Errf("sync '%s' is not a duration from %s to %s", arg, minSync, maxSync)
		}
		conf.sync = d
	}
	return nil
}

// checkInterface returns what is wrong with the name of an interface, empty if
// nothing is. It allows what the kernel and the nft program take without
// quoting, which is part of the name of the table.
func checkInterface(name string) string {
	if len(name) > maxInterface {
		return "is a name of " + strconv.Itoa(len(name)) + " bytes: the kernel has room for " + strconv.Itoa(maxInterface)
	}
	for _, r := range name {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.", r) {
			return "is not a name of letters, digits, '_', '-' and '.'"
		}
	}
	if strings.Trim(name, ".") == "" {
		return "is not a name for an interface"
	}
	return ""
}
