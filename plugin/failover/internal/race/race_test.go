package race

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resolute-dns/resolute/plugin/failover/internal/pool"
	"github.com/resolute-dns/resolute/plugin/failover/internal/wire"

	"github.com/miekg/dns"
)

const rtt = 2 * time.Millisecond

// server is a scripted upstream: answer is called for each query, and may wait.
type server struct {
	addr   string
	answer func(ctx context.Context, q *dns.Msg) (*dns.Msg, error)

	asked     atomic.Int64 // for names of clients
	probed    atomic.Int64 // for the root
	withdrawn atomic.Int64 // queries that were given up
	lastAsked atomic.Int64 // when, in UnixNano
}

func (s *server) exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	if q.Question[0].Name == "." {
		s.probed.Add(1)
	} else {
		s.asked.Add(1)
		s.lastAsked.Store(time.Now().UnixNano())
	}
	m, err := s.answer(ctx, q)
	if ctx.Err() != nil {
		s.withdrawn.Add(1)
	}
	return m, err
}

// wait waits as long as the network and the recursion take.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// after answers with an rcode after d.
func after(d time.Duration, rcode int) func(context.Context, *dns.Msg) (*dns.Msg, error) {
	return func(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
		if err := wait(ctx, d); err != nil {
			return nil, err
		}
		return new(dns.Msg).SetRcode(q, rcode), nil
	}
}

// silent never answers.
func silent(ctx context.Context, _ *dns.Msg) (*dns.Msg, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// onlyProbes answers the root, and is silent for all else.
func onlyProbes(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	if q.Question[0].Name == "." {
		return after(rtt, dns.RcodeSuccess)(ctx, q)
	}
	return silent(ctx, q)
}

// notes is an observer that remembers.
type notes struct {
	mu        sync.Mutex
	attempts  map[string]int // by upstream, kind and result
	events    []pool.Event
	coalesced atomic.Int64
	failed    atomic.Int64
	left      atomic.Int64
}

func (n *notes) Attempt(a Attempt) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.attempts == nil {
		n.attempts = map[string]int{}
	}
	n.attempts[fmt.Sprintf("%s %s %s", a.Upstream.ID, a.Kind, a.Result)]++
}

func (n *notes) Event(e pool.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, e)
}
func (n *notes) Coalesced()          { n.coalesced.Add(1) }
func (n *notes) Failed(pool.Failure) { n.failed.Add(1) }
func (n *notes) Left(*Upstream)      { n.left.Add(1) }

func (n *notes) count(key string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.attempts[key]
}

func cold() []byte {
	b, _ := new(dns.Msg).SetQuestion(".", dns.TypeNS).Pack()
	return b
}

// config keeps the order of the upstreams, so that tests know who is asked.
func config() pool.Config {
	r := rand.New(rand.NewPCG(1, 2))
	return pool.Config{Policy: pool.Sequential, Hedge: pool.HedgeFixed, HedgeDelay: 50 * time.Millisecond, Budget: 100, Rand: r.Uint64}
}

// group makes a group of the servers, lets it get to know them, and closes it
// when the test ends.
func group(t *testing.T, c pool.Config, servers ...*server) (*Group, *notes) {
	t.Helper()
	n := new(notes)
	g := New(Config{Pool: c, Observer: n, ColdProbe: cold()}, upstreams(servers...))
	g.Start()
	time.Sleep(100 * time.Millisecond) // of synthetic time: the probes at the start
	return g, n
}

func upstreams(servers ...*server) (us []*Upstream) {
	for i, s := range servers {
		if s.addr == "" {
			s.addr = fmt.Sprintf("192.0.2.%d:53", i+1)
		}
		us = append(us, &Upstream{ID: s.addr, Wire: wire.NewFunc(s.addr, s.exchange)})
	}
	return us
}

var serial atomic.Int64

func query(name string) *Query {
	if name == "" {
		name = fmt.Sprintf("%d.example.org.", serial.Add(1))
	}
	b, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
	if err != nil {
		panic(err)
	}
	return &Query{Packed: b}
}

// ask asks and returns how long it took.
func ask(g *Group, name string) (*dns.Msg, time.Duration, error) {
	start := time.Now()
	m, err := g.Exchange(context.Background(), query(name))
	return m, time.Since(start), err
}

func TestHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &server{answer: after(rtt, dns.RcodeSuccess)}, &server{answer: after(rtt, dns.RcodeSuccess)}
		g, n := group(t, config(), a, b)
		defer g.Close()
		for range 100 {
			if m, took, err := ask(g, ""); err != nil || m.Rcode != dns.RcodeSuccess || took != rtt {
				t.Fatalf("got %v, %v after %v", m, err, took)
			}
		}
		if a.asked.Load() < 100 || b.asked.Load() > 10 {
			t.Errorf("asked %d and %d times", a.asked.Load(), b.asked.Load())
		}
		if n.count(a.addr+" first win") != 100 {
			t.Errorf("attempts: %v", n.attempts)
		}
	})
}

// TestHedge checks that the second upstream is asked when the delay is over, to
// the nanosecond, and that the first one is listened to for the grace.
func TestHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay = 50 * time.Millisecond
		a, b := &server{answer: onlyProbes}, &server{answer: after(rtt, dns.RcodeSuccess)}
		g, n := group(t, config(), a, b)
		defer g.Close()
		start := time.Now()
		_, took, err := ask(g, "")
		if err != nil || took != delay+rtt {
			t.Errorf("answered after %v, %v, want %v", took, err, delay+rtt)
		}
		if at := time.Unix(0, b.lastAsked.Load()).Sub(start); at != delay {
			t.Errorf("hedged after %v, want %v", at, delay)
		}
		time.Sleep(pool.Grace - time.Millisecond)
		if a.withdrawn.Load() != 0 {
			t.Error("the loser was given up before the grace was over")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if a.withdrawn.Load() == 0 {
			t.Error("the loser is still being listened to")
		}
		if n.count(b.addr+" hedge win") != 1 || n.count(a.addr+" first timeout") != 1 {
			t.Errorf("attempts: %v", n.attempts)
		}
	})
}

// TestLate checks that a loser that is only slow is taken for that.
func TestLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &server{answer: after(100*time.Millisecond, dns.RcodeSuccess)}, &server{answer: after(rtt, dns.RcodeSuccess)}
		c := config()
		g, n := group(t, c, a, b)
		time.Sleep(time.Second)
		defer g.Close()
		ask(g, "")
		time.Sleep(pool.Grace)
		synctest.Wait()
		if n.count(a.addr+" first late") != 1 {
			t.Errorf("attempts: %v", n.attempts)
		}
	})
}

func TestBadRcode(t *testing.T) {
	for _, rcode := range []int{dns.RcodeServerFailure, dns.RcodeRefused, dns.RcodeNotImplemented} {
		t.Run(dns.RcodeToString[rcode], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := &server{answer: after(rtt, rcode)}, &server{answer: after(rtt, dns.RcodeNameError)}
				g, _ := group(t, config(), a, b)
				defer g.Close()
				m, took, err := ask(g, "")
				if err != nil || m.Rcode != dns.RcodeNameError || took != 2*rtt {
					t.Errorf("got %v, %v after %v: want NXDOMAIN of the next upstream at once", m, err, took)
				}
			})
		})
	}
	t.Run("of everybody", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, b := &server{answer: after(rtt, dns.RcodeServerFailure)}, &server{answer: after(rtt, dns.RcodeRefused)}
			g, n := group(t, config(), a, b)
			defer g.Close()
			m, _, err := ask(g, "")
			if err != nil || m.Rcode != dns.RcodeServerFailure {
				t.Errorf("got %v, %v: want the first bad answer", m, err)
			}
			if n.count(a.addr+" first rcode") != 1 || n.count(b.addr+" retry rcode") != 1 {
				t.Errorf("attempts: %v", n.attempts)
			}
		})
	})
}

func TestErrorMovesOnAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := func(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
			if q.Question[0].Name == "." {
				return after(rtt, dns.RcodeSuccess)(ctx, q)
			}
			return nil, errors.New("connection refused")
		}
		a, b := &server{answer: refused}, &server{answer: after(rtt, dns.RcodeSuccess)}
		g, _ := group(t, config(), a, b)
		defer g.Close()
		if _, took, err := ask(g, ""); err != nil || took != rtt {
			t.Errorf("got %v after %v", err, took)
		}
	})
}

func TestGarbageDoesNotWin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wrong := func(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
			other := q.Copy()
			if q.Question[0].Name != "." {
				other.Question[0].Name = "other.example."
			}
			return after(rtt, dns.RcodeSuccess)(ctx, other)
		}
		a, b := &server{answer: wrong}, &server{answer: after(rtt, dns.RcodeSuccess)}
		g, _ := group(t, config(), a, b)
		defer g.Close()
		m, _, err := ask(g, "a.example.org.")
		if err != nil || m.Question[0].Name != "a.example.org." {
			t.Errorf("got %v, %v", m, err)
		}
	})
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config()
		c.Deadline, c.NeverEject = 3*time.Second, true
		a, b := &server{answer: silent}, &server{answer: silent}
		g, n := group(t, c, a, b)
		defer g.Close()
		_, took, err := ask(g, "")
		var failed FailedError
		if !errors.As(err, &failed) || failed.Why != pool.FailDeadline || took != c.Deadline {
			t.Errorf("got %v after %v, want the deadline after %v", err, took, c.Deadline)
		}
		if n.failed.Load() != 1 {
			t.Errorf("%d failures counted", n.failed.Load())
		}
	})
}

// TestAllOut checks that those who wait learn it at once, and those who come
// later do not wait.
func TestAllOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dead atomic.Bool
		answer := func(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
			if dead.Load() {
				return silent(ctx, q)
			}
			return after(rtt, dns.RcodeSuccess)(ctx, q)
		}
		g, n := group(t, config(), &server{answer: answer}, &server{answer: answer})
		defer g.Close()
		for range 20 {
			ask(g, "")
		}
		dead.Store(true)
		var wg sync.WaitGroup
		var ended sync.Map
		for i := range 20 {
			wg.Go(func() {
				_, _, err := ask(g, "")
				if err == nil {
					t.Error("answered by nobody")
				}
				ended.Store(i, time.Now())
			})
			time.Sleep(50 * time.Millisecond)
		}
		wg.Wait()
		if _, took, err := ask(g, ""); err == nil || took != 0 {
			t.Errorf("while all are out: %v after %v, want a failure at once", err, took)
		}
		var out time.Duration
		for _, e := range n.events {
			if e.Kind == pool.AllOut {
				out = e.At
			}
		}
		if out == 0 {
			t.Fatalf("never all out: %v", n.events)
		}
		last := time.Time{}
		ended.Range(func(_, v any) bool {
			if at := v.(time.Time); at.After(last) {
				last = at
			}
			return true
		})
		if late := last.Sub(g.base.Add(out)); late > 100*time.Millisecond {
			t.Errorf("a client waited for %v after all were out", late)
		}

		dead.Store(false)
		time.Sleep(time.Second)
		if _, took, err := ask(g, ""); err != nil || took != rtt {
			t.Errorf("after the outage: %v after %v", err, took)
		}
	})
}

func TestAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &server{answer: after(20*time.Millisecond, dns.RcodeSuccess)}
		c := config()
		c.Hedge = pool.HedgeOff
		g, n := group(t, c, a)
		defer g.Close()
		before := a.asked.Load()
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				name := "same.example.org."
				if i%2 == 1 {
					name = "SAME.Example.org."
				}
				if m, _, err := ask(g, name); err != nil || !strings.EqualFold(m.Question[0].Name, name) {
					t.Errorf("got %v, %v", m, err)
				}
			})
		}
		// These are different messages.
		dnssec := new(dns.Msg).SetQuestion("same.example.org.", dns.TypeA)
		dnssec.SetEdns0(1232, true)
		packed, _ := dnssec.Pack()
		alone := query("same.example.org.")
		alone.Alone = true
		overTCP := query("same.example.org.")
		overTCP.Proto = wire.TCP
		for _, q := range []*Query{{Packed: packed}, alone, overTCP} {
			wg.Go(func() { g.Exchange(context.Background(), q) })
		}
		wg.Wait()
		if got := a.asked.Load() - before; got != 4 {
			t.Errorf("asked %d times, want 4", got)
		}
		if got := n.coalesced.Load(); got != 9 {
			t.Errorf("%d coalesced, want 9", got)
		}
	})
}

// TestLeaderGone checks that a client that goes away takes nobody with it.
func TestLeaderGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &server{answer: after(20*time.Millisecond, dns.RcodeSuccess)}
		g, _ := group(t, config(), a)
		defer g.Close()
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := g.Exchange(ctx, query("same.example.org.")); !errors.Is(err, context.Canceled) {
				t.Errorf("the leader got %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if _, _, err := ask(g, "same.example.org."); err != nil {
				t.Errorf("the follower got %v", err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
	})
}

func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &server{answer: after(30*time.Millisecond, dns.RcodeSuccess)}, &server{addr: "192.0.2.9:53", answer: after(rtt, dns.RcodeSuccess)}
		g, n := group(t, config(), a)
		defer g.Close()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, took, err := ask(g, ""); err != nil || took != 30*time.Millisecond {
				t.Errorf("the query in flight: %v after %v", err, took)
			}
		})
		synctest.Wait()
		g.Set(upstreams(b))
		if _, took, err := ask(g, ""); err != nil || took != rtt {
			t.Errorf("the next query: %v after %v", err, took)
		}
		wg.Wait()
		synctest.Wait()
		if n.left.Load() != 1 {
			t.Errorf("%d upstreams left, want 1", n.left.Load())
		}
	})
}

func TestInherit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead, good := &server{answer: silent}, &server{answer: after(rtt, dns.RcodeSuccess)}
		old, _ := group(t, config(), dead, good)
		for range 100 {
			ask(old, "")
			time.Sleep(10 * time.Millisecond)
		}
		g := New(Config{Pool: config(), Observer: new(notes), ColdProbe: cold()}, upstreams(dead, good))
		g.Inherit(old)
		g.Start()
		defer g.Close()
		old.Close()
		if _, took, err := ask(g, ""); err != nil || took != rtt {
			t.Errorf("right after the reload: %v after %v, want it to know who is dead", err, took)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, n := group(t, config(), &server{answer: silent}, &server{answer: silent})
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if _, _, err := ask(g, ""); err == nil {
					t.Error("answered by nobody")
				}
			})
		}
		synctest.Wait()
		g.Close()
		g.Close()
		wg.Wait()
		if _, took, err := ask(g, ""); !errors.Is(err, ErrClosed) || took != 0 {
			t.Errorf("after Close: %v after %v", err, took)
		}
		if n.left.Load() != 2 {
			t.Errorf("%d upstreams left, want 2", n.left.Load())
		}
	})
}

func TestBadQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := group(t, config(), &server{answer: silent})
		defer g.Close()
		good := query("a.example.org.").Packed
		for name, packed := range map[string][]byte{
			"nothing":          nil,
			"header only":      good[:12],
			"cut in the name":  good[:15],
			"cut in the type":  good[:len(good)-3],
			"two questions":    append([]byte{0, 0, 1, 0, 0, 2}, good[6:]...),
			"compressed name":  append(append([]byte{}, good[:12]...), 0xc0, 12, 0, 1, 0, 1),
			"name without end": append(append([]byte{}, good[:12]...), make([]byte, 400)[0:1]...),
		} {
			if _, err := g.Exchange(context.Background(), &Query{Packed: packed}); !errors.Is(err, wire.ErrBadQuery) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestManyAtOnce lets many queries run into all kinds of endings, and checks that
// each ends once, in time, with the answer to its own question.
func TestManyAtOnce(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				r := rand.New(rand.NewPCG(seed, 7))
				intN := func(n int) int {
					mu.Lock()
					defer mu.Unlock()
					return r.IntN(n)
				}
				answer := func(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
					switch n := intN(100); {
					case n < 10:
						return silent(ctx, q)
					case n < 15:
						return nil, errors.New("refused")
					case n < 20:
						return nil, wire.ErrConnClosed
					case n < 25:
						return after(rtt, dns.RcodeServerFailure)(ctx, q)
					case n < 30:
						return after(time.Duration(intN(500))*time.Millisecond, dns.RcodeSuccess)(ctx, q)
					}
					return after(rtt, dns.RcodeSuccess)(ctx, q)
				}
				c := config()
				c.Policy = pool.Random
				c.Rand = func() uint64 { mu.Lock(); defer mu.Unlock(); return r.Uint64() }
				g, _ := group(t, c, &server{answer: answer}, &server{answer: answer}, &server{answer: answer})
				var wg sync.WaitGroup
				var answered atomic.Int64
				for range 50 {
					wg.Go(func() {
						for range 40 {
							name := fmt.Sprintf("%d.example.org.", intN(200))
							ctx, cancel := context.Background(), context.CancelFunc(func() {})
							if intN(10) == 0 {
								ctx, cancel = context.WithTimeout(ctx, time.Duration(intN(100))*time.Millisecond)
							}
							start := time.Now()
							m, err := g.Exchange(ctx, query(name))
							cancel()
							if took := time.Since(start); took > pool.DefaultDeadline {
								t.Errorf("%s took %v", name, took)
							}
							if err == nil {
								answered.Add(1)
								if m.Question[0].Name != name {
									t.Errorf("asked for %s, got %s", name, m.Question[0].Name)
								}
							}
							time.Sleep(time.Duration(intN(50)) * time.Millisecond)
						}
					})
				}
				wg.Wait()
				if answered.Load() < 1500 {
					t.Errorf("only %d of 2000 answered", answered.Load())
				}
				g.Upstreams(func(u *Upstream) {
					if s := u.Wire.Stats(); s.Undelivered > 0 {
						t.Errorf("%s: %d deliveries were lost", u.ID, s.Undelivered)
					}
				})
				g.Close()
			})
		})
	}
}
