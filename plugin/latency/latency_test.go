package latency

import (
	"context"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metadata"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// testConfig observes all names, with the defaults.
func testConfig() Config {
	return Config{Zones: []string{"."}, Slow: time.Second, PerSecond: 10, Retries: 1024, Window: time.Minute}
}

// testClock is a clock that stands still unless it is told to go on.
type testClock struct{ now time.Duration }

func (c *testClock) read() time.Duration { return c.now }

// TestEnds goes through the ways in which a query can end, and checks that each is
// observed once, with the time until the first answer or else until the end.
func TestEnds(t *testing.T) {
	const addr = "dns://192.0.2.53:53"
	clock := &testClock{}
	pass := func(d time.Duration) { clock.now += d }
	reply := func(w dns.ResponseWriter, r *dns.Msg, rcode int) error {
		return w.WriteMsg(new(dns.Msg).SetRcode(r, rcode))
	}
	tests := map[string]struct {
		serve  plugin.HandlerFunc
		source string
		took   time.Duration
		panics bool
	}{
		"answer": {func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
			pass(20 * time.Millisecond)
			return 0, reply(w, r, 0)
		}, "local", 20 * time.Millisecond, false},
		"work after the answer": {func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
			reply(w, r, 0)
			pass(20 * time.Millisecond)
			return 0, nil
		}, "local", 0, false},
		"two answers": {func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
			pass(time.Millisecond)
			reply(w, r, 0)
			pass(time.Second)
			return 0, reply(w, r, 0)
		}, "local", time.Millisecond, false},
		"bytes": {func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
			b, err := new(dns.Msg).SetReply(r).Pack()
			w.Write(b)
			return 0, err
		}, "local", 0, false},
		"an error code only": {func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) {
			pass(3 * time.Second)
			return dns.RcodeServerFailure, io.EOF
		}, "none", 3 * time.Second, false},
		"no answer": {func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) {
			pass(time.Millisecond)
			return 0, nil
		}, "none", time.Millisecond, false},
		"panic": {func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) {
			pass(time.Millisecond)
			panic("on purpose")
		}, "none", time.Millisecond, true},
		"panic after the answer": {func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
			reply(w, r, 0)
			panic("on purpose")
		}, "local", 0, true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			l := New(testConfig())
			l.Next, l.clock = tc.serve, clock.read
			l.start([]string{addr})
			defer l.stop()
			func() {
				defer func() {
					if p := recover(); (p != nil) != tc.panics {
						t.Errorf("panicked with %v", p)
					}
				}()
				l.ServeDNS(serverCtx(addr), udpClient("192.0.2.1:1234"), new(dns.Msg).SetQuestion("a.example.org.", dns.TypeA))
			}()
			if got := sources(t, addr); !maps.Equal(got, map[string]float64{tc.source: 1}) {
				t.Errorf("counted %v, want one of %s", got, tc.source)
			}
			windows, _, _ := live.all()
			if s := windows[labels{addr, "."}].Load().Snapshot(clock.now, .5); s.Max != tc.took || s.Count != 1 {
				t.Errorf("took %v (%d times), want %v", s.Max, s.Count, tc.took)
			}
		})
	}
}

// TestZones checks which of several zones a query is counted for.
func TestZones(t *testing.T) {
	const addr = "dns://192.0.2.53:53"
	conf := testConfig()
	conf.Zones = []string{"example.org.", "sub.example.org.", "org."}
	answer := new(dns.Msg).SetQuestion("a.", dns.TypeA)
	l := started(t, conf, addr, noop(answer))
	for _, name := range []string{"a.example.org.", "EXAMPLE.org.", "a.b.sub.example.org.", "xsub.example.org.", "org.", "net.", ".", `a\.org.`} {
		l.ServeDNS(serverCtx(addr), udpClient("192.0.2.1:1234"), new(dns.Msg).SetQuestion(name, dns.TypeA))
	}
	l.ServeDNS(serverCtx(addr), udpClient("192.0.2.1:1234"), new(dns.Msg)) // no question
	got := series(t, durationName, prometheus.Labels{"server": addr, "source": "local"})
	if want := map[string]float64{"example.org.": 3, "sub.example.org.": 1, "org.": 1}; !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// TestInnerQueries checks that what a plugin asks this server by itself is not a
// query of a client, whatever server block it comes to.
func TestInnerQueries(t *testing.T) {
	const addr, other = "dns://192.0.2.53:53", "dns://192.0.2.54:53"
	answer := new(dns.Msg).SetQuestion("a.", dns.TypeA)
	inner := started(t, testConfig(), other, noop(answer))
	conf := testConfig()
	conf.Zones = []string{"example.org."}
	outer := started(t, conf, addr, plugin.HandlerFunc(func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		return inner.ServeDNS(ctx, w, new(dns.Msg).SetQuestion("inner.example.org.", dns.TypeA))
	}))
	for _, name := range []string{"a.example.org.", "not.observed."} {
		outer.ServeDNS(serverCtx(addr), udpClient("192.0.2.1:1234"), new(dns.Msg).SetQuestion(name, dns.TypeA))
	}
	if got := sources(t, other); len(got) > 0 {
		t.Errorf("inner queries were counted: %v", got)
	}
	if got := series(t, durationName, prometheus.Labels{"server": addr, "source": "local"}); got["example.org."] != 1 {
		t.Errorf("the outer query was counted as %v", got)
	}
}

// TestMetadataKey checks that the key was learnt, and that metadata works as if
// the metadata plugin were there but is not made before somebody wants it.
func TestMetadataKey(t *testing.T) {
	if metadataKey == nil {
		t.Fatal("package metadata has not asked for its key")
	}
	q := &query{Context: context.Background(), handler: New(testConfig())}
	if q.touchedMetadata() {
		t.Error("there is metadata already")
	}
	if !metadata.SetValueFunc(q, "forward/upstream", func() string { return "192.0.2.1:53" }) {
		t.Fatal("nothing can be written")
	}
	if got := forwardUpstream(context.WithoutCancel(q)); got != "192.0.2.1:53" {
		t.Errorf("got %q", got)
	}
	// The metadata plugin's own map is left in place.
	front := metadata.ContextWithMetadata(context.Background())
	q = &query{Context: front, handler: New(testConfig())}
	metadata.SetValueFunc(q, "test/value", func() string { return "v" })
	if metadata.ValueFunc(front, "test/value") == nil || q.metadata != nil {
		t.Error("the value is not where the plugin in front looks for it")
	}
}

// TestTransports asks by UDP, TCP, DoT and DoH. Each query counts once, and only
// UDP has retries.
func TestTransports(t *testing.T) {
	cert, key := selfSigned(t)
	corefile := ".:0 {\nbind 127.0.8.1\nover\nlatency\nkubernetes\n}\n" +
		"tls://.:0 {\nbind 127.0.8.2\ntls " + cert + " " + key + "\nover\nlatency\nkubernetes\n}\n" +
		"https://.:0 {\nbind 127.0.8.3\ntls " + cert + " " + key + "\nover\nlatency\nkubernetes\n}\n"
	i := start(t, corefile)
	insecure := &tls.Config{InsecureSkipVerify: true} // #nosec G402 -- a certificate of this test
	q := new(dns.Msg).SetQuestion("a.example.org.", dns.TypeA)

	udp, tcp := i.addr(t, "127.0.8.1")
	_, dot := i.addr(t, "127.0.8.2")
	_, doh := i.addr(t, "127.0.8.3")
	exchange := func(c *dns.Client, addr string) {
		t.Helper()
		if _, _, err := c.Exchange(q, addr); err != nil {
			t.Fatal(err)
		}
		<-ended
	}
	exchange(&dns.Client{}, udp)
	exchange(&dns.Client{Net: "tcp"}, tcp)
	exchange(&dns.Client{Net: "tcp-tls", TLSConfig: insecure}, dot)

	b, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	web := http.Client{Transport: &http.Transport{TLSClientConfig: insecure, DisableKeepAlives: true}}
	resp, err := web.Post("https://"+doh+"/dns-query", "application/dns-message", strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	<-ended

	for server, want := range map[string]float64{"dns://127.0.8.1:0": 2, "tls://127.0.8.2:0": 1, "https://127.0.8.3:0": 1} {
		if got := sources(t, server); !maps.Equal(got, map[string]float64{"local": want}) {
			t.Errorf("%s: counted %v, want %v", server, got, want)
		}
		retries := len(series(t, "coredns_latency_client_retries_total", prometheus.Labels{"server": server}))
		if plain := strings.HasPrefix(server, "dns://"); plain != (retries > 0) {
			t.Errorf("%s: %d series of retries", server, retries)
		}
	}
}

// TestViews: two server blocks of one zone on one address share their series, and
// the longer window.
func TestViews(t *testing.T) {
	const block = ".:0 {\nbind 127.0.8.4\n%s\nover\nlatency {\nwindow %w\n}\n%p\n}\n"
	body := func(view, window, plugins string) string {
		return strings.NewReplacer("%s", view, "%w", window, "%p", plugins).Replace(block)
	}
	i := start(t, body("view tests {\nexpr name() startsWith 'a'\n}", "1m", "kubernetes")+body("", "2m", "failover"))
	for _, name := range []string{"a.example.org.", "b.example.org.", "a.example.net."} {
		i.ask(t, "127.0.8.4", name, dns.TypeA)
	}
	if got := sources(t, "dns://127.0.8.4:0"); !maps.Equal(got, map[string]float64{"local": 2, "upstream": 1}) {
		t.Errorf("counted %v", got)
	}
	windows, _, _ := live.all()
	if got := windows[labels{"dns://127.0.8.4:0", "."}].Load().Length(); got != 2*time.Minute {
		t.Errorf("the window is %v", got)
	}
}

// TestReload checks what becomes of series when the Corefile changes.
func TestReload(t *testing.T) {
	block := func(ip, latency string) string {
		return "example.org:0 example.net:0 {\nbind " + ip + "\nover\n" + latency + "\nkubernetes\n}\n"
	}
	const stays, goes = "127.0.8.5", "127.0.8.6"
	in := start(t, block(stays, "latency")+block(goes, "latency"))
	ask := func(ip string) {
		t.Helper()
		in.ask(t, ip, "a.example.org.", dns.TypeA)
	}
	count := func(ip string) float64 {
		return series(t, durationName, prometheus.Labels{"server": "dns://" + ip + ":0", "source": "local"})["example.org."]
	}
	reload := func(corefile string, ok bool) {
		t.Helper()
		i, err := in.Restart(caddy.CaddyfileInput{Contents: []byte(corefile), Filepath: "Corefile", ServerTypeName: "dns"})
		if ok != (err == nil) {
			t.Fatal(err)
		}
		in.Instance = i
	}
	table := func(ip string) any {
		_, servers, _ := live.all()
		for _, s := range servers {
			if s.name == "dns://"+ip+":0" {
				return s.retries.Load()
			}
		}
		return nil
	}
	ask(stays)
	ask(goes)
	before := table(stays)

	reload(block(stays, "latency")+block(goes, "latency"), true)
	ask(stays)
	if got := count(stays); got != 2 {
		t.Errorf("after a reload: %v queries counted, want 2", got)
	}
	if table(stays) != before {
		t.Error("after a reload: the recent lookups are forgotten")
	}

	// One that fails half-way, once while it is read, once while it is started.
	reload(block(stays, "latency")+"example.com:0 {\nlatency {\nnonsense\n}\n}", false)
	reload(strings.Replace(block(stays, "latency {\nretries 2048\n}"), "kubernetes", "kubernetes fails", 1), false)
	live.mu.Lock()
	owners := len(live.owners)
	live.mu.Unlock()
	if owners != 2 {
		t.Errorf("after failed reloads: %d handlers, want 2", owners)
	}
	ask(stays)
	if got := count(stays); got != 3 {
		t.Errorf("after failed reloads: %v queries counted, want 3", got)
	}
	if table(stays) != before {
		t.Error("after failed reloads: the recent lookups are forgotten")
	}

	reload(block(stays, "latency {\nretries 1024\nwindow 2m\n}"), true)
	ask(stays)
	if got := count(stays); got != 4 {
		t.Errorf("after a change: %v queries counted, want 4", got)
	}
	if table(stays) == before {
		t.Error("after a change: the table is still as large")
	}
	for _, name := range exported {
		if got := series(t, name, prometheus.Labels{"server": "dns://" + goes + ":0"}); len(got) > 0 && name != evictedName {
			t.Errorf("%s of a server that is gone: %v", name, got)
		}
	}

	reload(block(stays, ""), true)
	windows, servers, _ := live.all()
	if len(windows) > 0 || len(servers) > 0 || len(live.owners) > 0 {
		t.Errorf("without the directive there are %d windows, %d servers, %d handlers", len(windows), len(servers), len(live.owners))
	}
	if got := series(t, durationName, nil); len(got) > 0 {
		t.Errorf("without the directive there is %v", got)
	}
}

// TestStopped: a query that comes when the handler has been stopped is served, and
// makes no series.
func TestStopped(t *testing.T) {
	const addr = "dns://192.0.2.53:53"
	l := New(testConfig())
	l.Next = noop(new(dns.Msg))
	l.start([]string{addr})
	l.stop()
	l.stop()
	if rcode, err := l.ServeDNS(serverCtx(addr), udpClient("192.0.2.1:1234"), new(dns.Msg).SetQuestion("a.", dns.TypeA)); rcode != 0 || err != nil {
		t.Errorf("got %d, %v", rcode, err)
	}
	if got := sources(t, addr); len(got) > 0 {
		t.Errorf("counted %v", got)
	}
}

// TestUnexpectedServer: the label of a server that is not the one expected is
// cleaned up as well.
func TestUnexpectedServer(t *testing.T) {
	l := New(testConfig())
	l.Next = noop(new(dns.Msg))
	l.start([]string{"dns://192.0.2.53:53"})
	l.ServeDNS(serverCtx("dns://192.0.2.99:53"), udpClient("192.0.2.1:1234"), new(dns.Msg).SetQuestion("a.", dns.TypeA))
	if got := sources(t, "dns://192.0.2.99:53"); got["local"] != 1 {
		t.Errorf("counted %v", got)
	}
	l.stop()
	if windows, servers, _ := live.all(); len(windows)+len(servers) > 0 {
		t.Errorf("left: %v, %v", windows, servers)
	}
}

func selfSigned(t *testing.T) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	c, k := makeCertificate(t, net.IPv4(127, 0, 8, 2))
	for file, b := range map[string][]byte{cert: c, key: k} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// exported are the names of all metrics.
var exported = []string{
	"coredns_latency_request_duration_seconds", "coredns_latency_quantile_seconds", "coredns_latency_max_seconds",
	"coredns_latency_client_retries_total", "coredns_latency_client_wait_seconds", "coredns_latency_search_misses_total", evictedName,
}

// evictedName is of the only metric that is not about a server.
const evictedName = "coredns_latency_retries_evicted_total"

// stepping answers, and takes so long for it.
func stepping(clock *testClock, d time.Duration) plugin.Handler {
	return plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		clock.now += d
		return 0, w.WriteMsg(new(dns.Msg).SetReply(r))
	})
}
