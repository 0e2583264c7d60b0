package retry

import (
	"sync"
	"sync/atomic"
)

// queueLen is how many lookups can wait to be understood, 24 bytes each. Each
// waits for a second, so this is how many retries (and false starts of them) a
// second can be told apart with all care; more are judged at once.
const queueLen = 4096

// due is a lookup to be looked at again.
type due struct {
	base  uint64
	index uint32
	at    uint32 // ms
	port  uint16
}

// queue has the lookups that wait, first in, first out: all wait for the same
// time.
type queue struct {
	mu      sync.Mutex
	ring    [queueLen]due
	head, n int
	next    atomic.Uint64 // when the first one is due, plus 2^32; 0 for none
}

// push reports whether there was room.
func (q *queue) push(d due) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n == queueLen {
		return false
	}
	q.ring[(q.head+q.n)%queueLen] = d
	q.n++
	q.setNext()
	return true
}

// isDue is cheap: nearly always, nothing is.
func (q *queue) isDue(at uint32) bool {
	next := q.next.Load()
	return next != 0 && int32(at-uint32(next)) >= 0
}

// pop returns the first lookup if it is due.
func (q *queue) pop(at uint32) (due, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n == 0 || !q.isDue(at) {
		return due{}, false
	}
	d := q.ring[q.head]
	q.head = (q.head + 1) % queueLen
	q.n--
	q.setNext()
	return d, true
}

func (q *queue) setNext() {
	next := uint64(0)
	if q.n > 0 {
		next = 1<<32 | uint64(q.ring[q.head].at)
	}
	if q.next.Load() != next {
		q.next.Store(next)
	}
}
