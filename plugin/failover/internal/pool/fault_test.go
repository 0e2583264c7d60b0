package pool

import (
	"fmt"
	"testing"
	"time"
)

// faultCase is one row of the table of faults. Upstream 0 is the bad one, or 0 and 1, of three.
type faultCase struct {
	name   string
	f      behave
	set    func(*sim)
	cold   bool          // the fault is there from the start
	length time.Duration // of the fault, default 15 s

	bad    int           // upstreams that must be ejected (the first so many)
	detect time.Duration // ejected within this at 100 qps and more
	ejects int           // ejections allowed in total, at 20 qps and more

	lost   float64 // share of honest queries that may fail
	slow   bool    // queries may take more than 1 s, and p99.9 is not compared
	common bool    // all upstreams suffer alike: budget and bank are spent as they may be
}

func silentIf(n int) behave {
	return func(w *world, u int, _ bool, a answer) answer {
		if u < n && w.on() {
			a.silent = true
		}
		return a
	}
}

func drops(n int, share float64) behave {
	return func(w *world, u int, _ bool, a answer) answer {
		if u < n && w.on() && w.rng.Float64() < share {
			a.silent = true
		}
		return a
	}
}

func slower(n int, d time.Duration) behave {
	return func(w *world, u int, _ bool, a answer) answer {
		if u < n && w.on() {
			a.after += d
		}
		return a
	}
}

func outcome(share float64, o Outcome) behave {
	return func(w *world, u int, cold bool, a answer) answer {
		if u == 0 && w.on() && !a.silent && w.rng.Float64() < share {
			a.o, a.after = o, 2*ms
		}
		return a
	}
}

func faults() []faultCase {
	return []faultCase{
		{name: "none"},
		{name: "dead at start", f: silentIf(1), cold: true, bad: 1, detect: time.Second, ejects: 1},
		{name: "dies", f: silentIf(1), bad: 1, detect: time.Second, ejects: 1},
		{name: "2 of 3 die", f: silentIf(2), bad: 2, detect: time.Second, ejects: 2},
		{name: "2 of 3 dead at start", f: silentIf(2), cold: true, bad: 2, detect: time.Second, ejects: 2},
		{name: "drops 30%", f: drops(1, .3), ejects: 3},
		{name: "drops 10%", f: drops(1, .1), ejects: 3},
		// Three attempts are lost together once in 37 000 queries.
		{name: "all drop 3%", f: drops(3, .03), lost: 2e-4, slow: true},
		// Cost may keep clients from it for a while, and what nobody asked has lost nothing: 2 s from the start.
		{name: "only cold probe", f: func(w *world, u int, cold bool, a answer) answer {
			if u == 0 && w.on() && !cold {
				a.silent = true
			}
			return a
		}, cold: true, bad: 1, detect: 2 * time.Second, ejects: 1},
		{name: "+150ms", f: slower(1, 150*ms)},
		{name: "+800ms", f: slower(1, 800*ms), ejects: 1},
		{name: "SERVFAIL 100%", f: outcome(1, Bad), bad: 1, detect: time.Second, ejects: 1},
		{name: "SERVFAIL 30%", f: outcome(.3, Bad), ejects: 3},
		{name: "REFUSED at start", f: outcome(1, Bad), cold: true, bad: 1, detect: 2 * time.Second, ejects: 1},
		{name: "port closed", f: outcome(1, Error), bad: 1, detect: time.Second, ejects: 1},
		{name: "flap 3s/3s", f: func(w *world, u int, _ bool, a answer) answer {
			if u == 0 && w.on() && (w.now-w.start)%(6*time.Second) < 3*time.Second {
				a.silent = true
			}
			return a
		}, length: 60 * time.Second, bad: 1, detect: time.Second, ejects: 4},
		{name: "SYN black hole", f: func(w *world, u int, _ bool, a answer) answer {
			if u == 0 && w.on() {
				a = answer{after: time.Second, o: Timeout}
			}
			return a
		}, bad: 1, detect: time.Second, ejects: 1},
		{name: "all +800ms", f: slower(3, 800*ms), length: 60 * time.Second, slow: true, common: true},
		{name: "hung+SERVFAIL names", set: func(s *sim) { s.hung, s.broken = .02, .05 }, common: true},
		{name: "all dead 30s", f: silentIf(3), length: 30 * time.Second, bad: 3, detect: 2500 * ms, ejects: 3, lost: 1, slow: true},
		{name: "names take 1.2s", set: func(s *sim) { s.flat = 1200 * ms }, slow: true, common: true},
		{name: "pod stall 500ms", set: func(s *sim) { s.stallAt, s.stall = 12*time.Second, 500*ms }, slow: true},
	}
}

func (c *faultCase) run(seed uint64, qps int) *sim {
	s := newSim(seed, 3, float64(qps), Config{Budget: DefaultBudget})
	if c.cold {
		s.start = 0
	}
	length := c.length
	if length == 0 {
		length = 15 * time.Second
	}
	if qps < 20 {
		s.start *= 6
		length *= 6
	}
	s.end = s.start + length
	s.length = s.end + 12*time.Second
	s.fault = c.f
	if c.set != nil {
		c.set(s)
	}
	return s.run()
}

// row is one line of the table, for -v.
func row(c faultCase, qps int, s *sim) string {
	st := s.stats(s.start, s.end)
	found, back := "-", "-"
	if d := s.first(Ejected, 0, s.start); d >= 0 {
		found = (d - s.start).Round(ms).String()
	}
	if d := s.first(Restored, 0, s.end); d >= 0 {
		back = (d - s.end).Round(100 * ms).String()
	}
	return fmt.Sprintf("%-20s %4d qps  p50 %4d p99 %4d p99.9 %4d max %4d ms  failed %5.2f%%  load %.3f, worst 10s %.3f  ejected %d after %s, back after %s",
		c.name, qps, st.p50/ms, st.p99/ms, st.p999/ms, st.max/ms, 100*float64(st.failed)/float64(max(st.n, 1)),
		s.amplification(0, s.length), s.worstWindow(s.start, s.end+5*time.Second), s.count(Ejected, -1), found, back)
}

func TestFaults(t *testing.T) {
	rates, seeds := []int{1, 20, 100, 1000}, []uint64{1, 2, 3}
	if testing.Short() {
		rates, seeds = []int{20, 1000}, seeds[:1]
	}
	healthy := map[string]stats{}
	for _, qps := range rates {
		for _, seed := range seeds {
			for _, c := range faults() {
				t.Run(fmt.Sprintf("%s/%dqps/seed%d", c.name, qps, seed), func(t *testing.T) {
					s := c.run(seed, qps)
					key := fmt.Sprint(qps, seed)
					if _, ok := healthy[key]; !ok {
						h := (&faultCase{name: "none"}).run(seed, qps)
						healthy[key] = h.stats(h.start, h.end)
					}
					if seed == 1 {
						t.Log(row(c, qps, s))
					}
					c.verify(t, s, qps, healthy[key])
				})
			}
		}
	}
}

// verify asserts the outcomes of the design for one run.
func (c *faultCase) verify(t *testing.T, s *sim, qps int, h stats) {
	for _, p := range s.problems {
		t.Error(p)
	}
	if s.minTok < 0 {
		t.Errorf("tokens %v", s.minTok)
	}
	st := s.stats(0, s.length)
	if limit := c.lost * float64(st.n); float64(st.failed) > limit+0.5 && (c.lost == 0 || float64(st.failed) > limit+1) {
		t.Errorf("%d of %d queries failed", st.failed, st.n)
	}
	// At one query a second the bank holds a handful of tokens, and a query that loses two attempts may not get a third.
	if st.over > 0 && !c.slow && (qps >= 20 || st.over > 1) {
		t.Errorf("%d queries took more than 1 s", st.over)
	}
	if st.max > DefaultDeadline+stallMax {
		t.Errorf("max %v", st.max)
	}
	// Below 1000 qps a p99.9 is the maximum or next to it, a matter of the draw; the maximum is bounded above.
	if in := s.stats(s.start, s.end); qps >= 1000 && !c.slow && in.p999 > max(2*h.p999, h.p999+50*ms) {
		t.Errorf("p99.9 %v, healthy %v", in.p999, h.p999)
	}
	c.verifyLoad(t, s, qps)

	ejects := s.count(Ejected, -1)
	if ejects > c.ejects && (qps >= 20 || c.ejects == 0) {
		t.Errorf("%d ejections, %d allowed: %v", ejects, c.ejects, s.events)
	}
	for u := range s.n {
		if u >= max(c.bad, 1) && s.count(Ejected, u) > 0 {
			t.Errorf("upstream %d was ejected: %v", u, s.events)
		}
	}
	for u := range c.bad {
		at := s.first(Ejected, u, s.start)
		switch limit := s.start + c.detect; {
		case at < 0 && qps >= 20:
			t.Errorf("upstream %d was not ejected", u)
			continue
		case at > limit && qps >= 100:
			t.Errorf("upstream %d was ejected after %v", u, at-s.start)
		}
		if at >= 0 {
			c.verifyReturn(t, s, u)
		}
	}
	for _, x := range s.pool.Statuses(nil, s.now) {
		if x.Inflight != 0 || !x.Up {
			t.Errorf("at the end: %+v", x)
		}
	}
}

// verifyReturn asserts that u came back, within 10 s of healing and, unless it flaps, not before.
func (c *faultCase) verifyReturn(t *testing.T, s *sim, u int) {
	last := time.Duration(-1)
	for _, e := range s.events {
		if e.Kind == Restored && e.u == u {
			last = e.At
			if e.At < s.end && c.name != "flap 3s/3s" {
				t.Errorf("upstream %d was restored %v before it was well", u, s.end-e.At)
			}
		}
	}
	if last < 0 || last > s.end+10*time.Second {
		t.Errorf("upstream %d was restored at %v, well at %v", u, last, s.end)
	}
}

// verifyLoad asserts the bounds of the extra load.
func (c *faultCase) verifyLoad(t *testing.T, s *sim, qps int) {
	n := float64(len(s.samples))
	// Extra attempts are paid for by construction: a tenth of the queries, the bank at the start and what is free, which
	// are failovers from errors and from silence and no more than one query in fifty in any of these runs.
	if extra := float64(s.attempts) - n; extra > n*.12+budgetReserveStart {
		t.Errorf("%.0f extra attempts for %.0f queries", extra, n)
	}
	switch {
	case qps >= 20:
		// A proof is 20 replays, which at 20 qps are a tenth of ten seconds' queries: 1.25 has room for one of them, and
		// two upstreams that prove themselves at the same time, or one that tries again and again, need more.
		limit := 1.25
		if c.bad > 1 || c.name == "flap 3s/3s" {
			limit += float64(proofReplays) / (10 * float64(qps))
		}
		if w := s.worstWindow(s.start, s.end+5*time.Second); w > limit {
			t.Errorf("load in ten seconds %.3f, limit %.3f", w, limit)
		}
		// The bank at the start is 50 attempts and five proofs' worth of probes are 100: at 20 qps that is more than a
		// tenth of a run of 40 s, so there the mean is not what is promised.
		limit = 1.10
		if c.common {
			limit += budgetReserveStart / n // they spend the bank as well
			limit += .01                    // and have probes
		}
		if a := s.amplification(0, s.length); qps >= 100 && a > limit {
			t.Errorf("load %.3f, limit %.3f", a, limit)
		}
	default:
		// At one query a second probes at their fixed pace are most of the load (3 start probes, about one in 4 s to a
		// dead upstream, 20 for a proof, 5 a second when all are out), so the bound is absolute.
		rate := float64(s.probes) / s.length.Seconds()
		switch limit := .2 + .6*float64(max(c.bad, min(c.ejects, 1))); {
		case c.lost == 1: // all out: 3 x 5 a second
			if rate > 15 {
				t.Errorf("%.2f probes a second", rate)
			}
		case c.name == "flap 3s/3s": // every proof gets some way
			if rate > 2.5 {
				t.Errorf("%.2f probes a second", rate)
			}
		case rate > limit:
			t.Errorf("%.2f probes a second, limit %.2f", rate, limit)
		}
	}
}

// TestFastUpstreams is the comparison of measured.md section 8: 600 qps, 2 ms, one fault.
func TestFastUpstreams(t *testing.T) {
	for _, c := range faults() {
		if c.slow || c.common {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(3) {
				set := c.set
				d := c
				d.set = func(s *sim) {
					s.tiny = true
					if set != nil {
						set(s)
					}
				}
				st := d.run(seed, 600).stats(0, time.Hour)
				if st.failed > 0 || st.p99 > 10*ms || st.max > 100*ms {
					t.Errorf("seed %d: p99 %v max %v failed %d", seed, st.p99, st.max, st.failed)
				}
			}
		})
	}
}

// TestMistakes keeps the five mistakes that simulation caught from coming back; each comment says what was wrong.
func TestMistakes(t *testing.T) {
	run := func(seed uint64, qps float64, length time.Duration, f behave) *sim {
		s := newSim(seed, 3, qps, Config{Budget: DefaultBudget})
		s.end = s.start + length
		s.length, s.fault = s.end+12*time.Second, f
		return s.run()
	}
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("slow is not dead/seed", seed), func(t *testing.T) {
			// A tight limit for probes took an overload for the death of all and failed a fifth of the queries.
			for _, qps := range []float64{5, 50, 500} {
				s := run(seed, qps, 20*time.Second, slower(3, 1400*ms))
				if st := s.stats(0, s.length); st.failed > 0 || len(s.events) > 0 {
					t.Errorf("%v qps: %d failed, events %v", qps, st.failed, s.events)
				}
			}
		})
		t.Run(fmt.Sprint("late is not lost/seed", seed), func(t *testing.T) {
			// Without the 300 ms of Grace a harmless upstream was ejected 32 times.
			if s := run(seed, 300, 30*time.Second, slower(1, 150*ms)); s.count(Ejected, -1) > 0 {
				t.Error(s.events)
			}
		})
		t.Run(fmt.Sprint("free failover needs silence/seed", seed), func(t *testing.T) {
			// Without that condition an overload got 2.1 times the load.
			s := run(seed, 300, 20*time.Second, slower(3, 900*ms))
			if w := s.worstWindow(s.start, s.end); w > 1.25 {
				t.Errorf("%.3f", w)
			}
		})
		t.Run(fmt.Sprint("probes back off/seed", seed), func(t *testing.T) {
			// Probes at a fixed rapid pace made 1.5 times the load at 5 qps.
			s := run(seed, 5, 60*time.Second, silentIf(1))
			if a := s.amplification(s.start+5*time.Second, s.end); a > 1.15 {
				t.Errorf("%.3f", a)
			}
		})
		t.Run(fmt.Sprint("the hedge delay leaves tokens/seed", seed), func(t *testing.T) {
			// With the 95th percentile and unlimited attempts the load sat at the budget in good times.
			s := run(seed, 300, 30*time.Second, nil)
			if a := s.amplification(s.start, s.end); a > 1.05 || s.pool.Tokens() < s.pool.budget.capacity(s.now)/2 {
				t.Errorf("%.3f, %v tokens", a, s.pool.Tokens())
			}
		})
	}
}
