package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin/pkg/proxy"
	"github.com/coredns/coredns/plugin/pkg/transport"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
)

const (
	// proxiedTimeout ends an exchange that the caller has forgotten. It is
	// beyond any sensible deadline, which is the caller's: a short one here
	// would fail names that are merely slow.
	proxiedTimeout = 10 * time.Second

	// A silent HTTP/2 connection is asked for a sign of life after the first of
	// these, and abandoned when there is none within the second. Without it,
	// every query would go into a connection whose other end has vanished.
	h2PingAfter   = silenceDefault
	h2PingTimeout = silenceMax
)

// proxied sends over HTTPS and QUIC with plugin/pkg/proxy. Its Connect is
// synchronous and writes to the message of the request, so each attempt has a
// goroutine and a message of its own.
type proxied struct {
	up     *Upstream
	p      *proxy.Proxy    // nil for NewFunc
	http   *http.Transport // nil for QUIC
	proto  Proto
	remote net.Addr
	ctx    context.Context
	stop   context.CancelFunc
	wg     sync.WaitGroup

	// connect is p.Connect.
	connect func(context.Context, request.Request, proxy.Options) (*dns.Msg, net.Addr, string, error)

	mu     sync.Mutex // guards following and the attempts
	calls  map[*Attempt]context.CancelFunc
	closed bool
}

func newProxied(up *Upstream) *proxied {
	o := &up.opts
	x := &proxied{
		up:    up,
		p:     proxy.NewProxy(o.ProxyName, o.Addr, o.Transport),
		proto: UDP,
		calls: make(map[*Attempt]context.CancelFunc),
	}
	x.connect = x.p.Connect
	x.ctx, x.stop = context.WithCancel(context.Background())
	if o.Transport == transport.HTTPS {
		x.proto = TCP
		x.http = httpTransport(o)
		x.p.SetHTTPClient(&http.Client{Transport: x.http, Timeout: proxiedTimeout})
		method := strings.ToUpper(o.DoHMethod)
		if method == "" {
			method = http.MethodPost
		}
		x.p.SetDOHRequestOptions(method)
		x.p.SetDOHHost(o.DoHHost)
	}
	x.remote = upstreamAddr(o.Addr, x.proto)
	// A copy, because package http adds its protocols to it.
	x.p.SetTLSConfig(o.TLS.Clone())
	x.p.SetExpire(o.Expire)
	x.p.SetMaxAge(o.MaxAge)
	x.p.SetReadTimeout(proxiedTimeout)
	if x.http != nil {
		x.p.SetMaxIdleConns(o.MaxIdleConns)
		return x
	}
	if o.Source != nil {
		x.p.SetLocalAddress(o.Source)
	}
	// For QUIC this starts no more than the goroutine that closes idle
	// connections. For HTTPS it would start one that has nothing to do and that
	// Stop does not end, so it is left out there.
	x.p.Start(time.Second)
	return x
}

// httpTransport returns what forward uses, with bounds on connecting.
func httpTransport(o *Options) *http.Transport {
	t := &http.Transport{}
	if def, ok := http.DefaultTransport.(*http.Transport); ok {
		t = def.Clone()
	}
	d := &net.Dialer{Timeout: dialTimeout}
	if o.Source != nil {
		d.LocalAddr = &net.TCPAddr{IP: o.Source}
	}
	t.DialContext = d.DialContext
	t.TLSHandshakeTimeout = dialTimeout
	t.IdleConnTimeout = o.Expire
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: h2PingAfter, PingTimeout: h2PingTimeout}
	return t
}

func (x *proxied) send(a *Attempt) {
	a.Proto = x.proto
	// Unpacking makes the copy of the query that the goroutine needs.
	req := new(dns.Msg)
	if err := req.Unpack(a.Query); err != nil {
		a.finish(nil, fmt.Errorf("%w: %w", ErrBadQuery, err), time.Now())
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		a.finish(nil, ErrClosed, time.Now())
		return
	}
	a.owner, a.waiting = x, true
	ctx, cancel := context.WithCancel(x.ctx)
	c := &call{x: x, a: a, req: req, ctx: ctx, cancel: cancel}
	x.calls[a] = cancel
	x.wg.Go(c.run)
}

func (x *proxied) cancel(a *Attempt) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !a.waiting {
		return false
	}
	x.calls[a]()
	delete(x.calls, a)
	a.detach()
	a.up.left()
	return true
}

func (x *proxied) close() {
	x.mu.Lock()
	x.closed = true
	now := time.Now()
	for a, cancel := range x.calls {
		cancel()
		delete(x.calls, a)
		a.finish(nil, ErrClosed, now)
	}
	x.mu.Unlock()
	x.stop()
	if x.p != nil {
		x.p.Stop()
	}
	x.wg.Wait()
	if x.http != nil {
		x.http.CloseIdleConnections()
	}
}

// call is one exchange. The attempt may be withdrawn, and in flight again,
// before it ends; whether it is still this call's is told by ctx, which is
// cancelled with x.mu held.
type call struct {
	x      *proxied
	a      *Attempt
	req    *dns.Msg
	ctx    context.Context
	cancel context.CancelFunc
}

func (c *call) run() {
	question := c.req.Question[0]
	state := request.Request{Req: c.req}
	m, local, _, err := c.x.connect(c.ctx, state, proxy.Options{})
	if errors.Is(err, proxy.ErrCachedClosed) {
		// The connection had been closed while idle. Once, as for streams.
		m, local, _, err = c.x.connect(c.ctx, state, proxy.Options{})
	}
	now := time.Now()
	if err != nil {
		err = proxiedError(err)
	} else if !answers(m, question) {
		// Nothing else will come: the exchange is over.
		c.x.up.ignore(c.x.proto, IgnoredQuestion)
		err = fmt.Errorf("%w: it answers another question", ErrMalformed)
	}

	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	defer c.cancel()
	if c.ctx.Err() != nil {
		return
	}
	delete(c.x.calls, c.a)
	c.a.local, c.a.remote = local, c.x.remote
	if err == nil {
		c.a.msg = m
	}
	c.a.finish(nil, err, now)
}

// upstreamAddr returns the address for dnstap, nil when it is a host name.
func upstreamAddr(addr string, p Proto) net.Addr {
	ap, err := netip.ParseAddrPort(addr)
	switch {
	case err != nil:
		return nil
	case p == TCP:
		return net.TCPAddrFromAddrPort(ap)
	}
	return net.UDPAddrFromAddrPort(ap)
}

// proxiedError gives the errors of the libraries below the names of this
// package.
func proxiedError(err error) error {
	var (
		unpack *dns.Error
		verify *tls.CertificateVerificationError
		record tls.RecordHeaderError
		alert  tls.AlertError
		quicT  *quic.TransportError
		quicA  *quic.ApplicationError
		quicR  *quic.StatelessResetError
		quicS  *quic.StreamError
	)
	switch {
	case errors.Is(err, proxy.ErrInvalidRequest), errors.Is(err, proxy.ErrUnsupportedRequest):
		return fmt.Errorf("%w: %w", ErrBadQuery, err)
	case errors.As(err, &unpack):
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	case isTimeout(err):
		return err
	case errors.As(err, &quicT) && !quicT.ErrorCode.IsCryptoError(),
		errors.As(err, &quicA), errors.As(err, &quicR), errors.As(err, &quicS):
		return fmt.Errorf("%w: %w", ErrConnClosed, err)
	case errors.As(err, &verify), errors.As(err, &record), errors.As(err, &alert), quicT != nil:
		return fmt.Errorf("%w: %w", ErrTLS, err)
	}
	return err
}

// answers says whether m is a reply to the question, by the rules of
// matchQuestion.
func answers(m *dns.Msg, q dns.Question) bool {
	if !m.Response {
		return false
	}
	if len(m.Question) == 0 {
		return m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented || m.Rcode == dns.RcodeRefused
	}
	got := m.Question[0]
	return len(m.Question) == 1 && got.Qtype == q.Qtype && got.Qclass == q.Qclass && strings.EqualFold(got.Name, q.Name)
}
