package trail

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/cache"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"
)

func init() { clog.Discard() }

// chain builds front, the real cache plugin as configured, back, and last.
func chain(t *testing.T, config string, last plugin.Handler) plugin.Handler {
	t.Helper()
	setup, err := caddy.DirectiveAction("dns", "cache")
	if err != nil {
		t.Fatal(err)
	}
	c := caddy.NewTestController("dns", config)
	c.ServerBlockKeys = []string{"."}
	if err := setup(c); err != nil {
		t.Fatal(err)
	}
	var h plugin.Handler = &back{next: last}
	for _, p := range dnsserver.GetConfig(c).Plugin {
		h = p(h)
	}
	return &front{next: h}
}

// upstream is the plugin behind cache. Every answer of it is different, and it
// remembers for which query it gave which.
type upstream struct {
	delay  func() time.Duration
	answer func(m *dns.Msg, serial uint32) error // an error: no answer is written

	mu    sync.Mutex
	asked map[uint32]uint16 // serial of the answer -> ID of the query
	calls int
}

func (u *upstream) Name() string { return "upstream" }

func (u *upstream) ServeDNS(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	time.Sleep(u.delay())
	u.mu.Lock()
	u.calls++
	serial := uint32(u.calls)
	u.asked[serial] = r.Id
	u.mu.Unlock()

	m := new(dns.Msg).SetReply(r)
	if err := u.answer(m, serial); err != nil {
		return dns.RcodeServerFailure, err
	}
	return dns.RcodeSuccess, w.WriteMsg(m)
}

// positive answers with an A record that is the serial.
func positive(ttl uint32) func(*dns.Msg, uint32) error {
	return func(m *dns.Msg, serial uint32) error {
		m.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl},
			A:   net.IPv4(byte(serial>>24), byte(serial>>16), byte(serial>>8), byte(serial)),
		}}
		return nil
	}
}

// negative answers NXDOMAIN with a SOA that has the serial.
func negative(ttl uint32) func(*dns.Msg, uint32) error {
	return func(m *dns.Msg, serial uint32) error {
		soa := test.SOA(fmt.Sprintf("example.org. %d IN SOA ns.example.org. admin.example.org. %d 2 3 4 %d", ttl, serial, ttl))
		m.Rcode, m.Ns = dns.RcodeNameError, []dns.RR{soa}
		return nil
	}
}

func serialOf(m *dns.Msg) uint32 {
	for _, rr := range append(m.Answer, m.Ns...) {
		switch rr := rr.(type) {
		case *dns.A:
			ip := rr.A.To4()
			return uint32(ip[0])<<24 | uint32(ip[1])<<16 | uint32(ip[2])<<8 | uint32(ip[3])
		case *dns.SOA:
			return rr.Serial
		}
	}
	return 0
}

// TestCachedIsExact lets many clients ask for few names often and for many
// seldom, under every way that cache has to answer, and checks for each answer what the record says against
// the truth: an answer is from memory unless the plugin behind gave it to this
// very query. Time is synthetic, and delays are multiples of the time that cache
// waits for a verification, so that answer and time-out often coincide.
func TestCachedIsExact(t *testing.T) {
	const step = 50 * time.Millisecond
	sometimes := func(fail float64, rng *lockedRand, answer func(*dns.Msg, uint32) error) func(*dns.Msg, uint32) error {
		return func(m *dns.Msg, serial uint32) error {
			switch f := rng.float(); {
			case f < fail/2:
				return fmt.Errorf("no answer")
			case f < fail:
				m.Rcode = dns.RcodeServerFailure
				return nil
			}
			return answer(m, serial)
		}
	}
	for _, tc := range []struct {
		name, config string
		fail         float64
		answer       func(*dns.Msg, uint32) error
	}{
		{"plain", "cache 30", 0, positive(2)},
		{"prefetch", "cache 30 {\nsuccess 9984 30 0\nprefetch 1 1m 90%\n}", 0, positive(2)},
		{"serve_stale", "cache 30 {\nsuccess 9984 30 0\nserve_stale 1h\n}", .3, positive(2)},
		{"serve_stale and prefetch", "cache 30 {\nsuccess 9984 30 0\nserve_stale 1h\nprefetch 1 1m 90%\n}", .3, positive(2)},
		{"verify", "cache 30 {\nsuccess 9984 30 0\nserve_stale 1h verify\n}", .3, positive(2)},
		{"verify with a time limit", "cache 30 {\nsuccess 9984 30 0\nserve_stale 1h verify 100ms\n}", .3, positive(2)},
		{"negative", "cache 30 {\ndenial 9984 30 0\nserve_stale 1h verify 100ms\nprefetch 1 1m 90%\n}", .3, negative(2)},
		{"servfail kept", "cache 30 {\nservfail 5s\n}", .5, positive(2)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := &lockedRand{r: rand.New(rand.NewPCG(1, 2))}
				u := &upstream{
					delay: func() time.Duration { return time.Duration(rng.intN(5)) * step },
					asked: map[uint32]uint16{},
				}
				u.answer = sometimes(tc.fail, rng, tc.answer)
				h := chain(t, tc.config, u)

				var hits, misses int
				var mu sync.Mutex
				var wg sync.WaitGroup
				const workers, queries = 20, 150
				for worker := range workers {
					wg.Go(func() {
						for i := range queries {
							name := rng.intN(4)
							if rng.intN(5) == 0 {
								name = rng.intN(1000) // hardly ever asked twice
							}
							q := new(dns.Msg).SetQuestion(fmt.Sprintf("%d.example.org.", name), dns.TypeA)
							q.Id = uint16(worker*queries + i)
							r := Start(context.Background())
							w := dnstest.NewRecorder(&test.ResponseWriter{})
							h.ServeDNS(r, w, q)
							if w.Msg != nil && serialOf(w.Msg) > 0 {
								serial := serialOf(w.Msg)
								u.mu.Lock()
								fresh := u.asked[serial] == q.Id
								u.mu.Unlock()
								if r.Cached() == fresh {
									t.Errorf("query %d: cached is %v, but answer %d was given to query %d", q.Id, r.Cached(), serial, u.asked[serial])
								}
								mu.Lock()
								if fresh {
									misses++
								} else {
									hits++
								}
								mu.Unlock()
							}
							time.Sleep(time.Duration(rng.intN(10)) * step)
						}
					})
				}
				wg.Wait()
				if hits < 100 || misses < 20 {
					t.Errorf("%d hits and %d misses: too few to tell", hits, misses)
				}
				// Let what goes on in the background end.
				time.Sleep(time.Minute)
				synctest.Wait()
				if background := u.calls - misses; strings.Contains(tc.name, "prefetch") && background == 0 {
					t.Error("nothing was prefetched")
				}
				t.Logf("%d hits, %d misses, %d calls", hits, misses, u.calls)
			})
		})
	}
}

// behindObserver notes the contexts that it is told of.
type behindObserver struct{ seen []context.Context }

func (o *behindObserver) Behind(ctx context.Context) { o.seen = append(o.seen, ctx) }

// TestObserver checks that an observer is told of each call for a client, and of
// none in the background.
func TestObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{delay: func() time.Duration { return time.Millisecond }, asked: map[uint32]uint16{}, answer: positive(2)}
		h := chain(t, "cache 30 {\nsuccess 9984 30 0\nserve_stale 1h\n}", u)
		o := &behindObserver{}
		ask := func() {
			r := Start(context.WithValue(context.Background(), ObserverKey{}, Observer(o)))
			h.ServeDNS(r, dnstest.NewRecorder(&test.ResponseWriter{}), new(dns.Msg).SetQuestion("a.example.org.", dns.TypeA))
			for _, ctx := range o.seen {
				if From(ctx) != r {
					t.Error("told of another query's call")
				}
			}
		}
		ask()
		if len(o.seen) != 1 {
			t.Errorf("told of %d calls for a miss, want 1", len(o.seen))
		}
		o.seen = nil
		ask()
		time.Sleep(time.Minute)
		ask() // stale, and refreshed in the background
		synctest.Wait()
		time.Sleep(time.Second)
		u.mu.Lock()
		defer u.mu.Unlock()
		if len(o.seen) != 0 || u.calls != 2 {
			t.Errorf("told of %d calls for hits, want none; upstream was asked %d times, want 2", len(o.seen), u.calls)
		}
	})
}

// TestSharedRecords checks that a plugin behind which gives out the same records
// again and again, as zones in memory do, is neither mistaken for cache nor has
// its records changed.
func TestSharedRecords(t *testing.T) {
	rr := test.A("a.example.org. 30 IN A 192.0.2.1")
	last := plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		m := new(dns.Msg).SetReply(r)
		m.Answer = []dns.RR{rr}
		return 0, w.WriteMsg(m)
	})
	h := chain(t, "cache 30 {\nsuccess 2 30 0\n}", last)
	before := rr.Header()
	name := before.Name
	for i, want := range []bool{false, true, true} {
		r := Start(context.Background())
		h.ServeDNS(r, dnstest.NewRecorder(&test.ResponseWriter{}), new(dns.Msg).SetQuestion("a.example.org.", dns.TypeA))
		if r.Cached() != want {
			t.Errorf("query %d: cached is %v, want %v", i, r.Cached(), want)
		}
	}
	if rr.Header() != before || rr.Header().Name != name {
		t.Error("the record was changed")
	}
}

// TestWithoutRecords covers answers that can't carry a mark.
func TestWithoutRecords(t *testing.T) {
	rcode := dns.RcodeSuccess
	last := plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		m := new(dns.Msg).SetRcode(r, rcode)
		m.SetEdns0(1232, false) // OPT is no record that cache would keep
		return 0, w.WriteMsg(m)
	})
	synctest.Test(t, func(t *testing.T) {
		h := chain(t, "cache 30 {\nsuccess 9984 30 0\nservfail 0\nserve_stale 1h verify\n}", last)
		for i, step := range []struct {
			rcode  int
			wait   time.Duration
			cached bool
		}{
			{rcode: dns.RcodeSuccess, cached: false},
			{rcode: dns.RcodeSuccess, cached: true},
			{rcode: dns.RcodeServerFailure, wait: time.Hour / 2, cached: true}, // stale, as the new answer is refused
			{rcode: dns.RcodeSuccess, cached: false},                           // the new answer is taken
			{rcode: dns.RcodeSuccess, cached: true},
		} {
			time.Sleep(step.wait)
			rcode = step.rcode
			r := Start(context.Background())
			w := dnstest.NewRecorder(&test.ResponseWriter{})
			h.ServeDNS(r, w, new(dns.Msg).SetQuestion("a.example.org.", dns.TypeA))
			if r.Cached() != step.cached {
				t.Errorf("step %d: cached is %v, want %v", i, r.Cached(), step.cached)
			}
		}
	})
}

// TestOutsideOfCache checks the cases in which cache has no part.
func TestOutsideOfCache(t *testing.T) {
	write := plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		return 0, w.WriteMsg(new(dns.Msg).SetReply(r))
	})
	raw := plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		w.Write([]byte("raw"))
		return 0, nil
	})
	query := func(name string) *dns.Msg { return new(dns.Msg).SetQuestion(name, dns.TypeA) }
	update := new(dns.Msg).SetUpdate("example.org.")

	for name, tc := range map[string]struct {
		handler plugin.Handler
		q       *dns.Msg
	}{
		"a plugin before cache answers": {write, query("a.example.org.")},
		"raw bytes":                     {chain(t, "cache 30", raw), query("a.example.org.")},
		"a name cache leaves out":       {chain(t, "cache 30 example.net", write), query("a.example.org.")},
		"not a query":                   {chain(t, "cache 30", write), update},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				r := Start(context.Background())
				tc.handler.ServeDNS(r, dnstest.NewRecorder(&test.ResponseWriter{}), tc.q.Copy())
				if r.Cached() {
					t.Error("taken for an answer of cache")
				}
			}
		})
	}
	t.Run("without a record", func(t *testing.T) {
		w := dnstest.NewRecorder(&test.ResponseWriter{})
		chain(t, "cache 30", write).ServeDNS(context.Background(), w, query("a.example.org."))
		if w.Msg == nil {
			t.Error("no answer")
		}
	})
}

type lockedRand struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (l *lockedRand) intN(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.IntN(n)
}

func (l *lockedRand) float() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Float64()
}
