package preflight

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"strings"

	"github.com/coredns/coredns/plugin/pkg/transport"

	"github.com/resolute-dns/resolute/plugin/failover/internal/target"

	"github.com/miekg/dns"
)

// resolve turns what the directives forward to into upstreams. The setup
// functions have done so before, and dropped what is there twice without a word.
// What fails now and did not then becomes an upstream that is not asked.
func (c *corefile) resolve(ctx context.Context) []Note {
	var notes []Note
	for _, f := range c.forwards() {
		first := map[target.Target]string{}
		for _, to := range f.to {
			targets, more, err := f.expand(ctx, to)
			for _, n := range more {
				notes = append(notes, Note{Place: f.Place, Message: n})
			}
			if err != nil {
				f.upstreams = append(f.upstreams, &upstream{to: to, target: target.Target{Addr: to}, unusable: err})
				continue
			}
			for _, t := range targets {
				if other, ok := first[t]; ok {
					f.twice = append(f.twice, duplicate{t.Addr, other, to})
					continue
				}
				first[t] = to
				f.upstreams = append(f.upstreams, &upstream{to: to, target: t})
			}
		}
	}
	return notes
}

// expand returns the targets of one TO, doubles included.
func (f *forward) expand(ctx context.Context, to string) (targets []target.Target, notes []string, err error) {
	args, ok := nameservers(to)
	if !ok {
		args = []string{to}
	}
	for _, arg := range args {
		if f.directive == "forward" {
			// Of a link-local address in a file, forward drops the interface.
			if host, _, found := strings.Cut(arg, "%"); ok && found {
				arg = host
			}
		}
		specs, err := target.Parse([]string{arg})
		if err != nil {
			return nil, notes, err
		}
		x, err := specs.Expand(ctx, f.resolvers)
		if err != nil {
			return nil, notes, err
		}
		targets = append(targets, x.Targets...)
		notes = append(notes, x.Notes...)
	}
	return targets, notes, nil
}

// nameservers returns the addresses in a file in the form of resolv.conf, one
// by one: as a list they would lose their doubles. It returns false for what is
// no such file.
func nameservers(file string) ([]string, bool) {
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() || net.ParseIP(file) != nil {
		return nil, false
	}
	cfg, err := dns.ClientConfigFromFile(file)
	if err != nil {
		return nil, false
	}
	return cfg.Servers, true
}

// matches says whether f takes queries for name.
func (f *forward) matches(name string) bool {
	if !dns.IsSubDomain(f.from, name) {
		return false
	}
	if strings.EqualFold(f.from, name) {
		return true
	}
	for _, e := range f.except {
		if dns.IsSubDomain(e, name) {
			return false
		}
	}
	return true
}

// forwardOf returns the directive of the block that gets queries for name, nil
// if none does.
func (b *block) forwardOf(name string) *forward {
	for _, f := range b.forwards {
		if f.matches(name) {
			return f
		}
	}
	return nil
}

// tlsFor returns the TLS configuration for a target.
func (f *forward) tlsFor(t target.Target) *tls.Config {
	cfg := f.tls.Clone()
	switch {
	case f.serverName != "":
		cfg.ServerName = f.serverName
	case f.directive == "forward" && t.Transport == transport.HTTPS:
		// forward has the names of single upstreams for tls and quic only.
	case t.ServerName != "":
		cfg.ServerName = t.ServerName
	}
	return cfg
}
