package wire

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fake is an upstream for a synctest bubble: connections are pipes, and the
// n-th is served by the n-th script, the last by all that come later.
type fake struct {
	mu     sync.Mutex
	dialed int
	open   int
	most   int
}

type script func(c net.Conn)

// unreachable is the script of a connection that is never made.
var unreachable script

func newFake(t *testing.T, o Options, scripts ...script) (*fake, *Upstream) {
	f := new(fake)
	o.Addr, o.ForceTCP = "127.0.0.1:53", true
	o.dial = func(ctx context.Context) (net.Conn, error) {
		f.mu.Lock()
		s := scripts[min(f.dialed, len(scripts)-1)]
		f.dialed++
		f.mu.Unlock()
		if s == nil {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		client, server := net.Pipe()
		f.mu.Lock()
		f.open++
		f.most = max(f.most, f.open)
		f.mu.Unlock()
		go func() {
			s(server)
			server.Close()
			f.mu.Lock()
			f.open--
			f.mu.Unlock()
		}()
		return addrConn{client}, nil
	}
	up, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(up.Close)
	return f, up
}

func (f *fake) counts() (dialed, open int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dialed, f.open
}

// addrConn gives a pipe addresses like those of a socket.
type addrConn struct{ net.Conn }

func (addrConn) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (addrConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53} }

// pipeTo returns a dial function whose connections are served by s.
func pipeTo(s script) func(context.Context) (net.Conn, error) {
	return func(context.Context) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			s(server)
			server.Close()
		}()
		return addrConn{client}, nil
	}
}

// The scripts.
func works(c net.Conn) { echo(0, c) }
func hangs(c net.Conn) { silent(0, c) }
func after(d time.Duration) script {
	return func(c net.Conn) {
		for {
			q, err := readQuery(c)
			if err != nil {
				return
			}
			time.AfterFunc(d, func() { c.Write(frame(answerTo(q))) })
		}
	}
}
func once(s script) script {
	return func(c net.Conn) {
		q, err := readQuery(c)
		if err != nil {
			return
		}
		c.Write(frame(answerTo(q)))
		s(c)
	}
}

// sendN sends n queries at once.
func sendN(t *testing.T, up *Upstream, n int) chan *Attempt {
	done := make(chan *Attempt, n)
	for range n {
		up.Send(&Attempt{Query: pack(t, "example.org."), Done: done})
	}
	return done
}

// A connection that hangs is replaced as soon as another one has answered one
// of its queries. The others end with ErrReplaced, new ones are not concerned.
func TestSilentReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, up := newFake(t, Options{}, hangs, works)
		start := time.Now()
		done := sendN(t, up, 5)
		a := <-done
		if d := time.Since(start); a.Err != nil || d != silenceDefault {
			t.Errorf("%v after %v, want an answer after %v", a.Err, d, silenceDefault)
		}
		b := <-sendN(t, up, 1)
		if b.Err != nil || time.Since(start) != silenceDefault {
			t.Errorf("a new query: %v after %v", b.Err, time.Since(start))
		}
		for range 4 {
			a := <-done
			if d := time.Since(start); a.Err != ErrReplaced || Class(a.Err) != ReasonReplaced || d != silenceDefault+condemnGrace {
				t.Errorf("%v after %v", a.Err, d)
			}
		}
		if dialed, _ := f.counts(); dialed != 2 || f.most > maxStreams {
			t.Errorf("%d connections, %d at once", dialed, f.most)
		}
		up.Close()
	})
}

// A name that takes long is answered on the connection it was sent on, for all
// the suspicion; so is one that is answered on both.
func TestSlowName(t *testing.T) {
	for _, second := range []script{after(1200 * time.Millisecond), after(700 * time.Millisecond), hangs, unreachable} {
		synctest.Test(t, func(t *testing.T) {
			slow := after(1200 * time.Millisecond)
			f, up := newFake(t, Options{}, slow, second)
			start := time.Now()
			a := <-sendN(t, up, 1)
			d := time.Since(start)
			if a.Err != nil || d != 1200*time.Millisecond {
				t.Errorf("%v after %v", a.Err, d)
			}
			if dialed, _ := f.counts(); dialed != 2 {
				t.Errorf("%d connections", dialed)
			}
			if up.Stats().InFlight != 0 {
				t.Error("in flight")
			}
			up.Close()
		})
	}
}

// Queries behind a slow one are not taken away when both connections answer at
// about the same time.
func TestCondemnedSpeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, up := newFake(t, Options{}, after(800*time.Millisecond), after(260*time.Millisecond))
		done := sendN(t, up, 3)
		for range 3 {
			if a := <-done; a.Err != nil {
				t.Error(a.Err)
			}
		}
		up.Close()
	})
}

// When no other connection can be made the silent one is given up with it.
func TestSilentNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, up := newFake(t, Options{}, hangs, unreachable)
		start := time.Now()
		done := sendN(t, up, 3)
		for range 3 {
			a := <-done
			if d := time.Since(start); a.Err != ErrReplaced || d != silenceDefault+dialTimeout {
				t.Errorf("%v after %v", a.Err, d)
			}
		}
		up.Close()
	})
}

// When all connections hang, nothing is proved, and there are never more than
// two of them.
func TestAllSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, up := newFake(t, Options{}, hangs)
		start := time.Now()
		first := sendN(t, up, 1)
		late := make(chan *Attempt, 100)
		for range 20 {
			time.Sleep(200 * time.Millisecond)
			up.Send(&Attempt{Query: pack(t, "example.org."), Done: late})
		}
		a := <-first
		// It was asked again on the second connection, and ends with that.
		if d := time.Since(start); !errors.Is(a.Err, ErrReplaced) || d < giveUpAfter || d > 2*giveUpAfter {
			t.Errorf("%v after %v", a.Err, d)
		}
		if f.most > maxStreams {
			t.Errorf("%d connections at once", f.most)
		}
		if dialed, _ := f.counts(); dialed > 6 {
			t.Errorf("%d connections in %v", dialed, time.Since(start))
		}
		up.Close()
	})
}

// A hanging connection is noticed though every query on it is withdrawn early.
func TestSilentWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, up := newFake(t, Options{}, once(hangs), works)
		<-sendN(t, up, 1)
		done := make(chan *Attempt, 1)
		a := &Attempt{Query: pack(t, "example.org."), Done: done}
		up.Send(a)
		time.Sleep(100 * time.Millisecond)
		if !a.Cancel() {
			t.Error("not withdrawn")
		}
		time.Sleep(silenceDefault)
		if b := <-sendN(t, up, 1); b.Err != nil {
			t.Error(b.Err)
		}
		if dialed, _ := f.counts(); dialed != 2 {
			t.Errorf("%d connections", dialed)
		}
		up.Close()
	})
}

// Being wrong makes patient.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, up := newFake(t, Options{}, after(900*time.Millisecond))
		up.stream.srtt = time.Millisecond
		for range 10 {
			if a := <-sendN(t, up, 1); a.Err != nil {
				t.Error(a.Err)
			}
			time.Sleep(time.Second)
		}
		up.stream.mu.Lock()
		if got := up.stream.silence(); got != silenceMax {
			t.Errorf("silence %v", got)
		}
		up.stream.mu.Unlock()
		if dialed, _ := f.counts(); dialed > 2 {
			t.Errorf("%d connections", dialed)
		}
		up.Close()
	})
}

func TestDialTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, up := newFake(t, Options{}, unreachable)
		start := time.Now()
		done := sendN(t, up, 10)
		for range 10 {
			a := <-done
			if d := time.Since(start); Class(a.Err) != ReasonTimeout || d != dialTimeout || !a.WroteAt.IsZero() {
				t.Errorf("%v after %v", a.Err, d)
			}
		}
		if dialed, _ := f.counts(); dialed != 1 {
			t.Errorf("%d connections", dialed)
		}
		up.Close()
	})
}

func TestStreamExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, up := newFake(t, Options{Expire: 3 * time.Second}, works)
		<-sendN(t, up, 1)
		time.Sleep(3*time.Second - 1)
		synctest.Wait()
		if _, open := f.counts(); open != 1 {
			t.Errorf("%d open before its time", open)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if _, open := f.counts(); open != 0 || up.Stats().TCPConns != 0 {
			t.Errorf("%d open after its time", open)
		}
		if a := <-sendN(t, up, 1); a.Err != nil {
			t.Error(a.Err)
		}
		up.Close()
	})
}

// Connections are replaced at their age under a steady flow of queries, and no
// query notices.
func TestMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, up := newFake(t, Options{MaxAge: 2 * time.Second}, after(150*time.Millisecond))
		done := make(chan *Attempt, 100)
		for range 100 {
			up.Send(&Attempt{Query: pack(t, "example.org."), Done: done})
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second)
		for range 100 {
			if a := <-done; a.Err != nil {
				t.Fatal(a.Err)
			}
		}
		if dialed, _ := f.counts(); dialed < 5 || dialed > 6 || f.most > maxStreams {
			t.Errorf("%d connections in 10 s, %d at once", dialed, f.most)
		}
		up.Close()
	})
}

// A peer that does not read.
func TestWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, up := newFake(t, Options{}, func(c net.Conn) { time.Sleep(5 * time.Second) }, works)
		if a := <-sendN(t, up, 1); a.Err != nil { // asked again elsewhere
			t.Error(a.Err)
		}
		time.Sleep(6 * time.Second)
		if s := up.Stats(); s.TCPConns != 1 {
			t.Errorf("%+v", s)
		}
		up.Close()
	})
}

// Withdrawn IDs stay taken until the answer comes or the connection is full of
// them, which is then replaced.
func TestWithdrawnIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, up := newFake(t, Options{}, hangs, works)
		done := make(chan *Attempt, 1)
		query := pack(t, "example.org.")
		for range maxStreamIDs {
			a := &Attempt{Query: query, Done: done}
			up.Send(a)
			synctest.Wait() // it is written
			if !a.Cancel() {
				t.Fatal("not withdrawn")
			}
		}
		if a := <-sendN(t, up, 1); a.Err != nil {
			t.Error(a.Err)
		}
		if dialed, _ := f.counts(); dialed != 2 {
			t.Errorf("%d connections", dialed)
		}
		up.Close()
	})
}
