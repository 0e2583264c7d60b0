package race

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/resolute-dns/resolute/plugin/failover/internal/pool"
	"github.com/resolute-dns/resolute/plugin/failover/internal/wire"
)

// Upstream is a server to ask, with what its owner wants to know it by.
type Upstream struct {
	// ID is unique in its group and stays the same over a reload.
	ID string
	// Wire sends to it. The group owns it from Set on: it is retired when the
	// upstream leaves the group.
	Wire *wire.Upstream
	// User is for the owner of the group, race does not look at it.
	User any
}

// Observer is told what happens in a group. Its methods are called from many
// goroutines at once and have to be quick.
type Observer interface {
	// Attempt is called when an attempt or a probe has ended.
	Attempt(Attempt)
	// Event is called for each change of state, in order.
	Event(pool.Event)
	// Coalesced is called for a query that gets the answer of another one.
	Coalesced()
	// Failed is called for a query that ends without an answer.
	Failed(pool.Failure)
	// Left is called when an upstream has left the group.
	Left(*Upstream)
}

// Config is what a group needs to know besides its upstreams.
type Config struct {
	Pool     pool.Config
	Observer Observer
	// BadRcodes are the rcodes on which to try elsewhere, besides SERVFAIL,
	// REFUSED and NOTIMP.
	BadRcodes []int
	// ColdProbe is the packed query to ask an upstream when no real question is
	// known; nil: nothing is.
	ColdProbe []byte
}

// retireTime bounds how long an upstream that has left goes on waiting for its
// last replies: no query waits longer.
const retireTime = 5 * time.Second

// Group is a set of upstreams and the queries to them. It is safe for concurrent
// use.
type Group struct {
	observer  Observer
	bad       [16]bool // by rcode, as far as the header holds them
	badMore   []int    // those beyond
	coldProbe []byte
	base      time.Time // the origin of the pool's time

	mu       sync.Mutex // guards the following
	pool     *pool.Pool
	members  []*Upstream          // by pool.Ref.Slot
	refs     []pool.Ref           // by slot, of the member
	running  *exchange            // list of the exchanges that wait
	flights  map[uint64]*exchange // by Query.hash
	closed   bool
	replays  replays
	started  bool
	eventsMu sync.Mutex // serialises the delivery of events

	kick  chan struct{} // the time of the next tick has changed
	ctx   context.Context
	stop  context.CancelFunc
	awake context.Context // done when nothing is to be probed any more
	rest  context.CancelFunc
	wg    sync.WaitGroup
	spare sync.Pool // of *exchange
}

// ErrClosed is returned for queries to a group that was closed.
var ErrClosed = errors.New("race: group closed")

// origin is the origin of time of all groups, so that one can inherit from
// another.
var origin = time.Now()

// New returns a group of the upstreams. Nothing is sent before [Group.Start] or
// a query.
func New(c Config, upstreams []*Upstream) *Group {
	g := &Group{
		observer: c.Observer, coldProbe: c.ColdProbe, base: origin,
		flights: map[uint64]*exchange{}, kick: make(chan struct{}, 1),
	}
	if now := time.Now(); now.Before(origin) {
		g.base = now // a synthetic clock
	}
	g.ctx, g.stop = context.WithCancel(context.Background())
	g.awake, g.rest = context.WithCancel(g.ctx)
	g.spare.New = func() any { return newExchange(g) }
	for _, rcode := range append([]int{2, 4, 5}, c.BadRcodes...) { // SERVFAIL, NOTIMP, REFUSED
		if rcode >= 0 && rcode < len(g.bad) {
			g.bad[rcode] = true
		} else {
			g.badMore = append(g.badMore, rcode)
		}
	}
	g.pool = pool.New(c.Pool, ids(upstreams), g.now())
	g.mu.Lock()
	g.set(upstreams)
	g.unlock()
	return g
}

func ids(upstreams []*Upstream) []string {
	ids := make([]string, 0, len(upstreams))
	for _, u := range upstreams {
		ids = append(ids, u.ID)
	}
	return ids
}

func (g *Group) now() time.Duration { return time.Since(g.base) }

// Start begins to probe.
func (g *Group) Start() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.started || g.closed {
		return
	}
	g.started = true
	g.wg.Go(g.tick)
}

// Set replaces the upstreams. Those whose ID stays keep their state and their
// sockets, and the Wire and User that come with them are not used. Those that
// are gone finish what they have been asked.
func (g *Group) Set(upstreams []*Upstream) {
	g.mu.Lock()
	gone := g.set(upstreams)
	g.unlock()
	g.wake()
	for _, u := range gone {
		g.retire(u)
	}
}

// set is Set with the lock held; it returns who has left.
func (g *Group) set(upstreams []*Upstream) (gone []*Upstream) {
	old := map[string]*Upstream{}
	for _, m := range g.members {
		if m != nil {
			old[m.ID] = m
		}
	}
	g.pool.Set(ids(upstreams), g.now())
	g.members, g.refs = nil, nil
	for _, u := range upstreams {
		ref := g.pool.Lookup(u.ID)
		if ref.IsZero() {
			continue
		}
		if o, ok := old[u.ID]; ok {
			delete(old, u.ID)
			if u != o && u.Wire != o.Wire {
				gone = append(gone, u) // never used
			}
			u = o
		}
		for len(g.members) <= ref.Slot() {
			g.members, g.refs = append(g.members, nil), append(g.refs, pool.Ref{})
		}
		g.members[ref.Slot()], g.refs[ref.Slot()] = u, ref
	}
	for _, o := range old {
		gone = append(gone, o)
	}
	return gone
}

// member returns the upstream of a reference, nil if it has left. The lock is
// held.
func (g *Group) member(ref pool.Ref) *Upstream {
	if i := ref.Slot(); i < len(g.refs) && g.refs[i] == ref {
		return g.members[i]
	}
	return nil
}

// retire lets u finish and closes it.
func (g *Group) retire(u *Upstream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		u.Wire.Close()
		return
	}
	g.wg.Go(func() {
		ctx, cancel := context.WithTimeout(g.ctx, retireTime)
		defer cancel()
		u.Wire.Retire(ctx)
		g.observer.Left(u)
	})
}

// Inherit takes over what old knows about upstreams that both groups have, for a
// reload.
func (g *Group) Inherit(old *Group) {
	if old == nil || old == g || old.base != g.base {
		return
	}
	// old goes on serving meanwhile, and never asks for the lock of g.
	old.mu.Lock()
	g.mu.Lock()
	g.pool.Inherit(old.pool, g.now())
	g.replays = old.replays // the questions themselves are never written to
	old.mu.Unlock()
	g.unlock()
	g.wake()
}

// Rest ends what goes on by itself, the probes. Queries are still answered: it is
// for a server that is about to end and has some left.
func (g *Group) Rest() { g.rest() }

// Close ends everything. Queries that wait end with [ErrClosed].
func (g *Group) Close() {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return
	}
	g.closed = true
	members := g.members
	g.mu.Unlock()
	g.stop()
	for _, m := range members {
		if m != nil {
			m.Wire.Close()
		}
	}
	g.wg.Wait()
	for _, m := range members {
		if m != nil {
			g.observer.Left(m)
		}
	}
}

// unlock gives the lock back and delivers the events that came up under it.
func (g *Group) unlock() {
	if !g.pool.HasEvents() {
		g.mu.Unlock()
		return
	}
	events := g.pool.Events(nil)
	for _, e := range events {
		if e.Kind == pool.AllOut {
			// Everybody who waits learns it at once, so that cache can serve what it
			// has.
			for x := g.running; x != nil; x = x.next {
				x.nudge()
			}
		}
	}
	// Taken before the other is given back: events are delivered in order.
	g.eventsMu.Lock()
	g.mu.Unlock()
	defer g.eventsMu.Unlock()
	for _, e := range events {
		g.observer.Event(e)
	}
}

// Statuses appends the state of every upstream to dst.
func (g *Group) Statuses(dst []pool.Status) []pool.Status {
	g.mu.Lock()
	defer g.unlock()
	return g.pool.Statuses(dst, g.now())
}

// Numbers are figures of a group at one moment.
type Numbers struct {
	HedgeDelay time.Duration // how long a silent attempt is waited for
	Tokens     float64       // extra attempts that could be made
	Denied     uint64        // extra attempts that were not made for lack of tokens
}

// Numbers returns the figures.
func (g *Group) Numbers() Numbers {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Numbers{HedgeDelay: g.pool.HedgeDelay(), Tokens: g.pool.Tokens(), Denied: g.pool.Denied()}
}

// Answered reports whether any upstream has ever replied.
func (g *Group) Answered() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pool.Answered()
}

// Upstreams calls f for each upstream.
func (g *Group) Upstreams(f func(*Upstream)) {
	g.mu.Lock()
	members := append([]*Upstream(nil), g.members...)
	g.mu.Unlock()
	for _, m := range members {
		if m != nil {
			f(m)
		}
	}
}

// String names the group by its upstreams.
func (g *Group) String() string {
	ids := []string{}
	g.Upstreams(func(u *Upstream) { ids = append(ids, u.ID) })
	return fmt.Sprint(ids)
}
