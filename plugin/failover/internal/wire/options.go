package wire

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/coredns/coredns/plugin/pkg/transport"
)

// DefaultExpire is how long a socket without a query stays open when
// Options.Expire is zero. It is the default of forward's expire.
const DefaultExpire = 10 * time.Second

// minExpire is the least Options.Expire: a socket has to outlive the moment
// between its opening and its first query.
const minExpire = 100 * time.Millisecond

// dialTimeout bounds the making of a connection, TLS handshake included. TCP
// sends a lost SYN again after one second (RFC 6298 section 2), so waiting any
// longer buys a second try at the price of queries that wait two seconds.
const dialTimeout = time.Second

// Proto says how a query travels, as dnstap has it: DoT and DoH are TCP, DoQ
// is UDP.
type Proto uint8

const (
	// UDP is a query in a datagram of its own.
	UDP Proto = iota
	// TCP is a query on a stream.
	TCP

	protoCount
)

// String returns "udp" or "tcp".
func (p Proto) String() string {
	if p == TCP {
		return "tcp"
	}
	return "udp"
}

// Ignored is the reason why something that arrived was not taken for a reply.
type Ignored uint8

const (
	// IgnoredShort is less than a DNS header.
	IgnoredShort Ignored = iota
	// IgnoredQuery is a message with QR=0.
	IgnoredQuery
	// IgnoredID is a message with an ID that was never sent on the socket.
	IgnoredID
	// IgnoredLate is a message with an ID of a query that has been answered or
	// withdrawn.
	IgnoredLate
	// IgnoredQuestion is a message with the ID of a waiting query and another
	// question.
	IgnoredQuestion

	ignoredCount
)

// String returns a word for a metric label.
func (i Ignored) String() string {
	switch i {
	case IgnoredShort:
		return "short"
	case IgnoredQuery:
		return "query"
	case IgnoredID:
		return "id"
	case IgnoredLate:
		return "late"
	case IgnoredQuestion:
		return "question"
	}
	return "unknown"
}

// Hooks are called as things happen, for metrics. Any may be nil. They are
// called from the goroutines of wire, some with a lock held: they must be
// quick, safe for concurrent use, and must not call back into wire.
type Hooks struct {
	// SocketOpened is called after a socket was opened or a connection was
	// established.
	SocketOpened func(Proto)
	// SocketClosed is called once for each SocketOpened.
	SocketClosed func(Proto)
	// Ignored is called for each message that was not taken for a reply.
	Ignored func(Proto, Ignored)
}

// Options describe an upstream. They are not changed after New.
type Options struct {
	// Transport is one of transport.DNS, TLS, HTTPS or QUIC ("dns" when empty).
	Transport string
	// Addr is where the upstream is: an IP address and a port, for IPv6
	// with an optional zone ("[fe80::1%eth0]:53"). For HTTPS it may be a host
	// name and a port.
	Addr string
	// TLS is the configuration for TLS, HTTPS and QUIC; nil is an empty one. It
	// is used as it is and must not be changed any more. Without a ServerName
	// the IP address is verified, as forward does.
	TLS *tls.Config
	// Source is the local address to send from, or nil for the system's choice.
	Source net.IP
	// Expire is how long a socket without a query stays open (DefaultExpire
	// when zero or less, at least 100 ms).
	Expire time.Duration
	// MaxAge is how long a TCP, TLS or QUIC connection is given new queries; 0
	// is for ever. UDP sockets live at most half a minute in any case.
	MaxAge time.Duration
	// MaxIdleConns is handed to the HTTPS client. TCP and TLS never hold more
	// than two connections, UDP never more than a few sockets, so that there is
	// nothing to limit.
	MaxIdleConns int
	// ForceTCP sends over TCP whatever Attempt.Proto says (transport.DNS only).
	ForceTCP bool
	// DoHMethod is "GET" or "POST" (the default); DoHHost is the host name of
	// the HTTPS request, "" for Addr.
	DoHMethod, DoHHost string
	// ProxyName is the label proxy_name of the coredns_proxy_* metrics that
	// plugin/pkg/proxy fills for HTTPS and QUIC ("failover" when empty). For
	// the other transports wire fills none, that is left to the caller.
	ProxyName string
	// Hooks are the metrics.
	Hooks Hooks

	// dial replaces the making of a TCP connection, before TLS, in tests.
	dial func(context.Context) (net.Conn, error)
}

// check fills in the defaults and reports what cannot work.
func (o *Options) check() error {
	if o.Transport == "" {
		o.Transport = transport.DNS
	}
	if o.Expire <= 0 {
		o.Expire = DefaultExpire
	}
	o.Expire = max(o.Expire, minExpire)
	if o.ProxyName == "" {
		o.ProxyName = "failover"
	}
	if o.TLS == nil {
		o.TLS = new(tls.Config)
	}
	switch o.Transport {
	case transport.DNS, transport.TLS, transport.QUIC:
		// Anything but an address would be looked up, and that is a DNS query:
		// it could come back to this very server.
		if _, err := netip.ParseAddrPort(o.Addr); err != nil {
			return fmt.Errorf("upstream address %q: want an IP address and a port: %w", o.Addr, err)
		}
	case transport.HTTPS:
		if _, _, err := net.SplitHostPort(o.Addr); err != nil {
			return fmt.Errorf("upstream address %q: want a host and a port: %w", o.Addr, err)
		}
	default:
		return fmt.Errorf("transport %q is not supported, only %s, %s, %s and %s", o.Transport,
			transport.DNS, transport.TLS, transport.HTTPS, transport.QUIC)
	}
	return nil
}
