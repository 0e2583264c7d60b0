package aa

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// answer returns a handler that writes m, made to fit the query.
func answer(m *dns.Msg) plugin.Handler {
	return plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		m.Id, m.Question, m.Response = r.Id, r.Question, true
		return 0, w.WriteMsg(m)
	})
}

// lame is the shape that glibc throws away: every bit that could save it is 0.
func lame() *dns.Msg { return new(dns.Msg) }

func query(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, qtype)
}

// TestRule goes through all combinations of what the rule looks at. The
// expectation is written down as the sentences of the README are, not as the
// code is.
func TestRule(t *testing.T) {
	rcodes := []int{dns.RcodeSuccess, dns.RcodeFormatError, dns.RcodeServerFailure, dns.RcodeNameError, dns.RcodeNotImplemented, dns.RcodeRefused}
	authorities := map[string][]dns.RR{
		"none": nil,
		"SOA":  {test.SOA("example.org. 30 IN SOA ns.example.org. admin.example.org. 1 2 3 4 5")},
		"NS":   {test.NS("example.org. 30 IN NS ns.example.org.")},
	}
	n := 0
	for _, answers := range []Answers{All, Cached, Empty} {
		for _, bit := range []string{"aa", "ra", "both"} {
			for _, rcode := range rcodes {
				for authority, ns := range authorities {
					for flags := range 1 << 9 {
						on := func(i int) bool { return flags&(1<<i) != 0 }
						hasAnswer, aa, ra, extra, tc := on(0), on(1), on(2), on(3), on(4)
						do, cd, rd, hit := on(5), on(6), on(7), on(8)

						q := query("a.example.org.", dns.TypeA)
						q.RecursionDesired, q.CheckingDisabled = rd, cd
						if do {
							q.SetEdns0(1232, true)
						}
						m := lame()
						m.Rcode, m.Authoritative, m.RecursionAvailable, m.Truncated, m.Ns = rcode, aa, ra, tc, ns
						if hasAnswer {
							m.Answer = []dns.RR{test.A("a.example.org. 30 IN A 192.0.2.1")}
						}
						if extra {
							m.Extra = []dns.RR{test.A("ns.example.org. 30 IN A 192.0.2.2")}
						}

						stub := rd && !cd && !do
						error := rcode != dns.RcodeSuccess && rcode != dns.RcodeNameError
						referral := authority == "NS" && !hasAnswer
						inMode := true
						switch answers {
						case Cached:
							inMode = hit
						case Empty:
							inMode = rcode == dns.RcodeSuccess && !hasAnswer && !aa && !ra && !extra
						}
						touched := stub && !error && !referral && !tc && inMode
						wantAA := aa || touched && bit != "ra"
						wantRA := ra || touched && bit != "aa"

						r := rule{zones: plugin.Zones{"example.org."}, answers: answers, setAA: bit != "ra", setRA: bit != "aa"}
						state := request.Request{W: &test.ResponseWriter{}, Req: q}
						got := m
						if r.zone(&state) != "" && r.touches(q, m, hit) {
							got = m.Copy()
							r.set(got)
						}
						if got.Authoritative != wantAA || got.RecursionAvailable != wantRA {
							t.Fatalf("answers %v, bit %s, %s, answer %v, authority %s, AA %v, RA %v, additional %v, TC %v; query DO %v, CD %v, RD %v; hit %v:\ngot AA %v, RA %v, want AA %v, RA %v",
								answers, bit, dns.RcodeToString[rcode], hasAnswer, authority, aa, ra, extra, tc, do, cd, rd, hit,
								got.Authoritative, got.RecursionAvailable, wantAA, wantRA)
						}
						n++
					}
				}
			}
		}
	}
	if want := 3 * 3 * len(rcodes) * len(authorities) << 9; n != want {
		t.Errorf("%d combinations tried, want %d", n, want)
	}
}

func TestScope(t *testing.T) {
	edns := func(size uint16) func(*dns.Msg) { return func(q *dns.Msg) { q.SetEdns0(size, false) } }
	tests := map[string]struct {
		rule   rule
		name   string
		client string
		query  func(*dns.Msg)
		want   bool
	}{
		"zone":             {want: true},
		"zone, upper case": {name: "A.EXAMPLE.ORG.", want: true},
		"other zone":       {name: "example.net."},
		"excepted":         {rule: rule{except: plugin.Zones{"a.example.org."}}},
		"below excepted":   {rule: rule{except: plugin.Zones{"a.example.org."}}, name: "b.a.example.org."},
		"beside excepted":  {rule: rule{except: plugin.Zones{"a.example.org."}}, name: "ba.example.org.", want: true},
		"client":           {rule: rule{clients: prefixes("10.240.0.0/16")}, want: true},
		"other client":     {rule: rule{clients: prefixes("10.241.0.0/16")}},
		"second prefix":    {rule: rule{clients: prefixes("10.241.0.0/16", "10.240.0.1/32")}, want: true},
		"IPv4 in IPv6":     {rule: rule{clients: prefixes("10.240.0.0/16")}, client: "::ffff:10.240.0.1", want: true},
		"IPv6":             {rule: rule{clients: prefixes("fe80::/10")}, client: "fe80::42", want: true},
		"IPv6 with zone":   {rule: rule{clients: prefixes("fe80::/10")}, client: "fe80::42%lo", want: true},
		"EDNS without DO":  {query: edns(1232), want: true},
		"NOTIFY":           {query: func(q *dns.Msg) { q.Opcode = dns.OpcodeNotify }},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			tc.rule.zones = plugin.Zones{"example.org."}
			if tc.name == "" {
				tc.name = "a.example.org."
			}
			q := query(tc.name, dns.TypeAAAA)
			if tc.query != nil {
				tc.query(q)
			}
			if tc.client == "" {
				tc.client = "10.240.0.1"
			}
			w := &clientWriter{addr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(tc.client), 40212))}
			state := request.Request{W: w, Req: q}
			if got := tc.rule.zone(&state) != ""; got != tc.want {
				t.Errorf("in scope: %v, want %v", got, tc.want)
			}
		})
	}
}

type clientWriter struct {
	test.ResponseWriter
	addr net.Addr
}

func (w *clientWriter) RemoteAddr() net.Addr { return w.addr }

func prefixes(s ...string) (p []netip.Prefix) {
	for _, s := range s {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// defaults is the rule of a bare `aa` in the root zone.
func defaults() rule { return rule{zones: plugin.Zones{"."}, setAA: true} }

func TestServeDNS(t *testing.T) {
	m := lame()
	m.Ns = []dns.RR{test.SOA("example.org. 30 IN SOA ns.example.org. admin.example.org. 1 2 3 4 5")}
	before := m.Copy()
	a := &AA{rule: defaults(), Next: answer(m)}

	rec := dnstest.NewRecorder(&test.ResponseWriter{})
	if _, err := a.ServeDNS(context.TODO(), rec, query("a.example.org.", dns.TypeAAAA)); err != nil {
		t.Fatal(err)
	}
	if !rec.Msg.Authoritative || rec.Msg.RecursionAvailable {
		t.Errorf("got AA %v, RA %v, want AA only", rec.Msg.Authoritative, rec.Msg.RecursionAvailable)
	}
	if m.Authoritative || rec.Msg == m {
		t.Error("the message of the plugin behind was changed")
	}
	if rec.Msg.Ns[0] != m.Ns[0] || m.Ns[0].String() != before.Ns[0].String() {
		t.Error("the records are not the same ones")
	}
}

// TestTruncation checks that the server's own truncation, which comes after the
// plugins, never sees the bit set.
func TestTruncation(t *testing.T) {
	for _, tc := range []struct {
		records int
		edns    uint16
		tcp     bool
		want    bool // AA
	}{
		{records: 10, want: true},
		{records: 40, want: false},
		{records: 40, edns: 4096, want: true},
		{records: 40, edns: 600, want: false},
		{records: 40, tcp: true, want: true},
	} {
		t.Run(fmt.Sprintf("%d records, EDNS %d, TCP %v", tc.records, tc.edns, tc.tcp), func(t *testing.T) {
			m := lame()
			for i := range tc.records {
				m.Answer = append(m.Answer, test.A(fmt.Sprintf("a.example.org. 30 IN A 192.0.2.%d", i)))
			}
			q := query("a.example.org.", dns.TypeA)
			if tc.edns > 0 {
				q.SetEdns0(tc.edns, false)
			}
			rec := dnstest.NewRecorder(&test.ResponseWriter{TCP: tc.tcp})
			a := &AA{rule: defaults(), Next: answer(m)}
			a.ServeDNS(context.TODO(), request.NewScrubWriter(q, rec), q)
			if rec.Msg.Authoritative != tc.want || rec.Msg.Truncated == tc.want {
				t.Errorf("got AA %v, TC %v", rec.Msg.Authoritative, rec.Msg.Truncated)
			}
		})
	}
}

// TestSizeAtTheEdge finds the place where an answer begins to be truncated, and
// checks on both sides of it that AA and TC exclude each other.
func TestSizeAtTheEdge(t *testing.T) {
	edges := 0
	last := false
	for n := 1; n < 60; n++ {
		m := lame()
		m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: "a.example.org.", Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{string(make([]byte, 200)), string(make([]byte, 220+n))}}}
		q := query("a.example.org.", dns.TypeTXT)
		rec := dnstest.NewRecorder(&test.ResponseWriter{})
		a := &AA{rule: defaults(), Next: answer(m)}
		a.ServeDNS(context.TODO(), request.NewScrubWriter(q, rec), q)
		if rec.Msg.Authoritative == rec.Msg.Truncated {
			t.Fatalf("%d bytes: AA and TC are both %v", n, rec.Msg.Truncated)
		}
		if n > 1 && rec.Msg.Truncated != last {
			edges++
		}
		last = rec.Msg.Truncated
	}
	if edges != 1 {
		t.Errorf("%d changes from whole to truncated, want 1", edges)
	}
}

func TestRawBytesPassThrough(t *testing.T) {
	raw := []byte("as it is")
	next := plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, _ *dns.Msg) (int, error) {
		_, err := w.Write(raw)
		return 0, err
	})
	w := &rawWriter{}
	a := &AA{rule: defaults(), Next: next}
	if _, err := a.ServeDNS(context.TODO(), w, query("a.example.org.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	if string(w.got) != string(raw) {
		t.Errorf("got %q", w.got)
	}
}

type rawWriter struct {
	test.ResponseWriter
	got []byte
}

func (w *rawWriter) Write(b []byte) (int, error) { w.got = b; return len(b), nil }

func TestMetrics(t *testing.T) {
	reset := func() { answersTouched.Reset(); discardedShape.Reset() }
	soa := lame()
	soa.Ns = []dns.RR{test.SOA("example.org. 30 IN SOA ns.example.org. admin.example.org. 1 2 3 4 5")}
	withRA := soa.Copy()
	withRA.RecursionAvailable = true

	tests := map[string]struct {
		rule      rule
		msg       *dns.Msg
		query     func(*dns.Msg)
		tcp       bool
		touched   float64
		discarded float64
	}{
		"lame":                    {rule: defaults(), msg: soa, touched: 1, discarded: 1},
		"lame by TCP":             {rule: defaults(), msg: soa, tcp: true, touched: 1},
		"lame with EDNS":          {rule: defaults(), msg: soa, query: func(q *dns.Msg) { q.SetEdns0(1232, false) }, touched: 1},
		"lame, out of scope":      {rule: rule{zones: plugin.Zones{"example.net."}, setAA: true}, msg: soa, discarded: 1},
		"lame for another server": {rule: defaults(), msg: soa, query: func(q *dns.Msg) { q.RecursionDesired = false }},
		"not lame":                {rule: defaults(), msg: withRA, touched: 1},
		"not lame, only empty":    {rule: rule{zones: plugin.Zones{"."}, setAA: true, answers: Empty}, msg: withRA},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			reset()
			q := query("a.example.org.", dns.TypeAAAA)
			if tc.query != nil {
				tc.query(q)
			}
			a := &AA{rule: tc.rule, Next: answer(tc.msg.Copy())}
			a.ServeDNS(context.TODO(), &test.ResponseWriter{TCP: tc.tcp}, q)
			if got := testutil.ToFloat64(answersTouched.WithLabelValues("", ".", "false")); got != tc.touched {
				t.Errorf("%v answers touched, want %v", got, tc.touched)
			}
			if got := testutil.ToFloat64(discardedShape.WithLabelValues("")); got != tc.discarded {
				t.Errorf("%v of the discarded shape, want %v", got, tc.discarded)
			}
		})
	}
}

// TestNextWithoutAnswer checks that a failure behind is handed on as it is.
func TestNextWithoutAnswer(t *testing.T) {
	a := &AA{rule: defaults(), Next: test.NextHandler(dns.RcodeServerFailure, net.ErrClosed)}
	rcode, err := a.ServeDNS(context.TODO(), &test.ResponseWriter{}, query("a.example.org.", dns.TypeA))
	if rcode != dns.RcodeServerFailure || err != net.ErrClosed {
		t.Errorf("got %d, %v", rcode, err)
	}
}

// TestNoAllocation holds aa to what it promises: nothing to be done costs no
// allocation but the one that any call of the next plugin costs.
func TestNoAllocation(t *testing.T) {
	m := new(dns.Msg)
	m.SetRcode(query("a.example.org.", dns.TypeA), dns.RcodeSuccess)
	m.Authoritative = true
	next := plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, _ *dns.Msg) (int, error) {
		return 0, w.WriteMsg(m)
	})
	validates := query("a.example.org.", dns.TypeA)
	validates.SetEdns0(1232, true)

	w, ctx := dns.ResponseWriter(&nullWriter{}), context.Background()
	call := testing.AllocsPerRun(1000, func() {
		plugin.NextOrFailure("stock", next, ctx, w, validates)
	})
	a := &AA{rule: defaults(), Next: next}
	for name, q := range map[string]*dns.Msg{
		"out of scope":    validates,
		"bit already set": query("a.example.org.", dns.TypeA),
	} {
		t.Run(name, func(t *testing.T) {
			got := testing.AllocsPerRun(1000, func() { a.ServeDNS(ctx, w, q) })
			if got > call {
				t.Errorf("%v allocations, want no more than the %v of calling the next plugin", got, call)
			}
		})
	}
}

// BenchmarkServeDNS prints what aa costs in front of a handler that does nothing
// but write a message. "stock" is that handler alone, called as plugins call each
// other; allocations beyond its own are those of aa.
func BenchmarkServeDNS(b *testing.B) {
	m := new(dns.Msg)
	m.SetRcode(query("a.example.org.", dns.TypeA), dns.RcodeSuccess)
	next := plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		return 0, w.WriteMsg(m)
	})
	do := query("a.example.org.", dns.TypeA)
	do.SetEdns0(1232, true)
	authoritative := m.Copy()
	authoritative.Authoritative = true

	for _, bm := range []struct {
		name    string
		handler func(w dns.ResponseWriter, q *dns.Msg)
		q, m    *dns.Msg
	}{
		{"stock", nil, query("a.example.org.", dns.TypeA), m},
		{"query out of scope", serve(&AA{rule: defaults(), Next: next}), do, m},
		{"bit is set already", serve(&AA{rule: defaults(), Next: next}), query("a.example.org.", dns.TypeA), authoritative},
		{"bit is set by aa", serve(&AA{rule: defaults(), Next: next}), query("a.example.org.", dns.TypeA), m},
		{"bit is set by aa, cache behind", serve(&AA{rule: defaults(), Next: next, trail: true}), query("a.example.org.", dns.TypeA), m},
	} {
		b.Run(bm.name, func(b *testing.B) {
			old := *m
			*m = *bm.m
			defer func() { *m = old }()
			w := dns.ResponseWriter(&nullWriter{})
			h := bm.handler
			if h == nil {
				h = func(w dns.ResponseWriter, q *dns.Msg) {
					plugin.NextOrFailure("stock", next, context.Background(), w, q)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				h(w, bm.q)
			}
		})
	}
}

func serve(a *AA) func(dns.ResponseWriter, *dns.Msg) {
	return func(w dns.ResponseWriter, q *dns.Msg) { a.ServeDNS(context.Background(), w, q) }
}

var udpAddr = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4242}

type nullWriter struct{ test.ResponseWriter }

func (*nullWriter) WriteMsg(*dns.Msg) error { return nil }
func (*nullWriter) RemoteAddr() net.Addr    { return udpAddr }
