package stub

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/net/dns/dnsmessage"
)

// glibc looks name up through the search list (__res_context_search in
// resolv/res_query.c).
func (l *lookup) glibc(name string) Status {
	c := &l.r.Config
	dots := strings.Count(name, ".")
	trailing := strings.HasSuffix(name, ".")

	var asIs Status // what the name as it is gave
	if dots >= c.Ndots || trailing {
		var how why
		asIs, how = l.glibcQuery(strings.TrimSuffix(name, "."))
		if how.found || trailing {
			return asIs
		}
	}

	searched, root, nodata, servfail := false, false, false, false
	last := NoName
	if !trailing {
	search:
		for _, domain := range c.Search {
			searched = true
			full := name + "." + domain
			if domain == "" {
				root = true
				full = name
			}
			status, how := l.glibcQuery(full)
			last = status
			switch {
			case how.found:
				return status
			case how.refused:
				return TryAgain // no server there: no other name helps
			case status == NoData:
				nodata = true
			case status == NoName:
			case status == TryAgain && how.servfail:
				servfail = true
			default:
				break search
			}
		}
	}

	if asIs == "" && !root && (dots > 0 || !searched || !c.NoTLDQuery) {
		status, how := l.glibcQuery(name)
		if how.found {
			return status
		}
		last = status
	}
	switch {
	case asIs != "":
		return asIs
	case nodata:
		return NoData
	case servfail:
		return TryAgain
	}
	return last
}

// why tells apart what the search list has to know about the end of a query.
type why struct {
	found    bool // there were records: the search ends
	servfail bool // the last first answer was a SERVFAIL
	refused  bool // there is no server at any of the addresses
}

// glibcQuery asks for one name (__res_context_query).
func (l *lookup) glibcQuery(name string) (Status, why) {
	qs, err := l.queries(name)
	if err != nil {
		l.Err = err
		return Fail, why{}
	}
	s := sending{lookup: l, qs: qs}
	if !s.send() {
		return TryAgain, why{servfail: s.firstRcode == dnsmessage.RCodeServerFailure, refused: s.refused}
	}
	one, two := s.first, s.second
	if two == nil {
		two = one
	}
	if one == nil {
		one = two
	}
	l.Addrs = append(append([]netip.Addr(nil), s.addrs(s.first)...), s.addrs(s.second)...)
	if has(one) || has(two) {
		if len(l.Addrs) == 0 {
			return NoName, why{found: true} // an alias that leads nowhere
		}
		return OK, why{found: true}
	}
	rcode := one.rcode
	if rcode == dnsmessage.RCodeSuccess {
		rcode = two.rcode
	}
	switch rcode {
	case dnsmessage.RCodeNameError:
		return NoName, why{}
	case dnsmessage.RCodeServerFailure:
		return TryAgain, why{servfail: s.firstRcode == dnsmessage.RCodeServerFailure}
	case dnsmessage.RCodeSuccess:
		return NoData, why{}
	}
	return Fail, why{}
}

// has reports whether m has records that answer.
func has(m *message) bool { return m.rcode == dnsmessage.RCodeSuccess && m.answers > 0 }

// addrs returns the addresses in m, which may be nil.
func (s *sending) addrs(m *message) []netip.Addr {
	if m == nil {
		return nil
	}
	return m.addrs
}

// nobody reports whether err says that no server listens there.
func nobody(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
