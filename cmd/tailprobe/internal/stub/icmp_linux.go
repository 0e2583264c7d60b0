package stub

import (
	"net"
	"syscall"
)

// reportICMP makes a connected socket fail for every ICMP error, unreachable
// networks and hosts included, as glibc does since 2.32
// (resolv/res_enable_icmp.c). Without it only an unreachable port is an error.
func reportICMP(c *net.UDPConn, v4 bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return // a socket without it still works
	}
	raw.Control(func(fd uintptr) {
		if v4 {
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_RECVERR, 1)
		} else {
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_RECVERR, 1)
		}
	})
}
