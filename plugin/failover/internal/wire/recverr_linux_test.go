//go:build linux

package wire

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestRecvErr(t *testing.T) {
	srv := newUDPServer(t, echoUDP)
	up := newUpstream(t, Options{Addr: srv.addr()})
	s, err := up.udp.socket(0)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var v int
	var serr error
	if err := raw.Control(func(fd uintptr) { v, serr = unix.GetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR) }); err != nil || serr != nil {
		t.Fatal(err, serr)
	}
	if v != 1 {
		t.Errorf("IP_RECVERR is %d", v)
	}
}

// A full send buffer is an error at once, not a wait.
func TestWriteNeverWaits(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	var w datagramWriter
	w.init(nil, rawFD(fds[0]))
	for range 1 << 16 {
		if err := w.write(make([]byte, 100)); err != nil {
			if Class(err) != ReasonLocal {
				t.Error(err)
			}
			return
		}
	}
	t.Error("the buffer is never full")
}

// rawFD is a syscall.RawConn that fails the test's patience rather than wait:
// it calls f once.
type rawFD int

func (r rawFD) Control(f func(uintptr)) error   { f(uintptr(r)); return nil }
func (r rawFD) Read(f func(uintptr) bool) error { f(uintptr(r)); return nil }
func (r rawFD) Write(f func(uintptr) bool) error {
	if !f(uintptr(r)) {
		return unix.ETIMEDOUT // it wants to wait
	}
	return nil
}
