package latency

import (
	"context"
	"maps"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// retriesOf returns the counted retries of the server, without the zeros.
func retriesOf(t *testing.T, server string) map[string]float64 {
	t.Helper()
	got := series(t, "coredns_latency_client_retries_total", prometheus.Labels{"server": server})
	maps.DeleteFunc(got, func(_ string, n float64) bool { return n == 0 })
	return got
}

// exchange is a query that a client sends at a time, after the one before.
type exchange struct {
	after time.Duration
	from  string // the client; network and address
	id    uint16
	qtype uint16
}

// TestRetries plays what clients do that lost a packet, and checks that it is
// counted, at the server it was sent to and with the time that the client waited.
// What is recognised is the business of package retry, and tested there.
func TestRetries(t *testing.T) {
	const glibc = "udp 192.0.2.1:40000"
	tests := map[string]struct {
		conf func(*Config)
		play []exchange
		want map[string]float64
		wait float64 // in seconds, sum of all
	}{
		// It sends both again after 5 s, from the same port and with the same IDs.
		"glibc, AAAA lost": {nil, []exchange{
			{0, glibc, 100, dns.TypeA},
			{5 * time.Second, glibc, 100, dns.TypeA},
			{0, glibc, 101, dns.TypeAAAA},
		}, map[string]float64{"lost_request certain": 1}, 5},
		"no retry": {nil, []exchange{
			{0, glibc, 100, dns.TypeA}, {0, glibc, 101, dns.TypeAAAA},
			{5 * time.Second, "udp 192.0.2.1:40001", 102, dns.TypeA}, {0, "udp 192.0.2.1:40001", 103, dns.TypeAAAA},
		}, map[string]float64{}, 0},
		"by TCP": {nil, []exchange{
			{0, "tcp 192.0.2.1:40000", 100, dns.TypeA},
			{5 * time.Second, "tcp 192.0.2.1:40000", 100, dns.TypeA},
			{0, "tcp 192.0.2.1:40000", 101, dns.TypeAAAA},
		}, map[string]float64{}, 0},
		"off": {func(c *Config) { c.Retries = 0 }, []exchange{
			{0, glibc, 100, dns.TypeA},
			{5 * time.Second, glibc, 100, dns.TypeA},
			{0, glibc, 101, dns.TypeAAAA},
		}, map[string]float64{}, 0},
	}
	const addr = "dns://192.0.2.53:53"
	defer func(c func() time.Duration) { live.clock = c }(live.clock)
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			clock := &testClock{now: monotonic()}
			live.clock = clock.read
			conf := testConfig()
			if tc.conf != nil {
				tc.conf(&conf)
			}
			l := New(conf)
			l.clock, l.Next = clock.read, stepping(clock, 0)
			l.start([]string{addr, "dns://192.0.2.54:53"})
			defer l.stop()
			for _, e := range tc.play {
				clock.now += e.after
				q := new(dns.Msg).SetQuestion("www.example.org.", e.qtype)
				q.Id = e.id
				l.ServeDNS(serverCtx(addr), clientFrom(t, e.from), q)
			}
			clock.now += time.Minute // what is held back is due
			if got := retriesOf(t, addr); !maps.Equal(got, tc.want) {
				t.Errorf("counted %v, want %v", got, tc.want)
			}
			if got := retriesOf(t, "dns://192.0.2.54:53"); len(got) > 0 {
				t.Errorf("another server: %v", got)
			}
			if count, sum := waits(t, addr); sum < .9*tc.wait || sum > 1.1*tc.wait || (count > 0) != (tc.wait > 0) {
				t.Errorf("waited %v s (%d times), want %v", sum, count, tc.wait)
			}
		})
	}
}

func clientFrom(t *testing.T, from string) *client {
	t.Helper()
	if len(from) < 4 || from[:4] != "tcp " {
		return udpClient(from[4:])
	}
	a, err := net.ResolveTCPAddr("tcp", from[4:])
	if err != nil {
		t.Fatal(err)
	}
	return &client{addr: a}
}

// waits returns how often and how long clients of the server have waited.
func waits(t *testing.T, server string) (count uint64, sum float64) {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "coredns_latency_client_wait_seconds" && m.GetLabel()[0].GetValue() == server {
				return m.GetHistogram().GetSampleCount(), m.GetHistogram().GetSampleSum()
			}
		}
	}
	return 0, 0
}

// TestNoAnswer: a query that is dropped was not answered, one that the server
// answers for its plugins was.
func TestNoAnswer(t *testing.T) {
	const addr = "dns://192.0.2.53:53"
	defer func(c func() time.Duration) { live.clock = c }(live.clock)
	for rcode, want := range map[int]string{dns.RcodeSuccess: "slow_upstream certain", dns.RcodeServerFailure: "unknown certain"} {
		clock := &testClock{now: monotonic()}
		live.clock = clock.read
		l := New(testConfig())
		l.clock = clock.read
		l.Next = plugin.HandlerFunc(func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) { return rcode, nil })
		l.start([]string{addr})
		q := new(dns.Msg).SetQuestion("www.example.org.", dns.TypeMX)
		for range 2 {
			l.ServeDNS(serverCtx(addr), udpClient("192.0.2.1:40000"), q)
			clock.now += 5 * time.Second
		}
		if got := retriesOf(t, addr); !maps.Equal(got, map[string]float64{want: 1}) {
			t.Errorf("rcode %d: counted %v, want %s", rcode, got, want)
		}
		l.stop()
	}
}

// TestFlood asks for a million names from as many ports. Memory stays what it
// was, what is forgotten is counted, and the other numbers are right.
func TestFlood(t *testing.T) {
	const addr, queries, goroutines = "dns://192.0.2.53:53", 1_000_000, 4
	n := queries
	if raceEnabled {
		n = queries / 20
	}
	l := started(t, testConfig(), addr, noop(new(dns.Msg)))
	flood := func(n, from int) {
		var wg sync.WaitGroup
		for g := range goroutines {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(g), uint64(from)))
				ctx, r := serverCtx(addr), new(dns.Msg).SetQuestion(".", dns.TypeA)
				for i := range n / goroutines {
					r.Question[0].Name = "n" + strconv.Itoa(from+i*goroutines+g) + ".example.org."
					r.Id = uint16(rng.Uint32())
					c := &client{addr: &net.UDPAddr{IP: net.IPv4(10, byte(rng.Uint32()), byte(rng.Uint32()), 1), Port: 1024 + rng.IntN(64000)}}
					l.ServeDNS(ctx, c, r)
				}
			})
		}
		wg.Wait()
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC() // and what the pools of the first round hold
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	flood(n/10, 0)
	before := heap()
	evicted := series(t, evictedName, nil)[""]
	flood(n, n/10)
	after := heap()
	if after > before+256<<10 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
	if got := series(t, evictedName, nil)[""] - evicted; got < float64(n)*.9 {
		t.Errorf("%v lookups were evicted, want nearly all of %d", got, n)
	}
	total := float64(n/10 + n)
	if got := sources(t, addr); !maps.Equal(got, map[string]float64{"local": total}) {
		t.Errorf("counted %v, want %v", got, total)
	}
	if got := series(t, "coredns_latency_quantile_seconds", prometheus.Labels{"server": addr})["."]; got != total {
		t.Errorf("the window has counted %v, want %v", got, total)
	}
	for k, n := range retriesOf(t, addr) {
		t.Errorf("%v retries (%s) among different names", n, k)
	}
	t.Logf("heap %d -> %d bytes", before, after)
}
