// Package retry recognises the retries of DNS clients from what a server sees of
// them: the queries that arrive and the answers that leave. A packet that is lost
// is never seen by the server, but the client's second attempt is, and a client
// that lost one packet looks different from one whose answer was slow.
//
// The rules are in rules.go, with the clients that each one is for. They were
// read off real clients (measured.md section 3.2) and are tested against them.
//
// Feed it with what came over UDP: TCP, DoT and DoH lose nothing, and a client
// that comes again over TCP after a truncated answer uses the same ID.
package retry

import (
	"math/bits"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Cause is why a client asked again.
type Cause string

const (
	// LostRequest is a query that didn't arrive while its twin (A and AAAA of
	// one lookup) did. Both leave within microseconds from one socket, which is
	// what conntrack loses a packet over: this is the signature of its race.
	LostRequest Cause = "lost_request"
	// LostReply is an answer that was sent in time and didn't arrive.
	LostReply Cause = "lost_reply"
	// SlowUpstream is a query that had no answer when the client asked again.
	SlowUpstream Cause = "slow_upstream"
	// Unknown is a retry of an answered query that had no twin: the answer was
	// lost, or else the twin, and the client gave up on it.
	Unknown Cause = "unknown"
)

// Confidence is how sure it is that there was a retry and what its cause was.
type Confidence string

const (
	// Certain rests on 30 bits or more that repeated: ID and source port, or
	// the IDs of both twins.
	Certain Confidence = "certain"
	// High rests on an ID that repeated, or on a source port and the nearness
	// of two IDs, each together with the client's timer and the way it behaves.
	// By chance, once in 40 million lookups of the kinds in lossfree_test.go.
	High Confidence = "high"
	// Low rests on timing: traffic without any loss can look like it. Don't
	// alert on it.
	Low Confidence = "low"
)

// Verdict is one retry to count. The zero value is none.
type Verdict struct {
	Cause      Cause
	Confidence Confidence
}

// Config is the configuration of a [Table].
type Config struct {
	// Entries is how many lookups are remembered, 64 bytes each. It is rounded
	// up to 4 times a power of two, and limited to 4 to 2^28. A lookup is worth
	// remembering for 12 s, so 12 times the lookups a second remembers all.
	Entries int
	// Now tells the time when the table is made; nil means time.Now. All other
	// times are arguments.
	Now func() time.Time
}

// Table remembers recent lookups. Its memory is allocated by [New] and never
// grows: the oldest lookup makes room for a new one. It is safe for concurrent
// use. Use one for each server whose retries are counted apart.
//
// A lookup is the A and AAAA queries for one name from one client address and
// port, or one query of another type. It is found by a 64-bit hash (seeded) of
// address, lower-cased name and, for other types, the type, together with the
// port; then the ID is compared. Two of n live lookups with the same hash are
// taken for the same client and name. The odds are n²/2^65: 1 in 8 billion for
// 65536 lookups.
type Table struct {
	entries []entry
	sets    uint64 // number of sets minus one
	epoch   time.Time
	seed    seeds
	locks   [maxLocks]paddedMutex
	queue   queue
	evicted atomic.Uint64
}

const (
	// ways is how many places there are for one lookup. 4 lose few lookups
	// before the table is full, and are 256 bytes to search.
	ways = 4

	maxEntries = 1 << 28

	// maxLocks makes it unlikely that as many cores as servers have want the
	// same lock.
	maxLocks = 64
)

// entry is the place of one lookup. It lends room to two indexes that have
// nothing to do with the lookup in it, so that the memory is 64 bytes for each
// lookup, all in all.
type entry struct {
	lookup // guarded by the lock of its set

	// latest is the last lookup for a client address and name, whatever its
	// port: index+1, 0 for none. Direct-mapped: where two of them fall on one
	// place, the older is forgotten, and retries from a new port go unseen.
	latest atomic.Uint32
	_      uint32

	// port knows who has used a source port, see [Table.note].
	port atomic.Uint64
}

type paddedMutex struct {
	sync.Mutex
	_ [56]byte // a cache line each
}

// New returns an empty table.
func New(c Config) *Table {
	now := c.Now
	if now == nil {
		now = time.Now
	}
	n := min(max(c.Entries, ways), maxEntries)
	sets := 1 << bits.Len(uint((n+ways-1)/ways-1))
	return &Table{
		entries: make([]entry, sets*ways),
		sets:    uint64(sets - 1),
		epoch:   now(),
		seed:    newSeeds(),
	}
}

// Ticket is a query that waits for its answer. The zero value is nobody's.
type Ticket struct {
	base  uint64
	index uint32
	port  uint16
	id    uint16
	kind  uint8
}

// Query records a query that arrived. It returns a verdict if the query shows
// that its client has tried again and why; many such queries are only held back,
// until it is clear whether the twin comes too, and their verdict is returned by
// a later call of Query, [Table.Answer] or [Table.Overdue]. One round of retries
// of a lookup is one verdict, even if the client sends both twins again.
//
// The name is in presentation form, in any case. Each query that is answered
// needs a call of Answer.
func (t *Table) Query(client netip.AddrPort, id, qtype uint16, name string, now time.Time) (Verdict, Ticket) {
	base, addr := t.seed.hash(client.Addr(), qtype, name)
	q := query{
		base:    base,
		addr:    addr,
		table:   t,
		at:      t.ms(now),
		id:      id,
		port:    client.Port(),
		address: qtype == dns.TypeA || qtype == dns.TypeAAAA,
	}
	if qtype == dns.TypeAAAA {
		q.kind = 1
	}
	q.shared = t.note(&q)

	set := t.set(q.base, q.port)
	mu := t.lock(set)
	if i := t.find(set, &q); i >= 0 {
		v, k := t.samePort(&q, i)
		mu.Unlock()
		return v, k
	}
	mu.Unlock()

	// Nothing from this port. Clients of some kinds try again from a new one.
	latest := t.latest(q.base)
	start := newLookup(&q)
	if i := int(latest.Load()) - 1; i >= 0 {
		if v, k, ok := t.otherPort(&q, i, &start); ok {
			return v, k
		}
	}

	mu = t.lock(set)
	i := t.find(set, &q) // the twin may have been faster
	if i >= 0 {
		v, k := t.samePort(&q, i)
		mu.Unlock()
		return v, k
	}
	i = t.victim(set, q.at)
	e := &t.entries[i]
	e.lookup = start
	v := t.later(Verdict{}, i, q.at)
	mu.Unlock()
	latest.Store(uint32(i + 1))
	return v, q.ticket(i, start.port)
}

// samePort deals with a query from the same port as the lookup at i, which is
// locked.
func (t *Table) samePort(q *query, i int) (Verdict, Ticket) {
	e := &t.entries[i]
	q.hot = int(t.latest(q.base).Load()) != i+1
	v, ok := e.take(q)
	if !ok {
		// Another lookup: the port is a busy one, or its owner is a new one.
		t.share(q)
		v = e.release()
		e.lookup = e.next(q)
	}
	if !ok || e.round() > 0 {
		t.latest(q.base).Store(uint32(i + 1))
	}
	return t.later(v, i, q.at), q.ticket(i, e.lookup.port)
}

func (t *Table) latest(base uint64) *atomic.Uint32 {
	return &t.entries[base&uint64(len(t.entries)-1)].latest
}

// otherPort offers a query to the lookup at i, which came from another port. If
// it isn't part of it, start is told what the new lookup has to do with the old.
func (t *Table) otherPort(q *query, i int, start *lookup) (Verdict, Ticket, bool) {
	e := &t.entries[i]
	mu := t.lock(uint64(i / ways))
	if e.empty() || e.base != q.base || e.idle(q.at) >= memory {
		mu.Unlock()
		return Verdict{}, Ticket{}, false
	}
	if e.lookup.port != q.port { // else the twin was faster: see Query
		if v, own := e.take(q); own {
			v, k := t.later(v, i, q.at), q.ticket(i, e.lookup.port)
			mu.Unlock()
			return v, k, true
		}
	}
	old := e.lookup
	mu.Unlock()

	if port, ok := old.loosePort(q); ok {
		// The query's own kind came from yet another port, where its answer
		// is known.
		twin := query{base: q.base, port: port, at: q.at}
		set := t.set(twin.base, port)
		mu := t.lock(set)
		if j := t.find(set, &twin); j >= 0 {
			old.borrow(&t.entries[j].lookup, q.kind)
		}
		mu.Unlock()
	}
	start.follow(&old, q)
	return Verdict{}, Ticket{}, false
}

// later has the lookup at i looked at again once its held-back verdict is due,
// if it has one. If there is no room to wait, there is nothing better to come:
// it takes the place of v, the verdict of now, unless that is one.
func (t *Table) later(v Verdict, i int, at uint32) Verdict {
	l := &t.entries[i].lookup
	if l.held == 0 || l.is(queued) {
		return v
	}
	if t.queue.push(due{base: l.base, index: uint32(i), port: l.port, at: at + settle}) {
		l.state |= queued
		return v
	}
	if h := l.release(); v == (Verdict{}) && h.Confidence != Low {
		return h
	}
	return v
}

// Answer records that the query with the ticket k is being answered. The
// duration is how long the client of a retried lookup waited, from its first
// packet to the last answer of this round; 0 if nothing is to be recorded.
//
// Where more queries of the lookup may follow, the duration is held back for a
// second and then returned, like a verdict that was held back, by the Answer to
// any other query: the two results belong together, but not always to k. A
// lookup that needs two rounds of retries has two durations, each from its first
// packet.
func (t *Table) Answer(k Ticket, now time.Time) (Verdict, time.Duration) {
	at := t.ms(now)
	if k.base != 0 && int(k.index) < len(t.entries) {
		i := int(k.index)
		e := &t.entries[i]
		mu := t.lock(uint64(i / ways))
		if e.base == k.base && e.lookup.port == k.port {
			if wait := e.answer(k.kind, k.id, at); wait > 0 {
				mu.Unlock()
				return Verdict{}, millis(wait)
			}
		}
		mu.Unlock()
	}
	if !t.queue.isDue(at) {
		return Verdict{}, 0
	}
	return t.overdue(at)
}

// Overdue returns what was held back long enough, one verdict or duration or
// both at a time, and zeroes when there is nothing more. [Table.Answer] does the
// same, so this is only needed where no other query may come for a while.
func (t *Table) Overdue(now time.Time) (Verdict, time.Duration) {
	return t.overdue(t.ms(now))
}

func (t *Table) overdue(at uint32) (Verdict, time.Duration) {
	// A look at all that wait at most, since those that go back are due again
	// only later.
	for range queueLen {
		d, ok := t.queue.pop(at)
		if !ok {
			break
		}
		i := int(d.index)
		e := &t.entries[i]
		mu := t.lock(uint64(i / ways))
		if e.base != d.base || e.lookup.port != d.port || !e.is(queued) {
			mu.Unlock() // overwritten
			continue
		}
		if e.busy(at) {
			d.at = at + settle
			if t.queue.push(d) {
				mu.Unlock()
				continue
			}
		}
		e.state &^= queued
		v, wait := e.release(), e.finish()
		mu.Unlock()
		if v != (Verdict{}) || wait > 0 {
			return v, millis(wait)
		}
	}
	return Verdict{}, 0
}

// Evicted returns how many lookups were overwritten while they were still worth
// remembering.
func (t *Table) Evicted() uint64 { return t.evicted.Load() }

func millis(ms uint32) time.Duration { return time.Duration(ms) * time.Millisecond }

// ms is the time in milliseconds since the table was made, modulo 2^32 (49.7
// days). See [since].
func (t *Table) ms(now time.Time) uint32 { return uint32(now.Sub(t.epoch) / time.Millisecond) }
