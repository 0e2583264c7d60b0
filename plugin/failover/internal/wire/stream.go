package wire

import (
	"crypto/tls"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxStreams is how many connections an upstream may have, those being
	// made and being drained included. One carries everything: RFC 7766 section
	// 6.2.2 asks for that, and RFC 7858 section 3.4 too. The second is for the
	// time in which the first one is replaced.
	maxStreams = 2

	// A connection that has been silent since a query was sent on it is under
	// suspicion after four times the usual response time, within these bounds.
	// Below 300 ms a single lost segment looks the same, since TCP sends it
	// again after 200 ms at the earliest (and recursion, too, takes that long
	// now and then). Over a second, the clients notice.
	silenceMin     = 300 * time.Millisecond
	silenceDefault = 500 * time.Millisecond // no response time known yet
	silenceMax     = time.Second

	// condemnGrace is how long a suspect may still speak after another
	// connection has answered the query it owes. An upstream that works on the
	// same name for both answers both at once, in either order.
	condemnGrace = 50 * time.Millisecond

	// giveUpAfter is when a silent connection is given up with no proof
	// at all. It is beyond the time that any client waits, so a name that is
	// merely slow still gets its answer.
	giveUpAfter = 5 * time.Second

	// rttWeight is the weight of the past in the mean response time, as in TCP
	// (RFC 6298 section 2).
	rttWeight = 8
)

// place is where an attempt waits: on a connection, under an ID.
type place struct {
	c  *streamConn
	id uint16
	at time.Time
}

// streamMux keeps the connections of one upstream and puts queries on them.
//
// All is well with one connection. It is replaced when it is silent while
// queries wait, because all of them would share its fate: it may be a host that
// went away, or a NAT that forgot. A new connection is made, takes all new
// queries, and asks again one query that the silent one owes (the canary). If
// it answers and the old one stays silent, then the old one is broken: its
// queries end with ErrReplaced. If the old one speaks first, all was well and
// the name was slow. If no connection can be made, the old one is given up, too.
type streamMux struct {
	up  *Upstream
	tls *tls.Config // nil for plain TCP

	wg sync.WaitGroup // goroutines of the connections

	mu      sync.Mutex    // guards following, all of streamConn and the attempts
	conns   []*streamConn // oldest first
	nextLeg Leg
	closed  bool
	srtt    time.Duration // mean response time, 0 when not known
	alarms  int           // how often in a row suspicion was wrong
}

func newStreamMux(up *Upstream, cfg *tls.Config) *streamMux {
	return &streamMux{up: up, tls: cfg}
}

func (m *streamMux) send(a *Attempt) {
	a.frame = newFrame(a.Query)
	m.mu.Lock()
	defer m.mu.Unlock()
	a.owner, a.waiting = m, true
	c := m.pick(a.Avoid, a.SentAt)
	if c == nil {
		a.finish(nil, ErrClosed, a.SentAt)
		return
	}
	a.leg = c.leg
	if !c.add(a, 0, a.SentAt) {
		a.finish(nil, ErrBusy, a.SentAt)
	}
}

func (m *streamMux) cancel(a *Attempt) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !a.waiting {
		return false
	}
	a.detach()
	m.withdraw(a)
	a.up.left()
	return true
}

// withdraw removes the attempt from where it waits. m.mu is held.
func (m *streamMux) withdraw(a *Attempt) {
	for i := range a.places {
		if p := a.places[i]; p.c != nil {
			a.places[i] = place{}
			p.c.withdraw(p.id)
		}
	}
}

// pick returns the connection for a new query, which may be one that is only
// being made; nil when the mux is closed. m.mu is held.
func (m *streamMux) pick(avoid Leg, now time.Time) *streamConn {
	if m.closed {
		return nil
	}
	best := m.best(avoid)
	if best == nil || (avoid != 0 && best.leg == avoid) {
		if c := m.dialIfRoom(best == nil, now); c != nil {
			return c
		}
	}
	if best == nil {
		// Both are under suspicion. The upstream is as good as gone, more
		// connections would not change it; the newer one has better chances.
		for _, c := range m.conns {
			if c.state != connDraining {
				best = c
			}
		}
	}
	return best
}

// best returns the newest connection that works, else one that is being made,
// else nil; one to be avoided only if there is no other. m.mu is held.
func (m *streamMux) best(avoid Leg) *streamConn {
	var best *streamConn
	rank := func(c *streamConn) int {
		switch {
		case c == nil:
			return 0
		case c.leg == avoid:
			return 1
		case c.state == connDialing:
			return 2
		}
		return 3
	}
	for _, c := range m.conns {
		if c.state == connDraining || c.suspect || c.full() {
			continue
		}
		if rank(c) >= rank(best) {
			best = c
		}
	}
	return best
}

// dialIfRoom starts a new connection; nil when there are enough. With evict, one
// that is being drained is given up if it takes the room. m.mu is held.
func (m *streamMux) dialIfRoom(evict bool, now time.Time) *streamConn {
	for i := 0; evict && len(m.conns) >= maxStreams && i < len(m.conns); i++ {
		if c := m.conns[i]; c.state == connDraining {
			c.end(ErrReplaced, now)
		}
	}
	if len(m.conns) >= maxStreams {
		return nil
	}
	m.nextLeg++
	c := newStreamConn(m, m.nextLeg, now)
	m.conns = append(m.conns, c)
	m.wg.Go(c.run)
	return c
}

// silence returns how long a connection may be silent. Each wrong suspicion
// doubles it. m.mu is held.
func (m *streamMux) silence() time.Duration {
	d := silenceDefault
	if m.srtt > 0 {
		d = max(4*m.srtt, silenceMin)
	}
	return min(d<<min(m.alarms, 2), silenceMax)
}

// suspicion falls on c, which has been silent for too long. m.mu is held.
func (m *streamMux) suspicion(c *streamConn, now time.Time) {
	c.suspect = true
	if c.live == 0 {
		// All its queries have been withdrawn, there is nobody to wait for.
		c.end(ErrReplaced, now)
		return
	}
	n := m.best(0)
	if n == nil {
		n = m.dialIfRoom(true, now)
	}
	if n == nil {
		return
	}
	if a := c.canary(); a != nil {
		n.add(a, 1, now)
	}
}

// answered is called when n has answered a, before a is delivered. m.mu is held.
func (m *streamMux) answered(n *streamConn, a *Attempt, now time.Time) {
	var asked time.Time
	for _, p := range a.places {
		if p.c == n {
			asked = p.at
		}
	}
	for _, p := range a.places {
		c := p.c
		if c == nil || c == n || !c.suspect || !c.condemned.IsZero() {
			continue
		}
		if !p.at.Before(asked) {
			continue // it was asked later, so it may answer later
		}
		c.condemned = now
		c.wakeIn(condemnGrace, now)
	}
	if !a.WroteAt.IsZero() && !a.resent && a.places[1].c == nil {
		if rtt := now.Sub(a.WroteAt); m.srtt == 0 {
			m.srtt = rtt
		} else {
			m.srtt += (rtt - m.srtt) / rttWeight
		}
	}
}

// dialFailed is called when c could not be made. m.mu is held.
func (m *streamMux) dialFailed(now time.Time) {
	for i := 0; i < len(m.conns); {
		if c := m.conns[i]; c.suspect {
			c.end(ErrReplaced, now) // takes it out of m.conns
			i = 0
		} else {
			i++
		}
	}
}

// remove forgets a connection. m.mu is held.
func (m *streamMux) remove(c *streamConn) {
	for i := range m.conns {
		if m.conns[i] == c {
			m.conns = append(m.conns[:i:i], m.conns[i+1:]...)
			return
		}
	}
}

func (m *streamMux) close() {
	m.mu.Lock()
	m.closed = true
	now := time.Now()
	for len(m.conns) > 0 {
		m.conns[0].end(ErrClosed, now)
	}
	m.mu.Unlock()
	m.wg.Wait()
}

// mayAskTwice says whether the query in a frame does no harm when the upstream
// gets it on two connections. An update might.
func mayAskTwice(frame *buffer) bool {
	return int(frame.msg()[2]&opcodeMask)>>3 == dns.OpcodeQuery
}
