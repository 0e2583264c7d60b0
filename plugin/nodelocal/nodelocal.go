// Package nodelocal implements a plugin that makes the addresses of a DNS cache
// on every node: an interface of its own that has them, and rules that keep
// their DNS out of connection tracking.
//
// A query never meets this plugin. It does its work before the listeners are
// bound, looks after it while the server runs, and undoes it at the end. What
// has to be there is worked out in rules.go and keeper.go, from the directive
// and from what the host tells; the host itself is behind an interface
// (host.go) and known to host_linux.go only.
package nodelocal

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// config is what one directive asks for.
type config struct {
	iface        string
	addrs        []netip.Addr // sorted, each once
	notrack      bool
	sync         time.Duration
	skipTeardown bool
}

// equal reports whether two directives ask for the same.
func (c config) equal(o config) bool {
	return c.iface == o.iface && slices.Equal(c.addrs, o.addrs) && c.notrack == o.notrack &&
		c.sync == o.sync && c.skipTeardown == o.skipTeardown
}

// setting is what has to be there for all directives with the same interface.
type setting struct {
	config

	dns    []port // what the server blocks with the directive listen on
	health []port // what the health plugin listens on
}

// port is a port of UDP or TCP.
type port struct {
	proto  string
	number uint16
}

// plan is what the directives of one Corefile ask for. A server has one while it
// runs, and two for the moment of a reload.
type plan struct {
	settings   []*setting
	restarting bool // the server is about to be replaced by one with another plan
}

// add adds a directive in a server block that listens on ports. Directives that
// name the same interface share it, and must be the same.
func (p *plan) add(c config, ports []port) error {
	for _, s := range p.settings {
		if s.iface == c.iface {
			if !s.equal(c) {
				return fmt.Errorf("interface '%s' is wanted with different addresses or options by another server block: all directives for one interface have to be the same", c.iface)
			}
			s.dns = union(s.dns, ports)
			return nil
		}
		for _, a := range c.addrs {
			if slices.Contains(s.addrs, a) {
				return fmt.Errorf("address %s is wanted on interface '%s' and, by another server block, on '%s'", a, c.iface, s.iface)
			}
		}
	}
	p.settings = append(p.settings, &setting{config: c, dns: union(nil, ports)})
	return nil
}

// find returns the setting of an interface, nil if the plan has none, or is nil.
func (p *plan) find(iface string) *setting {
	if p == nil {
		return nil
	}
	for _, s := range p.settings {
		if s.iface == iface {
			return s
		}
	}
	return nil
}

// union returns the ports that are in a or b, sorted.
func union(a, b []port) []port {
	all := append(slices.Clone(a), b...)
	slices.SortFunc(all, func(x, y port) int {
		if x.number != y.number {
			return int(x.number) - int(y.number)
		}
		return strings.Compare(y.proto, x.proto) // udp before tcp
	})
	return slices.Compact(all)
}
