package aa

import (
	"net/netip"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"
)

// Answers says which of the answers in scope are touched.
type Answers int

const (
	// All is every answer, served from cache or not.
	All Answers = iota
	// Cached is what the cache plugin answered from memory.
	Cached
	// Empty is only the shape that glibc throws away, see [discarded].
	Empty
)

// rule says which answers are touched, and how.
type rule struct {
	zones   plugin.Zones
	except  plugin.Zones
	clients []netip.Prefix // nobody is left out when empty
	answers Answers
	setAA   bool
	setRA   bool
}

// zone returns the zone of the rule that the query in state is in scope of, the
// empty string if it is in none.
func (r *rule) zone(state *request.Request) string {
	q := state.Req
	// What a stub resolver sends: a QUERY with RD. A client that sets DO or CD
	// validates by itself (RFC 4035 sections 3.2.1 and 3.2.2) and is to see the
	// bits as they are.
	if q.Opcode != dns.OpcodeQuery || !q.RecursionDesired || q.CheckingDisabled || state.Do() {
		return ""
	}
	zone := "."
	if !r.everywhere() { // the usual case does without the name in its canonical form
		zone = r.zones.Matches(state.Name())
		if zone == "" || r.except.Matches(state.Name()) != "" {
			return ""
		}
	}
	if len(r.clients) > 0 && !r.hasClient(state) {
		return ""
	}
	return zone
}

// everywhere reports whether all names are in scope.
func (r *rule) everywhere() bool {
	return len(r.zones) == 1 && r.zones[0] == "." && len(r.except) == 0
}

func (r *rule) hasClient(state *request.Request) bool {
	addr, err := netip.ParseAddr(state.IP())
	if err != nil {
		return false
	}
	// A listener for both families sees IPv4 clients as ::ffff:192.0.2.1, and a
	// prefix never contains an address with a zone.
	addr = addr.Unmap().WithZone("")
	for _, p := range r.clients {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// touches reports whether m, an answer to the query q in scope, gets the bits.
// Cached tells whether it came out of the cache plugin.
func (r *rule) touches(q, m *dns.Msg, cached bool) bool {
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return false
	}
	if m.Truncated || isReferral(m) {
		return false
	}
	switch r.answers {
	case Cached:
		if !cached {
			return false
		}
	case Empty:
		if !discarded(q, m) {
			return false
		}
	}
	return r.setAA && !m.Authoritative || r.setRA && !m.RecursionAvailable
}

// set sets the bits of the rule in m.
func (r *rule) set(m *dns.Msg) {
	m.Authoritative = m.Authoritative || r.setAA
	m.RecursionAvailable = m.RecursionAvailable || r.setRA
}

// discarded reports whether m, sent in answer to q over UDP, has the shape that
// glibc throws away to ask the next server: it takes a message without errors,
// answers, AA, RA and additional records for a referral (send_dg in
// resolv/res_send.c, since 2005).
//
// The OPT record counts as additional. The server puts one into every answer to
// a query that has one, but after the plugins are done.
func discarded(q, m *dns.Msg) bool {
	return m.Rcode == dns.RcodeSuccess && len(m.Answer) == 0 &&
		!m.Authoritative && !m.RecursionAvailable &&
		len(m.Extra) == 0 && q.IsEdns0() == nil
}

// isReferral reports whether m sends the client to other name servers: NS in the
// authority section and no SOA, which would make it NODATA (RFC 2308 section
// 2.2), and no answer.
func isReferral(m *dns.Msg) bool {
	if len(m.Answer) > 0 {
		return false
	}
	ns := false
	for _, rr := range m.Ns {
		switch rr.Header().Rrtype {
		case dns.TypeSOA:
			return false
		case dns.TypeNS:
			ns = true
		}
	}
	return ns
}

// truncates reports whether the server will cut m down to fit the client's
// buffer and set TC. That happens after the plugins are done.
func truncates(state *request.Request, m *dns.Msg) bool {
	size := m.Len()
	if o := state.Req.IsEdns0(); o != nil && m.IsEdns0() == nil {
		size += dns.Len(o)
	}
	if size <= state.Size() {
		return false
	}
	// Rare: do what the server will do, to a copy.
	c := m.Copy()
	s := request.Request{W: state.W, Req: state.Req.Copy()}
	s.SizeAndDo(c)
	s.Scrub(c)
	return c.Truncated
}
