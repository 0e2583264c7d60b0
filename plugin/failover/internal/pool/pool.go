package pool

import (
	"slices"
	"time"
)

// Ref names an upstream of a Pool. It is comparable; the zero Ref names none. A Ref is never given to another upstream,
// except after 65535 changes of the same slot.
type Ref struct{ slot, gen uint16 }

// Slot is a small number, unique among the upstreams of the pool at one time and used again once one is removed: an
// index for the caller's own table. The caller compares the whole Ref before it trusts an entry.
func (r Ref) Slot() int { return int(r.slot) }

// IsZero reports whether r names no upstream.
func (r Ref) IsZero() bool { return r.gen == 0 }

// never is earlier than every time a caller can pass, and far enough from the ends of the range to be subtracted.
const never = time.Duration(-1 << 60)

// maxNow keeps sums of times away from overflow, whatever is passed in.
const maxNow = time.Duration(1 << 60)

// upstream is what is known about one of them.
type upstream struct {
	ref Ref
	id  string

	up       bool          // in service
	known    bool          // has replied to something since it was added
	warned   bool          // NeverAnswered was emitted
	added    time.Duration // when it was added
	since    time.Duration // when up last changed, or when the last clean minute ended
	heardAt  time.Duration // last reply of any kind
	goodAt   time.Duration // last good answer
	goodSent time.Duration // when the last of the questions that were answered well was asked
	inflight int

	srtt   time.Duration // smoothed, see observe
	srttAt time.Duration

	// losses, see blame.go
	run      int // losses without a good answer in between
	lostKeys [8]lostKey
	window   window

	// silence, see eject.go
	unheard      int // client attempts sent since heardAt and not cancelled
	firstUnheard time.Duration
	silentSent   int // silence probes sent since heardAt
	silentMissed int // of these, unanswered for silenceLimit
	nextSilent   time.Duration

	// ejection and proof, see eject.go and probe.go
	level     int
	reason    Reason
	need      int // good replays needed
	sent      int // replays sent in this proof
	proved    int // replays answered in this proof
	pace      time.Duration
	nextProbe time.Duration
	probeSeq  uint32
	probes    [probeRing]probe

	startSent   int // start probes sent
	startMissed int // of these, unanswered for startLimit
	doubts      int // confirming probes since the last good answer
	nextConfirm time.Duration
	refreshed   time.Duration // when it was last refreshed
	asked       uint64        // client queries of the pool at that time
}

// Pool decides for one set of upstreams. It is not safe for concurrent use: the caller holds one lock around every call.
// All times are durations since an origin of the caller's choice, monotonic, at least 0; a time that is earlier than one
// already seen counts as the latest one seen.
type Pool struct {
	cfg   Config
	now   time.Duration
	slots []*upstream // by Ref.slot; nil is free
	gens  []uint16
	order []*upstream // as configured
	ready []*upstream // up and known, as configured
	cold  []*upstream // up and not known yet, as configured

	out      bool // all upstreams are out
	outSince time.Duration
	turn     uint32 // round robin
	seq      uint64 // of queries
	budget   budget
	hedge    hedger
	took     time.Duration // smoothed time of answered client queries
	open     judgements
	events   []Event

	tickAt    time.Duration // when the owner should call Tick next
	frozen    time.Duration // no verdict before, see advance
	heldUntil time.Duration // judgements left in the queue are not due before
}

// New returns a pool of the upstreams named by ids, in the configured order; a repeated id counts once. All of them
// start in service and unknown, and are probed by the first Tick.
func New(cfg Config, ids []string, now time.Duration) *Pool {
	p := &Pool{cfg: cfg.withDefaults(), now: clampNow(now)}
	p.budget = newBudget(p.cfg.Budget, p.now)
	p.hedge = newHedger(p.now)
	p.frozen = never
	p.Set(ids, now)
	return p
}

func clampNow(now time.Duration) time.Duration { return min(max(now, 0), maxNow) }

// Set changes the upstreams to ids, in that order. What is known about those that stay is kept. Attempts at those that
// leave may still be answered and their answers used. If no upstream in service would be left but one that is out for
// another reason than silence, such ones come back.
func (p *Pool) Set(ids []string, now time.Duration) {
	now = p.advance(now)
	old := p.order
	for _, u := range old {
		if !slices.Contains(ids, u.id) {
			p.slots[u.ref.slot] = nil
		}
	}
	p.order = make([]*upstream, 0, len(ids))
	for _, id := range ids {
		if find(p.order, id) != nil {
			continue
		}
		u := find(old, id)
		if u == nil {
			if u = p.add(id, now); u == nil {
				continue // 65535 upstreams are enough
			}
		}
		p.order = append(p.order, u)
	}
	p.relist()
	if len(p.ready)+len(p.cold) == 0 {
		for _, u := range p.order {
			if !u.silenced() {
				p.restore(u, ReasonNeeded, now)
			}
		}
	}
	p.relist()
	p.noteAllOut(now)
	p.tickAt = now
}

func find(list []*upstream, id string) *upstream {
	for _, u := range list {
		if u.id == id {
			return u
		}
	}
	return nil
}

// add makes a new upstream in a free slot.
func (p *Pool) add(id string, now time.Duration) *upstream {
	slot := -1
	for i, u := range p.slots {
		if u == nil {
			slot = i
			break
		}
	}
	if slot < 0 {
		if len(p.slots) > 1<<16-1 {
			return nil
		}
		slot = len(p.slots)
		p.slots = append(p.slots, nil)
		p.gens = append(p.gens, 0)
	}
	p.gens[slot]++
	if p.gens[slot] == 0 {
		p.gens[slot] = 1
	}
	u := &upstream{
		ref: Ref{uint16(slot), p.gens[slot]}, id: id, up: true, added: now, since: now,
		heardAt: never, goodAt: never, goodSent: never, srttAt: never, nextProbe: now, refreshed: now, asked: p.budget.total,
	}
	p.slots[slot] = u
	return u
}

// get returns the upstream or nil if it was removed.
func (p *Pool) get(r Ref) *upstream {
	if int(r.slot) >= len(p.slots) {
		return nil
	}
	if u := p.slots[r.slot]; u != nil && u.ref == r {
		return u
	}
	return nil
}

// relist rebuilds ready and cold.
func (p *Pool) relist() {
	p.ready, p.cold = p.ready[:0], p.cold[:0]
	for _, u := range p.order {
		switch {
		case u.up && u.known:
			p.ready = append(p.ready, u)
		case u.up:
			p.cold = append(p.cold, u)
		}
	}
}

const (
	// tickEvery is how often Tick wants to be called while something is going on: half the pace of replays.
	tickEvery = 50 * time.Millisecond
	// tickIdle is how often when nothing is.
	tickIdle = time.Second

	// stallSlack is how late the owner may be before we take it that this process was not running (CPU limit, stopped
	// node). Replies may then wait in socket buffers, so silence proves nothing: verdicts wait as long as the stall
	// was, at most stallMax.
	stallSlack = 100 * time.Millisecond
	stallMax   = 500 * time.Millisecond
)

// advance brings the pool to now and returns the time to use. Every exported method that takes a time calls it first.
func (p *Pool) advance(now time.Duration) time.Duration {
	now = max(clampNow(now), p.now)
	p.now = now
	if late := now - p.tickAt; late > stallSlack {
		p.frozen = now + min(late, stallMax)
		p.tickAt = now + tickEvery
	}
	if p.open.n > 0 && now >= p.heldUntil {
		p.judge(now)
	}
	return now
}

// Inherit takes over what old has learnt about upstreams that both pools have, the tokens and the hedge delay: for a
// reload that makes a new pool. Both pools count time from the same origin. Attempts in flight stay with old; old is not
// changed.
func (p *Pool) Inherit(old *Pool, now time.Duration) {
	if old == nil || old == p {
		return
	}
	now = p.advance(now)
	for _, u := range p.order {
		o := find(old.order, u.id)
		if o == nil {
			continue
		}
		ref := u.ref
		*u = *o
		u.ref = ref
		u.inflight, u.unheard = 0, 0
		clear(u.probes[:])
		u.sent, u.proved = 0, 0
		if p.cfg.NeverEject && !u.up {
			u.up, u.since = true, now
		}
	}
	p.hedge, p.took = old.hedge, old.took
	p.budget.queries, p.budget.sec, p.budget.sum, p.budget.total = old.budget.queries, old.budget.sec, old.budget.sum, old.budget.total
	p.budget.start = old.budget.start
	p.budget.roll(now)
	p.budget.tokens = min(old.budget.tokens, p.budget.capacity(now))
	p.relist()
	p.noteAllOut(now)
	p.tickAt = now
}

// Status is the state of one upstream, for metrics.
type Status struct {
	Upstream Ref
	ID       string
	Up       bool          // in service
	Known    bool          // has replied to something since it was added
	SRTT     time.Duration // smoothed time to a good answer, 0 if there was none
	Inflight int           // attempts that may still be answered, watched ones included
	Lost     int           // losses in the last 10 s
	Outcomes int           // good answers and losses in the last 10 s
	Level    int           // how often it was ejected or failed to prove itself lately, 0..4
	Reason   Reason        // why it is out, empty if it is up
}

// Statuses appends the state of every upstream to dst, in the configured order.
func (p *Pool) Statuses(dst []Status, now time.Duration) []Status {
	now = p.advance(now)
	for _, u := range p.order {
		u.window.roll(now)
		s := Status{
			Upstream: u.ref, ID: u.id, Up: u.up, Known: u.known, SRTT: u.srtt, Inflight: u.inflight,
			Lost: u.window.lost, Outcomes: u.window.outcomes, Level: u.level,
		}
		if !u.up {
			s.Reason = u.reason
		}
		dst = append(dst, s)
	}
	return dst
}

// Lookup returns the Ref of the upstream with this id, or the zero Ref.
func (p *Pool) Lookup(id string) Ref {
	if u := find(p.order, id); u != nil {
		return u.ref
	}
	return Ref{}
}

// Tokens is how many extra attempts could be made now.
func (p *Pool) Tokens() float64 { return p.budget.tokens }

// Denied is how many extra attempts were wanted and not made for lack of tokens.
func (p *Pool) Denied() uint64 { return p.budget.denied }

// HedgeDelay is how long a silent attempt is waited for before the next upstream is asked.
func (p *Pool) HedgeDelay() time.Duration { return p.hedgeDelay() }

// IsAllOut reports whether every upstream is out of service, or there is none.
func (p *Pool) IsAllOut() bool { return p.out }

// Answered reports whether any upstream has ever replied: the first condition of readiness.
func (p *Pool) Answered() bool {
	for _, u := range p.order {
		if u.known {
			return true
		}
	}
	return false
}
