package dnstest

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"
)

// Serve starts as many servers, each on a port of 127.0.0.1 that the kernel picks.
func Serve(t testing.TB, script Script, servers int) (*Log, []netip.AddrPort) {
	t.Helper()
	addrs := make([]string, servers)
	for i := range addrs {
		addrs[i] = "127.0.0.1:0"
	}
	log, got, err := Start(t, script, addrs...)
	if err != nil {
		t.Fatal(err)
	}
	return log, got
}

// Start starts servers on addresses, as in "127.0.0.1:53", over UDP and TCP. They
// end with the test.
func Start(t testing.TB, script Script, addrs ...string) (*Log, []netip.AddrPort, error) {
	log := new(Log)
	var got []netip.AddrPort
	for i, a := range addrs {
		u, l, err := listen(a)
		if err != nil {
			return nil, nil, err
		}
		stampArrivals(u)
		t.Cleanup(func() { u.Close(); l.Close() })
		go serveUDP(log, script, i, u)
		go serveTCP(log, script, i, l)
		got = append(got, u.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	return log, got, nil
}

// listen opens a UDP and a TCP socket with the same port. A port that is free
// for one isn't always free for the other.
func listen(addr string) (u *net.UDPConn, l net.Listener, err error) {
	for range 100 {
		p, err := net.ListenPacket("udp", addr)
		if err != nil {
			return nil, nil, err
		}
		u = p.(*net.UDPConn)
		if l, err = net.Listen("tcp", u.LocalAddr().String()); err == nil {
			break
		}
		u.Close()
	}
	return u, l, err
}

func serveUDP(log *Log, script Script, server int, u *net.UDPConn) {
	buf, control := make([]byte, 65535), make([]byte, 128)
	for {
		n, nc, _, from, err := u.ReadMsgUDPAddrPort(buf, control)
		if err != nil {
			return
		}
		if p, err := log.add(arrival(control[:nc]), server, from, false, buf[:n]); err == nil {
			if b := p.reply(script(p)); b != nil {
				u.WriteToUDPAddrPort(b, from)
			}
		}
	}
}

func serveTCP(log *Log, script Script, server int, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			from := c.RemoteAddr().(*net.TCPAddr).AddrPort()
			var length [2]byte
			for {
				if _, err := io.ReadFull(c, length[:]); err != nil {
					return
				}
				b := make([]byte, binary.BigEndian.Uint16(length[:]))
				if _, err := io.ReadFull(c, b); err != nil {
					return
				}
				p, err := log.add(time.Now().Round(0), server, from, true, b)
				if err != nil {
					return
				}
				if r := p.reply(script(p)); r != nil {
					c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(r))), r...))
				}
			}
		}()
	}
}
