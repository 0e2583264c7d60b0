package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/coredns/coredns/plugin/pkg/transport"

	"github.com/miekg/dns"
)

// exchangeTimeout bounds one question to one resolver of the resolver option, as
// in forward. Two of them and the poll interval stay below the 5 s within which
// a new address has to take effect.
const exchangeTimeout = 2 * time.Second

// lookup returns the addresses of a fully qualified name. Without resolvers it
// asks the system. With them it asks each in turn until one knows addresses of
// any family, as forward does.
func lookup(ctx context.Context, network, name string, resolvers []string) ([]netip.Addr, error) {
	if len(resolvers) == 0 {
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, name)
		if err == nil && len(addrs) == 0 {
			err = noAddress(name)
		}
		return addrs, err
	}
	// A resolver that has no address is no reason to stop: it may be the other one
	// that serves the zone. A failure of any of them is what is reported, because
	// it leaves the question open.
	var failed error
	for _, r := range resolvers {
		addrs, err := lookupAt(ctx, network, name, r)
		if len(addrs) > 0 {
			return addrs, nil
		}
		if err != nil && !notFound(err) {
			failed = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	if failed != nil {
		return nil, failed
	}
	return nil, noAddress(name)
}

// lookupAt asks one resolver. Addresses of one family do even when the question
// for the other failed.
func lookupAt(ctx context.Context, network, name, resolver string) ([]netip.Addr, error) {
	if _, _, err := net.SplitHostPort(resolver); err != nil {
		resolver = net.JoinHostPort(resolver, transport.Port)
	}
	var addrs []netip.Addr
	var failed error
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if network == "ip4" && qtype != dns.TypeA || network == "ip6" && qtype != dns.TypeAAAA {
			continue
		}
		more, err := ask(ctx, name, qtype, resolver)
		addrs = append(addrs, more...)
		if err != nil && failed == nil {
			failed = err
			if qtype == dns.TypeA && !isRcode(err) {
				break // silent: the second question would take as long again
			}
		}
	}
	if len(addrs) > 0 {
		return addrs, nil
	}
	if failed != nil {
		return nil, failed
	}
	return nil, noAddress(name)
}

// rcodeError is a reply that is not an answer.
type rcodeError struct {
	resolver, name string
	rcode          int
}

func (e *rcodeError) Error() string {
	return fmt.Sprintf("%s answered %s for %s", e.resolver, dns.RcodeToString[e.rcode], e.name)
}

func isRcode(err error) bool {
	var e *rcodeError
	return errors.As(err, &e)
}

func ask(ctx context.Context, name string, qtype uint16, resolver string) ([]netip.Addr, error) {
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	r, err := exchange(ctx, "udp", m, resolver)
	if err == nil && r.Truncated {
		r, err = exchange(ctx, "tcp", m, resolver)
	}
	if err != nil {
		return nil, err
	}
	if r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
		return nil, &rcodeError{resolver: resolver, name: name, rcode: r.Rcode}
	}
	var addrs []netip.Addr
	for _, rr := range r.Answer {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if addr, ok := netip.AddrFromSlice(ip); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs, nil
}

// exchange is dns.Client.ExchangeContext but ends as soon as ctx does, and not
// only at its deadline.
func exchange(ctx context.Context, network string, m *dns.Msg, resolver string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	c := &dns.Client{Net: network, Timeout: exchangeTimeout}
	conn, err := c.DialContext(ctx, resolver)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	r, _, err := c.ExchangeWithConnContext(ctx, m, conn)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("ask %s: %w", resolver, ctx.Err())
	}
	return r, err
}

func noAddress(name string) error {
	return &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// notFound says that a lookup was answered, and there is no address.
func notFound(err error) bool {
	var e *net.DNSError
	return errors.As(err, &e) && e.IsNotFound
}

// failure is the kind of a lookup error. The text of an error is different every
// time, it has port numbers in it.
func failure(err error) string {
	var n net.Error
	switch {
	case notFound(err):
		return "not found"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &n) && n.Timeout():
		return "timeout"
	}
	return "failure"
}
