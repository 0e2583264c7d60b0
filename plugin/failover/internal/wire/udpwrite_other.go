//go:build !unix

package wire

import (
	"net"
	"syscall"
)

// datagramWriter is the Write of package net where there is no portable way to
// write without waiting.
type datagramWriter struct {
	conn *net.UDPConn
}

func (w *datagramWriter) init(conn *net.UDPConn, _ syscall.RawConn) { w.conn = conn }

func (w *datagramWriter) write(b []byte) error {
	_, err := w.conn.Write(b)
	return err
}
