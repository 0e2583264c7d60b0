package wire

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
)

func TestCancel(t *testing.T) {
	srv := newUDPServer(t, func([]byte) [][]byte { return nil })
	up := newUpstream(t, Options{Addr: srv.addr()})
	var zero Attempt
	if zero.Cancel() {
		t.Error("Cancel of what was never sent")
	}
	done := make(chan *Attempt, 1)
	a := &Attempt{Query: pack(t, "example.org."), Done: done}
	for range 10 { // the same one again and again
		up.Send(a)
		if !a.Cancel() || a.Cancel() {
			t.Error("Cancel must work once")
		}
	}
	if up.Stats().InFlight != 0 || len(done) != 0 {
		t.Error("not withdrawn")
	}
	up.Retire(context.Background()) // nothing to wait for
	up.Send(a)
	if a := receive(t, done); a.Err != ErrClosed || a.Cancel() {
		t.Error(a.Err)
	}
}

// Either Cancel is true and nothing comes, or it is false and the delivery is
// there. The replies race with the cancelling.
func testCancelRace(t *testing.T, up *Upstream, p Proto) {
	query := pack(t, "example.org.")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			done := make(chan *Attempt, 1)
			a := &Attempt{Done: done}
			for i := range 300 {
				a.Query, a.Proto = query, p
				up.Send(a)
				if i%3 == 0 {
					select {
					case <-done:
						a.Release()
						continue
					case <-t.Context().Done():
					}
				}
				switch withdrawn := a.Cancel(); {
				case withdrawn && len(done) != 0:
					t.Error("delivered after Cancel")
				case !withdrawn && len(done) != 1:
					t.Error("neither withdrawn nor delivered")
				case !withdrawn:
					if a := <-done; a.Err != nil {
						t.Error(a.Err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestBadQuery(t *testing.T) {
	up := newUpstream(t, Options{Addr: "127.0.0.1:53"})
	ok := pack(t, "example.org.")
	for name, q := range map[string][]byte{
		"nothing":        nil,
		"header":         ok[:12],
		"cut name":       ok[:18],
		"cut type":       ok[:26],
		"no question":    append([]byte{0, 0, 0, 0, 0, 0}, make([]byte, 20)...),
		"pointer":        append(bytes.Clone(ok[:12]), 0xc0, 12, 0, 1, 0, 1),
		"too long":       append(bytes.Clone(ok), make([]byte, 65536)...),
		"name too long":  append(append(bytes.Clone(ok[:12]), bytes.Repeat([]byte{1, 'a'}, 128)...), 0, 0, 1, 0, 1),
		"no end of name": append(bytes.Clone(ok[:12]), 3, 'o', 'r', 'g'),
	} {
		a := ask(t, up, q, UDP)
		if !errors.Is(a.Err, ErrBadQuery) || Class(a.Err) != ReasonQuery {
			t.Errorf("%s: %v", name, a.Err)
		}
	}
}

func TestNew(t *testing.T) {
	for _, o := range []Options{
		{}, {Addr: "127.0.0.1"}, {Addr: "example.org:53"}, {Addr: "127.0.0.1:53", Transport: "grpc"},
		{Addr: "127.0.0.1:99999"}, {Addr: "example.org", Transport: "https"}, {Addr: "host:853", Transport: "tls"},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
	for _, o := range []Options{
		{Addr: "[::1]:53"}, {Addr: "[fe80::1%eth0]:53"}, {Addr: "example.org:443", Transport: "https"},
		{Addr: "127.0.0.1:853", Transport: "tls"}, {Addr: "127.0.0.1:853", Transport: "quic"},
	} {
		up := newUpstream(t, o)
		if up.Addr() != o.Addr {
			t.Error(up.Addr())
		}
	}
}

func testCloseUnderLoad(t *testing.T, p Proto) {
	udp := newUDPServer(t, echoUDP)
	tcp := newTCPServer(t, nil, echo)
	addr := map[Proto]string{UDP: udp.addr(), TCP: tcp.addr()}[p]
	for _, retire := range []bool{false, true} {
		up := newUpstream(t, Options{Addr: addr})
		query := pack(t, "example.org.")
		var wg sync.WaitGroup
		started := make(chan struct{}, 64)
		for range 8 {
			wg.Go(func() {
				done := make(chan *Attempt, 1)
				a := &Attempt{Done: done}
				for i := 0; ; i++ {
					a.Query, a.Proto = query, p
					up.Send(a)
					<-done
					if a.Err != nil {
						if !errors.Is(a.Err, ErrClosed) {
							t.Error(a.Err)
						}
						return
					}
					if i == 5 {
						started <- struct{}{}
					}
				}
			})
		}
		for range 8 {
			<-started
		}
		if retire {
			up.Retire(shortCtx(t))
		} else {
			up.Close()
		}
		wg.Wait()
		noGoroutines(t)
	}
}

// Retire waits for what is in flight, as long as it may.
func TestRetire(t *testing.T) {
	release := make(chan struct{})
	srv := newUDPServer(t, func(q []byte) [][]byte {
		<-release
		return echoUDP(q)
	})
	up := newUpstream(t, Options{Addr: srv.addr()})
	done := make(chan *Attempt, 2)
	up.Send(&Attempt{Query: pack(t, "example.org."), Done: done})
	ended := make(chan struct{})
	go func() { up.Retire(shortCtx(t)); close(ended) }()
	eventually(t, "retired", up.retired.Load)
	up.Send(&Attempt{Query: pack(t, "example.org."), Done: done})
	if a := receive(t, done); a.Err != ErrClosed {
		t.Error(a.Err)
	}
	close(release)
	good(t, receive(t, done))
	<-ended

	silent := newUDPServer(t, func([]byte) [][]byte { return nil })
	up = newUpstream(t, Options{Addr: silent.addr()})
	up.Send(&Attempt{Query: pack(t, "example.org."), Done: done})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	up.Retire(ctx)
	if a := receive(t, done); a.Err != ErrClosed {
		t.Error(a.Err)
	}
}

// A delivery without room is counted and stops nothing.
func TestUndelivered(t *testing.T) {
	srv := newUDPServer(t, echoUDP)
	up, err := New(Options{Addr: srv.addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	up.Send(&Attempt{Query: pack(t, "example.org."), Done: make(chan *Attempt)})
	eventually(t, "it is counted", func() bool { return up.Stats().Undelivered == 1 })
}
