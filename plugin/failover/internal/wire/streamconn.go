package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxStreamIDs is how many IDs of a connection may be taken, by queries
	// that wait or by queries that were withdrawn and may still be answered.
	// Enough stay free for a random one to be found at once.
	maxStreamIDs = 1 << 14

	// writeTimeout is how long the peer may leave its receive window closed.
	writeTimeout = time.Second

	// maxNonsense is how many messages in a row that match nothing are read
	// before the connection is closed. No attacker can put them there, so the
	// peer has lost its way.
	maxNonsense = 64

	// readBuffer holds several ordinary replies, so that pipelined ones are
	// read with one call.
	readBuffer = 4096
)

// connState is the life of a connection.
type connState uint8

const (
	connDialing connState = iota // queries are queued
	connOpen
	connDraining // no new queries
	connDead
)

// streamConn is one TCP or TLS connection. The goroutine run makes it and then
// reads, a second one writes; a single timer sees to silence, idleness, age and
// draining. Everything below is guarded by the mutex of the mux, except heard.
type streamConn struct {
	m       *streamMux
	leg     Leg
	state   connState
	nc      net.Conn // what is read and written
	raw     net.Conn // what is below TLS
	dialCtx context.Context
	stop    func() // ends the dialing
	dead    chan struct{}
	wake    chan struct{} // there is something to write
	timer   *time.Timer
	timerAt time.Time
	polite  bool // say goodbye when closing

	born      time.Time
	drainEnd  time.Time
	lastSent  time.Time
	busySince time.Time // when the first of those that wait was sent
	unheard   time.Time // when the first query after the last byte was sent
	condemned time.Time // when another connection proved that this one is broken
	suspect   bool
	replies   int // matched so far
	nonsense  int // in a row

	table map[uint16]*Attempt // nil: withdrawn, the answer may still come
	live  int                 // entries that are not nil
	queue []queued

	heard atomic.Int64 // when the last byte arrived, in ns since born
}

// queued is a query not yet written.
type queued struct {
	id    uint16
	frame *buffer
}

func newStreamConn(m *streamMux, leg Leg, now time.Time) *streamConn {
	c := &streamConn{
		m:        m,
		leg:      leg,
		born:     now,
		lastSent: now,
		dead:     make(chan struct{}),
		wake:     make(chan struct{}, 1),
		table:    make(map[uint16]*Attempt),
	}
	c.prepareDial()
	c.timer = time.AfterFunc(time.Hour, c.tick) // set for real when open
	c.timerAt = now.Add(time.Hour)
	return c
}

func (c *streamConn) full() bool { return len(c.table) >= maxStreamIDs }

// heardAt returns when the last byte arrived, born when none has.
func (c *streamConn) heardAt() time.Time { return c.born.Add(time.Duration(c.heard.Load())) }

// add puts the attempt into the queue, as its n-th place. It returns false when
// no ID is free. m.mu is held.
func (c *streamConn) add(a *Attempt, n int, now time.Time) bool {
	if c.full() {
		return false
	}
	id := uint16(rand.Uint32())
	for {
		if _, taken := c.table[id]; !taken {
			break
		}
		id = uint16(rand.Uint32())
	}
	frame := a.frame
	if n > 0 {
		frame = newFrame(a.frame.msg()) // under another ID
	} else {
		frame.hold()
	}
	frame.setID(id)
	c.table[id] = a
	a.places[n] = place{c, id, now}
	c.live++
	if c.live == 1 {
		c.busySince = now
	}
	c.lastSent = now
	if c.unheard.IsZero() || c.unheard.Before(c.heardAt()) {
		c.unheard = now
		if c.state == connOpen {
			c.wakeIn(c.m.silence(), now)
		}
	}
	c.queue = append(c.queue, queued{id, frame})
	select {
	case c.wake <- struct{}{}:
	default:
	}
	if c.full() && c.state == connOpen {
		c.drain(now)
	}
	return true
}

// withdraw reserves the ID of a query that nobody waits for any more. m.mu is
// held.
func (c *streamConn) withdraw(id uint16) {
	if c.table[id] == nil {
		return
	}
	c.table[id] = nil
	c.live--
	if c.live == 0 && c.state == connDraining {
		c.end(ErrReplaced, time.Now())
	}
}

// read is the reading half of run.
func (c *streamConn) read() error {
	r := bufio.NewReaderSize(hearing{c}, readBuffer)
	for {
		var prefix [framePrefix]byte
		if _, err := io.ReadFull(r, prefix[:]); err != nil {
			return err
		}
		msg := newBuffer(int(prefix[0])<<8 | int(prefix[1]))
		if _, err := io.ReadFull(r, msg.b); err != nil {
			msg.release()
			return err
		}
		if !c.handle(msg) {
			return errNonsense
		}
	}
}

var errNonsense = errors.New("wire: too many messages that match no query")

// hearing notes when bytes arrive.
type hearing struct{ c *streamConn }

func (h hearing) Read(p []byte) (int, error) {
	n, err := h.c.nc.Read(p)
	if n > 0 {
		h.c.heard.Store(int64(time.Since(h.c.born)))
	}
	return n, err
}

// handle matches a message, whose ownership it takes, with the attempts. It
// returns false when there has been too much nonsense.
func (c *streamConn) handle(msg *buffer) bool {
	now := time.Now()
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.spoke()
	why, ok := checkHeader(msg.b)
	if ok {
		id := msgID(msg.b)
		a, known := c.table[id]
		switch {
		case !known:
			why = IgnoredID
		case a == nil:
			// Late. In a stream nothing is sent twice: the ID is free again.
			delete(c.table, id)
			c.nonsense = 0
			c.m.up.ignore(TCP, IgnoredLate)
			msg.release()
			return true
		case !matchQuestion(msg.b, a.question()):
			why = IgnoredQuestion
		default:
			c.answer(a, id, msg, now)
			return true
		}
	}
	c.m.up.ignore(TCP, why)
	msg.release()
	c.nonsense++
	return c.nonsense < maxNonsense
}

// answer delivers a reply. m.mu is held.
func (c *streamConn) answer(a *Attempt, id uint16, msg *buffer, now time.Time) {
	c.replies++
	c.nonsense = 0
	c.m.answered(c, a, now)
	delete(c.table, id)
	c.live--
	for i := range a.places {
		if a.places[i].c == c {
			a.places[i] = place{}
		}
	}
	c.m.withdraw(a) // where else it waits
	a.local, a.remote = c.raw.LocalAddr(), c.raw.RemoteAddr()
	a.finish(msg, nil, now)
	if c.live == 0 && c.state == connDraining {
		c.end(ErrReplaced, now)
	}
}

// end closes the connection. Those that wait on it get err, unless they
// wait on another connection as well. m.mu is held.
func (c *streamConn) end(err error, now time.Time) { c.endResend(err, false, now) }

// endResend is end with a choice: to send those that wait again on another
// connection, once in their life.
func (c *streamConn) endResend(err error, resend bool, now time.Time) {
	if c.state == connDead {
		return
	}
	c.state = connDead
	c.timer.Stop()
	c.m.remove(c)
	c.stop()
	if c.raw != nil && !c.polite {
		c.raw.Close() // never blocks, unlike the goodbye of TLS
	}
	close(c.dead)

	for _, q := range c.queue {
		q.frame.release()
	}
	c.queue = nil
	waiting := make([]*Attempt, 0, c.live)
	for _, a := range c.table {
		if a != nil {
			waiting = append(waiting, a)
		}
	}
	clear(c.table)
	c.live = 0
	for _, a := range waiting {
		other := false
		for i := range a.places {
			if a.places[i].c == c {
				a.places[i] = place{}
			} else if a.places[i].c != nil {
				other = true
			}
		}
		if other {
			continue
		}
		if resend && !a.resent {
			a.resent = true
			if n := c.m.pick(c.leg, now); n != nil && n.add(a, 0, now) {
				continue
			}
		}
		if c.raw != nil {
			a.local, a.remote = c.raw.LocalAddr(), c.raw.RemoteAddr()
		}
		a.finish(nil, err, now)
	}
}

// lost is called when the peer has ended the connection. If it was in use
// before, had become idle and has not said a byte since the queries were sent,
// the two have just crossed on the way: RFC 7766 section 6.2.4 lets the client
// send again.
func (c *streamConn) lost(cause error) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if c.state == connDead {
		return
	}
	// TLS makes ErrUnexpectedEOF of a FIN without a goodbye.
	closed := errors.Is(cause, io.EOF) || errors.Is(cause, io.ErrUnexpectedEOF) ||
		errors.Is(cause, syscall.ECONNRESET) || errors.Is(cause, syscall.EPIPE)
	crossed := closed && c.replies > 0 && c.live > 0 && c.heardAt().Before(c.busySince)
	c.endResend(fmt.Errorf("%w: %w", ErrConnClosed, cause), crossed, time.Now())
}
