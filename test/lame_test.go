package test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/resolute-dns/resolute/test/harness"

	"github.com/miekg/dns"
)

// lameUpstream sets neither AA nor RA in anything it says. Names tell what to
// say: nodata, nxdomain, servfail, refused, referral, and big, which does not fit
// into 512 bytes; all else has an address. Its TTL is one second.
func lameUpstream(t *testing.T) *harness.Upstream {
	soa := &dns.SOA{Hdr: dns.RR_Header{Name: "example.org.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 1}, Ns: "ns.example.org.", Mbox: "admin.example.org.", Minttl: 1}
	return harness.Serve(t, func(q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		question := q.Question[0]
		switch kind, _, _ := strings.Cut(question.Name, "."); {
		case kind == "nxdomain":
			m.Rcode, m.Ns = dns.RcodeNameError, []dns.RR{soa}
		case kind == "servfail":
			m.Rcode = dns.RcodeServerFailure
		case kind == "refused":
			m.Rcode = dns.RcodeRefused
		case kind == "notimp":
			m.Rcode = dns.RcodeNotImplemented
		case kind == "referral":
			m.Ns = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: 1}, Ns: "ns.example.net."}}
		case kind == "big" && question.Qtype == dns.TypeTXT:
			for i := range 20 {
				m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 1}, Txt: []string{fmt.Sprintf("%050d", i)}})
			}
		case question.Qtype == dns.TypeA && kind != "nodata":
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: []byte{192, 0, 2, 1}}}
		default:
			m.Ns = []dns.RR{soa}
		}
		return m
	})
}

// isLame reports whether glibc would throw m away.
func isLame(m *dns.Msg) bool {
	return m.Rcode == dns.RcodeSuccess && len(m.Answer) == 0 && !m.Authoritative && !m.RecursionAvailable && len(m.Extra) == 0
}

// short is a cache that keeps what it has for one second.
const short = "cache 30 {\nsuccess 9984 1 0\ndenial 9984 1 0\nservfail 1s\n"

// TestLameShapeNeverArrives asks for an empty answer on a miss, on a hit and
// after the TTL, in all the ways the answer can take through the server.
func TestLameShapeNeverArrives(t *testing.T) {
	for chainName, chain := range map[string]string{
		"forward":            "",
		"cache":              short + "}",
		"cache, serve_stale": short + "serve_stale 1h\n}",
		"cache, verify":      short + "serve_stale 1h verify 100ms\n}",
		"cache, prefetch":    short + "prefetch 1 1m 90%\n}",
		"dns64":              "dns64 {\nallow_ipv4\n}",
		"dns64, cache":       "dns64 {\nallow_ipv4\n}\n" + short + "}",
		"everything in between": "local\ndns64 {\nallow_ipv4\n}\nany\nloadbalance\nrewrite name exact nothing.example.org some.example.org\n" +
			"acl {\nallow\n}\n" + short + "serve_stale 1h\n}\nminimal\n",
	} {
		for _, answers := range []string{"all", "empty"} {
			for _, bit := range []string{"aa", "ra", "both"} {
				t.Run(fmt.Sprintf("%s/%s/%s", chainName, answers, bit), func(t *testing.T) {
					t.Parallel() // most of the time is spent waiting for a TTL
					upstream := lameUpstream(t)
					port := harness.FreePort(t)
					harness.Start(t, resolute(t), fmt.Sprintf(".:%d {\nbind 127.0.0.1\naa {\nanswers %s\nbit %s\n}\n%s\nforward . %s\n}",
						port, answers, bit, chain, upstream.Addr))

					check := func(when string) {
						for _, network := range []string{"udp", "tcp"} {
							q := new(dns.Msg).SetQuestion("nodata.example.org.", dns.TypeAAAA)
							m := harness.Ask(t, network, local(port), q)
							if m.Rcode != dns.RcodeSuccess || len(m.Answer) > 0 {
								t.Fatalf("%s over %s: not an empty answer:\n%v", when, network, m)
							}
							if isLame(m) {
								t.Errorf("%s over %s: the lame shape", when, network)
							}
							if m.Authoritative != (bit != "ra") || m.RecursionAvailable != (bit != "aa") {
								t.Errorf("%s over %s: got AA %v, RA %v for bit %s", when, network, m.Authoritative, m.RecursionAvailable, bit)
							}
						}
					}
					check("miss")
					check("hit")
					// Until the upstream is asked again, the TTL has not run out.
					asked := upstream.Queries.Load()
					for start := time.Now(); upstream.Queries.Load() == asked; {
						if time.Since(start) > 20*time.Second {
							t.Fatal("the TTL does not run out")
						}
						check("at the end of the TTL")
					}
					check("after the TTL")
				})
			}
		}
	}
}

// TestStockSendsTheLameShape shows that the test above can fail: without aa, the
// shape comes through, on a miss and on a hit.
func TestStockSendsTheLameShape(t *testing.T) {
	upstream := lameUpstream(t)
	port := harness.FreePort(t)
	harness.Start(t, resolute(t), fmt.Sprintf(".:%d {\nbind 127.0.0.1\ncache 30\nforward . %s\n}", port, upstream.Addr))
	for _, when := range []string{"miss", "hit"} {
		m := harness.Ask(t, "udp", local(port), new(dns.Msg).SetQuestion("nodata.example.org.", dns.TypeAAAA))
		if !isLame(m) {
			t.Errorf("%s: not the lame shape:\n%v", when, m)
		}
	}
}

// TestLeftAlone compares, bit for bit, what is not to be touched with and without
// aa.
func TestLeftAlone(t *testing.T) {
	upstream := lameUpstream(t)
	start := func(directive string) string {
		port := harness.FreePort(t)
		harness.Start(t, resolute(t), fmt.Sprintf(".:%d {\nbind 127.0.0.1\n%s\ncache 30 {\nkeepttl\n}\nforward . %s\n}", port, directive, upstream.Addr))
		return local(port)
	}
	with, without := start("aa {\nbit both\n}"), start("")

	plain := func(*dns.Msg) {}
	for name, tc := range map[string]struct {
		qname  string
		qtype  uint16
		change func(*dns.Msg)
		udp    bool // only over UDP
	}{
		"SERVFAIL":       {qname: "servfail.example.org.", qtype: dns.TypeA, change: plain},
		"REFUSED":        {qname: "refused.example.org.", qtype: dns.TypeA, change: plain},
		"NOTIMP":         {qname: "notimp.example.org.", qtype: dns.TypeA, change: plain},
		"referral":       {qname: "referral.example.org.", qtype: dns.TypeA, change: plain},
		"truncated":      {qname: "big.example.org.", qtype: dns.TypeTXT, change: plain, udp: true},
		"truncated EDNS": {qname: "big.example.org.", qtype: dns.TypeTXT, change: func(q *dns.Msg) { q.SetEdns0(600, false) }, udp: true},
		"DO":             {qname: "nodata.example.org.", qtype: dns.TypeA, change: func(q *dns.Msg) { q.SetEdns0(1232, true) }},
		"CD":             {qname: "nodata.example.org.", qtype: dns.TypeA, change: func(q *dns.Msg) { q.CheckingDisabled = true }},
		"no RD":          {qname: "nodata.example.org.", qtype: dns.TypeA, change: func(q *dns.Msg) { q.RecursionDesired = false }},
	} {
		t.Run(name, func(t *testing.T) {
			for _, network := range []string{"udp", "tcp"} {
				if tc.udp && network != "udp" {
					continue
				}
				for _, when := range []string{"miss", "hit"} {
					q := new(dns.Msg).SetQuestion(tc.qname, tc.qtype)
					tc.change(q)
					got, want := askRaw(t, network, with, q), askRaw(t, network, without, q)
					if !bytes.Equal(got, want) {
						t.Errorf("%s over %s: with aa\n%swithout\n%s", when, network, hex.Dump(got), hex.Dump(want))
					}
					if name == "truncated" && got[2]&2 == 0 {
						t.Error("it was not truncated")
					}
				}
			}
		})
	}
}
