// Package dnstest has name servers for tests that answer from a script and
// remember every query: on real sockets, and in memory for synthetic time.
package dnstest

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Packet is a query that arrived.
type Packet struct {
	At     time.Time
	Server int            // which server, from 0
	From   netip.AddrPort // the client's socket
	TCP    bool
	ID     uint16
	Name   string // without trailing dot
	Type   string // A or AAAA
	RD, AD bool
	EDNS   int // offered UDP size; 0 without EDNS
	Copy   int // how often this server had this question before
	Number int // how many packets the server had before
}

// Kind is what a server does with a query.
type Kind string

// The kinds. All replies but Lame have RA set.
const (
	Drop     Kind = ""
	OK       Kind = "ok" // one address, of documentation networks
	NoData   Kind = "nodata"
	NXDomain Kind = "nxdomain"
	ServFail Kind = "servfail"
	Refused  Kind = "refused"
	NotImp   Kind = "notimp"
	FormErr  Kind = "formerr"   // without the question
	Lame     Kind = "lame"      // NODATA, AA=0, RA=0
	LameAA   Kind = "lame-aa"   // the same with AA=1
	NoRA     Kind = "nora"      // an address, AA=0, RA=0
	TC       Kind = "tc"        // truncated
	WrongID  Kind = "wrongid"   // of another query
	WrongQ   Kind = "wrongq"    // for another name
	Garbage  Kind = "garbage"   // no DNS message
	Short    Kind = "short"     // half a header
	CNAME    Kind = "cname"     // an alias without address
	Upper    Kind = "uppercase" // OK, with the question in upper case
)

// Script decides about a query.
type Script func(Packet) Kind

// Log is what servers have received.
type Log struct {
	mu      sync.Mutex
	packets []Packet
}

// Packets returns what has arrived so far, in the order of its arrival.
func (l *Log) Packets() []Packet {
	l.mu.Lock()
	defer l.mu.Unlock()
	packets := append([]Packet(nil), l.packets...)
	sort.SliceStable(packets, func(i, j int) bool { return packets[i].At.Before(packets[j].At) })
	return packets
}

var errNotAQuery = errors.New("not a query")

// add parses a query and remembers it.
func (l *Log) add(at time.Time, server int, from netip.AddrPort, tcp bool, b []byte) (Packet, error) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil || h.Response {
		return Packet{}, errNotAQuery
	}
	q, err := p.Question()
	if err != nil {
		return Packet{}, errNotAQuery
	}
	k := Packet{
		At: at, Server: server, From: from, TCP: tcp, ID: h.ID, RD: h.RecursionDesired, AD: h.AuthenticData,
		Name: strings.TrimSuffix(q.Name.String(), "."), Type: strings.TrimPrefix(q.Type.String(), "Type"),
	}
	if p.SkipAllQuestions() == nil && p.SkipAllAnswers() == nil && p.SkipAllAuthorities() == nil {
		if h, err := p.AdditionalHeader(); err == nil && h.Type == dnsmessage.TypeOPT {
			k.EDNS = int(h.Class)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.packets {
		if o.Server == server {
			k.Number++
			if k.At.Before(o.At) {
				k.At = o.At // the kernel stamps packets only from the second or so on
			}
			if o.Name == k.Name && o.Type == k.Type {
				k.Copy++
			}
		}
	}
	l.packets = append(l.packets, k)
	return k, nil
}

// reply builds the reply of a kind; nil for none.
func (p Packet) reply(kind Kind) []byte {
	h := dnsmessage.Header{ID: p.ID, Response: true, RecursionDesired: p.RD, RecursionAvailable: true}
	name := p.Name + "."
	records := 0
	switch kind {
	case Drop:
		return nil
	case Garbage:
		return []byte("\x00\x01 this is not a DNS message at all, is it?")
	case Short:
		return binary.BigEndian.AppendUint16(nil, p.ID)
	case OK, CNAME:
		records = 1
	case Upper:
		records, name = 1, strings.ToUpper(name)
	case NoRA:
		records, h.RecursionAvailable = 1, false
	case NXDomain:
		h.RCode = dnsmessage.RCodeNameError
	case ServFail:
		h.RCode = dnsmessage.RCodeServerFailure
	case Refused:
		h.RCode = dnsmessage.RCodeRefused
	case NotImp:
		h.RCode = dnsmessage.RCodeNotImplemented
	case FormErr:
		h.RCode = dnsmessage.RCodeFormatError
	case Lame:
		h.RecursionAvailable = false
	case LameAA:
		h.RecursionAvailable, h.Authoritative = false, true
	case TC:
		h.Truncated = true
	case WrongID:
		records = 1
		h.ID ^= 0x5555
	case WrongQ:
		records, name = 1, "other."+name
	}
	qtype := dnsmessage.TypeA
	if p.Type == "AAAA" {
		qtype = dnsmessage.TypeAAAA
	}
	n := dnsmessage.MustNewName(name)
	m := dnsmessage.Message{Header: h}
	if kind != FormErr {
		m.Questions = []dnsmessage.Question{{Name: n, Type: qtype, Class: dnsmessage.ClassINET}}
	}
	rh := dnsmessage.ResourceHeader{Name: n, Class: dnsmessage.ClassINET, TTL: 1}
	for range records {
		var body dnsmessage.ResourceBody = &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}
		switch {
		case kind == CNAME:
			body = &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("alias.example.")}
		case p.Type == "AAAA":
			body = &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()}
		}
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: rh, Body: body})
	}
	b, err := m.Pack()
	if err != nil {
		panic(err) // the tests' own names
	}
	return b
}
