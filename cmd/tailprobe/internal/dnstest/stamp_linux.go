package dnstest

import (
	"encoding/binary"
	"net"
	"syscall"
	"time"
)

// stampArrivals asks the kernel for the time at which each packet came, because
// the readers of several sockets run in any order (SO_TIMESTAMPNS, socket(7)).
func stampArrivals(c *net.UDPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return // arrival has the present then
	}
	raw.Control(func(fd uintptr) {
		syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TIMESTAMPNS, 1)
	})
}

// arrival reads that time.
func arrival(control []byte) time.Time {
	messages, err := syscall.ParseSocketControlMessage(control)
	if err == nil {
		for _, m := range messages {
			if m.Header.Level == syscall.SOL_SOCKET && m.Header.Type == syscall.SO_TIMESTAMPNS && len(m.Data) == 16 {
				return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
			}
		}
	}
	return time.Now().Round(0)
}
