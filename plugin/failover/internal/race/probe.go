package race

import (
	"time"

	"github.com/resolute-dns/resolute/plugin/failover/internal/pool"
	"github.com/resolute-dns/resolute/plugin/failover/internal/wire"
)

// tick calls the pool at the times it asks for and sends the probes it orders.
func (g *Group) tick() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var orders []pool.Probe
	for {
		select {
		case <-timer.C:
		case <-g.kick:
		case <-g.awake.Done():
			return
		}
		g.mu.Lock()
		orders = g.pool.Tick(g.now(), orders[:0])
		for _, order := range orders {
			u := g.member(order.Upstream)
			packed := g.question(order)
			if u == nil || packed == nil || g.closed {
				g.pool.ProbeResult(order.Upstream, order.ID, pool.Cancelled, g.now())
				continue
			}
			g.wg.Go(func() { g.probe(order, u, packed) })
		}
		next := g.pool.NextTick()
		g.unlock()
		timer.Reset(next - g.now())
	}
}

// wake makes tick look at the pool now.
func (g *Group) wake() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// question returns what to ask for a probe, nil for nothing. The lock is held.
func (g *Group) question(order pool.Probe) []byte {
	if order.Replay {
		if q := g.replays.pick(g.now()); q != nil {
			return q
		}
	}
	return g.coldProbe
}

// probe asks u on nobody's behalf and tells the pool what came of it.
func (g *Group) probe(order pool.Probe, u *Upstream, packed []byte) {
	a := &wire.Attempt{Query: packed, Proto: wire.UDP}
	done := make(chan *wire.Attempt, 1)
	a.Done = done
	u.Wire.Send(a)

	o, r := pool.Timeout, Timeout
	timer := time.NewTimer(pool.ProbeTimeout)
	defer timer.Stop()
	ended := false
	select {
	case <-done:
		ended = true
	case <-timer.C:
		if ended = !a.Cancel(); ended {
			<-done
		}
	case <-g.ctx.Done():
		if !a.Cancel() {
			<-done
		}
		return
	}
	rcode := -1
	if ended {
		o, rcode = g.outcome(a)
		if o == pool.Good {
			if _, err := a.Unpack(); err != nil {
				a.Err, o = err, pool.Malformed
			}
		}
		if r = result(o); r == Late {
			r = Good
		}
	}
	g.mu.Lock()
	g.pool.ProbeResult(order.Upstream, order.ID, o, g.now())
	g.unlock()
	took := time.Since(a.SentAt)
	if ended {
		took = a.DoneAt.Sub(a.SentAt)
	}
	g.observer.Attempt(Attempt{Upstream: u, Kind: Probe, Result: r, Rcode: rcode, Err: a.Err, Started: a.SentAt, Took: took, Wire: a})
	a.Release()
}

const (
	// replayNames is how many questions are kept: enough that a few names which
	// break meanwhile do not keep an upstream out.
	replayNames = 32
	// replayGap is the least time between two that are taken, so that a burst for
	// one service does not fill all places, and the copy costs nothing that could
	// be measured.
	replayGap = 20 * time.Millisecond
	// replayAge is how old a question may be: old ones may be answered differently
	// by now. It is long because some servers see one query a minute.
	replayAge = 10 * time.Minute
)

// replays are recent questions of clients that were answered well.
type replays struct {
	ring [replayNames]replay
	n    int           // taken so far
	last time.Duration // when
	next int           // to be given out
}

type replay struct {
	packed []byte
	key    uint64
	at     time.Duration
}

// add keeps a copy of a question.
func (r *replays) add(packed []byte, key uint64, now time.Duration) {
	if r.n > 0 && now-r.last < replayGap {
		return
	}
	for i := range r.ring {
		if r.ring[i].packed != nil && r.ring[i].key == key {
			r.ring[i].at = now
			return
		}
	}
	r.ring[r.n%replayNames] = replay{packed: append([]byte(nil), packed...), key: key, at: now}
	r.n++
	r.last = now
}

// pick returns one of the questions in turn, nil if there is none. Nobody writes
// to it.
func (r *replays) pick(now time.Duration) []byte {
	for range r.ring {
		e := &r.ring[r.next%replayNames]
		r.next++
		if e.packed != nil && now-e.at < replayAge {
			return e.packed
		}
	}
	return nil
}
