package stub

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// muslMinAttempts: musl divides by the attempts.
const muslMinAttempts = 1

// musl looks name up through the search list (name_from_dns_search in
// src/network/lookup_name.c): with enough dots the list isn't used at all, and
// only a name that doesn't exist leads to its next entry.
func (l *lookup) musl(name string) Status {
	c := &l.r.Config
	if strings.HasSuffix(name, "..") || name == "." || name == "" {
		return NoName
	}
	if strings.Count(name, ".") < c.Ndots && !strings.HasSuffix(name, ".") {
		for _, domain := range c.Search {
			if domain == "" || len(name)+1+len(domain) > 255 {
				continue
			}
			if status := l.muslQuery(name + "." + domain); status != NoName {
				return status
			}
		}
	}
	return l.muslQuery(strings.TrimSuffix(name, "."))
}

// muslQuery asks for one name (name_from_dns).
func (l *lookup) muslQuery(name string) Status {
	qs, err := l.queries(name)
	if err != nil {
		l.Err = err
		return NoName
	}
	replies, err := l.muslSend(qs)
	if err != nil {
		if l.ctx.Err() == nil {
			l.failed(err)
		}
		return Fail
	}
	for i := range qs {
		switch {
		case replies[i] == nil:
			return TryAgain
		case replies[i].rcode == dnsmessage.RCodeNameError:
			return NoName
		}
	}
	for i := range qs {
		l.Addrs = append(l.Addrs, replies[i].addrs...)
	}
	if len(l.Addrs) == 0 {
		return NoData
	}
	return OK
}

// muslSend asks all servers at once from one socket, and those queries again
// that have no reply, until the time is over (__res_msend_rc in res_msend.c).
// Replies other than NOERROR and NXDOMAIN aren't replies; after a SERVFAIL, the
// server is asked again at once, twice a query and round.
func (l *lookup) muslSend(qs []query) ([2]*message, error) {
	var replies [2]*message
	c := &l.r.Config
	servers := l.r.servers
	v6 := false
	for _, s := range servers {
		v6 = v6 || s.Addr().Is6()
	}
	conn, err := l.r.Network.ListenUDP(v6)
	if err != nil {
		return replies, err
	}
	l.Sockets++
	l.sockets.put(0, conn)
	defer l.sockets.closeAll()

	send := func(i int, to netip.AddrPort) {
		l.SentUDP++
		if _, err := conn.WriteTo(qs[i].wire, net.UDPAddrFromAddrPort(to)); err != nil {
			l.failed(err) // as musl, goes on
		}
	}

	timeout := time.Duration(c.Timeout) * time.Second
	interval := timeout / time.Duration(max(c.Attempts, muslMinAttempts))
	start := time.Now()
	last := start.Add(-interval)
	servfails := 0
	buf := make([]byte, 65535)
	truncated := [2]netip.AddrPort{}
	for missing := len(qs); missing > 0; {
		now := time.Now()
		if now.Sub(start) >= timeout || l.ctx.Err() != nil {
			return replies, nil
		}
		if now.Sub(last) >= interval {
			for i := range qs {
				if replies[i] == nil {
					for _, s := range servers {
						send(i, s)
					}
				}
			}
			last = now
			servfails = 2 * len(qs)
		}
		conn.SetReadDeadline(last.Add(interval))
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			l.Timeouts++
			for i := range qs {
				if replies[i] == nil {
					l.Lost.add(qs[i].qtype)
				}
			}
			continue
		}
		if err != nil {
			if l.ctx.Err() != nil {
				return replies, nil
			}
			return replies, err
		}
		server, known := match(servers, from)
		m, valid := parseMessage(buf[:n])
		if !known || !valid {
			continue
		}
		for i := range qs {
			if replies[i] != nil || qs[i].id != m.id {
				continue
			}
			l.note(&qs[i], &m, false)
			switch m.rcode {
			case dnsmessage.RCodeSuccess, dnsmessage.RCodeNameError:
				replies[i] = &m
				missing--
				if m.tc {
					truncated[i] = server
				}
			case dnsmessage.RCodeServerFailure:
				if servfails > 0 {
					servfails--
					send(i, server)
				}
			}
			break
		}
	}
	for i := range qs {
		if truncated[i].IsValid() {
			replies[i] = l.muslTCP(&qs[i], truncated[i], start.Add(timeout))
		}
	}
	return replies, nil
}

// muslTCP asks again for a truncated answer (since musl 1.2.4); nil without one.
func (l *lookup) muslTCP(q *query, server netip.AddrPort, end time.Time) *message {
	conn, err := l.r.Network.DialTCP(l.ctx, server)
	if err != nil {
		l.failed(err)
		return nil
	}
	l.Sockets++
	l.sockets.put(tcpSocket, conn)
	defer conn.Close()
	conn.SetDeadline(end)
	l.SentTCP++
	out := binary.BigEndian.AppendUint16(nil, uint16(len(q.wire)))
	if _, err := conn.Write(append(out, q.wire...)); err != nil {
		l.failed(err)
		return nil
	}
	buf := make([]byte, 65535)
	for {
		m, valid, err := readTCP(conn, buf)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				l.Timeouts++
				l.Lost.add(q.qtype)
			} else if l.ctx.Err() == nil {
				l.failed(err)
			}
			return nil
		}
		if valid && m.id == q.id {
			l.note(q, &m, true)
			return &m
		}
	}
}

// match returns the server with an address.
func match(servers []netip.AddrPort, from net.Addr) (netip.AddrPort, bool) {
	udp, ok := from.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	a := udp.AddrPort()
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	for _, s := range servers {
		if s == a {
			return s, true
		}
	}
	return netip.AddrPort{}, false
}

// reset reports whether a connection was reset.
func reset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }
