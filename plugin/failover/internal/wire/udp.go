package wire

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// udpLegs is how many sockets share the queries of an upstream. A socket
	// per query makes a conntrack entry and, behind NAT, a port of each query;
	// few sockets make few of them. One socket would do for that. Four spread
	// the queries over the receive queues of the machine, over the paths of an
	// ECMP network (one bad branch then hurts some queries, not all), and make
	// an attacker who does not see the traffic guess one of four ports besides
	// the 16 bits of the ID (RFC 5452 section 4). With more, a reader finds one
	// reply each time it is woken instead of several: eight measured 1.5 % more
	// CPU time per query than four, two 1 % less.
	udpLegs = 4

	// udpMaxPorts bounds the sockets of an upstream, those being drained
	// included. It is reached only by rates at which sockets wear out within
	// seconds.
	udpMaxPorts = 64

	// A port is given new queries for a random time between these, so that one
	// that has been learnt is of no use for long, and then drained.
	udpMinLife = 10 * time.Second
	udpMaxLife = 30 * time.Second

	// udpMaxIDs is how many message IDs a port may use up. An ID is used once
	// in the life of a socket, so that no late answer can be taken for the
	// answer to another query. At least half the IDs are left to choose from at
	// any time, which keeps 15 of the 16 bits.
	udpMaxIDs = 1 << 15

	// udpMaxStrays is how many messages with IDs that were never used a port
	// may see before it is abandoned. The kernel only passes what comes from
	// the upstream's address and port, so somebody is guessing. One may be an
	// accident of NAT.
	udpMaxStrays = 3

	// drainTime is how long a socket or connection that is given no new queries
	// waits for the last replies. Clients give up at 5 s (resolv.conf(5)).
	drainTime = 6 * time.Second
)

// udpMux spreads queries over a few connected sockets. Sockets are opened when
// first chosen, by the goroutine that sends.
type udpMux struct {
	up   *Upstream
	legs [udpLegs]atomic.Pointer[udpSocket]

	mu     sync.Mutex // guards following; not held while a socket's is taken
	socks  map[*udpSocket]struct{}
	closed bool
	wg     sync.WaitGroup // readers
}

func newUDPMux(up *Upstream) *udpMux {
	return &udpMux{up: up, socks: make(map[*udpSocket]struct{})}
}

// send puts the attempt on a random leg.
func (u *udpMux) send(a *Attempt) {
	// The generator of the runtime is ChaCha8, seeded by the kernel: not
	// predictable from what has been seen of it.
	rnd := rand.Uint32()
	id, leg := uint16(rnd), int(rnd>>16)%udpLegs
	if a.Avoid == Leg(leg+1) {
		leg = (leg + 1 + int(rnd>>24)%(udpLegs-1)) % udpLegs
	}
	frame := newFrame(a.Query)
	// A socket may be retired between being found and being used. Each time
	// around it has been replaced, which cannot go on for long.
	for range 4 {
		s, err := u.socket(leg)
		if err != nil {
			frame.release()
			a.finish(nil, err, time.Now())
			return
		}
		if s.send(a, frame, id) {
			return
		}
	}
	frame.release()
	a.finish(nil, ErrBusy, time.Now())
}

// socket returns the socket of a leg, opening it if there is none.
func (u *udpMux) socket(leg int) (*udpSocket, error) {
	if s := u.legs[leg].Load(); s != nil {
		return s, nil
	}
	s, victim, err := u.open(leg)
	if victim != nil {
		victim.die(ErrReplaced)
	}
	return s, err
}

func (u *udpMux) open(leg int) (s, victim *udpSocket, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return nil, nil, ErrClosed
	}
	if s := u.legs[leg].Load(); s != nil {
		return s, nil, nil
	}
	d := net.Dialer{Control: recvErr}
	if src := u.up.opts.Source; src != nil {
		d.LocalAddr = &net.UDPAddr{IP: src}
	}
	// Nothing waits here: the address needs no lookup, and connecting a
	// datagram socket sends nothing.
	c, err := d.DialContext(context.Background(), "udp", u.up.opts.Addr)
	if err != nil {
		return nil, nil, err
	}
	conn, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return nil, nil, syscall.EINVAL
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	if len(u.socks) >= udpMaxPorts {
		// Forgotten here and not at its end, or the next one would choose it
		// again before it has ended.
		victim = u.oldestDraining()
		delete(u.socks, victim)
	}
	s = newUDPSocket(u, leg, conn, raw)
	u.socks[s] = struct{}{}
	u.legs[leg].Store(s)
	u.up.opened(UDP)
	u.wg.Go(s.read)
	return s, victim, nil
}

// oldestDraining returns the socket that has been drained for the longest.
// With at most udpLegs sockets in use and more than that open there is one.
func (u *udpMux) oldestDraining() *udpSocket {
	var oldest *udpSocket
	for s := range u.socks {
		if u.legs[s.leg].Load() == s {
			continue
		}
		if oldest == nil || s.born.Before(oldest.born) {
			oldest = s
		}
	}
	return oldest
}

// gone is called by a reader at its end.
func (u *udpMux) gone(s *udpSocket) {
	u.mu.Lock()
	delete(u.socks, s)
	u.mu.Unlock()
	u.up.closed(UDP)
}

func (u *udpMux) close() {
	u.mu.Lock()
	u.closed = true
	socks := make([]*udpSocket, 0, len(u.socks))
	for s := range u.socks {
		socks = append(socks, s)
	}
	u.mu.Unlock()
	for _, s := range socks {
		s.die(ErrClosed)
	}
	u.wg.Wait()
}
