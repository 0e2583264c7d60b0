//go:build !linux

package stub

import "net"

// reportICMP needs Linux; elsewhere an unreachable port is the only error.
func reportICMP(*net.UDPConn, bool) {}
