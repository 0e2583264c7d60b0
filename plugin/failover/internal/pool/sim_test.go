package pool

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// A deterministic discrete-event simulation that drives the pool exactly as package race does: one Timer per query, one
// waiter per attempt, a Tick when NextTick says so, events collected after every call.

const ms = time.Millisecond

// question is a name with what it takes to resolve it.
type question struct {
	key     uint64
	base    time.Duration // recursion time, before the upstream's own factor
	hung    bool          // no upstream ever answers
	broken  bool          // every upstream answers SERVFAIL
	cached  uint64        // bit u: upstream u has resolved it
	arrived time.Duration
}

// answer is what an upstream does with a question.
type answer struct {
	after  time.Duration
	o      Outcome
	silent bool
}

// world is what the fault under test may look at.
type world struct {
	n     int
	rng   *rand.Rand
	now   time.Duration
	start time.Duration // of the fault
	end   time.Duration
}

func (w *world) on() bool { return w.now >= w.start && w.now < w.end }

// behave changes the answer of upstream u; cold is true for the cold probe.
type behave func(w *world, u int, cold bool, a answer) answer

const (
	evTick = iota
	evTimer
	evArrive
	evReply
	evProbe
)

type event struct {
	at   time.Duration
	kind int
	seq  uint64
	q    *simQuery
	w    *waiter
	o    Outcome
	gen  uint64
}

type waiter struct {
	a     Attempt
	q     *simQuery
	gone  bool
	until time.Duration
	probe Probe
	quest *question
}

type simQuery struct {
	q       Query
	quest   *question
	waiters [MaxAttempts]*waiter
	gen     uint64 // of the timer
	ended   int
}

type sample struct {
	at, took time.Duration
	failed   bool
	honest   bool // the name could be resolved
	attempts int
}

type simEvent struct {
	Event
	u int
}

type sim struct {
	world
	pool    *Pool
	fault   behave
	qps     float64
	length  time.Duration
	hung    float64
	broken  float64
	flat    time.Duration // if not 0, every name takes this
	tiny    bool          // every name takes nothing but the RTT
	stallAt time.Duration
	stall   time.Duration

	heap    []event
	seq     uint64
	recent  []*question
	nextKey uint64
	index   map[Ref]int
	active  map[*simQuery]bool
	buf     []Probe
	evbuf   []Event

	samples  []sample
	sentAt   []time.Duration // attempts and probes
	attempts int
	probes   int
	hedges   int
	free     int // hedges that took no token
	events   []simEvent
	minTok   float64
	problems []string
	onEvent  func(*sim, Event)
}

func newSim(seed uint64, n int, qps float64, cfg Config) *sim {
	s := &sim{qps: qps, active: map[*simQuery]bool{}, index: map[Ref]int{}}
	s.n, s.rng = n, rand.New(rand.NewPCG(seed, 7))
	s.start, s.end, s.length = 10*time.Second, 25*time.Second, 40*time.Second
	prng := rand.New(rand.NewPCG(seed, 11))
	cfg.Rand = prng.Uint64
	ids := make([]string, n)
	for i := range ids {
		ids[i] = string(rune('a' + i))
	}
	s.pool = New(cfg, ids, 0)
	for i, id := range ids {
		s.index[s.pool.Lookup(id)] = i
	}
	return s
}

func less(a, b *event) bool {
	if a.at != b.at {
		return a.at < b.at
	}
	if a.kind != b.kind {
		return a.kind < b.kind
	}
	return a.seq < b.seq
}

func (s *sim) push(e event) {
	if s.stall > 0 && e.at > s.stallAt && e.at < s.stallAt+s.stall {
		e.at = s.stallAt + s.stall // nothing runs; kinds order what happens at the end of it: the worst case
	}
	s.seq++
	e.seq = s.seq
	s.heap = append(s.heap, e)
	i := len(s.heap) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !less(&s.heap[i], &s.heap[up]) {
			break
		}
		s.heap[i], s.heap[up] = s.heap[up], s.heap[i]
		i = up
	}
}

func (s *sim) pop() event {
	e := s.heap[0]
	last := len(s.heap) - 1
	s.heap[0] = s.heap[last]
	s.heap[last] = event{}
	s.heap = s.heap[:last]
	for i := 0; ; {
		c := 2*i + 1
		if c >= last {
			break
		}
		if c+1 < last && less(&s.heap[c+1], &s.heap[c]) {
			c++
		}
		if !less(&s.heap[c], &s.heap[i]) {
			break
		}
		s.heap[i], s.heap[c] = s.heap[c], s.heap[i]
		i = c
	}
	return e
}

// newQuestion draws a name: 70 % are in the upstream's cache, the rest take a log-normal time with a common part and a
// part of each upstream's own. p95 about 80 ms, p99 170 ms, p99.9 350 ms.
func (s *sim) newQuestion() *question {
	s.nextKey++
	q := &question{key: s.nextKey, arrived: s.now}
	r := s.rng.Float64()
	switch {
	case r < s.hung:
		q.hung = true
	case r < s.hung+s.broken:
		q.broken = true
	}
	switch {
	case s.flat > 0:
		q.base = s.flat
	case s.tiny:
	case s.rng.Float64() < 0.3:
		q.base = min(time.Duration(30*math.Exp(0.75*s.rng.NormFloat64())*float64(ms)), 500*ms)
	}
	return q
}

// reply is what upstream u says to a question; nil is the cold probe.
func (s *sim) reply(u int, q *question) answer {
	a := answer{after: 2*ms + time.Duration(s.rng.IntN(1000))*time.Microsecond}
	if q != nil {
		switch {
		case q.hung:
			a.silent = true
		case q.broken:
			a.o = Bad
		}
		if q.cached>>u&1 == 0 && q.base > 0 {
			f := 1.0
			if s.flat == 0 {
				f = math.Exp(0.4 * s.rng.NormFloat64())
			}
			a.after += min(time.Duration(float64(q.base)*f), max(600*ms, q.base))
		}
	}
	if s.fault != nil {
		a = s.fault(&s.world, u, q == nil, a)
	}
	if q != nil && !a.silent && a.o == Good {
		q.cached |= 1 << u
	}
	return a
}

func (s *sim) collect() {
	if !s.pool.HasEvents() {
		return
	}
	s.evbuf = s.pool.Events(s.evbuf[:0])
	allOut := false
	for _, e := range s.evbuf {
		s.events = append(s.events, simEvent{e, s.index[e.Upstream]})
		allOut = allOut || e.Kind == AllOut
		if s.onEvent != nil {
			s.onEvent(s, e)
		}
	}
	if allOut {
		var waiting []*simQuery
		for q := range s.active {
			waiting = append(waiting, q)
		}
		slices.SortFunc(waiting, func(a, b *simQuery) int { return int(a.quest.key) - int(b.quest.key) })
		for _, q := range waiting {
			s.step(q, s.pool.Timer(&q.q, s.now))
		}
	}
}

func (s *sim) send(w *waiter, u int) {
	s.sentAt = append(s.sentAt, s.now)
	a := s.reply(u, w.quest)
	if a.silent {
		return
	}
	kind := evReply
	if w.q == nil {
		kind = evProbe
		if a.after > ProbeTimeout {
			return
		}
	}
	s.push(event{at: s.now + a.after, kind: kind, w: w, q: w.q, o: a.o})
}

func (s *sim) problem(what string) { s.problems = append(s.problems, s.now.String()+": "+what) }

func (s *sim) step(q *simQuery, st Step) {
	for i := range st.Asks {
		a := st.Ask[i]
		w := &waiter{a: a, q: q, quest: q.quest, until: maxNow}
		if q.waiters[a.Index()] != nil {
			s.problem("attempt index used twice")
		}
		q.waiters[a.Index()] = w
		s.attempts++
		if a.Kind == Hedge {
			s.hedges++
		}
		s.send(w, s.index[a.Upstream])
	}
	for i := range MaxAttempts {
		w := q.waiters[i]
		if w == nil {
			if (st.Cancel|st.Watch)>>i&1 == 1 {
				s.problem("mask names an attempt that was not asked")
			}
			continue
		}
		if st.Cancel>>i&1 == 1 {
			w.gone = true
		}
		if st.Watch>>i&1 == 1 {
			w.until = s.now + Grace
		}
	}
	s.minTok = min(s.minTok, s.pool.Tokens())
	if st.Done {
		q.ended++
		q.gen++
		if !s.active[q] {
			s.problem("query ended twice")
		}
		delete(s.active, q)
		n := 0
		for _, w := range q.waiters {
			if w != nil {
				n++
			}
		}
		if (st.Fail == "") == (st.Deliver < 0) {
			s.problem("ended with neither or both of answer and failure")
		}
		s.samples = append(s.samples, sample{
			at: q.quest.arrived, took: s.now - q.quest.arrived, failed: st.Fail != "" || st.Soft,
			honest: !q.quest.hung && !q.quest.broken, attempts: n,
		})
		if st.Fail == "" && !st.Soft {
			if len(s.recent) < 32 {
				s.recent = append(s.recent, q.quest)
			} else {
				s.recent[s.rng.IntN(32)] = q.quest
			}
		}
		return
	}
	if st.Timer > 0 {
		q.gen++
		if st.Timer <= s.now {
			s.problem("timer is not in the future")
		}
		s.push(event{at: st.Timer, kind: evTimer, q: q, gen: q.gen})
	}
}

func (s *sim) run() *sim {
	gap := time.Duration(float64(time.Second) / s.qps)
	arrive := func() {
		d := time.Duration(s.rng.ExpFloat64() * float64(gap))
		s.push(event{at: s.now + max(d, 1), kind: evArrive})
	}
	arrive()
	s.push(event{at: 0, kind: evTick})
	drain := s.length + 10*time.Second
	for len(s.heap) > 0 {
		e := s.pop()
		if e.at > drain {
			break
		}
		s.now = max(s.now, e.at)
		switch e.kind {
		case evTick:
			s.buf = s.pool.Tick(s.now, s.buf[:0])
			for _, o := range s.buf {
				s.probes++
				w := &waiter{probe: o}
				if o.Replay && len(s.recent) > 0 {
					w.quest = s.recent[s.rng.IntN(len(s.recent))]
				}
				s.send(w, s.index[o.Upstream])
			}
			s.push(event{at: max(s.pool.NextTick(), s.now+1), kind: evTick})
		case evTimer:
			if e.gen == e.q.gen && s.active[e.q] {
				before := s.pool.Tokens()
				st := s.pool.Timer(&e.q.q, s.now)
				if st.Asks > 0 && s.pool.Tokens() == before {
					s.free++
				}
				s.step(e.q, st)
			}
		case evArrive:
			if s.now < s.length {
				q := &simQuery{quest: s.newQuestion()}
				s.active[q] = true
				s.step(q, s.pool.Begin(&q.q, q.quest.key, s.now))
				arrive()
			}
		case evReply:
			if !e.w.gone && s.now <= e.w.until {
				e.w.gone = true
				st := s.pool.Result(&e.q.q, e.w.a, e.o, s.now)
				if s.active[e.q] {
					s.step(e.q, st)
				} else if st.Done || st.Asks > 0 || st.Timer != 0 {
					s.problem("late result made a step")
				}
			}
		case evProbe:
			s.pool.ProbeResult(e.w.probe.Upstream, e.w.probe.ID, e.o, s.now)
		}
		s.collect()
	}
	if len(s.active) > 0 {
		s.problem("queries never ended")
	}
	return s
}
