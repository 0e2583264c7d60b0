package retry

import "sync"

func (t *Table) set(base uint64, port uint16) uint64 { return mix(base, uint64(port)) & t.sets }

func (t *Table) lock(set uint64) *sync.Mutex {
	mu := &t.locks[set%maxLocks].Mutex
	mu.Lock()
	return mu
}

// find returns the index of the live lookup that a query from this port is for,
// -1 for none. The set is locked.
func (t *Table) find(set uint64, q *query) int {
	first := int(set) * ways
	for i := first; i < first+ways; i++ {
		e := &t.entries[i]
		if e.base == q.base && e.lookup.port == q.port && !e.empty() && e.idle(q.at) < memory {
			return i
		}
	}
	return -1
}

// victim returns the place for a new lookup: a free one, or else the oldest of
// those that were answered completely, or else the oldest. So a flood of good
// lookups doesn't push out the one that misses a twin.
func (t *Table) victim(set uint64, at uint32) int {
	first := int(set) * ways
	best, bestAge, bestDone := first, uint32(0), false
	for i := first; i < first+ways; i++ {
		e := &t.entries[i]
		if e.empty() || e.idle(at) >= memory {
			return i
		}
		age, done := e.idle(at), e.complete()
		if i == first || done && !bestDone || done == bestDone && age > bestAge {
			best, bestAge, bestDone = i, age, done
		}
	}
	t.evicted.Add(1)
	return best
}
