package race

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/resolute-dns/resolute/plugin/failover/internal/pool"
	"github.com/resolute-dns/resolute/plugin/failover/internal/wire"

	"github.com/miekg/dns"
)

// Query is what a client asks.
type Query struct {
	// Packed is the message. Its ID does not matter. It is not read any more
	// when Exchange has returned.
	Packed []byte
	// Proto is what to ask over, where the upstream has a choice.
	Proto wire.Proto
	// RetryTCP asks a truncated reply again over TCP.
	RetryTCP bool
	// Alone is a query that must not share its answer with another: it is signed.
	Alone bool
	// Observer, if not nil, is told of each attempt made for this query, before
	// Exchange returns.
	Observer interface{ Attempt(Attempt) }
}

// FailedError is the error of a query that nobody answered.
type FailedError struct{ Why pool.Failure }

func (e FailedError) Error() string {
	switch e.Why {
	case pool.FailAllOut:
		return "all upstreams are out"
	case pool.FailDeadline:
		return "no upstream answered in time"
	}
	return "no upstream answered"
}

// exchange is one query on its way. It is used again when no attempt of it is in
// flight any more.
type exchange struct {
	g *Group
	q pool.Query

	// done receives the attempts that have ended, and nil as a sign to look at
	// the pool again.
	done    chan *wire.Attempt
	timer   *time.Timer
	slots   [pool.MaxAttempts]slot
	pending int // attempts in flight or in done

	prev, next *exchange // in Group.running
	nudged     bool      // guarded by Group.mu: nil is in done

	client *Query
	packed []byte
	key    uint64 // hash of the question

	flight    uint64     // hash of the query, the key in Group.flights
	leads     bool       // it is in there
	followers *followers // who waits for its answer; guarded by Group.mu while it is
}

// slot is one attempt of an exchange.
type slot struct {
	wire.Attempt
	order    pool.Attempt
	upstream *Upstream
	live     bool     // in flight or in done
	retried  bool     // over TCP
	msg      *dns.Msg // the reply, if it is good
}

func newExchange(g *Group) *exchange {
	x := &exchange{g: g, done: make(chan *wire.Attempt, pool.MaxAttempts+1)}
	x.timer = time.NewTimer(time.Hour)
	x.timer.Stop()
	return x
}

// nudge makes x look at the pool. The lock is held.
func (x *exchange) nudge() {
	if !x.nudged {
		x.nudged = true
		x.done <- nil // there is room for one besides the attempts
	}
}

// Exchange asks until somebody gives a good answer, the deadline of the group is
// reached, nobody is left to ask, or ctx is done. The answer is the caller's; its
// ID is not that of the query. A bad rcode is returned as an answer when nobody
// does better. The error is a [FailedError], [ErrClosed], the context's, or says
// what is wrong with the query.
func (g *Group) Exchange(ctx context.Context, q *Query) (*dns.Msg, error) {
	key, question, ok := hashQuestion(q.Packed)
	if !ok {
		return nil, wire.ErrBadQuery
	}
	flight := q.hash(key, question)
	for {
		x := g.spare.Get().(*exchange)
		g.mu.Lock()
		if !q.Alone {
			if leader := g.flights[flight]; leader != nil && sameQuery(leader.packed, q.Packed, question) && leader.sameWay(q) {
				f := leader.join()
				g.mu.Unlock()
				g.spare.Put(x)
				m, retry, err := f.wait(ctx)
				if retry {
					continue
				}
				g.observer.Coalesced()
				return m, err
			}
		}
		return x.lead(ctx, q, key, flight)
	}
}

// lead runs the exchange itself. It is called with the lock held.
func (x *exchange) lead(ctx context.Context, q *Query, key, flight uint64) (*dns.Msg, error) {
	g := x.g
	if g.closed {
		g.mu.Unlock()
		g.spare.Put(x)
		return nil, ErrClosed
	}
	x.client, x.packed, x.key, x.flight, x.leads = q, q.Packed, key, flight, false
	if _, taken := g.flights[flight]; !q.Alone && !taken {
		g.flights[flight] = x
		x.leads = true
	}
	x.enlist()
	now := g.now()
	step := g.pool.Begin(&x.q, key, now)
	x.settle(&step, now)
	g.unlock()

	m, err := x.run(ctx, step)

	if f := x.followers; f != nil {
		x.followers = nil
		f.end(m, err)
	}
	var failed FailedError
	if errors.As(err, &failed) {
		g.observer.Failed(failed.Why)
	}
	x.client, x.packed = nil, nil
	if x.pending > 0 {
		g.linger(x)
	} else {
		g.release(x)
	}
	return m, err
}

// run drives the exchange to its end.
func (x *exchange) run(ctx context.Context, step pool.Step) (*dns.Msg, error) {
	var armed time.Duration
	defer x.timer.Stop()
	for {
		x.send(&step)
		if step.Done {
			return x.finish(step)
		}
		if step.Timer != 0 && step.Timer != armed {
			armed = step.Timer
			x.timer.Reset(armed - x.g.now())
		}
		select {
		case a := <-x.done:
			if a == nil {
				step = x.look()
				break
			}
			step = x.received(a)
		case <-x.timer.C:
			armed = 0
			step = x.look()
		case <-ctx.Done():
			x.abandon()
			return nil, ctx.Err()
		case <-x.g.ctx.Done():
			x.abandon()
			return nil, ErrClosed
		}
	}
}

// look asks the pool what to do as time has passed.
func (x *exchange) look() pool.Step {
	g := x.g
	g.mu.Lock()
	x.nudged = false
	now := g.now()
	step := g.pool.Timer(&x.q, now)
	x.settle(&step, now)
	g.unlock()
	return step
}

// settle does what a step wants to have done under the lock: it looks up whom to
// ask, and takes an exchange that has ended off the lists.
func (x *exchange) settle(step *pool.Step, now time.Duration) {
	for i := range step.Asks {
		order := step.Ask[i]
		s := &x.slots[order.Index()]
		s.order, s.upstream = order, x.g.member(order.Upstream)
		s.retried = false
	}
	if !step.Done {
		return
	}
	if step.Deliver >= 0 && !step.Soft && !x.client.Alone {
		x.g.replays.add(x.packed, x.key, now)
	}
	x.unlist()
}

// send carries out the attempts of a step.
func (x *exchange) send(step *pool.Step) {
	for i := range step.Asks {
		index := step.Ask[i].Index()
		s := &x.slots[index]
		s.Query, s.Proto, s.Done, s.User = x.packed, x.client.Proto, x.done, s
		s.Avoid = 0
		if s.order.Again {
			for j := range index {
				if x.slots[j].upstream == s.upstream {
					s.Avoid = x.slots[j].Leg()
				}
			}
		}
		s.live = true
		x.pending++
		s.upstream.Wire.Send(&s.Attempt)
	}
}

// received takes an attempt that has ended.
func (x *exchange) received(a *wire.Attempt) pool.Step {
	g := x.g
	s := a.User.(*slot)
	x.pending--
	s.live = false
	if x.client.RetryTCP && a.Err == nil && a.Truncated() && !s.retried && a.Proto == wire.UDP {
		s.retried, s.live = true, true
		x.pending++
		s.RetryTCP()
		return pool.Step{Deliver: -1}
	}
	o, _ := g.outcome(a)
	if o == pool.Good {
		// Looked at before the pool is told, so that garbage does not win.
		if m, err := a.Unpack(); err != nil {
			a.Err, o = err, pool.Malformed
		} else {
			s.msg = m
			if g.isBad(m.Rcode) {
				o = pool.Bad
			}
		}
	}
	g.mu.Lock()
	now := g.now()
	step := g.pool.Result(&x.q, s.order, o, now)
	x.settle(&step, now)
	g.unlock()
	if step.Deliver != s.order.Index() || step.Soft {
		x.report(s, result(o))
	}
	return step
}

// finish ends the exchange by the last step.
func (x *exchange) finish(step pool.Step) (*dns.Msg, error) {
	x.cancel(uint(step.Cancel))
	if step.Deliver < 0 {
		return nil, FailedError{step.Fail}
	}
	s := &x.slots[step.Deliver]
	m := s.msg
	s.msg = nil
	if m == nil {
		var err error
		if m, err = s.Unpack(); err != nil { // a bad rcode whose body is garbage
			return nil, fmt.Errorf("upstream %s: %w", s.upstream.ID, err)
		}
	}
	if !step.Soft {
		x.report(s, Win)
	}
	return m, nil
}

// abandon ends the exchange because nobody waits for it any more.
func (x *exchange) abandon() {
	x.g.mu.Lock()
	x.g.pool.Abandon(&x.q, x.g.now())
	x.unlist()
	x.g.unlock()
	x.cancel(1<<pool.MaxAttempts - 1)
}

// cancel stops listening for the attempts in mask.
func (x *exchange) cancel(mask uint) {
	for ; mask != 0; mask &= mask - 1 {
		s := &x.slots[bits.TrailingZeros(mask)]
		if !s.live {
			continue
		}
		if s.Cancel() {
			s.live = false
			x.pending--
			x.report(s, Cancelled)
		}
		// Otherwise it is in done, and is taken out before x is used again.
	}
}

// report tells the observers about an attempt that has ended.
func (x *exchange) report(s *slot, r Result) {
	a := Attempt{
		Upstream: s.upstream, Kind: kinds[s.order.Kind], Result: r, Rcode: s.Rcode(), Err: s.Err,
		Started: s.SentAt, Took: s.DoneAt.Sub(s.SentAt), Wire: &s.Attempt,
	}
	if s.DoneAt.IsZero() { // given up
		a.Took = time.Since(s.SentAt)
	}
	x.g.observer.Attempt(a)
	if x.client != nil && x.client.Observer != nil {
		x.client.Observer.Attempt(a)
	}
}
