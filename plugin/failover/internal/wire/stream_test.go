package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

// serverTLS makes a certificate for dns.example and 127.0.0.1, and returns the
// two sides' configurations.
func serverTLS(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "dns.example"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{"dns.example"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return server, &tls.Config{RootCAs: pool, ServerName: "dns.example"}
}

func TestStreamExchange(t *testing.T) {
	srv := newTCPServer(t, nil, echo)
	up := newUpstream(t, Options{Addr: srv.addr()})
	for range 50 {
		a := ask(t, up, pack(t, "example.org."), TCP)
		if a.Proto != TCP || a.Leg() == 0 || a.WroteAt.Before(a.SentAt) || a.RTT() < 0 {
			t.Errorf("proto %v, leg %d, sent %v, wrote %v", a.Proto, a.Leg(), a.SentAt, a.WroteAt)
		}
		good(t, a)
	}
	if all, _ := srv.count(); all != 1 {
		t.Errorf("%d connections", all)
	}
}

func TestForceTCP(t *testing.T) {
	srv := newTCPServer(t, nil, echo)
	up := newUpstream(t, Options{Addr: srv.addr(), ForceTCP: true})
	a := ask(t, up, pack(t, "example.org."), UDP)
	if a.Proto != TCP {
		t.Error(a.Proto)
	}
	good(t, a)
}

// A truncated answer is asked for again over TCP, at the same address.
func TestRetryTCP(t *testing.T) {
	tcp := newTCPServer(t, nil, echo)
	pc, err := net.ListenPacket("udp", tcp.addr())
	if err != nil {
		t.Skip("the port is taken:", err)
	}
	defer pc.Close()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, addr, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			b := answerTo(buf[:n])
			b[2] |= flagTC
			pc.WriteTo(b, addr)
		}
	}()
	up := newUpstream(t, Options{Addr: tcp.addr()})
	done := make(chan *Attempt, 1)
	up.Send(&Attempt{Query: pack(t, "example.org."), Done: done})
	a := receive(t, done)
	if !a.Truncated() || a.Proto != UDP {
		t.Fatal("not truncated")
	}
	a.RetryTCP()
	if a = receive(t, done); a.Truncated() || a.Proto != TCP {
		t.Error("truncated again")
	}
	good(t, a)
}

func TestStreamHostile(t *testing.T) {
	for _, tc := range hostile {
		t.Run(tc.name, func(t *testing.T) {
			srv := newTCPServer(t, nil, func(_ int, c net.Conn) {
				for {
					q, err := readQuery(c)
					if err != nil {
						return
					}
					for _, r := range append(tc.replies(q), answerTo(q)) {
						c.Write(frame(r))
					}
				}
			})
			up := newUpstream(t, Options{Addr: srv.addr()})
			good(t, ask(t, up, pack(t, "Example.ORG."), TCP))
			if got := up.Stats().Ignored; got != tc.ignored {
				t.Errorf("ignored %v, want %v", got, tc.ignored)
			}
		})
	}
}

func TestStreamAccepted(t *testing.T) {
	testAccepted(t, TCP, func(t *testing.T, f func([]byte) []byte) *Upstream {
		srv := newTCPServer(t, nil, func(_ int, c net.Conn) {
			for {
				q, err := readQuery(c)
				if err != nil {
					return
				}
				c.Write(frame(f(q)))
			}
		})
		return newUpstream(t, Options{Addr: srv.addr()})
	})
}

// The largest message there is, in pieces.
func TestStreamLargest(t *testing.T) {
	srv := newTCPServer(t, nil, func(_ int, c net.Conn) {
		q, _ := readQuery(c)
		b := large(q, 65000)
		b = frame(append(b, make([]byte, 65535-len(b))...))
		for len(b) > 0 {
			n, _ := c.Write(b[:min(len(b), 1000)])
			b = b[n:]
		}
		silent(0, c)
	})
	up := newUpstream(t, Options{Addr: srv.addr()})
	a := ask(t, up, pack(t, "example.org."), TCP)
	if a.Err != nil || len(a.Raw()) != 65535 {
		t.Fatalf("%v, %d bytes", a.Err, len(a.Raw()))
	}
	if m, err := a.Unpack(); err != nil || len(m.Extra) < 100 {
		t.Error(err)
	}
}

// What ends a connection with a query outstanding.
func TestStreamCut(t *testing.T) {
	for name, reply := range map[string]func(q []byte) []byte{
		"at once":                func([]byte) []byte { return nil },
		"in the length":          func([]byte) []byte { return []byte{0} },
		"in the message":         func(q []byte) []byte { f := frame(answerTo(q)); return f[:len(f)-1] },
		"after a zero length":    func([]byte) []byte { return []byte{0, 0} },
		"after too much nothing": func([]byte) []byte { return make([]byte, 2*maxNonsense+200) },
	} {
		t.Run(name, func(t *testing.T) {
			srv := newTCPServer(t, nil, func(_ int, c net.Conn) {
				q, err := readQuery(c)
				if err != nil {
					return
				}
				c.Write(reply(q))
			})
			up := newUpstream(t, Options{Addr: srv.addr()})
			a := ask(t, up, pack(t, "example.org."), TCP)
			if !errors.Is(a.Err, ErrConnClosed) || !errors.Is(a.Err, ErrReplaced) || Class(a.Err) != ReasonClosed {
				t.Errorf("%v", a.Err)
			}
			if all, _ := srv.count(); all != 1 {
				t.Errorf("%d connections: must not be tried again", all)
			}
		})
	}
}

// A server that closes the idle connection crosses with the next query, which
// is sent again; but once only.
func TestStreamIdleClosed(t *testing.T) {
	for _, healthy := range []bool{true, false} {
		srv := newTCPServer(t, nil, func(n int, c net.Conn) {
			if n > 1 && healthy {
				echo(n, c)
				return
			}
			if n == 1 {
				q, _ := readQuery(c)
				c.Write(frame(answerTo(q)))
			}
			readQuery(c) // and closes
		})
		up := newUpstream(t, Options{Addr: srv.addr()})
		good(t, ask(t, up, pack(t, "example.org."), TCP))
		a := ask(t, up, pack(t, "example.com."), TCP)
		if healthy {
			good(t, a)
		} else if !errors.Is(a.Err, ErrConnClosed) {
			t.Error(a.Err)
		}
		if all, _ := srv.count(); all != 2 {
			t.Errorf("%d connections", all)
		}
	}
}

func TestStreamOutOfOrder(t *testing.T) {
	const n = 1000
	srv := newTCPServer(t, nil, func(_ int, c net.Conn) {
		queries := make([][]byte, n)
		ids := map[uint16]bool{}
		for i := range n {
			q, err := readQuery(c)
			if err != nil {
				t.Error(err)
				return
			}
			queries[i] = q
			ids[msgID(q)] = true
		}
		if len(ids) != n {
			t.Errorf("%d IDs", len(ids))
		}
		for i := n - 1; i >= 0; i-- {
			c.Write(frame(answerTo(queries[i])))
		}
		silent(0, c)
	})
	up := newUpstream(t, Options{Addr: srv.addr()})
	done := make(chan *Attempt, n)
	attempts := make([]Attempt, n)
	for i := range attempts {
		attempts[i] = Attempt{Query: pack(t, fmt.Sprintf("n%d.example.org.", i)), Proto: TCP, Done: done, User: i}
		up.Send(&attempts[i])
	}
	for range n {
		a := receive(t, done)
		if errors.Is(a.Err, ErrReplaced) {
			t.Skip("this machine was too slow for the server to be believed alive")
		}
		m, err := a.Unpack()
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("n%d.example.org.", a.User); m.Question[0].Name != want {
			t.Errorf("answer for %s, want %s", m.Question[0].Name, want)
		}
	}
	if _, most := srv.count(); most > maxStreams {
		t.Errorf("%d connections", most)
	}
}

func TestStreamAvoid(t *testing.T) {
	srv := newTCPServer(t, nil, echo)
	up := newUpstream(t, Options{Addr: srv.addr()})
	done := make(chan *Attempt, 1)
	var avoid Leg
	for range 20 {
		up.Send(&Attempt{Query: pack(t, "example.org."), Proto: TCP, Avoid: avoid, Done: done})
		a := receive(t, done)
		if a.Leg() == avoid {
			t.Fatalf("leg %d was used", avoid)
		}
		avoid = a.Leg()
		good(t, a)
	}
	if all, _ := srv.count(); all != 2 {
		t.Errorf("%d connections", all)
	}
}

func TestStreamRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	up := newUpstream(t, Options{Addr: addr})
	done := make(chan *Attempt, 10)
	for range 10 {
		up.Send(&Attempt{Query: pack(t, "example.org."), Proto: TCP, Done: done})
	}
	for range 10 {
		if a := receive(t, done); Class(a.Err) != ReasonRefused {
			t.Error(a.Err)
		}
	}
}

func TestStreamCancelRace(t *testing.T) {
	srv := newTCPServer(t, nil, echo)
	testCancelRace(t, newUpstream(t, Options{Addr: srv.addr()}), TCP)
	if _, most := srv.count(); most > maxStreams {
		t.Errorf("%d connections", most)
	}
}

func TestStreamCloseUnderLoad(t *testing.T) { testCloseUnderLoad(t, TCP) }

// Close while a connection is being made, and with queries on one.
func TestStreamClose(t *testing.T) {
	srv := newTCPServer(t, nil, silent)
	for range 20 {
		up := newUpstream(t, Options{Addr: srv.addr()})
		done := make(chan *Attempt, 1)
		up.Send(&Attempt{Query: pack(t, "example.org."), Proto: TCP, Done: done})
		up.Close()
		if a := receive(t, done); a.Err != ErrClosed {
			t.Fatal(a.Err)
		}
	}
}

func TestDoT(t *testing.T) {
	server, client := serverTLS(t)
	srv := newTCPServer(t, func(l net.Listener) net.Listener { return tls.NewListener(l, server) }, echo)
	up := newUpstream(t, Options{Transport: "tls", Addr: srv.addr(), TLS: client})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 10 {
				done := make(chan *Attempt, 1)
				up.Send(&Attempt{Query: pack(t, "example.org."), Done: done})
				a := <-done
				if a.Err != nil || a.Proto != TCP {
					t.Error(a.Err, a.Proto)
				}
			}
		})
	}
	wg.Wait()
	if _, most := srv.count(); most > maxStreams {
		t.Errorf("%d connections", most)
	}
	// Without a name the address is verified.
	noName := client.Clone()
	noName.ServerName = ""
	good(t, ask(t, newUpstream(t, Options{Transport: "tls", Addr: srv.addr(), TLS: noName}), pack(t, "example.org."), UDP))

	wrong := client.Clone()
	wrong.ServerName = "other.example"
	for _, cfg := range []*tls.Config{nil, wrong} {
		a := ask(t, newUpstream(t, Options{Transport: "tls", Addr: srv.addr(), TLS: cfg}), pack(t, "example.org."), UDP)
		if !errors.Is(a.Err, ErrTLS) || Class(a.Err) != ReasonTLS {
			t.Errorf("%v (%s)", a.Err, Class(a.Err))
		}
	}
}

// A server that does not speak TLS.
func TestDoTNot(t *testing.T) {
	srv := newTCPServer(t, nil, func(_ int, c net.Conn) {
		c.Read(make([]byte, 1))
		c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	})
	a := ask(t, newUpstream(t, Options{Transport: "tls", Addr: srv.addr()}), pack(t, "example.org."), UDP)
	if !errors.Is(a.Err, ErrTLS) {
		t.Error(a.Err)
	}
}

// Whatever the bytes of a query, they arrive unchanged but for the ID.
func TestStreamBytes(t *testing.T) {
	query := append(pack(t, "example.org."), bytes.Repeat([]byte{0xfa}, 300)...) // say, a signature
	for _, p := range []Proto{UDP, TCP} {
		got := make(chan []byte, 1)
		udp := newUDPServer(t, func(q []byte) [][]byte { got <- q; return nil })
		tcp := newTCPServer(t, nil, func(_ int, c net.Conn) {
			q, _ := readQuery(c)
			got <- q
			io.Copy(io.Discard, c)
		})
		addr := map[Proto]string{UDP: udp.addr(), TCP: tcp.addr()}[p]
		up := newUpstream(t, Options{Addr: addr})
		a := &Attempt{Query: query, Proto: p, Done: make(chan *Attempt, 1)}
		up.Send(a)
		if q := <-got; !bytes.Equal(q[2:], query[2:]) {
			t.Errorf("%v: changed on the way", p)
		}
		if !a.Cancel() {
			t.Error("not withdrawn")
		}
	}
}
