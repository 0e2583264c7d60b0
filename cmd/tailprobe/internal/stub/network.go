package stub

import (
	"context"
	"net"
	"net/netip"
	"sync"
)

// Network makes sockets. Tests have one of their own.
type Network interface {
	// DialUDP returns a UDP socket with a fresh port, connected to addr.
	DialUDP(addr netip.AddrPort) (net.Conn, error)
	// ListenUDP returns an unconnected UDP socket with a fresh port, which can
	// send to IPv6 addresses if v6 is set.
	ListenUDP(v6 bool) (net.PacketConn, error)
	// DialTCP connects to addr.
	DialTCP(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
}

// System is the network of the machine.
type System struct{}

// DialUDP implements [Network].
func (System) DialUDP(addr netip.AddrPort) (net.Conn, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	reportICMP(c, addr.Addr().Is4())
	return c, nil
}

// ListenUDP implements [Network].
func (System) ListenUDP(v6 bool) (net.PacketConn, error) {
	if v6 {
		// A host without IPv6 still reaches its IPv4 servers.
		if c, err := net.ListenUDP("udp", nil); err == nil {
			return c, nil
		}
	}
	return net.ListenUDP("udp4", nil)
}

// DialTCP implements [Network].
func (System) DialTCP(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr.String())
}

type closer interface{ Close() error }

// sockets are the open sockets of a lookup, by the number of their server as
// in glibc's _u._ext.nssocks.
type sockets struct {
	mu      sync.Mutex
	conns   map[int]closer
	aborted bool
}

// get returns the socket with a number, or nil.
func (s *sockets) get(n int) closer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[n]
}

// put stores a socket; after abort, it is closed.
func (s *sockets) put(n int, c closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[n] = c
	if s.aborted {
		c.Close()
	}
}

// closeAll is glibc's __res_iclose.
func (s *sockets) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, c := range s.conns {
		c.Close()
		delete(s.conns, n)
	}
}

// abort closes the sockets under a lookup, which then fails.
func (s *sockets) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	for _, c := range s.conns {
		c.Close()
	}
}
