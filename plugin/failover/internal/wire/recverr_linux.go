//go:build linux

package wire

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// recvErr is a Control function of net.Dialer that asks for ICMP errors with
// IP_RECVERR or IPV6_RECVERR. Without it Linux tells a connected socket of an
// unreachable port, but not of an unreachable host or network (ip(7)). That it
// cannot be set is not an error: attempts then end with their time instead.
func recvErr(network, _ string, c syscall.RawConn) error {
	level, opt := unix.SOL_IP, unix.IP_RECVERR
	if network == "udp6" {
		level, opt = unix.SOL_IPV6, unix.IPV6_RECVERR
	}
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), level, opt, 1)
	})
}
