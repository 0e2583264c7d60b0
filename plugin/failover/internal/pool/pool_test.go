package pool

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// rig drives one pool by hand.
type rig struct {
	*Pool
	t   *testing.T
	now time.Duration
}

func newRig(t *testing.T, cfg Config, ids ...string) *rig {
	t.Helper()
	r := &rig{Pool: New(cfg, ids, 0), t: t}
	return r
}

// known answers the start probes of all upstreams but those named.
func (r *rig) known(but ...string) *rig {
	for _, o := range r.Tick(r.now, nil) {
		dead := false
		for _, id := range but {
			dead = dead || o.Upstream == r.Lookup(id)
		}
		if !dead {
			r.ProbeResult(o.Upstream, o.ID, Good, r.now)
		}
	}
	return r
}

// sleep passes time with ticks whose probes answer decides about; nil answers none.
func (r *rig) sleep(d time.Duration, answer func(Probe) (Outcome, bool)) {
	end := r.now + d
	for r.now < end {
		r.now = min(end, r.now+tickEvery)
		for _, o := range r.Tick(r.now, nil) {
			if answer != nil {
				if out, ok := answer(o); ok {
					r.ProbeResult(o.Upstream, o.ID, out, r.now)
				}
			}
		}
	}
}

func (r *rig) kinds() string {
	var names []string
	for _, e := range r.Events(nil) {
		names = append(names, fmt.Sprintf("%d%s%s", e.Kind, e.ID, e.Reason))
	}
	return strings.Join(names, " ")
}

func allGood(Probe) (Outcome, bool) { return Good, true }

func TestHedgeTimerAndWatch(t *testing.T) {
	r := newRig(t, Config{Budget: 10, Policy: Sequential}, "a", "b", "c").known()
	r.now = ms
	var q Query
	s := r.Begin(&q, 1, r.now)
	if s.Asks != 1 || s.Ask[0].Upstream != r.Lookup("a") || s.Timer != r.now+hedgeUnknown {
		t.Fatalf("begin: %+v", s)
	}
	first := s.Ask[0]
	if early := r.Timer(&q, r.now+ms); early.Asks != 0 || early.Done || early.Timer != s.Timer {
		t.Fatalf("early timer: %+v", early)
	}
	s = r.Timer(&q, s.Timer)
	if s.Asks != 1 || s.Ask[0].Upstream != r.Lookup("b") || s.Ask[0].Kind != Hedge {
		t.Fatalf("hedge: %+v", s)
	}
	second := s.Ask[0]
	s = r.Result(&q, second, Good, 60*ms)
	if !s.Done || s.Deliver != second.Index() || s.Watch != 1<<first.Index() || s.Cancel != 0 || s.Timer != 0 {
		t.Fatalf("win: %+v", s)
	}
	// Good within Grace is an outcome and no loss; the query may be in use again by then.
	r.Begin(&q, 2, 70*ms)
	if s = r.Result(&q, first, Good, 200*ms); s.Done || s.Asks > 0 || s.Timer != 0 {
		t.Fatalf("late result of an old query made a step: %+v", s)
	}
	for _, st := range r.Statuses(nil, 200*ms) {
		if st.ID == "a" && (st.Lost != 0 || st.Outcomes != 1) {
			t.Fatalf("late answer: %+v", st)
		}
	}
}

func TestSilentLoserIsLostAfterGrace(t *testing.T) {
	for _, tc := range []struct {
		name  string
		after time.Duration // of a, after b's answer; 0: never
		lost  int
	}{{"in time", Grace - ms, 0}, {"too late", Grace + ms, 1}, {"never", 0, 1}} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t, Config{Budget: 10, Policy: Sequential}, "a", "b").known()
			var q Query
			a := r.Begin(&q, 1, 0).Ask[0]
			b := r.Timer(&q, 50*ms).Ask[0]
			r.Result(&q, b, Good, 60*ms)
			r.sleep(60*ms, nil)
			if tc.after > 0 {
				r.sleep(tc.after, nil)
				r.Result(&q, a, Good, 60*ms+tc.after)
			}
			r.sleep(Grace+100*ms, nil)
			if st := r.Statuses(nil, r.now)[0]; st.Lost != tc.lost || st.Inflight != 0 {
				t.Fatalf("%+v", st)
			}
		})
	}
}

func TestBadRcode(t *testing.T) {
	t.Run("moves on and blames", func(t *testing.T) {
		r := newRig(t, Config{Budget: 10, Policy: Sequential}, "a", "b").known()
		var q Query
		a := r.Begin(&q, 1, 0).Ask[0]
		s := r.Result(&q, a, Bad, 2*ms)
		if s.Done || s.Asks != 1 || s.Ask[0].Kind != Retry {
			t.Fatalf("%+v", s)
		}
		if s = r.Result(&q, s.Ask[0], Good, 4*ms); !s.Done || s.Deliver != 1 || s.Soft {
			t.Fatalf("%+v", s)
		}
		if st := r.Statuses(nil, r.now)[0]; st.Lost != 1 {
			t.Fatalf("not blamed: %+v", st)
		}
	})
	t.Run("given when all say so, blames nobody", func(t *testing.T) {
		r := newRig(t, Config{Budget: 10, Policy: Sequential}, "a", "b").known()
		var q Query
		s := r.Begin(&q, 1, 0)
		s = r.Result(&q, s.Ask[0], Bad, 2*ms)
		s = r.Result(&q, s.Ask[0], Bad, 4*ms)
		if !s.Done || !s.Soft || s.Deliver != 0 || s.Fail != "" {
			t.Fatalf("%+v", s)
		}
		for _, st := range r.Statuses(nil, r.now) {
			if st.Lost != 0 {
				t.Fatalf("blamed: %+v", st)
			}
		}
	})
	t.Run("given at once without a token", func(t *testing.T) {
		r := newRig(t, Config{Budget: 0}, "a", "b").known()
		var q Query
		s := r.Begin(&q, 1, 0)
		if s = r.Result(&q, s.Ask[0], Bad, 2*ms); !s.Done || !s.Soft {
			t.Fatalf("%+v", s)
		}
	})
	t.Run("given at half the deadline while another is silent", func(t *testing.T) {
		r := newRig(t, Config{Budget: 10}, "a", "b").known()
		var q Query
		s := r.Begin(&q, 1, 0)
		s = r.Result(&q, s.Ask[0], Bad, 2*ms)
		at := time.Duration(0)
		for !s.Done {
			at = s.Timer
			s = r.Timer(&q, at)
		}
		if !s.Soft || at != 2*time.Second {
			t.Fatalf("at %v: %+v", at, s)
		}
	})
}

func TestErrorsMoveOnWithoutTokens(t *testing.T) {
	r := newRig(t, Config{Budget: 0, Policy: Sequential}, "a", "b", "c", "d").known()
	var q Query
	s := r.Begin(&q, 1, 0)
	for i, o := range []Outcome{Error, Replaced, Malformed} {
		s = r.Result(&q, s.Ask[0], o, time.Duration(i)*ms)
		if s.Done || s.Asks != 1 {
			t.Fatalf("after %v: %+v", o, s)
		}
	}
	if s = r.Result(&q, s.Ask[0], Error, 9*ms); s.Done && s.Fail != FailNobody {
		t.Fatalf("%+v", s)
	}
}

func TestReplacedIsNotALoss(t *testing.T) {
	r := newRig(t, Config{Budget: 10, Policy: Sequential}, "a", "b").known()
	for i := range 10 {
		var q Query
		at := time.Duration(i) * 100 * ms
		s := r.Begin(&q, uint64(i), at)
		s = r.Result(&q, s.Ask[0], Replaced, at+ms)
		r.Result(&q, s.Ask[0], Good, at+3*ms)
	}
	if st := r.Statuses(nil, 2*time.Second)[0]; st.Lost != 0 || !st.Up {
		t.Fatalf("%+v", st)
	}
}

func TestOneBadNameIsNotABadUpstream(t *testing.T) {
	r := newRig(t, Config{Budget: 100, Policy: Sequential}, "a", "b").known()
	for range 50 { // the same question again and again, dropped by a only
		var q Query
		s := r.Begin(&q, 77, r.now)
		r.sleep(hedgeMax, allGood)
		s = r.Timer(&q, r.now)
		if s.Asks == 1 {
			r.Result(&q, s.Ask[0], Good, r.now)
		}
		r.sleep(Grace+50*ms, allGood)
	}
	if st := r.Statuses(nil, r.now)[0]; !st.Up || st.Lost > 2 {
		t.Fatalf("%+v", st)
	}
}

func TestDeadline(t *testing.T) {
	for _, budget := range []int{0, 10, 100} {
		r := newRig(t, Config{Budget: budget, Deadline: time.Second}, "a", "b", "c").known()
		var q Query
		s := r.Begin(&q, 1, 0)
		n, at := s.Asks, time.Duration(0)
		for !s.Done {
			if s.Timer <= at {
				t.Fatalf("timer does not advance: %+v", s)
			}
			at = s.Timer
			s = r.Timer(&q, at)
			n += s.Asks
		}
		if at != time.Second || s.Fail != FailDeadline || n > maxAsked || (budget == 0 && n != 1) {
			t.Fatalf("budget %d: at %v after %d attempts: %+v", budget, at, n, s)
		}
	}
}

func TestSingleUpstream(t *testing.T) {
	r := newRig(t, Config{Budget: 10}, "a").known()
	var q Query
	s := r.Begin(&q, 1, 0)
	if s.Timer != hedgeRepeat {
		t.Fatalf("%+v", s)
	}
	s = r.Timer(&q, s.Timer)
	if s.Asks != 1 || !s.Ask[0].Again {
		t.Fatalf("no resend: %+v", s)
	}
	if s = r.Result(&q, s.Ask[0], Good, 210*ms); !s.Done || s.Watch != 0 || s.Cancel != 1 {
		t.Fatalf("%+v", s)
	}
}

func TestNeverAnswered(t *testing.T) {
	for _, traffic := range []bool{false, true} {
		r := newRig(t, Config{Budget: 10}, "a", "b", "c").known("b")
		b := r.Lookup("b")
		var ejected, named time.Duration
		for r.now < 3*time.Second {
			r.sleep(tickEvery, func(o Probe) (Outcome, bool) { return Good, o.Upstream != b })
			if traffic {
				var q Query
				s := r.Begin(&q, uint64(r.now), r.now)
				if s.Ask[0].Upstream == b {
					t.Fatal("a client met the dead upstream")
				}
				r.Result(&q, s.Ask[0], Good, r.now)
			}
			for _, e := range r.Events(nil) {
				switch {
				case e.Kind == Ejected && e.ID == "b" && e.Reason == ReasonAbsent:
					ejected = e.At
				case e.Kind == NeverAnswered && e.ID == "b":
					named = e.At
				default:
					t.Fatalf("unexpected: %v", e)
				}
			}
		}
		if ejected == 0 || ejected > time.Second || named == 0 || named > 2*time.Second {
			t.Fatalf("ejected %v named %v", ejected, named)
		}
	}
}

func TestUpstreamThatDropsTheColdProbe(t *testing.T) {
	// It answers real questions, so once clients have asked some it is known.
	r := newRig(t, Config{Budget: 10}, "a", "b").known("b")
	r.sleep(time.Second, func(o Probe) (Outcome, bool) { return Good, o.Replay })
	if st := r.Statuses(nil, r.now)[1]; !st.Up || !st.Known {
		t.Fatalf("%+v", st)
	}
}

func TestColdStartRaces(t *testing.T) {
	r := newRig(t, Config{Budget: 10}, "a", "b", "c")
	var q Query
	s := r.Begin(&q, 1, 0)
	if s.Asks != 2 || s.Ask[0].Upstream == s.Ask[1].Upstream {
		t.Fatalf("%+v", s)
	}
	r.Result(&q, s.Ask[0], Good, 2*ms)
	if s = r.Begin(&q, 2, 3*ms); s.Asks != 1 {
		t.Fatalf("still racing: %+v", s)
	}
}

func TestAllOut(t *testing.T) {
	r := newRig(t, Config{Budget: 10}, "a", "b").known()
	var waiting []*Query
	for r.now < 5*time.Second && !r.IsAllOut() {
		q := &Query{}
		if !r.Begin(q, uint64(r.now), r.now).Done {
			waiting = append(waiting, q)
		}
		r.sleep(tickEvery, nil)
	}
	if !r.IsAllOut() || r.now > 2500*ms {
		t.Fatalf("not all out at %v", r.now)
	}
	if got := r.kinds(); !strings.Contains(got, fmt.Sprint(AllOut)) {
		t.Fatalf("events %q", got)
	}
	for _, q := range waiting {
		if s := r.Timer(q, r.now); !s.Done || (s.Fail != FailAllOut) {
			t.Fatalf("%+v", s)
		}
	}
	var q Query
	if s := r.Begin(&q, 1, r.now); !s.Done || s.Fail != FailAllOut || s.Asks != 0 {
		t.Fatalf("%+v", s)
	}
	r.sleep(10*time.Second, nil)
	r.Events(nil)
	r.sleep(allOutGap, allGood)
	r.sleep(allOutGap, allGood)
	if s := r.Begin(&q, 1, r.now); s.Done {
		t.Fatalf("still out: %+v", s)
	}
	for _, st := range r.Statuses(nil, r.now) {
		if !st.Up || st.Inflight > 1 {
			t.Fatalf("%+v", st)
		}
	}
}

func TestNeverEject(t *testing.T) {
	r := newRig(t, Config{Budget: 10, NeverEject: true}, "a", "b").known()
	for r.now < 10*time.Second {
		var q Query
		r.Begin(&q, uint64(r.now), r.now)
		r.sleep(tickEvery, nil)
	}
	if got := r.kinds(); got != "" || r.IsAllOut() {
		t.Fatalf("%q", got)
	}
}

func TestPolicies(t *testing.T) {
	first := func(r *rig) string {
		var q Query
		s := r.Begin(&q, 0, r.now)
		r.Abandon(&q, r.now)
		return r.get(s.Ask[0].Upstream).id
	}
	r := newRig(t, Config{Policy: Sequential}, "a", "b", "c").known()
	if got := first(r) + first(r) + first(r); got != "aaa" {
		t.Error("sequential", got)
	}
	r = newRig(t, Config{Policy: RoundRobin}, "a", "b", "c").known()
	if got := first(r) + first(r) + first(r) + first(r); got != "bcab" {
		t.Error("round robin", got)
	}
	r = newRig(t, Config{}, "a", "b", "c").known()
	seen := map[string]int{}
	for range 300 {
		seen[first(r)]++
	}
	for _, id := range []string{"a", "b", "c"} {
		if seen[id] < 20 {
			t.Error("random", seen)
		}
	}
}

func TestSetKeepsState(t *testing.T) {
	r := newRig(t, Config{Budget: 10, Policy: Sequential}, "a", "b").known()
	var q Query
	s := r.Begin(&q, 1, ms)
	old := s.Ask[0]
	b := r.Lookup("b")
	r.Set([]string{"c", "b", "b"}, 2*ms)
	if r.Lookup("b") != b || !r.Lookup("a").IsZero() || len(r.Statuses(nil, 2*ms)) != 2 {
		t.Fatal("set")
	}
	if r.Lookup("c").Slot() != old.Upstream.Slot() || r.Lookup("c") == old.Upstream {
		t.Fatal("slot is not reused, or with the same generation")
	}
	// The answer of one that has left is used, and counts for nobody.
	if s = r.Result(&q, old, Good, 5*ms); !s.Done || s.Deliver != 0 {
		t.Fatalf("%+v", s)
	}
	if st := r.Statuses(nil, 5*ms)[0]; st.ID != "c" || st.Known || st.Inflight != 0 {
		t.Fatalf("%+v", st)
	}
	if s = r.Begin(&q, 2, 6*ms); s.Ask[0].Upstream != b {
		t.Fatal("the new upstream was used before it replied")
	}
	// Ejected ones come back when the rest is removed; nothing left fails at once.
	r.eject(r.get(b), ReasonShare, 7*ms)
	r.Set([]string{"b"}, 8*ms)
	if s = r.Begin(&q, 3, 9*ms); s.Done {
		t.Fatalf("%+v", s)
	}
	r.Set(nil, 10*ms)
	if s = r.Begin(&q, 4, 11*ms); !s.Done || s.Fail != FailAllOut {
		t.Fatalf("%+v", s)
	}
	r.Set([]string{"z"}, 12*ms)
	if s = r.Begin(&q, 5, 13*ms); s.Done {
		t.Fatalf("%+v", s)
	}
}

func TestInherit(t *testing.T) {
	r := newRig(t, Config{Budget: 10}, "a", "b").known()
	r.eject(r.get(r.Lookup("a")), ReasonRun, ms)
	n := New(Config{Budget: 10}, []string{"x", "b", "a"}, 2*ms)
	n.Inherit(r.Pool, 2*ms)
	st := n.Statuses(nil, 3*ms)
	if st[0].Known || !st[1].Known || st[2].Up || st[2].Reason != ReasonRun {
		t.Fatalf("%+v", st)
	}
}

func TestStallBlamesNobody(t *testing.T) {
	r := newRig(t, Config{Budget: 100, Policy: Sequential}, "a", "b").known()
	var qs [5]Query
	var as [5]Attempt
	for i := range qs {
		as[i] = r.Begin(&qs[i], uint64(i+1), 0).Ask[0]
		b := r.Timer(&qs[i], 50*ms).Ask[0]
		r.Result(&qs[i], b, Good, 55*ms)
	}
	r.now = 900 * ms // nobody ran since; a's replies are in the socket buffer, and Tick comes first
	r.Tick(r.now, nil)
	for i := range as {
		r.Result(&qs[i], as[i], Good, r.now+ms)
	}
	if st := r.Statuses(nil, r.now)[0]; st.Lost != 0 || st.Inflight != 0 {
		t.Fatalf("%+v", st)
	}
}

func TestHedgerQuantile(t *testing.T) {
	for _, tc := range []struct {
		name     string
		draw     func(*rand.Rand) time.Duration
		low, hig time.Duration
	}{
		{"fast", func(*rand.Rand) time.Duration { return 2 * ms }, hedgeMin, hedgeMin},
		{"slow", func(*rand.Rand) time.Duration { return 2 * time.Second }, hedgeMax, hedgeMax},
		{"even 0..100ms", func(r *rand.Rand) time.Duration { return time.Duration(r.Int64N(int64(100 * ms))) }, 92 * ms, 107 * ms},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, rng := newHedger(0), rand.New(rand.NewPCG(1, 2))
			for i := range 5000 {
				h.add(tc.draw(rng), time.Duration(i)*ms)
			}
			if h.delay < tc.low || h.delay > tc.hig {
				t.Fatalf("%v, want %v to %v", h.delay, tc.low, tc.hig)
			}
		})
	}
}

func TestEventStrings(t *testing.T) {
	for _, e := range []Event{
		{Kind: Ejected, ID: "x", Reason: ReasonRun, Run: 3}, {Kind: Ejected, ID: "x", Reason: ReasonShare},
		{Kind: Ejected, ID: "x", Reason: ReasonSilence}, {Kind: Ejected, ID: "x", Reason: ReasonAbsent},
		{Kind: Restored, ID: "x", Reason: ReasonProved}, {Kind: Restored, ID: "x", Reason: ReasonFirst},
		{Kind: Restored, ID: "x", Reason: ReasonNeeded}, {Kind: NeverAnswered, ID: "x"}, {Kind: AllOut}, {Kind: BackIn},
	} {
		if s := e.String(); s == "" || strings.Contains(s, "%!") || strings.Contains(s, "unknown") {
			t.Errorf("%q", s)
		}
	}
}
