// Package fault has upstream resolvers that break as a test wants them to, while
// they run, and that count what reaches them. It is made for Linux: it counts on
// all of 127.0.0.0/8 being there.
package fault

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Upstream is a resolver on one port of a loopback address, over UDP and TCP. It
// has an address for every name.
//
// Names that start with `slow` take 1.2 s, those that start with `hung` never get
// an answer: from none of the upstreams, whatever their mode.
type Upstream struct {
	Addr string // address and port

	Received *Counter     // all queries
	Probes   *Counter     // those for the root: no client of a test asks for it
	Ports    atomic.Int64 // different source ports of UDP queries
	Conns    atomic.Int64 // TCP connections that were accepted

	TTL atomic.Uint32 // of the records, in seconds

	state   atomic.Pointer[state]
	sources ports
	delay   *delayer
	tls     *tls.Config // for DNS over TLS in the place of TCP

	rngMu sync.Mutex
	rng   *rand.Rand

	mu      sync.Mutex // for what follows
	udp     *net.UDPConn
	tcp     *listener
	readers sync.WaitGroup
}

type state struct {
	Mode
	since time.Time
}

// New starts an upstream in the given mode. It ends with the test.
func New(t testing.TB, m Mode) *Upstream {
	t.Helper()
	return start(t, m, nil)
}

// NewTLS starts an upstream that speaks DNS over TLS where others speak TCP.
func NewTLS(t testing.TB, m Mode, cert tls.Certificate) *Upstream {
	t.Helper()
	return start(t, m, &tls.Config{Certificates: []tls.Certificate{cert}})
}

func start(t testing.TB, m Mode, conf *tls.Config) *Upstream {
	t.Helper()
	u := &Upstream{
		Addr:     FreeAddr(t),
		Received: newCounter(),
		Probes:   newCounter(),
		delay:    newDelayer(),
		tls:      conf,
		rng:      rand.New(rand.NewPCG(1, 2)), // the same losses in each run
	}
	u.TTL.Store(30)
	t.Cleanup(u.close)
	u.Set(t, m)
	return u
}

// FreeAddr returns an address that is free for UDP and TCP. Its IP address is a
// random one of 127.0.0.0/8, so that it stays free: the ports of the other
// sockets of the machine are those of 127.0.0.1.
func FreeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		ip := net.IPv4(127, byte(1+rand.IntN(250)), byte(1+rand.IntN(250)), byte(1+rand.IntN(250)))
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: ip})
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		p, err := net.ListenUDP("udp4", &net.UDPAddr{IP: ip, Port: port})
		l.Close()
		if err == nil {
			p.Close()
			return fmt.Sprintf("%s:%d", ip, port)
		}
	}
	t.Fatal("no address is free for both UDP and TCP")
	return ""
}

// Set changes the mode. What was received before is still answered in the old
// one.
func (u *Upstream) Set(t testing.TB, m Mode) {
	t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state.Store(&state{Mode: m, since: time.Now()})
	switch {
	case m.closed:
		u.unbind()
	case u.udp == nil:
		// Another process may have the port for a moment, for all addresses.
		err := u.bind()
		for start := time.Now(); errors.Is(err, syscall.EADDRINUSE) && time.Since(start) < bindTime; err = u.bind() {
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if u.tcp != nil {
		if err := u.tcp.blackhole(m.blackhole); err != nil {
			t.Fatal(err)
		}
	}
}

// bindTime is how long the port of an upstream may be in use by others.
const bindTime = 10 * time.Second

func (u *Upstream) bind() error {
	addr := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(u.Addr))
	udp, err := net.ListenUDP("udp4", addr)
	if err != nil {
		return err
	}
	udp.SetReadBuffer(4 << 20) // as much as the machine gives: a burst is no fault
	tcp, err := listen(u)
	if err != nil {
		udp.Close()
		return err
	}
	u.udp, u.tcp = udp, tcp
	u.readers.Go(func() { u.readUDP(udp) })
	return nil
}

func (u *Upstream) unbind() {
	if u.udp == nil {
		return
	}
	u.udp.Close()
	u.tcp.close()
	u.readers.Wait()
	u.udp, u.tcp = nil, nil
}

func (u *Upstream) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.unbind()
	u.delay.close()
}

// InFlight returns how many replies have waited for their time at once, at most.
func (u *Upstream) InFlight() int {
	u.delay.mu.Lock()
	defer u.delay.mu.Unlock()
	return u.delay.peak
}

func (u *Upstream) readUDP(conn *net.UDPConn) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return // closed
		}
		if u.sources.add(from.Port()) {
			u.Ports.Add(1)
		}
		u.handle(buf[:n], func(msg []byte) { conn.WriteToUDPAddrPort(msg, from) })
	}
}

// handle answers msg, which is the caller's again afterwards.
func (u *Upstream) handle(msg []byte, send func([]byte)) {
	q, ok := parse(msg)
	if !ok {
		return
	}
	now := time.Now()
	u.Received.add(now)
	if q.root {
		u.Probes.add(now)
	}

	s := u.state.Load()
	delay := rtt + s.Delay
	switch {
	case strings.HasPrefix(q.label, "hung"):
		return
	case s.OnlyProbes && !(q.root && q.qtype == dns.TypeNS):
		return
	case s.Flap > 0 && now.Sub(s.since)/s.Flap%2 == 0:
		return
	case s.Drop >= 1 || s.Drop > 0 && u.random() < s.Drop:
		return
	case strings.HasPrefix(q.label, "slow"):
		delay += SlowNames
	}
	u.delay.add(reply{at: now.Add(delay), msg: answer(msg, q, &s.Mode, u.TTL.Load()), send: send})
}

func (u *Upstream) random() float64 {
	u.rngMu.Lock()
	defer u.rngMu.Unlock()
	return u.rng.Float64()
}
