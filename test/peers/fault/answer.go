package fault

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	rtt = 2 * time.Millisecond

	// SlowNames is how much longer names that start with `slow` take.
	SlowNames = 1200 * time.Millisecond
)

// AddressOf returns the address of the name whose first label ends in the number
// n, so that a client can tell whether it got the answer to its own question.
func AddressOf(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

// Number returns the number that a label ends in.
func Number(label string) (n uint32, ok bool) {
	for _, c := range []byte(strings.TrimLeft(label, "abcdefghijklmnopqrstuvwxyz")) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n, ok = n*10+uint32(c-'0'), true
	}
	return n, ok
}

// query is what an upstream has to know of a query.
type query struct {
	label  string // the first
	root   bool
	qtype  uint16
	length int // of header and question
}

func parse(msg []byte) (q query, ok bool) {
	if len(msg) < 12 || msg[2]&0x80 != 0 || binary.BigEndian.Uint16(msg[4:]) != 1 {
		return q, false
	}
	i := 12
	for i < len(msg) && msg[i] != 0 {
		n := int(msg[i])
		if n > 63 || i+1+n > len(msg) {
			return q, false
		}
		if i == 12 {
			q.label = strings.ToLower(string(msg[13 : 13+n]))
		}
		i += 1 + n
	}
	if i+5 > len(msg) {
		return q, false
	}
	q.root = i == 12
	q.qtype = binary.BigEndian.Uint16(msg[i+1:])
	q.length = i + 5
	return q, true
}

// answer makes the reply to msg in mode m. It is made by hand, because a test may
// ask some thousand times a second on a machine that has better things to do.
func answer(msg []byte, q query, m *Mode, ttl uint32) []byte {
	out := make([]byte, q.length, q.length+32)
	copy(out, msg)
	out[2] = 0x80 | msg[2]&0x79                     // QR, opcode and RD
	out[3] = 0x80 | byte(m.Rcode)                   // RA
	copy(out[4:12], []byte{0, 1, 0, 0, 0, 0, 0, 0}) // only the question
	record := func(count int, rtype uint16, data []byte) {
		out[count] = 1
		out = append(out, 0xc0, 12)
		if count == 9 { // the authority section: about the root
			out = append(out[:len(out)-2], 0)
		}
		out = binary.BigEndian.AppendUint16(out, rtype)
		out = binary.BigEndian.AppendUint16(out, dns.ClassINET)
		out = binary.BigEndian.AppendUint32(out, ttl)
		out = binary.BigEndian.AppendUint16(out, uint16(len(data)))
		out = append(out, data...)
	}
	ns := []byte{1, 'a', 0}
	switch {
	case m.Rcode != dns.RcodeSuccess:
	case m.Lame:
		out[3] = 0
		record(9, dns.TypeNS, ns)
	case q.root && q.qtype == dns.TypeNS:
		record(7, dns.TypeNS, ns)
	case q.qtype == dns.TypeA:
		n, _ := Number(q.label)
		a := AddressOf(n).As4()
		record(7, dns.TypeA, a[:])
	}
	return out
}
