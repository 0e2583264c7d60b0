package retry

import "sync/atomic"

// What is known about a source port of a client is one word, in one of the two
// entries that the hash of address and port falls on: who it is about (16 bits of that hash),
// the last name asked for (16 bits), when that was, and when it was last found
// to be shared by several lookups (16 bits each, in units of 1.024 s; 0 for
// never).
//
// It matters because a resolver library opens a socket for each lookup (glibc,
// musl, Go), and what happens on its port is the doing of that lookup. Forwarders
// and asynchronous libraries keep a socket for all, where an ID comes again by
// chance and A and AAAA may have nothing to do with each other.
//
// The words are read and written without a lock: losing an update once is no
// harm, it is made again by the next query.
const (
	ageBits = 10
	// sharedFor is how long a port counts as shared, in units of 1.024 s. As
	// long as lookups are remembered.
	sharedFor = memory>>ageBits + 1
)

// since16 is [since] for stamps.
func since16(now, then uint16) uint16 { return uint16(max(int16(now-then), 0)) }

// stamp returns a time in units of 1.024 s, modulo 2^16 (18.6 h) and never 0.
func stamp(ms uint32) uint16 { return max(uint16(ms>>ageBits), 1) }

// word returns the place of what is known about a port of the query's client,
// what it says, and whether that is about this port. There are two places for
// each; if others have both, it is one of them.
func (t *Table) word(q *query, port uint16) (slot *atomic.Uint64, word uint64, tag uint16, ok bool) {
	h := mix(q.addr, uint64(port))
	tag = uint16(h >> 48)
	now := stamp(q.at)
	i := h & uint64(len(t.entries)-1)
	for _, i := range [2]uint64{i, i ^ 1} {
		s := &t.entries[i].port
		w := s.Load()
		if uint16(w>>48) == tag && w != 0 {
			return s, w, tag, true
		}
		if slot == nil || since16(now, uint16(w>>16)) > since16(now, uint16(word>>16)) {
			slot, word = s, w
		}
	}
	return slot, word, tag, false
}

// note records that the query's port was used, and reports whether it is shared.
// A port that takes the place of one that was in use counts as shared, since it
// may have been forgotten in the same way.
func (t *Table) note(q *query) bool {
	slot, old, tag, ok := t.word(q, q.port)
	name, now := uint16(q.base>>32), stamp(q.at)
	seen, shared := uint16(old>>16), uint16(old)
	switch {
	case old == 0 || since16(now, seen) > sharedFor:
		shared = 0
	case !ok || uint16(old>>32) != name:
		shared = now
	case since16(now, shared) > sharedFor:
		shared = 0
	}
	if word := uint64(tag)<<48 | uint64(name)<<32 | uint64(now)<<16 | uint64(shared); word != old {
		slot.Store(word)
	}
	return shared != 0
}

// share records that the query's port has just been used for a second lookup of
// the same name.
func (t *Table) share(q *query) {
	slot, _, tag, _ := t.word(q, q.port)
	now := uint64(stamp(q.at))
	slot.Store(uint64(tag)<<48 | q.base>>32&0xffff<<32 | now<<16 | now)
}

// isShared reports whether a port of the query's client is shared, or may be.
func (t *Table) isShared(q *query, port uint16) bool {
	_, word, _, ok := t.word(q, port)
	then := uint16(word)
	if !ok {
		then = uint16(word >> 16)
	}
	return then != 0 && since16(stamp(q.at), then) <= sharedFor
}
