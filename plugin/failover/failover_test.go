package failover

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"

	"github.com/resolute-dns/resolute/plugin/internal/trail"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// upstream starts a name server on loopback that gives the answer of handle; for
// nil it is silent. It answers probes for the root by itself.
func upstream(t *testing.T, handle func(q *dns.Msg) *dns.Msg) string {
	t.Helper()
	s := dnstest.NewMultipleServer(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if q.Question[0].Name != "." {
			m = handle(q)
		}
		if m != nil {
			w.WriteMsg(m)
		}
	})
	t.Cleanup(s.Close)
	return s.Addr
}

// address answers with an address, and RA as a resolver does.
func address(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	m.Answer = []dns.RR{test.A(q.Question[0].Name + " 60 IN A 192.0.2.53")}
	return m
}

func rcode(rcode int) func(q *dns.Msg) *dns.Msg {
	return func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, rcode) }
}

// handlers makes the handlers of a Corefile fragment and starts them. They end
// with the test.
func handlers(t *testing.T, config string) []*Failover {
	t.Helper()
	c := caddy.NewTestController("dns", config)
	c.ServerBlockKeys = []string{"dns://.:" + t.Name()}
	configs, err := parse(c)
	if err != nil {
		t.Fatal(err)
	}
	var fs []*Failover
	for i, conf := range configs {
		f := &Failover{config: conf, key: fmt.Sprint(t.Name(), i)}
		if err := f.start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(f.stop)
		fs = append(fs, f)
		if i > 0 {
			fs[i-1].Next = f
		}
	}
	return fs
}

func question(name string, qtype uint16) *dns.Msg { return new(dns.Msg).SetQuestion(name, qtype) }

// serve asks h and returns what it wrote and returned.
func serve(ctx context.Context, h plugin.Handler, q *dns.Msg, tcp bool) (*dns.Msg, int, error) {
	w := dnstest.NewRecorder(&test.ResponseWriter{TCP: tcp})
	code, err := h.ServeDNS(ctx, w, q)
	return w.Msg, code, err
}

func TestAnswer(t *testing.T) {
	f := handlers(t, "failover . "+upstream(t, address))[0]
	for _, tcp := range []bool{false, true} {
		q := question("wWw.Example.org.", dns.TypeA)
		q.Id = 4242
		m, code, err := serve(context.Background(), f, q, tcp)
		if err != nil || code != 0 || m == nil {
			t.Fatalf("got %v, %d, %v", m, code, err)
		}
		if m.Id != q.Id || m.Question[0] != q.Question[0] || len(m.Answer) != 1 || !m.RecursionAvailable {
			t.Errorf("TCP %v: not the answer to the query:\n%v", tcp, m)
		}
	}
}

func TestMatch(t *testing.T) {
	f := handlers(t, "failover example.org "+upstream(t, address)+" {\nexcept no.example.org example.org\n}")[0]
	f.Next = test.NextHandler(dns.RcodeNameError, nil)
	for name, ours := range map[string]bool{
		"a.example.org.":    true,
		"A.EXAMPLE.ORG.":    true,
		"example.org.":      true, // FROM itself can't be excepted
		"no.example.org.":   false,
		"a.no.example.org.": false,
		"example.net.":      false,
	} {
		m, code, _ := serve(context.Background(), f, question(name, dns.TypeA), false)
		// `except example.org` excepts all below it.
		if name == "a.example.org." || name == "A.EXAMPLE.ORG." {
			ours = false
		}
		if got := m != nil && code == 0; got != ours {
			t.Errorf("%s: taken: %v, want %v", name, got, ours)
		}
	}
}

// TestFailure checks what cache must not remember: SERVFAIL without an error.
func TestFailure(t *testing.T) {
	f := handlers(t, "failover . "+upstream(t, func(*dns.Msg) *dns.Msg { return nil })+" {\ndeadline 200ms\n}")[0]
	before := testutil.ToFloat64(noUpstream)
	m, code, err := serve(context.Background(), f, question("a.example.org.", dns.TypeA), false)
	if m != nil || code != dns.RcodeServerFailure || err != nil {
		t.Errorf("got %v, %d, %v, want SERVFAIL without a message and without an error", m, code, err)
	}
	if got := testutil.ToFloat64(noUpstream) - before; got != 1 {
		t.Errorf("%v failures counted", got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := serve(ctx, f, question("a.example.org.", dns.TypeA), false); err != context.Canceled {
		t.Errorf("for a client that has gone: %v", err)
	}
}

func TestSoftAnswer(t *testing.T) {
	f := handlers(t, "failover . "+upstream(t, rcode(dns.RcodeRefused)))[0]
	m, _, err := serve(context.Background(), f, question("a.example.org.", dns.TypeA), false)
	if err != nil || m == nil || m.Rcode != dns.RcodeRefused {
		t.Errorf("got %v, %v, want the answer there is", m, err)
	}
}

func TestFailoverRcodes(t *testing.T) {
	for option, want := range map[string]int{"": dns.RcodeNameError, "failover NXDOMAIN": dns.RcodeSuccess} {
		f := handlers(t, "failover . "+upstream(t, rcode(dns.RcodeNameError))+" "+upstream(t, address)+" {\npolicy sequential\n"+option+"\n}")[0]
		await(t, func() bool { return f.group.Answered() })
		m, _, err := serve(context.Background(), f, question("a.example.org.", dns.TypeA), false)
		if err != nil || m.Rcode != want {
			t.Errorf("%q: got %v, %v, want %s", option, m, err, dns.RcodeToString[want])
		}
	}
}

func TestNext(t *testing.T) {
	nodata := func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetReply(q) }
	for name, tc := range map[string]struct {
		first  func(*dns.Msg) *dns.Msg
		option string
		next   bool
	}{
		"next":                 {rcode(dns.RcodeNameError), "next NXDOMAIN", true},
		"next, other rcode":    {rcode(dns.RcodeNameError), "next SERVFAIL", false},
		"next_on_nodata":       {nodata, "next_on_nodata", true},
		"next_on_nodata, data": {address, "next_on_nodata", false},
		"neither":              {nodata, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			other := func(q *dns.Msg) *dns.Msg {
				m := address(q)
				m.Authoritative = true
				return m
			}
			fs := handlers(t, "failover . "+upstream(t, tc.first)+" {\n"+tc.option+"\n}\nfailover . "+upstream(t, other))
			m, _, err := serve(context.Background(), fs[0], question("a.example.org.", dns.TypeA), false)
			if err != nil || m.Authoritative != tc.next {
				t.Errorf("got %v, %v: from the next one: want %v", m, err, tc.next)
			}
			// Another plugin behind is not asked.
			fs[0].Next = test.NextHandler(dns.RcodeRefused, nil)
			if m, _, _ := serve(context.Background(), fs[0], question("b.example.org.", dns.TypeA), false); m == nil {
				t.Error("a plugin was asked that is no failover")
			}
		})
	}
}

func TestMaxConcurrent(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	f := handlers(t, "failover . "+upstream(t, func(q *dns.Msg) *dns.Msg {
		entered <- struct{}{}
		<-release
		return address(q)
	})+" {\nmax_concurrent 1\nhedge off\n}")[0]
	done := make(chan error)
	go func() {
		_, _, err := serve(context.Background(), f, question("a.example.org.", dns.TypeA), false)
		done <- err
	}()
	<-entered
	if _, code, err := serve(context.Background(), f, question("b.example.org.", dns.TypeA), false); code != dns.RcodeRefused || err == nil {
		t.Errorf("got %d, %v, want REFUSED", code, err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestTruncated checks that a truncated answer is asked for again over TCP with
// prefer_udp, and only then.
func TestTruncated(t *testing.T) {
	var asked atomic.Int64
	to := upstream(t, func(q *dns.Msg) *dns.Msg {
		m := address(q)
		m.Truncated = asked.Add(1) == 1
		return m
	})
	for _, preferUDP := range []bool{false, true} {
		asked.Store(0)
		option := ""
		if preferUDP {
			option = "prefer_udp"
		}
		f := handlers(t, "failover . "+to+" {\nhedge off\n"+option+"\n}")[0]
		m, _, err := serve(context.Background(), f, question("a.example.org.", dns.TypeA), false)
		if err != nil || m.Truncated == preferUDP {
			t.Errorf("prefer_udp %v: TC is %v, %v", preferUDP, m.Truncated, err)
		}
	}
}

// TestSigned checks that a signed query arrives as it was signed, and that two
// alike are asked twice.
func TestSigned(t *testing.T) {
	var macs [2]atomic.Value
	var n atomic.Int64
	both := make(chan struct{})
	to := upstream(t, func(q *dns.Msg) *dns.Msg {
		i := n.Add(1) - 1
		if i < 2 {
			if sig := q.IsTsig(); sig != nil {
				macs[i].Store(sig.MAC)
			}
			if i == 1 {
				close(both)
			}
			<-both
		}
		return address(q)
	})
	f := handlers(t, "failover . "+to+" {\nhedge off\n}")[0]
	q := question("a.example.org.", dns.TypeA)
	q.SetTsig("key.", dns.HmacSHA256, 300, time.Now().Unix())
	packed, _, err := dns.TsigGenerate(q, "c2VjcmV0", "", false)
	if err != nil {
		t.Fatal(err)
	}
	signed := new(dns.Msg)
	if err := signed.Unpack(packed); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	for range 2 {
		go func() {
			_, _, err := serve(context.Background(), f, signed.Copy(), false)
			done <- err
		}()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for i := range macs {
		if got := macs[i].Load(); got != signed.IsTsig().MAC {
			t.Errorf("query %d arrived with the signature %v", i, got)
		}
	}
}

func TestTrailAndMetadata(t *testing.T) {
	bad, good := upstream(t, rcode(dns.RcodeServerFailure)), upstream(t, address)
	f := handlers(t, "failover . "+bad+" "+good+" {\npolicy sequential\n}")[0]
	await(t, func() bool { return f.group.Answered() })
	ctx := metadata.ContextWithMetadata(context.Background())
	record := trail.Start(ctx)
	if _, _, err := serve(record, f, question("a.example.org.", dns.TypeA), false); err != nil {
		t.Fatal(err)
	}
	got := record.Finish()
	if len(got) != 2 || got[0].Upstream != bad || got[0].Result != "rcode" || got[0].Rcode != dns.RcodeServerFailure ||
		got[1].Upstream != good || got[1].Kind != "retry" || got[1].Result != "win" || got[1].Start.Before(got[0].Start) {
		t.Errorf("trail: %+v", got)
	}
	for _, label := range []string{"failover/upstream", "forward/upstream"} {
		if v := metadata.ValueFunc(ctx, label); v == nil || v() != good {
			t.Errorf("metadata %s is not %s", label, good)
		}
	}
}

// await waits for a condition that is to come true by itself.
func await(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
		time.Sleep(time.Millisecond)
	}
}

// TestMetrics checks that the metrics tell what happened, lint, and go when the
// upstream goes.
func TestMetrics(t *testing.T) {
	to := upstream(t, address)
	f := handlers(t, "failover . "+to)[0]
	await(t, func() bool { return f.group.Answered() })
	if _, _, err := serve(context.Background(), f, question("a.example.org.", dns.TypeA), false); err != nil {
		t.Fatal(err)
	}
	if got := testutil.ToFloat64(attempts.WithLabelValues(to, "first", "win")); got != 1 {
		t.Errorf("%v attempts won", got)
	}
	await(t, func() bool { return testutil.ToFloat64(attempts.WithLabelValues(to, "probe", "good")) >= 1 })

	text := scrape(t)
	for _, want := range []string{
		`coredns_failover_upstream_up{to="` + to + `"} 1`,
		`coredns_failover_inflight{to="` + to + `"} 0`,
		`coredns_failover_sockets{proto="udp",to="` + to + `"} `,
		`coredns_failover_upstream_rtt_seconds_count{to="` + to + `"} `,
		`coredns_proxy_request_duration_seconds_count{proxy_name="failover",rcode="NOERROR",to="` + to + `"} 1`,
		`coredns_failover_hedge_delay_seconds `,
		`coredns_failover_budget_tokens `,
		`coredns_failover_budget_denied_total 0`,
		`coredns_failover_no_upstream_total `,
		`coredns_failover_coalesced_total `,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in:\n%s", want, text)
		}
	}
	problems, err := testutil.GatherAndLint(prometheus.DefaultGatherer)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "coredns_failover") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}

	f.stop()
	if text := scrape(t); strings.Contains(text, to) {
		t.Errorf("series are left of an upstream that has gone:\n%s", text)
	}
}

// scrape returns our metrics and those of pkg/proxy, a line each.
func scrape(t *testing.T) string {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		name := f.GetName()
		if !strings.HasPrefix(name, "coredns_failover") && !strings.HasPrefix(name, "coredns_proxy") {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			set := ""
			if len(labels) > 0 {
				set = "{" + strings.Join(labels, ",") + "}"
			}
			switch {
			case m.GetHistogram() != nil:
				fmt.Fprintf(&b, "%s_count%s %d\n", name, set, m.GetHistogram().GetSampleCount())
			case m.GetCounter() != nil:
				fmt.Fprintf(&b, "%s%s %v\n", name, set, m.GetCounter().GetValue())
			default:
				fmt.Fprintf(&b, "%s%s %v\n", name, set, m.GetGauge().GetValue())
			}
		}
	}
	return b.String()
}

func TestReady(t *testing.T) {
	silent := handlers(t, "failover . "+silentAddr(t))[0]
	if silent.Ready() {
		t.Error("ready, though nobody has answered")
	}
	silent.since = time.Now().Add(-readyAfter)
	if !silent.Ready() {
		t.Error("not ready after two seconds")
	}
	good := handlers(t, "failover . "+upstream(t, address))[0]
	await(t, good.Ready)
}

func silentAddr(t *testing.T) string {
	s := dnstest.NewMultipleServer(func(dns.ResponseWriter, *dns.Msg) {})
	t.Cleanup(s.Close)
	return s.Addr
}

func init() {
	i := slices.Index(dnsserver.Directives, "forward")
	if err := dnsserver.SetDirectives(slices.Insert(dnsserver.Directives, i, pluginName)); err != nil {
		panic(err)
	}
	dnsserver.Quiet = true
}

// TestRetire checks that queries are answered between the shutdown callback and
// the end of the listeners, as SIGTERM has it.
func TestRetire(t *testing.T) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	f := handlers(t, "failover . "+upstream(t, func(q *dns.Msg) *dns.Msg {
		entered <- struct{}{}
		<-release
		return address(q)
	})+" {\nhedge off\n}")[0]
	done := make(chan error)
	go func() {
		_, code, err := serve(context.Background(), f, question("a.example.org.", dns.TypeA), false)
		if code != dns.RcodeSuccess && err == nil {
			err = fmt.Errorf("rcode %d", code)
		}
		done <- err
	}()
	<-entered
	f.retire()
	close(release)
	if err := <-done; err != nil {
		t.Errorf("the query in flight: %v", err)
	}
	if m, _, err := serve(context.Background(), f, question("b.example.org.", dns.TypeA), false); err != nil || m == nil {
		t.Errorf("the one after: %v, %v", m, err)
	}
}
