package wire

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// ignoredBy returns the counts by reason that a table row wants.
func ignoredBy(short, query, id, late, question uint64) [5]uint64 {
	return [5]uint64{short, query, id, late, question}
}

func TestUDPExchange(t *testing.T) {
	srv := newUDPServer(t, echoUDP)
	up := newUpstream(t, Options{Addr: srv.addr()})
	query := pack(t, "example.org.")
	before := bytes.Clone(query)
	for range 50 {
		a := ask(t, up, query, UDP)
		good(t, a)
		if a.Proto != UDP || a.Leg() == 0 || a.Rcode() != -1 {
			t.Fatalf("proto %v, leg %d, rcode %d after Release", a.Proto, a.Leg(), a.Rcode())
		}
	}
	if !bytes.Equal(query, before) {
		t.Error("the query was changed")
	}
	if n := srv.ports(); n < 2 || n > udpLegs {
		t.Errorf("%d ports, want 2 to %d", n, udpLegs)
	}
}

// hostile are replies that come before the good one, and what is made of them.
var hostile = []struct {
	name    string
	replies func(q []byte) [][]byte
	ignored [5]uint64 // on both transports
}{
	{"wrong ID", func(q []byte) [][]byte {
		return [][]byte{edit(q, func(b []byte) []byte { b[0] ^= 0x55; return b })}
	}, ignoredBy(0, 0, 1, 0, 0)},
	{"wrong name", func(q []byte) [][]byte {
		return [][]byte{edit(q, func(b []byte) []byte { b[13] = 'z'; return b })}
	}, ignoredBy(0, 0, 0, 0, 1)},
	{"longer name", func(q []byte) [][]byte {
		return [][]byte{edit(q, func(b []byte) []byte { b[12]++; return b })}
	}, ignoredBy(0, 0, 0, 0, 1)},
	{"wrong type", func(q []byte) [][]byte {
		return [][]byte{edit(q, func(b []byte) []byte { b[questionEnd(q)-3] = 28; return b })}
	}, ignoredBy(0, 0, 0, 0, 1)},
	{"wrong class", func(q []byte) [][]byte {
		return [][]byte{edit(q, func(b []byte) []byte { b[questionEnd(q)-1] = 3; return b })}
	}, ignoredBy(0, 0, 0, 0, 1)},
	{"type in another case", func(q []byte) [][]byte {
		// 0x41 and 0x61 are one letter, but two types.
		return [][]byte{edit(q, func(b []byte) []byte { b[questionEnd(q)-3] ^= 0x20; return b })}
	}, ignoredBy(0, 0, 0, 0, 1)},
	{"a query", func(q []byte) [][]byte { return [][]byte{q} }, ignoredBy(0, 1, 0, 0, 0)},
	{"nothing", func([]byte) [][]byte { return [][]byte{{}} }, ignoredBy(1, 0, 0, 0, 0)},
	{"eleven bytes", func(q []byte) [][]byte { return [][]byte{answerTo(q)[:11]} }, ignoredBy(1, 0, 0, 0, 0)},
	{"header only", func(q []byte) [][]byte { return [][]byte{answerTo(q)[:12]} }, ignoredBy(0, 0, 0, 0, 1)},
	{"cut in the question", func(q []byte) [][]byte { return [][]byte{answerTo(q)[:20]} }, ignoredBy(0, 0, 0, 0, 1)},
	{"no question, NOERROR", func(q []byte) [][]byte { return [][]byte{emptyQuestion(q, dns.RcodeSuccess)} }, ignoredBy(0, 0, 0, 0, 1)},
	{"no question, SERVFAIL", func(q []byte) [][]byte { return [][]byte{emptyQuestion(q, dns.RcodeServerFailure)} }, ignoredBy(0, 0, 0, 0, 1)},
	{"two questions", func(q []byte) [][]byte {
		return [][]byte{edit(q, func(b []byte) []byte { b[5] = 2; return b })}
	}, ignoredBy(0, 0, 0, 0, 1)},
	{"257 questions", func(q []byte) [][]byte {
		return [][]byte{edit(q, func(b []byte) []byte { b[4] = 1; return b })}
	}, ignoredBy(0, 0, 0, 0, 1)},
	{"question with a pointer to itself", func(q []byte) [][]byte {
		return [][]byte{edit(q, func(b []byte) []byte { b[12], b[13] = 0xc0, 12; return b })}
	}, ignoredBy(0, 0, 0, 0, 1)},
	{"garbage", func([]byte) [][]byte { return [][]byte{bytes.Repeat([]byte{0x5a}, 100)} }, ignoredBy(0, 1, 0, 0, 0)},
}

func emptyQuestion(q []byte, rcode int) []byte {
	b := make([]byte, headerLen)
	copy(b, q[:2])
	b[2], b[3] = flagQR, byte(rcode)
	return b
}

// accepted are replies that are delivered though they look odd.
var accepted = []struct {
	name      string
	reply     func(q []byte) []byte
	truncated bool
	malformed bool
	rcode     int
}{
	{name: "another case", reply: func(q []byte) []byte {
		return edit(q, func(b []byte) []byte { b[13] ^= 0x20; b[21] ^= 0x20; return b })
	}},
	{name: "truncated, no data", truncated: true, reply: func(q []byte) []byte {
		b := answerTo(q)[:questionEnd(q)]
		b[2] |= flagTC
		b[7], b[11] = 0, 0
		return b
	}},
	{name: "truncated in a record", truncated: true, reply: func(q []byte) []byte {
		b := answerTo(q)
		b[2] |= flagTC
		return b[:len(b)-3]
	}},
	{name: "cut in a record", malformed: true, reply: func(q []byte) []byte {
		b := answerTo(q)
		return b[:len(b)-3]
	}},
	{name: "pointer loop", malformed: true, reply: func(q []byte) []byte {
		b := bytes.Clone(answerTo(q)[:questionEnd(q)])
		at := len(b)
		return append(b, 0xc0, byte(at), 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4)
	}},
	{name: "counts of records that are not there", reply: func(q []byte) []byte {
		b := answerTo(q)
		b[6], b[7] = 0xff, 0xff
		return b
	}},
	{name: "no question, REFUSED", rcode: dns.RcodeRefused, reply: func(q []byte) []byte {
		return emptyQuestion(q, dns.RcodeRefused)
	}},
	{name: "no question, FORMERR", rcode: dns.RcodeFormatError, reply: func(q []byte) []byte {
		return emptyQuestion(q, dns.RcodeFormatError)
	}},
	{name: "no question, NOTIMP", rcode: dns.RcodeNotImplemented, reply: func(q []byte) []byte {
		return emptyQuestion(q, dns.RcodeNotImplemented)
	}},
	{name: "large", reply: func(q []byte) []byte { return large(q, 65000) }},
}

// large returns an answer of nearly n bytes.
func large(query []byte, n int) []byte {
	m := new(dns.Msg)
	m.Unpack(answerTo(query))
	for m.Len() < n-600 {
		m.Extra = append(m.Extra, &dns.TXT{
			Hdr: dns.RR_Header{Name: "x.", Rrtype: dns.TypeTXT, Class: dns.ClassINET},
			Txt: []string{string(bytes.Repeat([]byte{'a'}, 255)), string(bytes.Repeat([]byte{'b'}, 255))},
		})
	}
	b, _ := m.Pack()
	return b
}

func testAccepted(t *testing.T, p Proto, up func(*testing.T, func([]byte) []byte) *Upstream) {
	for _, tc := range accepted {
		t.Run(tc.name, func(t *testing.T) {
			var sent []byte
			var mu sync.Mutex
			u := up(t, func(q []byte) []byte {
				mu.Lock()
				defer mu.Unlock()
				sent = tc.reply(q)
				return sent
			})
			a := ask(t, u, pack(t, "example.org."), p)
			if a.Err != nil {
				t.Fatal(a.Err)
			}
			mu.Lock()
			defer mu.Unlock()
			if !bytes.Equal(a.Raw(), sent) {
				t.Error("Raw is not what was sent")
			}
			if a.Truncated() != tc.truncated || a.Rcode() != tc.rcode {
				t.Errorf("truncated %v, rcode %d", a.Truncated(), a.Rcode())
			}
			m, err := a.Unpack()
			if tc.malformed != errors.Is(err, ErrMalformed) || tc.malformed != (Class(err) == ReasonMalformed) || (err == nil) != (m != nil) {
				t.Errorf("Unpack: %v", err)
			}
			if m != nil && m.Truncated != tc.truncated {
				t.Errorf("unpacked: truncated %v", m.Truncated)
			}
		})
	}
}
