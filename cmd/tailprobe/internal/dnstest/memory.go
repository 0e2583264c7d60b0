package dnstest

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Memory is a network without sockets, for synthetic time: servers answer at
// once, or after Delay.
type Memory struct {
	Log
	Script  Script
	Servers []netip.AddrPort
	Delay   time.Duration

	ports sync.Mutex
	next  uint16
}

// NewMemory returns a network with so many servers.
func NewMemory(script Script, servers int) *Memory {
	m := &Memory{Script: script, next: 40000}
	for i := range servers {
		m.Servers = append(m.Servers, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}), 53))
	}
	return m
}

// port returns a client's address that no other socket had.
func (m *Memory) port() netip.AddrPort {
	m.ports.Lock()
	defer m.ports.Unlock()
	m.next++
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 200}), m.next)
}

// DialUDP is that of stub.Network.
func (m *Memory) DialUDP(addr netip.AddrPort) (net.Conn, error) {
	return &memoryConn{m: m, local: m.port(), peer: addr, in: make(chan datagram, 64), done: make(chan struct{})}, nil
}

// ListenUDP is that of stub.Network.
func (m *Memory) ListenUDP(bool) (net.PacketConn, error) {
	return &memoryConn{m: m, local: m.port(), in: make(chan datagram, 64), done: make(chan struct{})}, nil
}

// DialTCP is that of stub.Network.
func (m *Memory) DialTCP(_ context.Context, addr netip.AddrPort) (net.Conn, error) {
	return &memoryConn{m: m, local: m.port(), peer: addr, tcp: true, in: make(chan datagram, 64), done: make(chan struct{})}, nil
}

type datagram struct {
	from netip.AddrPort
	data []byte
}

// memoryConn is a UDP socket or a TCP connection.
type memoryConn struct {
	m           *Memory
	local, peer netip.AddrPort
	tcp         bool
	in          chan datagram
	rest        []byte // of a stream, what wasn't read yet

	done chan struct{} // closed with the socket

	mu       sync.Mutex
	deadline time.Time
}

// Write implements [net.Conn].
func (c *memoryConn) Write(b []byte) (int, error) {
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	if !c.tcp {
		c.deliver(c.peer, b)
		return len(b), nil
	}
	for rest := b; len(rest) >= 2; {
		n := int(binary.BigEndian.Uint16(rest))
		c.deliver(c.peer, rest[2:2+n])
		rest = rest[2+n:]
	}
	return len(b), nil
}

// WriteTo implements [net.PacketConn].
func (c *memoryConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.deliver(to.(*net.UDPAddr).AddrPort(), b)
	return len(b), nil
}

// deliver gives a query to a server, and its reply to c.
func (c *memoryConn) deliver(to netip.AddrPort, b []byte) {
	for i, s := range c.m.Servers {
		if s != to {
			continue
		}
		p, err := c.m.add(time.Now(), i, c.local, c.tcp, b)
		if err != nil {
			return
		}
		reply := p.reply(c.m.Script(p))
		if reply == nil {
			return
		}
		if c.tcp {
			reply = append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)
		}
		if c.m.Delay == 0 {
			c.in <- datagram{to, reply}
			return
		}
		time.AfterFunc(c.m.Delay, func() { c.in <- datagram{to, reply} })
	}
}

// receive waits for a datagram until the deadline.
func (c *memoryConn) receive() (datagram, error) {
	c.mu.Lock()
	deadline := c.deadline
	c.mu.Unlock()
	if c.isClosed() {
		return datagram{}, net.ErrClosed
	}
	var timeout <-chan time.Time
	if !deadline.IsZero() {
		t := time.NewTimer(time.Until(deadline))
		defer t.Stop()
		timeout = t.C
	}
	select {
	case d := <-c.in:
		return d, nil
	case <-c.done:
		return datagram{}, net.ErrClosed
	case <-timeout:
		return datagram{}, os.ErrDeadlineExceeded
	}
}

// Read implements [net.Conn].
func (c *memoryConn) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		d, err := c.receive()
		if err != nil {
			return 0, err
		}
		c.rest = d.data
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	if !c.tcp {
		c.rest = nil
	}
	return n, nil
}

// ReadFrom implements [net.PacketConn].
func (c *memoryConn) ReadFrom(b []byte) (int, net.Addr, error) {
	d, err := c.receive()
	return copy(b, d.data), net.UDPAddrFromAddrPort(d.from), err
}

func (c *memoryConn) isClosed() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// Close implements [net.Conn].
func (c *memoryConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.isClosed() {
		close(c.done)
	}
	return nil
}

// SetReadDeadline implements [net.Conn].
func (c *memoryConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

// SetDeadline implements [net.Conn].
func (c *memoryConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetWriteDeadline implements [net.Conn].
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }

// LocalAddr implements [net.Conn].
func (c *memoryConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.local) }

// RemoteAddr implements [net.Conn].
func (c *memoryConn) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.peer) }
