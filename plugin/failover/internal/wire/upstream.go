package wire

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin/pkg/transport"
)

// Upstream is one server, asked over one transport. It is safe for concurrent
// use. It has no goroutine and no socket until it is asked something, and none
// again once it has been idle for Options.Expire (QUIC: until it is closed).
type Upstream struct {
	opts Options

	udp    *udpMux
	stream *streamMux
	proxy  *proxied

	inFlight atomic.Int64
	retired  atomic.Bool
	empty    chan struct{} // told when a retired upstream has nothing in flight

	sockets     [protoCount]atomic.Int64
	ignored     [ignoredCount]atomic.Uint64
	undelivered atomic.Uint64
}

// New returns an upstream. It opens nothing. The error says what is wrong with
// the options.
func New(o Options) (*Upstream, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	u := &Upstream{opts: o, empty: make(chan struct{}, 1)}
	switch o.Transport {
	case transport.DNS:
		u.udp = newUDPMux(u)
		u.stream = newStreamMux(u, nil)
	case transport.TLS:
		u.stream = newStreamMux(u, tlsConfig(&o))
	default:
		u.proxy = newProxied(u)
	}
	return u, nil
}

// Addr returns Options.Addr.
func (u *Upstream) Addr() string { return u.opts.Addr }

// Transport returns Options.Transport.
func (u *Upstream) Transport() string { return u.opts.Transport }

// Send sets the attempt in flight. It never blocks: a datagram is handed to the
// kernel or refused by it there and then, for a stream the query is queued, for
// HTTPS and QUIC it is given to a goroutine. Every failure is delivered, also
// those known at once. a.Query is not used after Send has returned.
func (u *Upstream) Send(a *Attempt) {
	a.Release()
	a.up, a.owner, a.leg = u, nil, 0
	a.Err, a.local, a.remote = nil, nil, nil
	a.places = [maxStreams]place{}
	a.resent = false
	a.SentAt = time.Now()
	a.WroteAt, a.DoneAt = time.Time{}, time.Time{}

	u.inFlight.Add(1)
	if u.retired.Load() {
		a.finish(nil, ErrClosed, a.SentAt)
		return
	}
	if a.qend = questionEnd(a.Query); a.qend == 0 {
		a.finish(nil, ErrBadQuery, a.SentAt)
		return
	}
	switch {
	case u.proxy != nil:
		u.proxy.send(a)
	case u.udp == nil || u.opts.ForceTCP || a.Proto == TCP:
		a.Proto = TCP
		u.stream.send(a)
	default:
		a.Proto = UDP
		u.udp.send(a)
	}
}

// left is called when an attempt is no longer in flight.
func (u *Upstream) left() {
	if u.inFlight.Add(-1) == 0 && u.retired.Load() {
		select {
		case u.empty <- struct{}{}:
		default:
		}
	}
}

// Retire takes the upstream out of use: new attempts get ErrClosed, those in
// flight may finish until ctx is done. Then it is closed.
func (u *Upstream) Retire(ctx context.Context) {
	u.retired.Store(true)
	for u.inFlight.Load() > 0 && ctx.Err() == nil {
		select {
		case <-u.empty:
		case <-ctx.Done():
		}
	}
	u.Close()
}

// Close ends all sockets and goroutines and returns when they have ended.
// Attempts in flight get ErrClosed, as does everything sent later. It may be
// called more than once.
func (u *Upstream) Close() {
	u.retired.Store(true)
	if u.udp != nil {
		u.udp.close()
	}
	if u.stream != nil {
		u.stream.close()
	}
	if u.proxy != nil {
		u.proxy.close()
	}
}

// Stats are numbers of one upstream at one moment.
type Stats struct {
	// InFlight is the number of attempts not yet delivered or withdrawn.
	InFlight int
	// UDPSockets and TCPConns are what is open, what is being drained
	// included. HTTPS and QUIC are not counted.
	UDPSockets, TCPConns int
	// Ignored counts since New, by reason, what was not taken for a reply.
	Ignored [5]uint64
	// Undelivered counts deliveries lost because Done was full: a bug of the
	// caller when it is not 0.
	Undelivered uint64
}

// Stats returns the numbers.
func (u *Upstream) Stats() Stats {
	s := Stats{
		InFlight:    int(u.inFlight.Load()),
		UDPSockets:  int(u.sockets[UDP].Load()),
		TCPConns:    int(u.sockets[TCP].Load()),
		Undelivered: u.undelivered.Load(),
	}
	for i := range s.Ignored {
		s.Ignored[i] = u.ignored[i].Load()
	}
	return s
}

func (u *Upstream) opened(p Proto) {
	u.sockets[p].Add(1)
	if f := u.opts.Hooks.SocketOpened; f != nil {
		f(p)
	}
}

func (u *Upstream) closed(p Proto) {
	u.sockets[p].Add(-1)
	if f := u.opts.Hooks.SocketClosed; f != nil {
		f(p)
	}
}

func (u *Upstream) ignore(p Proto, why Ignored) {
	u.ignored[why].Add(1)
	if f := u.opts.Hooks.Ignored; f != nil {
		f(p, why)
	}
}
