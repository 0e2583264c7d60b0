package preflight

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// The codes of findings that are no Status.
const (
	// Loop is an upstream that leads back to the server block it is in.
	Loop = "loop"
	// SingleUpstream is a directive with one upstream.
	SingleUpstream = "single_upstream"
	// Duplicate is an upstream that is in a list twice.
	Duplicate = "duplicate"
	// ServfailCached is a failure of the only upstream that outlives it in the
	// cache.
	ServfailCached = "servfail_cached"
	// NoServeStale is a cache that has nothing to offer when upstreams are out.
	NoServeStale = "no_serve_stale"
)

// servfailLimit is how long a SERVFAIL may be kept without a word: as long as a
// client takes to try again.
const servfailLimit = time.Second

// traps returns what is wrong with the Corefile whatever the upstreams say.
func traps(c *corefile) []Finding {
	var found []Finding
	for _, b := range c.blocks {
		var single *forward // has one upstream
		elsewhere := false  // has an upstream that is not this server
		for _, f := range b.forwards {
			for _, u := range f.upstreams {
				elsewhere = elsewhere || u.own == nil
				if u.own != nil && c.loops(b, f, u) {
					found = append(found, Finding{Code: Loop, Place: f.Place, Upstream: u.target.Addr,
						Message: fmt.Sprintf("%s %s %s: this server itself listens on %s, and what it is asked there comes back to this directive: every such query goes round until it times out", f.directive, f.from, u.to, u.target.Addr)})
				}
			}
			for _, d := range f.twice {
				where := fmt.Sprintf("%s names %s twice", d.again, d.addr)
				if d.first != d.again {
					where = fmt.Sprintf("%s and %s are both %s", d.first, d.again, d.addr)
				} else if strings.Contains(d.addr, d.again) {
					where = d.addr + " is there twice"
				}
				found = append(found, Finding{Code: Duplicate, Place: f.Place, Upstream: d.addr,
					Message: fmt.Sprintf("%s %s: %s, which counts once: was it to be another?", f.directive, f.from, where)})
			}
			// A directive that forwards to another block of this server has one
			// upstream for a reason, and that does not fail alone.
			if len(f.upstreams) == 1 && f.upstreams[0].own == nil {
				if single == nil {
					single = f
				}
				found = append(found, Finding{Code: SingleUpstream, Place: f.Place, Upstream: f.upstreams[0].target.Addr,
					Message: fmt.Sprintf("%s %s has one upstream, %s: when it is out there is nobody else to ask", f.directive, f.from, f.upstreams[0].target.Addr)})
			}
		}
		if b.cache == nil || !elsewhere {
			continue
		}
		if single != nil && b.cache.servfail > servfailLimit {
			// A forward that gets no answer makes a SERVFAIL that is kept too, a
			// failover does not.
			failures := "when its only upstream did not answer"
			if single.directive == "failover" {
				failures = "that its only upstream has sent"
			}
			found = append(found, Finding{Code: ServfailCached, Place: b.cache.Place,
				Message: fmt.Sprintf("cache keeps a SERVFAIL for %s, and %s %s has nobody else to ask: one %s goes on that long after the upstream is well again; set `servfail 1s` or less", b.cache.servfail, single.directive, single.from, failures)})
		}
		if !b.cache.stale {
			found = append(found, Finding{Code: NoServeStale, Place: b.cache.Place,
				Message: "cache has no serve_stale: when upstreams are out, names that were known a moment ago fail too; set `serve_stale 1h`"})
		}
	}
	return found
}

// localAddrs returns the addresses of this machine's interfaces.
func localAddrs() []netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var local []netip.Addr
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				local = append(local, ip.Unmap().WithZone(""))
			}
		}
	}
	return local
}

// findOwn marks the upstreams that are this server itself.
func (c *corefile) findOwn(local []netip.Addr) {
	for _, f := range c.forwards() {
		for _, u := range f.upstreams {
			ap, ok := addrPort(u.target.Addr)
			if !ok {
				continue
			}
			here := ap.Addr().IsLoopback() || ap.Addr().IsUnspecified() || slices.Contains(local, ap.Addr())
			u.own = c.listening(u.target.Transport, ap, here)
		}
	}
}

// listening returns the listeners that get what is sent to an address, nil if
// there are none; here says whether the address is one of this machine.
func (c *corefile) listening(transport string, ap netip.AddrPort, here bool) []listener {
	var exact, wildcard []listener
	for _, b := range c.blocks {
		for _, l := range b.listens {
			if l.transport != transport || l.port != strconv.Itoa(int(ap.Port())) {
				continue
			}
			host, err := netip.ParseAddr(l.host)
			switch {
			case l.host == "" || err == nil && host.IsUnspecified():
				// For both families, whichever it is written in: so Go listens.
				if here {
					wildcard = append(wildcard, l)
				}
			case err != nil:
			case host.Unmap().WithZone("") == ap.Addr(),
				ap.Addr().IsUnspecified() && host.IsLoopback(): // connecting to 0.0.0.0 is connecting to 127.0.0.1
				exact = append(exact, l)
			}
		}
	}
	// The kernel gives a packet to the socket with the closest address.
	if exact != nil {
		return exact
	}
	return wildcard
}

// serving returns the blocks that get a query for name that arrives at
// listeners of one address: those with the closest zone. It is more than one
// where views tell them apart.
func serving(listeners []listener, name string) []*block {
	var closest []*block
	labels := -1
	for _, l := range listeners {
		n := dns.CountLabel(l.zone)
		switch {
		case !dns.IsSubDomain(l.zone, name) || n < labels:
		case n > labels:
			labels, closest = n, []*block{l.block}
		default:
			closest = append(closest, l.block)
		}
	}
	return closest
}

// serves says whether queries for name can arrive at b.
func (c *corefile) serves(b *block, name string) bool {
	for _, l := range b.listens {
		var same []listener
		for _, other := range c.blocks {
			for _, o := range other.listens {
				if o.transport == l.transport && o.host == l.host && o.port == l.port {
					same = append(same, o)
				}
			}
		}
		if slices.Contains(serving(same, name), b) {
			return true
		}
	}
	return false
}

// loops says whether a query that f, of block b, sends to its own server by way
// of u can come back to f.
//
// What happens to a name depends on the most specific zone in the Corefile that
// it is in, and on nothing else: so one name for each of them stands for all.
func (c *corefile) loops(b *block, f *forward, u *upstream) bool {
	for _, zone := range c.mentioned() {
		name := "preflight--loop." + strings.TrimPrefix(zone, ".")
		if !c.serves(b, name) || b.forwardOf(name) != f {
			continue
		}
		seen := map[*block]bool{}
		queue := serving(u.own, name)
		for len(queue) > 0 {
			at := queue[0]
			queue = queue[1:]
			if at == b {
				return true
			}
			next := at.forwardOf(name)
			if seen[at] || next == nil {
				continue
			}
			seen[at] = true
			for _, v := range next.upstreams {
				queue = append(queue, serving(v.own, name)...)
			}
		}
	}
	return false
}

// mentioned returns all zones that decide where a query goes.
func (c *corefile) mentioned() []string {
	var zones []string
	for _, b := range c.blocks {
		zones = append(zones, b.zones...)
		for _, f := range b.forwards {
			zones = append(append(zones, f.from), f.except...)
		}
	}
	slices.Sort(zones)
	return slices.Compact(zones)
}

// assignNames tells each upstream which names it would be asked for.
func (c *corefile) assignNames(names []string) {
	for _, b := range c.blocks {
		for _, name := range names {
			if !c.serves(b, name) {
				continue
			}
			if f := b.forwardOf(name); f != nil {
				for _, u := range f.upstreams {
					u.names = append(u.names, name)
				}
			}
		}
	}
}

// unaskedNotes are about names that nobody was asked for.
func unaskedNotes(c *corefile, names []string) []Note {
	var notes []Note
	for _, name := range names {
		asked := false
		for _, f := range c.forwards() {
			for _, u := range f.upstreams {
				asked = asked || u.own == nil && slices.Contains(u.names, name)
			}
		}
		if !asked {
			notes = append(notes, Note{Message: name + " was asked of nobody: no forward or failover here takes it"})
		}
	}
	return notes
}
