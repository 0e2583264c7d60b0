package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// patience is how long a test waits for what has to happen. Only a failing
// test ever waits that long.
const patience = 20 * time.Second

// pack returns a packed query for an A record.
func pack(t testing.TB, name string) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	m.SetEdns0(1232, false)
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// answerTo returns a good answer to a packed query.
func answerTo(query []byte) []byte {
	q := new(dns.Msg)
	if err := q.Unpack(query); err != nil {
		return nil
	}
	m := new(dns.Msg)
	m.SetReply(q)
	m.Answer = []dns.RR{&dns.A{
		Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60},
		A:   net.IPv4(192, 0, 2, 1),
	}}
	b, _ := m.Pack()
	return b
}

// edit returns an answer changed by f.
func edit(query []byte, f func([]byte) []byte) []byte { return f(bytes.Clone(answerTo(query))) }

// newUpstream returns an upstream that is closed at the end of the test, which
// then checks that nothing of it is left.
func newUpstream(t testing.TB, o Options) *Upstream {
	t.Helper()
	up, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, again := checked.LoadOrStore(t, true); !again {
		t.Cleanup(func() { noGoroutines(t) }) // runs last, when all are closed
	}
	t.Cleanup(func() {
		up.Close()
		if s := up.Stats(); s.InFlight != 0 || s.UDPSockets != 0 || s.TCPConns != 0 || s.Undelivered != 0 {
			t.Errorf("after Close: %+v", s)
		}
	})
	return up
}

// checked are the tests that have seen to noGoroutines.
var checked sync.Map

// noGoroutines fails the test unless all goroutines of the package end.
func noGoroutines(t testing.TB) {
	t.Helper()
	var stacks string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		buf := make([]byte, 1<<20)
		stacks = string(buf[:runtime.Stack(buf, true)])
		left := false
		for g := range strings.SplitSeq(stacks, "\n\n") {
			for _, f := range []string{"wire.(*udpSocket)", "wire.(*streamConn)", "wire.(*call)", "wire.(*streamMux)"} {
				left = left || strings.Contains(g, f)
			}
		}
		if !left {
			return
		}
	}
	t.Errorf("goroutines left:\n%s", stacks)
}

// receive waits for a delivery.
func receive(t testing.TB, done <-chan *Attempt) *Attempt {
	t.Helper()
	select {
	case a := <-done:
		return a
	case <-time.After(patience):
		t.Fatal("nothing was delivered")
		return nil
	}
}

// ask sends a query and waits for what is delivered.
func ask(t testing.TB, up *Upstream, query []byte, p Proto) *Attempt {
	t.Helper()
	done := make(chan *Attempt, 1)
	up.Send(&Attempt{Query: query, Proto: p, Done: done})
	return receive(t, done)
}

// good fails the test unless the attempt has a good answer.
func good(t testing.TB, a *Attempt) {
	t.Helper()
	if a.Err != nil {
		t.Fatalf("error %v, want an answer", a.Err)
	}
	m, err := a.Unpack()
	if err != nil {
		t.Fatal(err)
	}
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
		t.Fatalf("not the answer: %v", m)
	}
	if a.Local() == nil || a.Remote() == nil || a.DoneAt.Before(a.SentAt) {
		t.Errorf("local %v, remote %v, sent %v, done %v", a.Local(), a.Remote(), a.SentAt, a.DoneAt)
	}
	a.Release()
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// udpServer is a real socket on the loopback that knows who has asked.
type udpServer struct {
	pc   net.PacketConn
	mu   sync.Mutex
	from map[string]int
	seen int
}

// newUDPServer starts a server that sends what handle returns.
func newUDPServer(t testing.TB, handle func(query []byte) [][]byte) *udpServer {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &udpServer{pc: pc, from: make(map[string]int)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 65535)
		for {
			n, addr, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.from[addr.String()]++
			s.seen++
			s.mu.Unlock()
			for _, r := range handle(bytes.Clone(buf[:n])) {
				pc.WriteTo(r, addr)
			}
		}
	}()
	t.Cleanup(func() { pc.Close(); <-ended })
	return s
}

func (s *udpServer) addr() string { return s.pc.LocalAddr().String() }

// ports returns how many ports have sent queries.
func (s *udpServer) ports() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.from)
}

func (s *udpServer) queries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// tcpServer accepts connections and counts them.
type tcpServer struct {
	l     net.Listener
	mu    sync.Mutex
	conns []net.Conn
	open  int
	most  int
}

// newTCPServer starts a server that serves each connection with handle, whose
// n counts from 1.
func newTCPServer(t testing.TB, wrap func(net.Listener) net.Listener, handle func(n int, c net.Conn)) *tcpServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if wrap != nil {
		l = wrap(l)
	}
	s := &tcpServer{l: l}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			n := len(s.conns)
			s.open++
			s.most = max(s.most, s.open)
			s.mu.Unlock()
			wg.Go(func() {
				handle(n, c)
				c.Close()
				s.mu.Lock()
				s.open--
				s.mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		wg.Wait()
	})
	return s
}

func (s *tcpServer) addr() string { return s.l.Addr().String() }

// count returns how many connections there were in all, and at most at once.
func (s *tcpServer) count() (all, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns), s.most
}

// readQuery reads one framed message.
func readQuery(c io.Reader) ([]byte, error) {
	var l [2]byte
	if _, err := io.ReadFull(c, l[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(l[:]))
	_, err := io.ReadFull(c, b)
	return b, err
}

// frame puts the length before a message.
func frame(msg []byte) []byte {
	return append([]byte{byte(len(msg) >> 8), byte(len(msg))}, msg...)
}

// echo answers everything.
func echo(_ int, c net.Conn) {
	for {
		q, err := readQuery(c)
		if err != nil {
			return
		}
		if _, err := c.Write(frame(answerTo(q))); err != nil {
			return
		}
	}
}

// silent reads until the other side closes.
func silent(_ int, c net.Conn) { io.Copy(io.Discard, c) }

func shortCtx(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}
