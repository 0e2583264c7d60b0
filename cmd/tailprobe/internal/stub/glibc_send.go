package stub

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// tcpSocket is the number of the TCP connection among a lookup's sockets.
const tcpSocket = -1

// sending is the way of one or two queries through the name servers
// (__res_context_send in resolv/res_send.c). Glibc's control flow is kept where
// a packet depends on it.
type sending struct {
	*lookup
	qs []query

	first, second *message         // in the order in which they came
	firstRcode    dnsmessage.RCode // of the last reply that came first in its round

	tcp          bool
	gotSomewhere bool // a server answered, or was silent
	refused      bool
	got          [2]bool // the query has its reply
	buf          []byte
}

// send reports whether there is an answer, or what glibc takes for one.
func (s *sending) send() bool {
	c := &s.r.Config
	s.tcp = c.UseVC
	s.buf = make([]byte, 65535)
	n := len(s.r.servers)
	offset := 0
	if c.Rotate && n > 1 {
		offset = int((s.r.Rotation.Add(1) - 1) % uint32(n))
	}
	defer s.sockets.closeAll()
	for try := 0; try < c.Attempts; try++ {
		for shift := range n {
			ns := (shift + offset) % n
			if s.tcp {
				try = c.Attempts // TCP is tried once with each server
				if s.overTCP(ns) {
					return true
				}
			} else if s.overUDP(ns) {
				if !s.tcp {
					return true
				}
				// Truncated: the same server, from the beginning.
				try = c.Attempts
				if s.overTCP(ns) {
					return true
				}
			}
			if s.ctx.Err() != nil {
				return false
			}
		}
	}
	s.refused = s.refused || !s.tcp && !s.gotSomewhere
	return false
}

// wait is how long a server has to answer. Glibc doubles it with the number of
// the server, divides it by the number of servers, and counts in whole seconds.
func (s *sending) wait(ns int) time.Duration {
	seconds := s.r.Config.Timeout << ns
	if ns > 0 {
		seconds /= len(s.r.servers)
	}
	return time.Duration(max(seconds, 1)) * time.Second
}

// open returns the UDP socket for a server, a new one if it has none (reopen).
func (s *sending) open(ns int) (net.Conn, bool) {
	if c, ok := s.sockets.get(ns).(net.Conn); ok {
		return c, true
	}
	c, err := s.r.Network.DialUDP(s.r.servers[ns])
	if err != nil {
		s.giveUp(err)
		return nil, false
	}
	s.Sockets++
	s.sockets.put(ns, c)
	return c, true
}

// giveUp leaves a server: after an error, glibc closes all sockets.
func (s *sending) giveUp(err error) bool {
	if s.ctx.Err() == nil {
		s.failed(err)
	}
	s.sockets.closeAll()
	s.first, s.second = nil, nil
	return false
}

// write sends query i.
func (s *sending) write(c net.Conn, i int) error {
	s.SentUDP++
	_, err := c.Write(s.qs[i].wire)
	return err
}

// overUDP asks one server over UDP (send_dg). False means the next server; true
// with s.tcp set means the same server over TCP.
func (s *sending) overUDP(ns int) bool {
	s.first, s.second = nil, nil
	savedGot := s.gotSomewhere
	for {
		again, ok := s.round(ns)
		if !again {
			return ok
		}
		s.gotSomewhere = savedGot
	}
}

// round sends the queries and waits for the replies. It says whether to go
// through another round with the same server, or else what overUDP returns.
func (s *sending) round(ns int) (again, ok bool) {
	conn, ok := s.open(ns)
	if !ok {
		return false, false
	}
	deadline := time.Now().Add(s.wait(ns))
	pair := len(s.qs) == 2
	sent := 1
	s.got = [2]bool{}
	err := s.write(conn, 0)
	if err == nil && pair && !s.r.single {
		sent = 2
		err = s.write(conn, 1)
	}
	if err != nil {
		return false, s.giveUp(err)
	}
	for {
		conn.SetReadDeadline(deadline)
		n, err := conn.Read(s.buf)
		if errors.Is(err, os.ErrDeadlineExceeded) && s.ctx.Err() == nil {
			return s.silence(sent)
		}
		if err != nil {
			return false, s.giveUp(err)
		}
		s.gotSomewhere = true
		if n < headerSize {
			return false, s.giveUp(errors.New("a reply shorter than a DNS header"))
		}
		m, valid := parseMessage(s.buf[:n])
		i := s.waitingFor(&m)
		if !valid || i < 0 {
			continue
		}
		if !m.answersTo(&s.qs[i]) {
			continue
		}
		s.note(&s.qs[i], &m, false)
		isSecond := s.got[0] || s.got[1]
		if !isSecond {
			s.firstRcode = m.rcode
		}
		if rejected := m.rcode == dnsmessage.RCodeServerFailure || m.rcode == dnsmessage.RCodeNotImplemented ||
			m.rcode == dnsmessage.RCodeRefused || m.discarded(); rejected {
			if isSecond {
				s.second = nil
				return false, s.first != nil
			}
			if pair && !s.r.single {
				s.first = nil
				s.got[i] = true
				continue
			}
			s.sockets.closeAll()
			return false, false
		}
		if m.tc {
			s.tcp = true
			s.sockets.closeAll()
			return false, true
		}
		s.got[i] = true
		if isSecond {
			s.second = &m
		} else {
			s.first = &m
		}
		if !pair || s.got[0] && s.got[1] {
			return false, true
		}
		if s.r.single && sent == 1 {
			if s.r.reopen {
				s.sockets.closeAll()
				if conn, ok = s.open(ns); !ok {
					return false, false
				}
			}
			sent = 2
			if err := s.write(conn, 1); err != nil {
				return false, s.giveUp(err)
			}
		}
	}
}

// waitingFor returns which query m answers by its ID, or -1.
func (s *sending) waitingFor(m *message) int {
	for i := range s.qs {
		if !s.got[i] && s.qs[i].id == m.id {
			return i
		}
	}
	return -1
}

// silence decides what follows when the time of a round is over. With one of
// two replies, glibc repeats both queries, one after the other from then on; the
// next time with a socket each; then it is content with the one.
func (s *sending) silence(sent int) (again, ok bool) {
	s.Timeouts++
	for i := range s.qs[:sent] {
		if !s.got[i] {
			s.Lost.add(s.qs[i].qtype)
		}
	}
	if s.first != nil && (s.got[0] || s.got[1]) {
		switch {
		case !s.r.single:
			s.r.single = true
			return true, false
		case !s.r.reopen:
			s.r.reopen = true
			s.sockets.closeAll()
			return true, false
		}
		s.second = nil
		return false, true
	}
	s.gotSomewhere = true
	s.first, s.second = nil, nil
	return false, false
}

// overTCP asks one server over TCP (send_vc): both queries in one write, without
// any limit of time of glibc's own. One reset connection is tried again.
func (s *sending) overTCP(ns int) bool {
	for range 2 {
		s.sockets.closeAll()
		s.first, s.second, s.got = nil, nil, [2]bool{}
		conn, err := s.r.Network.DialTCP(s.ctx, s.r.servers[ns])
		if err != nil {
			s.refused = nobody(err)
			return s.giveUp(err)
		}
		s.Sockets++
		s.sockets.put(tcpSocket, conn)
		err = s.exchangeTCP(conn)
		if err == nil {
			return true
		}
		s.giveUp(err)
		if !reset(err) {
			return false
		}
	}
	return false
}

// exchangeTCP sends the queries and reads their replies.
func (s *sending) exchangeTCP(conn net.Conn) error {
	var out []byte
	for i := range s.qs {
		out = binary.BigEndian.AppendUint16(out, uint16(len(s.qs[i].wire)))
		out = append(out, s.qs[i].wire...)
		s.SentTCP++
	}
	if _, err := conn.Write(out); err != nil {
		return err
	}
	for waiting := len(s.qs); waiting > 0; {
		m, valid, err := readTCP(conn, s.buf)
		if err != nil {
			return err
		}
		i := s.waitingFor(&m)
		if !valid || i < 0 {
			continue
		}
		s.note(&s.qs[i], &m, true)
		s.got[i] = true
		waiting--
		if s.first == nil {
			s.first = &m
			s.firstRcode = m.rcode
		} else {
			s.second = &m
		}
	}
	return nil
}

// readTCP reads one message with its length before it (RFC 1035, section 4.2.2).
func readTCP(r io.Reader, buf []byte) (m message, valid bool, err error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return m, false, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n < headerSize {
		return m, false, errors.New("a reply shorter than a DNS header")
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return m, false, err
	}
	m, valid = parseMessage(buf[:n])
	return m, valid, nil
}
