package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coredns/coredns/plugin/pkg/doh"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
)

// newDoH starts an HTTPS server that answers with what handle makes of a query.
func newDoH(t *testing.T, handle func(r *http.Request, query []byte) []byte) (addr string, client *tls.Config, protos *sync.Map) {
	t.Helper()
	server, client := serverTLS(t)
	protos = new(sync.Map)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protos.Store(r.Proto, true)
		_, query, err := doh.RequestToMsgWire(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", doh.MimeType)
		w.Write(handle(r, query))
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = server
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), client, protos
}

func TestDoH(t *testing.T) {
	addr, client, protos := newDoH(t, func(_ *http.Request, q []byte) []byte { return answerTo(q) })
	for _, method := range []string{"", "GET", "post"} {
		up := newUpstream(t, Options{Transport: "https", Addr: addr, TLS: client, DoHMethod: method, DoHHost: "dns.example", Source: net.IPv4(127, 0, 0, 1)})
		query := pack(t, "example.org.")
		for range 3 {
			a := ask(t, up, query, UDP)
			if a.Proto != TCP || a.Truncated() || a.Rcode() != 0 || len(a.Raw()) == 0 {
				t.Errorf("proto %v, rcode %d, raw %v", a.Proto, a.Rcode(), a.Raw())
			}
			if m, _ := a.Unpack(); m.Id != msgID(query) {
				t.Errorf("ID %d", m.Id)
			}
			good(t, a)
		}
	}
	if _, ok := protos.Load("HTTP/2.0"); !ok {
		t.Error("not HTTP/2")
	}
	if client.NextProtos != nil {
		t.Error("the configuration was changed")
	}
}

func TestDoHErrors(t *testing.T) {
	for _, tc := range []struct {
		name   string
		reply  func(q []byte) []byte
		reason Reason
	}{
		{"another question", func(q []byte) []byte { return edit(q, func(b []byte) []byte { b[13] = 'z'; return b }) }, ReasonMalformed},
		{"a query", func(q []byte) []byte { return q }, ReasonMalformed},
		{"no DNS", func([]byte) []byte { return []byte("<html>") }, ReasonMalformed},
		{"cut", func(q []byte) []byte { b := answerTo(q); return b[:len(b)-2] }, ReasonMalformed},
		{"refused without a question", func(q []byte) []byte { return emptyQuestion(q, dns.RcodeRefused) }, ReasonNone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			addr, client, _ := newDoH(t, func(_ *http.Request, q []byte) []byte { return tc.reply(q) })
			up := newUpstream(t, Options{Transport: "https", Addr: addr, TLS: client})
			if a := ask(t, up, pack(t, "example.org."), TCP); Class(a.Err) != tc.reason {
				t.Errorf("%v is %q", a.Err, Class(a.Err))
			}
		})
	}
	addr, _, _ := newDoH(t, func(_ *http.Request, q []byte) []byte { return answerTo(q) })
	up := newUpstream(t, Options{Transport: "https", Addr: addr})
	if a := ask(t, up, pack(t, "example.org."), TCP); Class(a.Err) != ReasonTLS || !errors.Is(a.Err, ErrTLS) {
		t.Errorf("unknown issuer: %v", a.Err)
	}
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	l.Close()
	up = newUpstream(t, Options{Transport: "https", Addr: l.Addr().String()})
	if a := ask(t, up, pack(t, "example.org."), TCP); Class(a.Err) != ReasonRefused {
		t.Errorf("closed port: %v", a.Err)
	}
	// One that miekg/dns does not unpack, though its question is fine.
	bad := pack(t, "example.org.")
	if a := ask(t, up, bad[:len(bad)-3], TCP); !errors.Is(a.Err, ErrBadQuery) {
		t.Errorf("cut query: %v", a.Err)
	}
}

// Cancel and Close while the server is silent.
func TestDoHCancel(t *testing.T) {
	asked := make(chan struct{}, 10)
	addr, client, _ := newDoH(t, func(r *http.Request, _ []byte) []byte {
		asked <- struct{}{}
		<-r.Context().Done()
		return nil
	})
	up := newUpstream(t, Options{Transport: "https", Addr: addr, TLS: client})
	done := make(chan *Attempt, 2)
	a := &Attempt{Query: pack(t, "example.org."), Done: done}
	for range 2 {
		up.Send(a)
		<-asked
		if !a.Cancel() || a.Cancel() {
			t.Error("Cancel must work once")
		}
	}
	up.Send(a)
	up.Send(&Attempt{Query: pack(t, "example.org."), Done: done})
	up.Close()
	for range 2 {
		if a := receive(t, done); a.Err != ErrClosed {
			t.Error(a.Err)
		}
	}
	up.Send(a)
	if receive(t, done).Err != ErrClosed {
		t.Error("sent after Close")
	}
}

// newDoQ starts a DoQ server (RFC 9250).
func newDoQ(t *testing.T, handle func(query []byte) []byte) (addr string, client *tls.Config, conns *atomic.Int32) {
	t.Helper()
	server, client := serverTLS(t)
	server.NextProtos = []string{"doq"}
	l, err := quic.ListenAddr("127.0.0.1:0", server, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	conns = new(atomic.Int32)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept(ctx)
			if err != nil {
				return
			}
			conns.Add(1)
			wg.Go(func() {
				for {
					s, err := c.AcceptStream(ctx)
					if err != nil {
						return
					}
					wg.Go(func() {
						q, err := readQuery(s)
						if err != nil {
							return
						}
						if r := handle(q); r != nil {
							s.Write(frame(r))
							s.Close()
						} else {
							io.Copy(io.Discard, s)
						}
					})
				}
			})
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); wg.Wait() })
	return l.Addr().String(), client, conns
}

func TestDoQ(t *testing.T) {
	addr, client, conns := newDoQ(t, answerTo)
	up := newUpstream(t, Options{Transport: "quic", Addr: addr, TLS: client})
	query := pack(t, "example.org.")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5 {
				done := make(chan *Attempt, 1)
				up.Send(&Attempt{Query: query, Done: done})
				if a := <-done; a.Err != nil || a.Proto != UDP || a.Rcode() != 0 {
					t.Error(a.Err, a.Proto, a.Rcode())
				}
			}
		})
	}
	wg.Wait()
	a := ask(t, up, query, TCP)
	if m, _ := a.Unpack(); m == nil || m.Id != msgID(query) {
		t.Error("another ID")
	}
	good(t, a)
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}

	up = newUpstream(t, Options{Transport: "quic", Addr: addr})
	if a := ask(t, up, query, UDP); Class(a.Err) != ReasonTLS {
		t.Errorf("unknown issuer: %v", a.Err)
	}
}

func TestDoQCancel(t *testing.T) {
	asked := make(chan struct{}, 10)
	addr, client, _ := newDoQ(t, func([]byte) []byte { asked <- struct{}{}; return nil })
	up := newUpstream(t, Options{Transport: "quic", Addr: addr, TLS: client})
	done := make(chan *Attempt, 1)
	a := &Attempt{Query: pack(t, "example.org."), Done: done}
	up.Send(a)
	<-asked
	if !a.Cancel() {
		t.Error("not withdrawn")
	}
	up.Send(a)
	<-asked
	up.Close()
	if a := receive(t, done); a.Err != ErrClosed {
		t.Error(a.Err)
	}
}

func TestClass(t *testing.T) {
	for err, want := range map[error]Reason{
		ErrClosed:                             ReasonClosed,
		ErrConnClosed:                         ReasonClosed,
		ErrReplaced:                           ReasonReplaced,
		ErrTimeout:                            ReasonTimeout,
		ErrBusy:                               ReasonLocal,
		ErrMalformed:                          ReasonMalformed,
		context.DeadlineExceeded:              ReasonTimeout,
		io.EOF:                                ReasonClosed,
		fmt.Errorf("%w: %w", ErrTLS, io.EOF):  ReasonTLS,
		errors.New("surprise"):                ReasonOther,
		&net.OpError{Err: errors.New("what")}: ReasonOther,
		fmt.Errorf("%w: %w", ErrTLS, context.DeadlineExceeded): ReasonTimeout,
	} {
		if got := Class(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
	if Class(nil) != ReasonNone {
		t.Error("nil")
	}
	if !errors.Is(ErrConnClosed, ErrReplaced) || errors.Is(ErrReplaced, ErrConnClosed) || strings.Contains(ErrConnClosed.Error(), "%") {
		t.Error("kinds")
	}
}
