package stub

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// ednsSize is the UDP payload size that glibc offers (RESOLV_EDNS_BUFFER_SIZE).
const ednsSize = 1200

// headerSize is the length of a DNS header (RFC 1035, section 4.1.1).
const headerSize = 12

// query is a question as it goes over the wire.
type query struct {
	id    uint16
	qtype dnsmessage.Type
	name  string // without trailing dot
	wire  []byte
}

var errName = errors.New("not a domain name: labels have 1 to 63 bytes, all together at most 253")

// newQuery builds a query for name, with the OPT record that glibc's edns0
// option adds and the AD bit of trust-ad.
func newQuery(id uint16, name string, qtype dnsmessage.Type, edns0, ad bool) (query, error) {
	name = strings.TrimSuffix(name, ".")
	if len(name) > 253 {
		return query{}, errName
	}
	for label := range strings.SplitSeq(name, ".") {
		if name != "" && (label == "" || len(label) > 63) {
			return query{}, errName
		}
	}
	qname, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return query{}, errName
	}
	b := dnsmessage.NewBuilder(make([]byte, 0, 512), dnsmessage.Header{ID: id, RecursionDesired: true, AuthenticData: ad})
	err = errors.Join(b.StartQuestions(), b.Question(dnsmessage.Question{Name: qname, Type: qtype, Class: dnsmessage.ClassINET}))
	if edns0 {
		var h dnsmessage.ResourceHeader
		err = errors.Join(err, h.SetEDNS0(ednsSize, 0, false), b.StartAdditionals(), b.OPTResource(h, dnsmessage.OPTResource{}))
	}
	wire, err2 := b.Finish()
	if err = errors.Join(err, err2); err != nil {
		return query{}, errName
	}
	return query{id: id, qtype: qtype, name: name, wire: wire}, nil
}

// message is what matters in a reply.
type message struct {
	id       uint16
	rcode    dnsmessage.RCode
	aa       bool
	ra       bool
	tc       bool
	answers  int // as the header says
	extra    int // as the header says
	question dnsmessage.Question
	asks     bool // has exactly one question, which could be read
	addrs    []netip.Addr
}

// parseMessage reads a reply; ok is false if it has no whole header or is a
// query itself.
func parseMessage(b []byte) (m message, ok bool) {
	var p dnsmessage.Parser
	if len(b) < headerSize {
		return m, false
	}
	h, err := p.Start(b)
	if err != nil || !h.Response {
		return m, false
	}
	m = message{
		id: h.ID, rcode: h.RCode, aa: h.Authoritative, ra: h.RecursionAvailable, tc: h.Truncated,
		answers: int(binary.BigEndian.Uint16(b[6:])), extra: int(binary.BigEndian.Uint16(b[10:])),
	}
	if binary.BigEndian.Uint16(b[4:]) == 1 {
		m.question, err = p.Question()
		m.asks = err == nil
	}
	if p.SkipAllQuestions() != nil {
		return m, true
	}
	for {
		h, err := p.AnswerHeader()
		if err != nil {
			return m, true
		}
		switch h.Type {
		case dnsmessage.TypeA:
			r, err := p.AResource()
			if err != nil {
				return m, true
			}
			m.addrs = append(m.addrs, netip.AddrFrom4(r.A))
		case dnsmessage.TypeAAAA:
			r, err := p.AAAAResource()
			if err != nil {
				return m, true
			}
			m.addrs = append(m.addrs, netip.AddrFrom16(r.AAAA))
		default:
			if p.SkipAnswer() != nil {
				return m, true
			}
		}
	}
}

// answersTo reports whether m repeats the question of q; names are compared as
// RFC 4343 says.
func (m *message) answersTo(q *query) bool {
	return m.asks && m.question.Type == q.qtype && m.question.Class == dnsmessage.ClassINET &&
		strings.EqualFold(strings.TrimSuffix(m.question.Name.String(), "."), q.name)
}

// discarded reports whether glibc throws the message away when it comes over
// UDP: empty, not authoritative, from a server that offers no recursion
// (send_dg in resolv/res_send.c calls it a referral).
func (m *message) discarded() bool {
	return m.rcode == dnsmessage.RCodeSuccess && m.answers == 0 && !m.aa && !m.ra && m.extra == 0
}
