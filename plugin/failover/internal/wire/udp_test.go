package wire

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
)

func echoUDP(q []byte) [][]byte { return [][]byte{answerTo(q)} }

func TestUDPHostile(t *testing.T) {
	for _, tc := range hostile {
		t.Run(tc.name, func(t *testing.T) {
			srv := newUDPServer(t, func(q []byte) [][]byte { return append(tc.replies(q), answerTo(q)) })
			var hooked [5]uint64
			var mu sync.Mutex
			up := newUpstream(t, Options{Addr: srv.addr(), Hooks: Hooks{Ignored: func(p Proto, why Ignored) {
				mu.Lock()
				defer mu.Unlock()
				if p == UDP {
					hooked[why]++
				}
			}}})
			good(t, ask(t, up, pack(t, "Example.ORG."), UDP))
			mu.Lock()
			defer mu.Unlock()
			if got := up.Stats().Ignored; got != tc.ignored || hooked != tc.ignored {
				t.Errorf("ignored %v, hooks %v, want %v", got, hooked, tc.ignored)
			}
		})
	}
}

func TestUDPAccepted(t *testing.T) {
	testAccepted(t, UDP, func(t *testing.T, f func([]byte) []byte) *Upstream {
		srv := newUDPServer(t, func(q []byte) [][]byte { return [][]byte{f(q)} })
		return newUpstream(t, Options{Addr: srv.addr()})
	})
}

// Several replies to one query: the first counts, the others are late.
func TestUDPTwice(t *testing.T) {
	srv := newUDPServer(t, func(q []byte) [][]byte {
		return [][]byte{answerTo(q), answerTo(q), answerTo(q), answerTo(q), answerTo(q)}
	})
	up := newUpstream(t, Options{Addr: srv.addr()})
	good(t, ask(t, up, pack(t, "example.org."), UDP))
	eventually(t, "four late replies", func() bool { return up.Stats().Ignored[IgnoredLate] == 4 })
	if n := up.Stats().UDPSockets; n != 1 {
		t.Errorf("%d sockets: duplicates must not retire a socket", n)
	}
}

// Replies come in the reverse order of the queries.
func TestUDPOutOfOrder(t *testing.T) {
	const n = 20
	srv, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	up := newUpstream(t, Options{Addr: srv.LocalAddr().String()})
	done := make(chan *Attempt, n)
	for i := range n {
		up.Send(&Attempt{Query: pack(t, fmt.Sprintf("n%d.example.org.", i)), Done: done, User: i})
	}
	var queries [n][]byte
	var from [n]net.Addr
	for i := range n {
		buf := make([]byte, 1232)
		l, addr, err := srv.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		queries[i], from[i] = buf[:l], addr
	}
	for i := n - 1; i >= 0; i-- {
		srv.WriteTo(answerTo(queries[i]), from[i])
	}
	for range n {
		a := receive(t, done)
		m, err := a.Unpack()
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("n%d.example.org.", a.User); m.Question[0].Name != want {
			t.Errorf("answer for %s, want %s", m.Question[0].Name, want)
		}
	}
}

// One socket's worth of wrong IDs retires the socket, and what waits on it is
// answered all the same.
func TestUDPStraysRetire(t *testing.T) {
	srv := newUDPServer(t, func(q []byte) [][]byte {
		out := [][]byte{}
		for i := range udpMaxStrays {
			out = append(out, edit(q, func(b []byte) []byte { b[0] ^= byte(i + 1); return b }))
		}
		return append(out, answerTo(q))
	})
	up := newUpstream(t, Options{Addr: srv.addr()})
	query := pack(t, "example.org.")
	const n = 20
	for range n {
		good(t, ask(t, up, query, UDP))
	}
	// A reply is delivered before its socket is closed, hence the waiting.
	eventually(t, "all sockets are closed", func() bool { return up.Stats().UDPSockets == 0 })
	// The kernel may choose a port twice.
	if got := srv.ports(); got < n-3 {
		t.Errorf("%d ports for %d queries", got, n)
	}
}

// A thousand queries in flight share a few ports.
func TestUDPPorts(t *testing.T) {
	const n = 1000
	var mu sync.Mutex
	var held [][]byte
	srv := newUDPServer(t, func(q []byte) [][]byte {
		mu.Lock()
		held = append(held, q)
		mu.Unlock()
		return nil
	})
	var opened, closed int
	up := newUpstream(t, Options{Addr: srv.addr(), Hooks: Hooks{
		SocketOpened: func(Proto) { mu.Lock(); opened++; mu.Unlock() },
		SocketClosed: func(Proto) { mu.Lock(); closed++; mu.Unlock() },
	}})
	done := make(chan *Attempt, n)
	attempts := make([]Attempt, n)
	for i := range attempts {
		attempts[i] = Attempt{Query: pack(t, fmt.Sprintf("n%d.example.org.", i)), Done: done}
		up.Send(&attempts[i])
		// The receive buffer of the server holds some hundred.
		eventually(t, "the query arrives", func() bool { return srv.queries() == i+1 })
	}
	if got := up.Stats(); got.InFlight != n || got.UDPSockets > udpLegs {
		t.Errorf("%+v", got)
	}
	if p := srv.ports(); p > udpLegs {
		t.Errorf("%d ports, want at most %d", p, udpLegs)
	}
	up.Close()
	for range n {
		if a := receive(t, done); a.Err != ErrClosed {
			t.Fatal(a.Err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if opened != closed || opened > udpLegs {
		t.Errorf("%d opened, %d closed", opened, closed)
	}
}

func TestUDPRefused(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := pc.LocalAddr().String()
	pc.Close()
	up := newUpstream(t, Options{Addr: addr})
	query := pack(t, "example.org.")
	for range 20 {
		a := ask(t, up, query, UDP)
		if Class(a.Err) != ReasonRefused {
			t.Fatalf("%v, want refused", a.Err)
		}
	}
	eventually(t, "the sockets are closed", func() bool { return up.Stats().UDPSockets == 0 })
}

// An ICMP error ends all that wait on the socket, not those on others.
func TestUDPRefusedAll(t *testing.T) {
	srv := newUDPServer(t, func([]byte) [][]byte { return nil })
	up := newUpstream(t, Options{Addr: srv.addr()})
	query := pack(t, "example.org.")
	done := make(chan *Attempt, 101)
	for range 100 {
		up.Send(&Attempt{Query: query, Done: done})
	}
	eventually(t, "the queries arrive", func() bool { return srv.queries() == 100 })
	srv.pc.Close()
	waiting := 100
	for waiting > 0 {
		up.Send(&Attempt{Query: query, Done: done})
		a := receive(t, done) // at least the one just sent
		waiting--
		for {
			if r := Class(a.Err); r != ReasonRefused {
				t.Fatal(a.Err)
			}
			select {
			case a = <-done:
				waiting--
				continue
			default:
			}
			break
		}
		waiting++
	}
}

func TestUDPIdle(t *testing.T) {
	srv := newUDPServer(t, echoUDP)
	up := newUpstream(t, Options{Addr: srv.addr(), Expire: 1})
	good(t, ask(t, up, pack(t, "example.org."), UDP))
	eventually(t, "the idle socket is closed", func() bool { return up.Stats().UDPSockets == 0 })
	good(t, ask(t, up, pack(t, "example.org."), UDP))
}

func TestUDPAvoid(t *testing.T) {
	srv := newUDPServer(t, echoUDP)
	up := newUpstream(t, Options{Addr: srv.addr()})
	query := pack(t, "example.org.")
	done := make(chan *Attempt, 1)
	for i := range 200 {
		avoid := Leg(i%udpLegs + 1)
		up.Send(&Attempt{Query: query, Avoid: avoid, Done: done})
		if a := receive(t, done); a.Leg() == avoid {
			t.Fatalf("leg %d was used", avoid)
		}
	}
}

// Sockets at the end of their life are drained: what waits on them gets its
// answer, new queries go elsewhere.
func TestUDPDrain(t *testing.T) {
	release := make(chan struct{})
	srv := newUDPServer(t, func(q []byte) [][]byte {
		<-release
		return echoUDP(q)
	})
	up := newUpstream(t, Options{Addr: srv.addr()})
	done := make(chan *Attempt, 2)
	a := &Attempt{Query: pack(t, "example.org."), Done: done}
	up.Send(a)
	s := up.udp.legs[a.Leg()-1].Load()
	s.mu.Lock()
	s.drain(a.SentAt)
	s.mu.Unlock()
	if up.udp.legs[a.Leg()-1].Load() != nil {
		t.Error("the socket still takes queries")
	}
	close(release)
	good(t, receive(t, done))
	eventually(t, "the socket is closed", func() bool { return up.Stats().UDPSockets == 0 })
}

// A socket whose IDs are used up is replaced, and no more than udpMaxPorts are
// ever open.
func TestUDPWearOut(t *testing.T) {
	srv := newUDPServer(t, func([]byte) [][]byte { return nil })
	up := newUpstream(t, Options{Addr: srv.addr()})
	const n = 200
	done := make(chan *Attempt, n)
	query := pack(t, "example.org.")
	for range n {
		a := &Attempt{Query: query, Done: done}
		up.Send(a)
		if s := up.udp.legs[a.Leg()-1].Load(); s != nil {
			s.mu.Lock()
			s.usedN = udpMaxIDs
			s.mu.Unlock()
		}
	}
	eventually(t, "the rest is open", func() bool { return up.Stats().UDPSockets <= udpMaxPorts })
	if got := len(done); got < n-udpMaxPorts-1 {
		t.Errorf("%d delivered", got)
	}
	for range len(done) {
		if a := <-done; !errors.Is(a.Err, ErrReplaced) {
			t.Fatal(a.Err)
		}
	}
	up.Close()
}

func TestUDPCancelRace(t *testing.T) {
	srv := newUDPServer(t, echoUDP)
	testCancelRace(t, newUpstream(t, Options{Addr: srv.addr()}), UDP)
}

// A source address, an unreachable zone, and a wrong family are errors of the
// attempt, at once.
func TestUDPLocalErrors(t *testing.T) {
	srv := newUDPServer(t, echoUDP)
	up := newUpstream(t, Options{Addr: srv.addr(), Source: net.IPv4(127, 0, 0, 9)})
	a := ask(t, up, pack(t, "example.org."), UDP)
	if host, _, _ := net.SplitHostPort(a.Local().String()); host != "127.0.0.9" {
		t.Errorf("sent from %s", host)
	}
	good(t, a)
	for _, o := range []Options{
		{Addr: srv.addr(), Source: net.IPv4(192, 0, 2, 77)},
		{Addr: srv.addr(), Source: net.ParseIP("2001:db8::1")},
		{Addr: "[fe80::1%nosuch0]:53"},
	} {
		up := newUpstream(t, o)
		if a := ask(t, up, pack(t, "example.org."), UDP); a.Err == nil || Class(a.Err) == ReasonNone {
			t.Errorf("%+v: no error", o)
		}
	}
}

func TestUDP6(t *testing.T) {
	pc, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6:", err)
	}
	defer pc.Close()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, addr, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(answerTo(buf[:n]), addr)
		}
	}()
	up := newUpstream(t, Options{Addr: pc.LocalAddr().String()})
	good(t, ask(t, up, pack(t, "example.org."), UDP))
}

// Close and Retire with queries in flight and more coming.
func TestUDPCloseUnderLoad(t *testing.T) { testCloseUnderLoad(t, UDP) }

// At the end of its life a socket is drained, at the end of that it is closed.
func TestUDPLife(t *testing.T) {
	srv := newUDPServer(t, func([]byte) [][]byte { return nil })
	up := newUpstream(t, Options{Addr: srv.addr()})
	done := make(chan *Attempt, 1)
	a := &Attempt{Query: pack(t, "example.org."), Done: done}
	up.Send(a)
	leg := &up.udp.legs[a.Leg()-1]
	s := leg.Load()
	if s.life < udpMinLife || s.life > udpMaxLife {
		t.Errorf("a life of %v", s.life)
	}
	s.tick(s.born.Add(udpMinLife - 1))
	if leg.Load() != s {
		t.Error("retired before its time")
	}
	s.tick(s.born.Add(udpMaxLife))
	if leg.Load() != nil {
		t.Error("not retired")
	}
	s.tick(s.born.Add(udpMaxLife + drainTime - 1))
	if len(done) != 0 {
		t.Error("closed before its time")
	}
	s.tick(s.born.Add(udpMaxLife + drainTime))
	if a := receive(t, done); a.Err != ErrTimeout || Class(a.Err) != ReasonTimeout {
		t.Error(a.Err)
	}
}
