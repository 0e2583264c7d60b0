package retry

import "math"

const (
	// memory is how long, in ms, a lookup is remembered after its last query: a
	// little longer than the 10 s that the slowest clients wait before they try
	// once more (c-ares, the second time).
	memory = 12_000

	// settle is how long, in ms, a retry waits to be understood. Clients that
	// send both twins again send the second one after the answer to the first.
	settle = 1000

	// settled is how long, in ms, ago the last answer must be by then. Less
	// than settle, so that a lookup that is answered at once is looked at once.
	settled = 500
)

// query is one that arrived, with what is known about it.
type query struct {
	table   *Table
	base    uint64 // hash of address and name
	addr    uint64 // hash of the address
	at      uint32 // ms
	id      uint16
	port    uint16
	kind    uint8 // 1 for AAAA, 0 for A and all others
	address bool  // A or AAAA
	shared  bool  // other lookups came from the same port
	hot     bool  // the name was looked up from other ports since
}

func (q *query) ticket(i int, port uint16) Ticket {
	return Ticket{base: q.base, index: uint32(i), port: port, id: q.id, kind: q.kind}
}

// half is what came of one type, times in ms.
type half struct {
	first, last uint32 // queries
	answered    uint32 // the last answer
	id          uint16
	port        uint16 // of a loose one
}

// lookup is A and AAAA for one name from one port, or another type alone. All
// zero is an empty place.
type lookup struct {
	base  uint64
	half  [2]half
	port  uint16
	n     [2]uint8 // how often each came again; the larger one is the round
	flags uint8    // of the first half; those of the second 4 bits higher
	state uint8
	held  uint8 // the verdict held back: index in causes, and in confidences * 8
}

// Flags of a half.
const (
	own     = 1 << iota // came from the lookup's port, or again from another
	loose               // came from another port, as half of another lookup
	open                // asked and not answered since
	replied             // answered at least once
)

// States of a lookup.
const (
	queued   = 1 << iota // waits in the queue
	done                 // the waiting time of this round was returned
	sure                 // was certainly retried, so the next time it is so too
	twinless             // held back until the twin is seen for the first time
	likely               // which would make it likely that this is a retry
)

func newLookup(q *query) lookup {
	l := lookup{base: q.base, port: q.port}
	l.join(q)
	return l
}

// next returns the lookup that takes the place of l, on the same port. What came
// just before the query is its twin, if it isn't the twin of what l had.
func (l *lookup) next(q *query) lookup {
	n := newLookup(q)
	k := 1 - q.kind
	if l.has(k, own) && since(q.at, l.half[k].first) < minGap && since(q.at, l.half[q.kind].first) >= minGap {
		n.half[k] = l.half[k]
		n.flags |= l.flags & (0xf << (4 * k))
	}
	return n
}

func (l *lookup) empty() bool               { return l.flags == 0 }
func (l *lookup) is(state uint8) bool       { return l.state&state != 0 }
func (l *lookup) has(k uint8, f uint8) bool { return l.flags>>(4*k)&f != 0 }
func (l *lookup) set(k uint8, f uint8)      { l.flags |= f << (4 * k) }
func (l *lookup) clear(k uint8, f uint8)    { l.flags &^= f << (4 * k) }
func (l *lookup) round() uint8              { return max(l.n[0], l.n[1]) }
func (l *lookup) sees(k uint8) bool         { return l.has(k, own|loose) }
func (l *lookup) answeredFor(k uint8) bool  { return l.has(k, replied) && !l.has(k, open) }
func (l *lookup) openOf(k uint8) bool       { return l.has(k, own) && l.has(k, open) }
func (l *lookup) complete() bool {
	return l.flags == (own|replied)*0x11 && l.held == 0 && l.round() == 0
}

// since is the time from then to now in ms. Two queries may be handled in
// another order than their times; times wrap around after 49.7 days, so that
// anything older than half of it is not told from the future, and as good as
// forgotten.
func since(now, then uint32) uint32 {
	d := int32(now - then)
	if d >= 0 {
		return uint32(d)
	}
	if d > -memory {
		return 0
	}
	return math.MaxUint32
}

// idle is the time since the last query, in ms.
func (l *lookup) idle(at uint32) uint32 {
	idle := uint32(math.MaxUint32)
	for k := range uint8(2) {
		if l.has(k, own) {
			idle = min(idle, since(at, l.half[k].last))
		}
	}
	return idle
}

// join makes the query the first of its kind.
func (l *lookup) join(q *query) {
	l.half[q.kind] = half{first: q.at, last: q.at, id: q.id}
	l.clear(q.kind, loose|replied)
	l.set(q.kind, own|open)
}

// again records a query that came before.
func (l *lookup) again(q *query) {
	l.half[q.kind].last = q.at
	l.set(q.kind, open)
}

// link remembers half k of another lookup for the same name, from another port.
func (l *lookup) link(k uint8, other *lookup) {
	l.half[k] = other.half[k]
	if other.has(k, own) {
		l.half[k].port = other.port
	}
	l.set(k, loose|other.flags>>(4*k)&(open|replied))
}

// loosePort returns the port that the query's kind came from, if that isn't the
// lookup's own.
func (l *lookup) loosePort(q *query) (uint16, bool) {
	return l.half[q.kind].port, q.address && l.has(q.kind, loose)
}

// borrow brings a loose half up to date.
func (l *lookup) borrow(other *lookup, k uint8) {
	if other.has(k, own) {
		l.half[k] = other.half[k]
		l.clear(k, open|replied)
		l.set(k, other.flags>>(4*k)&(open|replied))
	}
}

// answer records an answer. It returns the time the client waited, if that is
// clear by now.
func (l *lookup) answer(k uint8, id uint16, at uint32) (wait uint32) {
	if !l.has(k, own) || l.half[k].id != id {
		return 0 // overwritten by the next lookup
	}
	l.half[k].answered = at
	l.set(k, replied)
	l.clear(k, open)
	if l.round() == 0 || l.is(done) || l.held != 0 || l.openOf(0) || l.openOf(1) {
		return 0
	}
	return l.finish()
}

// finish returns the time from the first query to the last answer, once in each
// round.
func (l *lookup) finish() uint32 {
	if r := l.round(); r == 0 || r > maxRounds || l.is(done) {
		return 0
	}
	wait := uint32(0)
	for i := range uint8(2) {
		for k := range uint8(2) {
			if l.has(i, own) && l.has(k, own) && l.has(k, replied) {
				if d := since(l.half[k].answered, l.half[i].first); d != math.MaxUint32 {
					wait = max(wait, d)
				}
			}
		}
	}
	if wait > 0 {
		l.state |= done
	}
	return wait
}

// busy reports whether something may still happen that matters for what is held
// back.
func (l *lookup) busy(at uint32) bool {
	for k := range uint8(2) {
		if l.openOf(k) && since(at, l.half[k].last) < memory {
			return true
		}
		if l.has(k, own) && l.has(k, replied) && since(at, l.half[k].answered) < settled {
			return true
		}
	}
	return false
}

var (
	causes      = [...]Cause{"", LostRequest, LostReply, SlowUpstream, Unknown}
	confidences = [...]Confidence{Low, High, Certain}
)

// hold keeps a verdict back.
func (l *lookup) hold(v Verdict) {
	for i, c := range causes {
		if c == v.Cause {
			l.held = uint8(i)
		}
	}
	for i, c := range confidences {
		if c == v.Confidence {
			l.held |= uint8(i) << 3
		}
	}
}

// verdict is the one held back.
func (l *lookup) verdict() Verdict {
	if l.held == 0 {
		return Verdict{}
	}
	return Verdict{causes[l.held&7], confidences[l.held>>3]}
}

// release returns the verdict held back, which is then no longer.
func (l *lookup) release() Verdict {
	v := l.verdict()
	l.held = 0
	l.state &^= twinless | likely
	return v
}

// cancel forgets a retry that was none.
func (l *lookup) cancel() {
	l.release()
	l.n = [2]uint8{}
	l.state &^= sure
	l.flags &^= loose * 0x11
	for k := range l.half {
		l.half[k].first = l.half[k].last
	}
}
