// Package target knows what the TO arguments of the failover directive stand
// for: addresses, files in the form of resolv.conf and host names. Parse reads
// the arguments, Specs.Expand turns them into a list of upstreams, a Watcher
// keeps that list up to date.
//
// It takes what forward of CoreDNS 1.15.0 takes, with three kinds of exceptions.
// What can never work is refused at once: a port that is none, a TLS server name
// that no certificate can hold, a directory in place of a file. Addresses are
// brought into one form, so that two spellings are not two upstreams. And the
// zone of a link-local address is kept, without which it can't be reached;
// forward drops it.
package target

import (
	"net/netip"

	"github.com/coredns/coredns/plugin/pkg/transport"
)

// MaxTOs is how many TO arguments a directive may have, as in forward. A file or
// a host name is one, however many addresses it stands for; a file without a
// nameserver is none.
const MaxTOs = 15

// Target is one upstream. Targets are comparable, and equal if they are the same
// upstream.
type Target struct {
	// Transport is transport.DNS, TLS, QUIC or HTTPS.
	Transport string
	// Addr is an IP address and a port, "192.0.2.1:53", "[2001:db8::1]:53" or
	// "[fe80::1%eth0]:53". IPv6 addresses have the form of RFC 5952, IPv4 ones in
	// IPv6 form are IPv4.
	Addr string
	// ServerName is what the certificate of this upstream has to be for, in lower
	// case; empty where the directive's tls_servername or the address decides. It
	// is always empty for transport.DNS.
	ServerName string
}

// String returns the bare address, which is what forward uses in logs and in the
// label `to` of its metrics.
func (t Target) String() string { return t.Addr }

// ID tells t from all other upstreams: tls and quic may be served on the same
// address and port.
func (t Target) ID() string {
	id := t.Transport + "://" + t.Addr
	if t.ServerName != "" {
		id += "#" + t.ServerName
	}
	return id
}

// Labels returns a metrics label for each upstream of list: its String, or its
// ID where two of the list have the same String. A gauge can't be shared.
func Labels(list []Target) map[Target]string {
	uses := make(map[string]int, len(list))
	labels := make(map[Target]string, len(list))
	for _, t := range list {
		if _, ok := labels[t]; !ok {
			labels[t] = t.String()
			uses[t.String()]++
		}
	}
	for t, label := range labels {
		if uses[label] > 1 {
			labels[t] = t.ID()
		}
	}
	return labels
}

// newTarget returns the upstream at addr, in canonical form.
func newTarget(trans string, addr netip.Addr, port uint16, serverName string) Target {
	addr = addr.Unmap()
	if !addr.IsLinkLocalUnicast() {
		// Only link-local addresses mean anything with a zone. Other ones may carry
		// one in a Corefile that works with forward.
		addr = addr.WithZone("")
	}
	if trans == transport.DNS {
		serverName = ""
	}
	return Target{Transport: trans, Addr: netip.AddrPortFrom(addr, port).String(), ServerName: serverName}
}

// dedup returns the targets of lists in order, each once.
func dedup(lists ...[]Target) []Target {
	seen := make(map[Target]bool)
	var all []Target
	for _, list := range lists {
		for _, t := range list {
			if !seen[t] {
				seen[t] = true
				all = append(all, t)
			}
		}
	}
	return all
}
