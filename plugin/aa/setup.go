package aa

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"

	"github.com/resolute-dns/resolute/plugin/internal/trail"
)

const pluginName = "aa"

func init() { plugin.Register(pluginName, setup) }

func setup(c *caddy.Controller) error {
	r, err := parse(c)
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	if err := trail.Watch(c); err != nil {
		return plugin.Error(pluginName, err)
	}

	a := &AA{rule: *r}
	cfg := dnsserver.GetConfig(c)
	c.OnStartup(func() error {
		a.trail = trail.Caches(cfg)
		if a.rule.answers == Cached && !a.trail {
			return plugin.Error(pluginName, errors.New("'answers cached' needs the cache plugin in the same server block"))
		}
		return nil
	})
	cfg.AddPlugin(func(next plugin.Handler) plugin.Handler {
		a.Next = next
		return a
	})
	return nil
}

func parse(c *caddy.Controller) (*rule, error) {
	r := &rule{setAA: true}
	for i := 0; c.Next(); i++ {
		if i > 0 {
			return nil, plugin.ErrOnce
		}
		args := c.RemainingArgs()
		if err := checkZones(c, "zone", args); err != nil {
			return nil, err
		}
		r.zones = plugin.OriginsFromArgsOrServerBlock(args, c.ServerBlockKeys)
		for c.NextBlock() {
			if err := parseOption(c, r); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

// options are the properties of the directive.
var options = []string{"answers", "bit", "clients", "except"}

func parseOption(c *caddy.Controller, r *rule) error {
	option := c.Val()
	if !slices.Contains(options, option) {
		return c.Errf("unknown property '%s': valid are %s", option, strings.Join(options, ", "))
	}
	args := c.RemainingArgs()
	if len(args) == 0 {
		return c.Errf("'%s' needs a value", option)
	}
	switch option {
	case "answers":
		answers, ok := map[string]Answers{"all": All, "cached": Cached, "empty": Empty}[args[0]]
		if len(args) > 1 || !ok {
			return c.Errf("unknown answers '%s': valid are all, cached and empty", strings.Join(args, " "))
		}
		r.answers = answers
	case "bit":
		bits, ok := map[string]struct{ aa, ra bool }{"aa": {aa: true}, "ra": {ra: true}, "both": {true, true}}[args[0]]
		if len(args) > 1 || !ok {
			return c.Errf("unknown bit '%s': valid are aa, ra and both", strings.Join(args, " "))
		}
		r.setAA, r.setRA = bits.aa, bits.ra
	case "clients":
		for _, arg := range args {
			p, err := parsePrefix(arg)
			if err != nil {
				return c.Errf("clients: '%s' is not a CIDR prefix or an IP address", arg)
			}
			r.clients = append(r.clients, p)
		}
	case "except":
		if err := checkZones(c, option, args); err != nil {
			return err
		}
		for _, arg := range args {
			r.except = append(r.except, plugin.Host(arg).NormalizeExact()...)
		}
	}
	return nil
}

// checkZones returns an error for what CoreDNS would leave out of a list of
// zones without a word.
func checkZones(c *caddy.Controller, option string, zones []string) error {
	for _, z := range zones {
		if len(plugin.Host(z).NormalizeExact()) == 0 {
			return c.Errf("%s: '%s' is not a zone", option, z)
		}
	}
	return nil
}

// parsePrefix takes a single address for the prefix of its full length, as the
// acl plugin does.
func parsePrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	return p.Masked(), err
}
