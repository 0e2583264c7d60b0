//go:build !linux

package wire

import "syscall"

// recvErr does nothing: other systems report ICMP errors on connected sockets
// without being asked, or not at all.
func recvErr(_, _ string, _ syscall.RawConn) error { return nil }
