package wire

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// udpState is the life of a socket.
type udpState uint8

const (
	udpOpen     udpState = iota // in its leg, takes queries
	udpDraining                 // out of its leg, waits for replies
	udpClosed
)

// udpSocket is one connected socket with the attempts that wait on it. Its
// reader goroutine, which ends with the socket, also does what time demands,
// woken by the read deadline: no timer is set and no goroutine is started for a
// query.
type udpSocket struct {
	mux    *udpMux
	leg    int
	conn   *net.UDPConn
	w      datagramWriter
	local  net.Addr
	remote net.Addr
	born   time.Time
	life   time.Duration

	mu       sync.Mutex // guards following
	state    udpState
	waiting  map[uint16]*Attempt
	used     [1 << 16 / 64]uint64 // bitmap of the IDs used
	usedN    int
	strays   int
	lastSent time.Time
	drainEnd time.Time
}

func newUDPSocket(u *udpMux, leg int, conn *net.UDPConn, raw syscall.RawConn) *udpSocket {
	now := time.Now()
	s := &udpSocket{
		mux:      u,
		leg:      leg,
		conn:     conn,
		local:    conn.LocalAddr(),
		remote:   conn.RemoteAddr(),
		born:     now,
		life:     udpMinLife + rand.N(udpMaxLife-udpMinLife),
		waiting:  make(map[uint16]*Attempt),
		lastSent: now,
	}
	s.w.init(conn, raw)
	return s
}

// send registers the attempt and writes the frame, whose ownership it takes. It
// returns false, having done nothing, when the socket takes no queries.
func (s *udpSocket) send(a *Attempt, frame *buffer, id uint16) bool {
	s.mu.Lock()
	if s.state == udpOpen && s.usedN >= udpMaxIDs {
		s.drain(a.SentAt)
	}
	if s.state != udpOpen {
		s.mu.Unlock()
		return false
	}
	for s.isUsed(id) {
		id = uint16(rand.Uint32())
	}
	s.used[id/64] |= 1 << (id % 64)
	s.usedN++
	s.lastSent = a.SentAt
	frame.setID(id)
	frame.hold() // one for the attempt, one for the write below
	a.owner, a.waiting, a.frame, a.id = s, true, frame, id
	a.leg, a.local, a.remote, a.WroteAt = Leg(s.leg+1), s.local, s.remote, a.SentAt
	s.waiting[id] = a
	s.mu.Unlock()

	if err := s.w.write(frame.msg()); err != nil {
		s.writeFailed(a, frame, id, err)
	}
	frame.release()
	return true
}

// writeFailed deals with the error of a write. The kernel reports an ICMP error
// to whichever of read and write comes first. When that is the write, the error
// belongs to the queries before it, and nothing has been sent: it ends those,
// and the write is tried once more.
func (s *udpSocket) writeFailed(a *Attempt, frame *buffer, id uint16, err error) {
	if r := Class(err); r == ReasonRefused || r == ReasonUnreachable {
		s.mu.Lock()
		now := time.Now()
		for i, w := range s.waiting {
			if i != id {
				delete(s.waiting, i)
				w.finish(nil, err, now)
			}
		}
		s.drain(now)
		s.mu.Unlock()
		if err = s.w.write(frame.msg()); err == nil {
			return
		}
	}
	s.mu.Lock()
	if s.waiting[id] == a {
		s.remove(id)
		a.finish(nil, err, time.Now())
	}
	s.mu.Unlock()
}

func (s *udpSocket) cancel(a *Attempt) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !a.waiting {
		return false
	}
	a.detach()
	s.remove(a.id)
	a.up.left()
	return true
}

// remove takes an ID out of the table. A socket being drained ends with the
// last. s.mu is held.
func (s *udpSocket) remove(id uint16) {
	delete(s.waiting, id)
	if s.state == udpDraining && len(s.waiting) == 0 {
		s.shut()
	}
}

func (s *udpSocket) isUsed(id uint16) bool { return s.used[id/64]&(1<<(id%64)) != 0 }

// read is the socket's goroutine.
func (s *udpSocket) read() {
	defer s.mux.gone(s)
	// As large as a datagram can be, so that none is cut. Only the pages that
	// are really written to take up memory.
	buf := newBuffer(bufferSizes[len(bufferSizes)-1])
	defer buf.release()
	s.tick(time.Now())
	for {
		n, err := s.conn.Read(buf.b)
		switch {
		case err == nil:
			s.handle(buf.b[:n])
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.tick(time.Now())
		default:
			// An ICMP error, or the socket has been closed already. It concerns
			// all who wait. The socket is not used any more, because IP_RECVERR
			// also queues each error where only a special call removes it, and
			// that counts against the receive buffer.
			s.die(err)
			return
		}
	}
}

// handle matches what arrived with the attempts.
func (s *udpSocket) handle(msg []byte) {
	why, ok := checkHeader(msg)
	if !ok {
		s.mux.up.ignore(UDP, why)
		return
	}
	id := msgID(msg)
	s.mu.Lock()
	a := s.waiting[id]
	switch {
	case a == nil && s.isUsed(id):
		why = IgnoredLate
	case a == nil:
		why = IgnoredID
		if s.strays++; s.strays >= udpMaxStrays && s.state == udpOpen {
			s.drain(time.Now())
		}
	case !matchQuestion(msg, a.question()):
		why = IgnoredQuestion
	default:
		reply := newBuffer(len(msg))
		copy(reply.b, msg)
		s.remove(id)
		a.finish(reply, nil, time.Now())
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.mux.up.ignore(UDP, why)
}

// tick does what is due by now and sets the time of the next tick.
func (s *udpSocket) tick(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.state {
	case udpOpen:
		next := s.born.Add(s.life)
		if !now.Before(next) {
			s.drain(now)
			return
		}
		if len(s.waiting) == 0 {
			idle := s.lastSent.Add(s.mux.up.opts.Expire)
			if !now.Before(idle) {
				s.drain(now)
				return
			}
			next = earlier(next, idle)
		} else {
			next = earlier(next, now.Add(s.mux.up.opts.Expire))
		}
		_ = s.conn.SetReadDeadline(next)
	case udpDraining:
		if now.Before(s.drainEnd) {
			_ = s.conn.SetReadDeadline(s.drainEnd)
			return
		}
		s.end(ErrTimeout, now)
	}
}

// drain takes the socket out of use: it is closed when nothing waits on it any
// more, or at the end of drainTime. s.mu is held.
func (s *udpSocket) drain(now time.Time) {
	if s.state != udpOpen {
		return
	}
	s.state = udpDraining
	s.mux.legs[s.leg].CompareAndSwap(s, nil)
	if len(s.waiting) == 0 {
		s.shut()
		return
	}
	s.drainEnd = now.Add(drainTime)
	_ = s.conn.SetReadDeadline(s.drainEnd)
}

// die ends the socket and all attempts on it with err.
func (s *udpSocket) die(err error) {
	s.mu.Lock()
	s.end(err, time.Now())
	s.mu.Unlock()
}

// end does it with s.mu held.
func (s *udpSocket) end(err error, now time.Time) {
	if s.state == udpClosed {
		return
	}
	for id, a := range s.waiting {
		delete(s.waiting, id)
		a.finish(nil, err, now)
	}
	s.mux.legs[s.leg].CompareAndSwap(s, nil)
	s.shut()
}

// shut closes the socket, which ends the reader. s.mu is held.
func (s *udpSocket) shut() {
	s.state = udpClosed
	s.conn.Close()
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
