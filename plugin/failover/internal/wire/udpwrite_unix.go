//go:build unix

package wire

import (
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// datagramWriter writes to a connected socket without ever waiting. The Write
// of package net waits for room in the send buffer. That fills up when packets
// cannot leave, as they do for an upstream on the local network that no longer
// answers ARP, and then every query to it would stand still.
type datagramWriter struct {
	mu  sync.Mutex // guards following
	raw syscall.RawConn
	buf []byte
	err error
	fn  func(fd uintptr) bool // made once, a closure would be an allocation
}

func (w *datagramWriter) init(_ *net.UDPConn, raw syscall.RawConn) {
	w.raw = raw
	w.fn = func(fd uintptr) bool {
		for {
			_, w.err = unix.Write(int(fd), w.buf)
			if w.err != unix.EINTR {
				return true // also with EAGAIN: not to be called again
			}
		}
	}
}

// write sends one datagram, or returns EAGAIN or ENOBUFS when it would have to
// wait.
func (w *datagramWriter) write(b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf, w.err = b, nil
	err := w.raw.Write(w.fn)
	w.buf = nil
	if err != nil {
		return err
	}
	return w.err
}
