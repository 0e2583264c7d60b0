package race

import (
	"github.com/resolute-dns/resolute/plugin/failover/internal/pool"
	"github.com/resolute-dns/resolute/plugin/failover/internal/wire"
)

// An exchange that has its answer may have attempts in flight that the pool wants
// to hear of: a loser that answers within the grace is slow, one that does not is
// lost. Somebody has to listen, and it is not the client's goroutine.

// linger listens for what is left of x and then puts it aside for another query.
func (g *Group) linger(x *exchange) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.wg.Go(x.listen)
		return
	}
	x.drain()
}

func (x *exchange) listen() {
	x.timer.Reset(pool.Grace)
	defer x.timer.Stop()
	for x.pending > 0 {
		select {
		case a := <-x.done:
			x.late(a)
		case <-x.timer.C:
			x.drain()
		case <-x.g.ctx.Done():
			x.drain()
		}
	}
	x.g.release(x)
}

// late takes an attempt that ended after the answer.
func (x *exchange) late(a *wire.Attempt) {
	if a == nil {
		return
	}
	s := a.User.(*slot)
	s.live = false
	x.pending--
	o, _ := x.g.outcome(a)
	x.g.mu.Lock()
	x.g.pool.Result(nil, s.order, o, x.g.now())
	x.g.unlock()
	x.report(s, result(o))
}

// drain gives up what is still silent, and takes what cannot be given up any more
// out of the channel.
func (x *exchange) drain() {
	for i := range x.slots {
		s := &x.slots[i]
		if s.live && s.Cancel() {
			s.live = false
			x.pending--
			x.report(s, Timeout)
		}
	}
	for x.pending > 0 {
		a := <-x.done
		if a == nil {
			continue
		}
		s := a.User.(*slot)
		s.live = false
		x.pending--
		x.report(s, Cancelled)
	}
}

// release puts an exchange without attempts in flight aside.
func (g *Group) release(x *exchange) {
	for i := range x.slots {
		s := &x.slots[i]
		if s.upstream == nil {
			break // the slots are filled in order
		}
		s.Release()
		s.Query, s.upstream, s.msg = nil, nil, nil
	}
	select {
	case <-x.done: // a nudge that came too late
	default:
	}
	x.nudged = false
	g.spare.Put(x)
}

// enlist makes x one of those that wait. The lock is held.
func (x *exchange) enlist() {
	x.nudged = false
	x.prev, x.next = nil, x.g.running
	if x.next != nil {
		x.next.prev = x
	}
	x.g.running = x
}

// unlist ends that, and lets nobody follow x any more. The lock is held.
func (x *exchange) unlist() {
	if x.leads {
		delete(x.g.flights, x.flight)
		x.leads = false
	}
	if x.prev != nil {
		x.prev.next = x.next
	} else {
		x.g.running = x.next
	}
	if x.next != nil {
		x.next.prev = x.prev
	}
	x.prev, x.next = nil, nil
}
