package pool

import "time"

const (
	// MaxAttempts bounds the attempts of one query, whatever happens.
	MaxAttempts = 5
	// maxAsked bounds those that may have put work on an upstream. Errors and replaced connections do not count, so
	// that a query gets past a few closed ports to the upstream that works.
	maxAsked = 3

	// freeAfter is when the free failover rule applies: without a token, a query that waits for upstreams that were
	// silent to everyone since it left, and for twice what is usual, goes to one that answered within freeHeard. It
	// cannot double the load in an overload: slow upstreams are not silent when traffic is high, and not silent for
	// longer than usual when it is low.
	freeAfter = 500 * time.Millisecond
	freeHeard = time.Second
	// With fewer than freeFew client queries in budgetSpan seconds the last answer is longer ago, and any in that time
	// will do: the few tokens there are run out easily, and the load does not matter.
	freeFew = 50

	// softShare of the deadline is how long a bad rcode is withheld in the hope that a silent upstream knows better:
	// longer than the slowest recursion that still succeeds, shorter than the client's patience.
	softShare = 2 // half
)

// attempt states.
const (
	live uint8 = iota
	badRcode
	failedErr
	replaced
	over // cancelled, or the answer that was delivered
)

type attempt struct {
	up    Ref
	state uint8
	sent  time.Duration
}

// Query is one client query, meant to be a field of the caller's struct. The zero Query is ready for Begin; a Query may
// be used again as soon as a Step with Done said so.
type Query struct {
	seq      uint64
	key      uint64
	start    time.Duration
	next     time.Duration // of the next extra attempt, or noTimer
	attempts [MaxAttempts]attempt
	n        int
	live     int
	soft     int // attempt with the best bad answer so far, or -1
	running  bool
}

const noTimer = maxNow * 2

func (q *Query) asked(r Ref) bool {
	for i := range q.n {
		if q.attempts[i].up == r {
			return true
		}
	}
	return false
}

// failed reports whether r has given q a bad rcode or an error.
func (q *Query) failed(r Ref) bool {
	for i := range q.n {
		if a := &q.attempts[i]; a.up == r && (a.state == badRcode || a.state == failedErr) {
			return true
		}
	}
	return false
}

// Attempt is one upstream query to send. The caller keeps the value with the socket it waits on and passes it to Result.
type Attempt struct {
	Upstream Ref
	ID       uint64 // unique within the pool; ID%8 is Index
	Kind     Kind
	Again    bool // the query has asked this upstream before: use another socket

	sent time.Duration
}

// Index is the position of the attempt in its query, 0 to MaxAttempts-1, for the bit masks of Step.
func (a Attempt) Index() int { return int(a.ID & 7) }

// Failure is why a query fails, as a lower-case word fit for a metric label or a log line.
type Failure string

// Why a query fails.
const (
	FailAllOut   Failure = "all_out"  // no upstream is in service
	FailDeadline Failure = "deadline" // nobody answered in time
	FailNobody   Failure = "nobody"   // every attempt ended in an error and nobody is left to ask
)

// Step is what the caller does next for a query. Masks have bit i set for the attempt with Index i.
type Step struct {
	Ask     [2]Attempt    // send these, the first Asks of them
	Asks    int           // 0 to 2
	Done    bool          // the query has ended: either Deliver or Fail says how
	Deliver int           // Index of the attempt whose reply is for the client, or -1
	Soft    bool          // the reply to deliver is a bad rcode: nobody did better
	Fail    Failure       // not empty: give the client SERVFAIL
	Cancel  uint8         // stop listening for these now, nothing is to be reported
	Watch   uint8         // listen for these for Grace more and report what they say with Result
	Timer   time.Duration // call Timer at this time; replaces the one before; 0 if Done
}

// Begin starts q. key is a hash of the question, used to tell a bad name from a bad upstream; 0 if it is not known. A
// query that is still running is abandoned first.
func (p *Pool) Begin(q *Query, key uint64, now time.Duration) Step {
	now = p.advance(now)
	p.abandon(q)
	p.seq++
	q.seq, q.key, q.start, q.n, q.live, q.soft, q.running = p.seq, key, now, 0, 0, -1, true
	p.budget.earn(now)
	s := Step{Deliver: -1}
	if p.out {
		p.fail(q, FailAllOut, &s)
		return s
	}
	first, second := p.pickFirst(now)
	if first == nil { // cannot happen: p.out says so
		p.fail(q, FailAllOut, &s)
		return s
	}
	p.ask(q, first, First, false, now, &s)
	q.next = now + p.hedgeDelay()
	switch {
	case second != nil && p.budget.may(false, now):
		p.budget.spend()
		p.ask(q, second, Hedge, false, now, &s)
	case len(p.order) == 1:
		q.next = now + max(p.hedgeDelay()*2, hedgeRepeat)
	}
	s.Timer = p.timer(q)
	return s
}

// Timer is called at the time the last Step of q asked for, and for every running query when an AllOut event appears.
// It may be called at any time.
func (p *Pool) Timer(q *Query, now time.Duration) Step {
	now = p.advance(now)
	s := Step{Deliver: -1}
	if !q.running {
		s.Done = true
		return s
	}
	p.due(q, now, &s)
	s.Timer = p.timer(q)
	return s
}

// due does what the time asks for.
func (p *Pool) due(q *Query, now time.Duration, s *Step) {
	switch {
	case p.out:
		p.giveUp(q, FailAllOut, s)
	case now >= q.start+p.cfg.Deadline:
		p.giveUp(q, FailDeadline, s)
	case q.soft >= 0 && now >= q.start+p.cfg.Deadline/softShare:
		p.giveUp(q, FailDeadline, s)
	case now >= q.next:
		p.another(q, now, s)
	}
}

// Result reports how attempt a of q ended. It may be called with a Query that has ended, or that is in use for another
// question by now: the attempt's ID tells, and the Step is then empty (nothing to do, Timer 0). Report watched attempts
// this way too. Each attempt ends once; later reports about it are ignored.
func (p *Pool) Result(q *Query, a Attempt, o Outcome, now time.Duration) Step {
	now = p.advance(now)
	s := Step{Deliver: -1}
	i := a.Index()
	if q == nil || !q.running || a.ID>>3 != q.seq || i >= q.n || q.attempts[i].state != live {
		p.late(a, o, now)
		return s
	}
	at := &q.attempts[i]
	q.live--
	u := p.get(at.up)
	if u != nil {
		u.inflight--
		if o.heard() {
			p.heard(u, now)
		}
	}
	switch o {
	case Good:
		at.state = over
		if u != nil {
			u.observe(now-at.sent, now)
			p.good(u, at.sent, now)
		}
		p.deliver(q, i, now, &s)
		return s
	case Bad:
		at.state = badRcode
		if q.soft < 0 {
			q.soft = i
		}
	case Replaced, Cancelled:
		at.state = replaced
		if u != nil {
			u.forget(at.sent)
		}
	default:
		at.state = failedErr
	}
	if q.live == 0 {
		p.moveOn(q, now, &s)
	}
	if q.running {
		p.due(q, now, &s)
	}
	s.Timer = p.timer(q)
	return s
}

// Abandon ends q without an answer: the client has gone, or somebody else answered. The caller stops listening for all
// its attempts. Nobody is blamed. It does nothing for a query that has ended.
func (p *Pool) Abandon(q *Query, now time.Duration) {
	p.advance(now)
	p.abandon(q)
}

func (p *Pool) abandon(q *Query) {
	if !q.running {
		return
	}
	for i := range q.n {
		p.cancel(q, i)
	}
	q.running, q.live = false, 0
}

// cancel ends a live attempt without a meaning and reports whether it was live.
func (p *Pool) cancel(q *Query, i int) bool {
	a := &q.attempts[i]
	if a.state != live {
		return false
	}
	a.state = over
	if u := p.get(a.up); u != nil {
		u.inflight--
		u.forget(a.sent)
	}
	return true
}

// ask adds an attempt to q and to s.
func (p *Pool) ask(q *Query, u *upstream, k Kind, again bool, now time.Duration, s *Step) {
	q.attempts[q.n] = attempt{up: u.ref, sent: now}
	s.Ask[s.Asks] = Attempt{Upstream: u.ref, ID: q.seq<<3 | uint64(q.n), Kind: k, Again: again, sent: now}
	s.Asks++
	q.n++
	q.live++
	u.inflight++
	if u.unheard == 0 {
		u.firstUnheard = now
	}
	u.unheard++
}

// timer returns when q wants to be looked at next.
func (p *Pool) timer(q *Query) time.Duration {
	if !q.running {
		return 0
	}
	t := min(q.next, q.start+p.cfg.Deadline)
	if q.soft >= 0 {
		t = min(t, q.start+p.cfg.Deadline/softShare)
	}
	return t
}

// counted is how many attempts of q may have put work on an upstream.
func (q *Query) counted() int {
	c := 0
	for i := range q.n {
		if st := q.attempts[i].state; st != failedErr && st != replaced {
			c++
		}
	}
	return c
}

// another asks one more upstream while the earlier ones are silent, if it is allowed.
func (p *Pool) another(q *Query, now time.Duration, s *Step) {
	q.next = noTimer
	if q.n >= MaxAttempts || q.counted() >= maxAsked {
		return
	}
	u, again := p.pickNext(q, now)
	if u == nil {
		q.next = now + freeAfter // somebody may come back
		return
	}
	sent := q.attempts[q.n-1].sent
	wanted := p.cfg.Hedge != HedgeOff && p.cfg.Budget > 0
	switch {
	case wanted && p.budget.may(q.counted() >= 2, now):
		p.budget.spend()
	case !again && now-sent >= freeAfter && p.free(q, u, now):
	default:
		if wanted {
			p.budget.denied++
		}
		if q.next = sent + freeAfter; q.next <= now {
			q.next = now + freeAfter
		}
		return
	}
	p.ask(q, u, Hedge, again, now, s)
	// A third attempt waits twice as long: the first two are rarely both lost.
	q.next = now + max(p.hedgeDelay()*2, hedgeMin)
	if again {
		q.next = now + max(p.hedgeDelay()*2, hedgeRepeat)
	}
}

// free is the free failover rule.
func (p *Pool) free(q *Query, to *upstream, now time.Duration) bool {
	heard := freeHeard
	if p.budget.sum < freeFew {
		heard = budgetSpan * time.Second
	}
	if now-to.goodAt > heard {
		return false
	}
	for i := range q.n {
		a := &q.attempts[i]
		if a.state != live {
			continue
		}
		if u := p.get(a.up); u != nil && u.up && (u.heardAt >= a.sent || now-a.sent < 2*p.usual(u)) {
			return false
		}
	}
	return true
}

// moveOn asks the next upstream at once when no attempt of q is live any more.
func (p *Pool) moveOn(q *Query, now time.Duration, s *Step) {
	if p.out {
		p.giveUp(q, FailAllOut, s)
		return
	}
	var u *upstream
	var again bool
	if q.n < MaxAttempts && q.counted() < maxAsked {
		u, again = p.pickNext(q, now)
	}
	if u == nil {
		p.giveUp(q, FailNobody, s)
		return
	}
	// An attempt that ended in an error put no load on anyone, so the next one is free. A reply with a bad rcode did,
	// and it is an answer of a kind: without a token the client gets it.
	if q.soft >= 0 {
		if !p.budget.may(q.counted() >= 2, now) {
			p.budget.denied++
			p.giveUp(q, FailNobody, s)
			return
		}
		p.budget.spend()
	}
	p.ask(q, u, Retry, again, now, s)
	q.next = now + p.hedgeDelay()
}
