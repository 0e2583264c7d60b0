package fault

import (
	"container/heap"
	"sync"
	"time"
)

// delayer sends replies when their time has come: one goroutine for all of them,
// however many wait.
type delayer struct {
	mu      sync.Mutex
	waiting replies
	peak    int           // most that have waited at once
	sooner  chan struct{} // the first to be sent is another one
	done    chan struct{}
	ended   sync.WaitGroup
}

type reply struct {
	at   time.Time
	msg  []byte
	send func(msg []byte)
}

func newDelayer() *delayer {
	d := &delayer{sooner: make(chan struct{}, 1), done: make(chan struct{})}
	d.ended.Go(d.run)
	return d
}

func (d *delayer) add(r reply) {
	d.mu.Lock()
	heap.Push(&d.waiting, r)
	d.peak = max(d.peak, len(d.waiting))
	first := d.waiting[0].at.Equal(r.at)
	d.mu.Unlock()
	if first {
		select {
		case d.sooner <- struct{}{}:
		default:
		}
	}
}

func (d *delayer) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-d.done:
			return
		case <-d.sooner:
		case <-timer.C:
		}
		for {
			r, wait := d.next()
			if r.send == nil {
				timer.Reset(wait)
				break
			}
			r.send(r.msg)
		}
	}
}

// next takes the first reply out if it is due, or says how long it is not.
func (d *delayer) next() (reply, time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) == 0 {
		return reply{}, time.Hour
	}
	if wait := time.Until(d.waiting[0].at); wait > 0 {
		return reply{}, wait
	}
	return heap.Pop(&d.waiting).(reply), 0
}

func (d *delayer) close() {
	close(d.done)
	d.ended.Wait()
}

// replies is a heap of what is to be sent, soonest first.
type replies []reply

func (r replies) Len() int           { return len(r) }
func (r replies) Less(i, j int) bool { return r[i].at.Before(r[j].at) }
func (r replies) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *replies) Push(x any)        { *r = append(*r, x.(reply)) }
func (r *replies) Pop() any {
	last := (*r)[len(*r)-1]
	(*r)[len(*r)-1] = reply{}
	*r = (*r)[:len(*r)-1]
	return last
}
