package pool

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// randomFault draws a script: for every upstream, stretches of time with one of the faults, or none.
func randomFault(rng *rand.Rand, n int, length time.Duration) behave {
	type stretch struct {
		until time.Duration
		kind  int
		by    float64
	}
	script := make([][]stretch, n)
	for u := range script {
		for at := time.Duration(0); at < length; {
			at += time.Duration(rng.ExpFloat64() * float64(6*time.Second))
			kind := 0
			if rng.IntN(2) == 0 {
				kind = rng.IntN(9)
			}
			script[u] = append(script[u], stretch{at, kind, rng.Float64()})
		}
	}
	return func(w *world, u int, cold bool, a answer) answer {
		if w.now >= length {
			return a
		}
		for _, s := range script[u] {
			if w.now >= s.until {
				continue
			}
			switch s.kind {
			case 1:
				a.silent = true
			case 2:
				a.silent = a.silent || w.rng.Float64() < s.by
			case 3:
				a.after += time.Duration(s.by * float64(2*time.Second))
			case 4:
				if w.rng.Float64() < s.by*2 {
					a.o = Bad
				}
			case 5:
				a = answer{after: ms, o: Error}
			case 6:
				a = answer{after: time.Second, o: Timeout}
			case 7:
				a.silent = a.silent || !cold
			case 8:
				a.o = []Outcome{Malformed, Replaced, Cancelled}[w.rng.IntN(3)]
			}
			break
		}
		return a
	}
}

// TestRandomFaults asserts what must hold whatever happens.
func TestRandomFaults(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 10
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 99))
			n := 1 + rng.IntN(6)
			cfg := Config{
				Budget: []int{0, 10, 10, 100}[rng.IntN(4)], Policy: Policy(rng.IntN(3)), Hedge: HedgeMode(rng.IntN(3)),
				HedgeDelay: 20 * ms, NeverEject: rng.IntN(8) == 0,
			}
			s := newSim(seed, n, []float64{2, 30, 300}[rng.IntN(3)], cfg)
			s.length, s.start, s.end = 30*time.Second, 0, 30*time.Second
			s.fault = randomFault(rng, n, s.length)
			s.hung, s.broken = rng.Float64()*.1, rng.Float64()*.1
			if rng.IntN(3) == 0 {
				s.stallAt, s.stall = 12*time.Second, 700*ms
			}
			s.onEvent = func(s *sim, e Event) {
				if e.Kind == Ejected && e.Up == 0 && e.Reason != ReasonSilence {
					s.problem("the last one was ejected by comparison: " + e.String())
				}
				if cfg.NeverEject && e.Kind != NeverAnswered {
					s.problem("event in spite of NeverEject: " + e.String())
				}
			}
			s.run()
			for _, p := range s.problems {
				t.Error(p)
			}
			for _, x := range s.samples {
				if x.attempts > MaxAttempts || x.took > DefaultDeadline+s.stall {
					t.Errorf("%d attempts, %v", x.attempts, x.took)
				}
			}
			// Hedges are paid for, but those of the free failover rule.
			if limit := float64(len(s.samples))*float64(cfg.Budget)/100 + budgetReserveStart + float64(s.free); float64(s.hedges) > limit+1 {
				t.Errorf("%d hedges (%d of them free) for %d queries at %d%%", s.hedges, s.free, len(s.samples), cfg.Budget)
			}
			if s.minTok < 0 {
				t.Errorf("tokens %v", s.minTok)
			}
			for _, st := range s.pool.Statuses(nil, s.now) {
				if st.Inflight != 0 {
					t.Errorf("in flight at the end: %+v", st)
				}
			}
			// All is well by now: everyone must be back.
			if s.pool.IsAllOut() {
				t.Error("still all out")
			}
		})
	}
}

// TestAnyCalls makes calls in no order, with times that jump and arguments that mean nothing.
func TestAnyCalls(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 5))
			ids := []string{"a", "b", "c", "d", "", "a"}
			p := New(Config{
				Budget: rng.IntN(300) - 100, Policy: Policy(rng.IntN(5)), Hedge: HedgeMode(rng.IntN(5)),
				HedgeDelay: time.Duration(rng.Int64()), Deadline: time.Duration(rng.Int64()) - 1<<62,
			}, ids[:rng.IntN(len(ids))], -time.Second)
			var qs [8]Query
			var attempts []Attempt
			var probes []Probe
			now := time.Duration(0)
			for range 3000 {
				now += time.Duration(rng.Int64N(int64(60*ms))) - 5*ms
				if rng.IntN(400) == 0 {
					now += time.Duration(rng.Int64N(int64(time.Hour)))
				}
				q := &qs[rng.IntN(len(qs))]
				var s Step
				switch rng.IntN(9) {
				case 0, 1:
					s = p.Begin(q, rng.Uint64N(4), now)
				case 2:
					s = p.Timer(q, now)
				case 3, 4:
					a := Attempt{ID: rng.Uint64N(64), Upstream: Ref{uint16(rng.IntN(9)), uint16(rng.IntN(3))}}
					if len(attempts) > 0 && rng.IntN(8) > 0 {
						a = attempts[rng.IntN(len(attempts))]
					}
					s = p.Result(q, a, Outcome(rng.IntN(9)), now)
				case 5:
					p.Abandon(q, now)
				case 6:
					probes = p.Tick(now, probes)
				case 7:
					if len(probes) > 0 {
						o := probes[rng.IntN(len(probes))]
						p.ProbeResult(o.Upstream, o.ID-uint32(rng.IntN(2)), Outcome(rng.IntN(9)), now)
					}
				case 8:
					if rng.IntN(20) == 0 {
						rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
						p.Set(ids[:rng.IntN(len(ids)+1)], now)
					}
				}
				attempts = append(attempts, s.Ask[:s.Asks]...)
				if s.Timer != 0 && (s.Done || s.Timer <= p.now) {
					t.Fatalf("timer at %v: %+v", p.now, s)
				}
				if p.Tokens() < 0 {
					t.Fatal("tokens", p.Tokens())
				}
				for _, st := range p.Statuses(nil, now) {
					if st.Inflight < 0 || st.Level < 0 || st.Lost > st.Outcomes || st.Lost < 0 {
						t.Fatalf("%+v", st)
					}
				}
				if rng.IntN(10) == 0 {
					p.Events(nil)
				}
			}
			p.Result(nil, Attempt{}, Good, now)
			p.Inherit(nil, now)
			p.Inherit(New(Config{}, ids, now), now)
		})
	}
}

// TestTimesAtTheEnds passes times no clock gives.
func TestTimesAtTheEnds(t *testing.T) {
	p := New(Config{Budget: 10}, []string{"a", "b"}, 1<<63-1)
	var q Query
	for _, now := range []time.Duration{-1 << 63, 0, 1<<63 - 1, 5} {
		s := p.Begin(&q, 1, now)
		p.Tick(now, nil)
		p.Timer(&q, now)
		if s.Asks > 0 {
			p.Result(&q, s.Ask[0], Good, now)
		}
	}
}
