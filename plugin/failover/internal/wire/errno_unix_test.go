//go:build unix

package wire

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
)

func TestClassErrno(t *testing.T) {
	for errno, want := range map[syscall.Errno]Reason{
		syscall.ECONNREFUSED:  ReasonRefused,
		syscall.EHOSTUNREACH:  ReasonUnreachable,
		syscall.ENETUNREACH:   ReasonUnreachable,
		syscall.EACCES:        ReasonUnreachable,
		syscall.ECONNRESET:    ReasonClosed,
		syscall.EPIPE:         ReasonClosed,
		syscall.ETIMEDOUT:     ReasonTimeout,
		syscall.EAGAIN:        ReasonLocal,
		syscall.EMFILE:        ReasonLocal,
		syscall.ENOBUFS:       ReasonLocal,
		syscall.EADDRNOTAVAIL: ReasonLocal,
		syscall.EPERM:         ReasonLocal,
		syscall.EBADF:         ReasonOther,
	} {
		err := fmt.Errorf("sent: %w", &net.OpError{Op: "write", Err: os.NewSyscallError("write", errno)})
		if got := Class(err); got != want {
			t.Errorf("%v: %q, want %q", errno, got, want)
		}
	}
}

// An error of the write belongs to the queries before: they end with it, and
// the query is written again.
func TestUDPWriteFailed(t *testing.T) {
	srv := newUDPServer(t, func([]byte) [][]byte { return nil })
	up := newUpstream(t, Options{Addr: srv.addr()})
	s, err := up.udp.socket(0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan *Attempt, 2)
	var attempts [2]Attempt
	for i := range attempts {
		a := &attempts[i]
		*a = Attempt{Query: pack(t, "example.org."), Done: done}
		for up.Send(a); a.Leg() != 1; up.Send(a) { // chosen at random
			a.Cancel()
		}
	}
	before := srv.queries
	eventually(t, "the queries arrive", func() bool { return before() >= 2 })
	n := srv.queries()
	second := &attempts[1]
	second.frame.hold()
	s.writeFailed(second, second.frame, second.id, syscall.ECONNREFUSED)
	second.frame.release()
	if a := receive(t, done); a != &attempts[0] || Class(a.Err) != ReasonRefused {
		t.Errorf("%v", a.Err)
	}
	eventually(t, "the query is written again", func() bool { return srv.queries() > n })
	if up.udp.legs[0].Load() == s {
		t.Error("the socket still takes queries")
	}
	if !second.Cancel() {
		t.Error("the second query has ended as well")
	}
	eventually(t, "the socket is closed", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.state == udpClosed
	})

	// What cannot be written for another reason concerns nobody else.
	up.Send(second)
	for ; second.Leg() != 1; up.Send(second) {
		second.Cancel()
	}
	s = up.udp.legs[0].Load()
	second.frame.hold()
	f := second.frame
	s.writeFailed(second, f, second.id, syscall.ENOBUFS)
	f.release()
	if a := receive(t, done); Class(a.Err) != ReasonLocal {
		t.Errorf("%v", a.Err)
	}
	if up.udp.legs[0].Load() != s {
		t.Error("the socket was retired")
	}
}
