package wire

import (
	"bytes"

	"github.com/miekg/dns"
)

// Message layout, RFC 1035 section 4.1.1.
const (
	headerLen  = 12
	flagQR     = 0x80 // in byte 2
	flagTC     = 0x02 // in byte 2
	opcodeMask = 0x78 // in byte 2
	rcodeMask  = 0x0f // in byte 3
)

// maxNameLen is the longest name on the wire, RFC 1035 section 3.1.
const maxNameLen = 255

func msgID(msg []byte) uint16 { return uint16(msg[0])<<8 | uint16(msg[1]) }

// questionEnd returns where the question section of a query ends, or 0 when
// the query is not one with exactly one question. A name at the start of a
// message has nothing it could point back to, so compression is refused.
func questionEnd(query []byte) int {
	if len(query) < headerLen || len(query) > dns.MaxMsgSize || query[4] != 0 || query[5] != 1 {
		return 0
	}
	off := headerLen
	for {
		if off >= len(query) {
			return 0
		}
		l := int(query[off])
		if l > 63 {
			return 0
		}
		off += 1 + l
		if off-headerLen > maxNameLen {
			return 0
		}
		if l == 0 {
			break
		}
	}
	if off += 4; off > len(query) { // type and class
		return 0
	}
	return off
}

// checkHeader says whether a message can be a reply at all.
func checkHeader(msg []byte) (Ignored, bool) {
	if len(msg) < headerLen {
		return IgnoredShort, false
	}
	if msg[2]&flagQR == 0 {
		return IgnoredQuery, false
	}
	return 0, true
}

// matchQuestion says whether a reply, whose header has been checked, has the
// given question section. Only this much is looked at: whether the rest of the
// message is sound is found out by whoever unpacks it.
//
// Some servers answer what they do not serve or do not understand with the
// header alone. RFC 1035 has no rule against it, so an empty question section
// is accepted for the response codes FORMERR, NOTIMP and REFUSED, which carry
// no data that could harm, and for no other.
func matchQuestion(msg, question []byte) bool {
	if msg[4] == 0 && msg[5] == 0 {
		switch int(msg[3] & rcodeMask) {
		case dns.RcodeFormatError, dns.RcodeNotImplemented, dns.RcodeRefused:
			return true
		}
		return false
	}
	if msg[4] != 0 || msg[5] != 1 || len(msg) < headerLen+len(question) {
		return false
	}
	got := msg[headerLen : headerLen+len(question)]
	if bytes.Equal(got, question) {
		return true
	}
	name := len(question) - 4
	return bytes.Equal(got[name:], question[name:]) && equalFold(got[:name], question[:name])
}

// equalFold compares names without regard to ASCII case (RFC 4343). The length
// bytes of labels are below 64 and so never taken for letters.
func equalFold(a, b []byte) bool {
	for i, x := range a {
		if y := b[i]; x != y && (lower(x) != lower(y)) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
