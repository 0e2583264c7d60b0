package latency

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/resolute-dns/resolute/plugin/internal/trail"

	"github.com/miekg/dns"
)

// captureLog returns a function that returns the lines written since it was last
// called.
func captureLog(t *testing.T, format string) func() []string {
	t.Helper()
	var b lockedBuffer
	if err := clog.Configure(format, &b); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := clog.Configure("text", io.Discard); err != nil {
			t.Error(err)
		}
	})
	return b.lines
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := strings.TrimSuffix(l.b.String(), "\n")
	l.b.Reset()
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

// slowHandler takes a while for each query, and tries two upstreams.
func slowHandler(t *testing.T, clock *testClock) *Latency {
	t.Helper()
	l := New(testConfig())
	l.clock = clock.read
	l.Next = plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		name := r.Question[0].Name
		if strings.HasPrefix(name, "fast") {
			clock.now += 999 * time.Millisecond
			return 0, w.WriteMsg(new(dns.Msg).SetReply(r))
		}
		rec, begin := trail.From(ctx), wall(clock.now)
		clock.now += 1203 * time.Millisecond
		switch {
		case strings.HasPrefix(name, "dropped"):
			return 0, nil
		case strings.HasPrefix(name, "forward"):
			rec.NoteUpstream("10.0.0.6:53")
			return dns.RcodeServerFailure, io.EOF
		}
		rec.AddAttempt(trail.Attempt{Upstream: "10.0.0.7:53", Kind: "hedge", Result: "win", Rcode: 3, Start: begin.Add(50 * time.Millisecond), Took: 1153 * time.Millisecond})
		rec.AddAttempt(trail.Attempt{Upstream: "10.0.0.6:53", Kind: "first", Result: "cancelled", Rcode: -1, Start: begin, Took: 1203 * time.Millisecond})
		return 0, w.WriteMsg(new(dns.Msg).SetRcode(r, 4000)) // of no name
	})
	l.start([]string{benchAddr})
	t.Cleanup(l.stop)
	return l
}

func TestSlowLine(t *testing.T) {
	l := slowHandler(t, &testClock{})
	ask := func(name string, qtype uint16) {
		l.ServeDNS(serverCtx(benchAddr), udpClient("192.0.2.1:1234"), new(dns.Msg).SetQuestion(name, qtype))
	}
	const attempts = `attempts="10.0.0.7:53 hedge win 50ms+1.153s NXDOMAIN; 10.0.0.6:53 first cancelled 0s+1.203s"`
	const common = `client=192.0.2.1:1234 server=dns://:53 total_seconds=1.203 `
	for _, tc := range []struct {
		name  string
		qtype uint16
		want  string // empty: no line
	}{
		{"fast.example.org.", dns.TypeA, ""},
		{"a.example.org.", dns.TypeAAAA, `name=a.example.org. type=AAAA ` + common + `source=upstream rcode=RCODE4000 ` + attempts},
		{"forward.example.org.", dns.TypeA, `name=forward.example.org. type=A ` + common + `source=none rcode=SERVFAIL upstream=10.0.0.6:53`},
		{"dropped.example.org.", 65280, `name=dropped.example.org. type=TYPE65280 ` + common + `source=none rcode=-`},
		{`two\ words="x".example.org.`, dns.TypeA, `name="two\\ words=\"x\".example.org." type=A ` + common + `source=upstream rcode=RCODE4000 ` + attempts},
	} {
		lines := captureLog(t, "text")
		ask(tc.name, tc.qtype)
		got := strings.Join(lines(), "\n")
		if tc.want == "" {
			if got != "" {
				t.Errorf("a line for a query that is not slow: %s", got)
			}
			continue
		}
		if want := "[INFO] plugin/latency: slow query: " + tc.want; !strings.HasSuffix(got, want) {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}

	lines := captureLog(t, "json")
	ask("a.example.org.", dns.TypeAAAA)
	ask("forward.example.org.", dns.TypeA)
	wants := []string{
		`{"level":"INFO","msg":"slow query","plugin":"latency","name":"a.example.org.","type":"AAAA","client":"192.0.2.1:1234","server":"dns://:53","total_seconds":1.203,"source":"upstream","rcode":"RCODE4000","attempts":[` +
			`{"upstream":"10.0.0.7:53","kind":"hedge","result":"win","rcode":"NXDOMAIN","start_seconds":0.05,"seconds":1.153},` +
			`{"upstream":"10.0.0.6:53","kind":"first","result":"cancelled","start_seconds":0,"seconds":1.203}]}`,
		`{"level":"INFO","msg":"slow query","plugin":"latency","name":"forward.example.org.","type":"A","client":"192.0.2.1:1234","server":"dns://:53","total_seconds":1.203,"source":"none","rcode":"SERVFAIL","upstream":"10.0.0.6:53"}`,
	}
	got := lines()
	if len(got) != len(wants) {
		t.Fatalf("got %d lines, want %d: %q", len(got), len(wants), got)
	}
	for i, want := range wants {
		var g, w map[string]any
		if err := json.Unmarshal([]byte(got[i]), &g); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(want), &w); err != nil {
			t.Fatal(err)
		}
		delete(g, "time")
		if fmt.Sprint(g) != fmt.Sprint(w) {
			t.Errorf("got\n%s\nwant\n%s", got[i], want)
		}
	}
}

// TestSlowLimit checks the limit, and that every line is either written or counted
// as held back.
func TestSlowLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lines := captureLog(t, "text")
		clock := &testClock{}
		l := slowHandler(t, clock)
		ask := func() {
			clock.now -= 1203 * time.Millisecond // all are over in the same moment
			l.ServeDNS(serverCtx(benchAddr), udpClient("192.0.2.1:1234"), new(dns.Msg).SetQuestion("a.", dns.TypeA))
		}
		pass := func(d time.Duration) {
			time.Sleep(d) // in synthetic time
			clock.now += d
			synctest.Wait()
		}
		clock.now = time.Hour
		for range 35 {
			ask()
		}
		if got := len(lines()); got != 10 {
			t.Errorf("%d lines at first, want 10", got)
		}
		pass(999 * time.Millisecond)
		ask()
		if got := lines(); len(got) > 0 {
			t.Errorf("more before the second is over: %q", got)
		}
		pass(time.Millisecond)
		if got := lines(); len(got) != 1 || !strings.HasSuffix(got[0], "slow queries not logged: queries=26 limit_per_second=10") {
			t.Errorf("got %q, want one line about 26 others", got)
		}
		ask()
		if got := len(lines()); got != 1 {
			t.Errorf("%d lines in the next second, want 1", got)
		}
		pass(time.Minute)
		if got := lines(); len(got) > 0 {
			t.Errorf("without slow queries: %q", got)
		}

		for range 13 {
			ask()
		}
		lines()
		l.stop()
		if got := lines(); len(got) != 1 || !strings.Contains(got[0], "queries=3 ") {
			t.Errorf("at the end: %q, want one line about 3 others", got)
		}
		pass(time.Minute)
		if got := lines(); len(got) > 0 {
			t.Errorf("after the end: %q", got)
		}
	})
}
