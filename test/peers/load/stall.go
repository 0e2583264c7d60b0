package load

import (
	"sync"
	"time"
)

const (
	tick = 2 * time.Millisecond

	// late is what a wake-up may be late before it counts as a stall: more than
	// the slice of time that another busy thread is given.
	late = 8 * time.Millisecond
)

// Watch notices when this process was not run, because the machine was busy with
// other work. What a test measures in such a time says nothing about the server.
type Watch struct {
	mu     sync.Mutex
	stalls []stall
	done   chan struct{}
	ended  sync.WaitGroup
}

type stall struct{ from, to time.Time }

// NewWatch starts to watch, until Stop.
func NewWatch() *Watch {
	w := &Watch{done: make(chan struct{})}
	w.ended.Go(func() {
		last := time.Now()
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		for {
			select {
			case <-w.done:
				return
			case <-ticker.C:
			}
			now := time.Now()
			w.saw(last.Add(tick), now)
			last = now
		}
	})
	return w
}

// saw records that what was to happen at from happened at to.
func (w *Watch) saw(from, to time.Time) {
	if to.Sub(from) < late {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stalls = append(w.stalls, stall{from, to})
}

// Stop ends it.
func (w *Watch) Stop() {
	close(w.done)
	w.ended.Wait()
}

// Lost returns how much of the time between from and to the process was stalled.
func (w *Watch) Lost(from, to time.Time) (lost time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.stalls {
		if d := min(s.to.Sub(s.from), to.Sub(s.from), s.to.Sub(from), to.Sub(from)); d > 0 {
			lost += d
		}
	}
	return lost
}

// Longest returns the longest stall between from and to.
func (w *Watch) Longest(from, to time.Time) (longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.stalls {
		if s.to.After(from) && s.from.Before(to) {
			longest = max(longest, s.to.Sub(s.from))
		}
	}
	return longest
}
