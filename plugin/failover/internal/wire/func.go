package wire

import (
	"context"
	"net"

	"github.com/coredns/coredns/plugin/pkg/proxy"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"
)

// NewFunc returns an upstream that asks a function instead of a server: for tests
// of what stands on this package, in particular under a synthetic clock, where
// sockets can't be used. f is called in a goroutine of its own for each attempt,
// its context is done when the attempt is withdrawn, and it may return a nil
// message with an error. Its reply is checked as that of a server would be.
func NewFunc(addr string, f func(context.Context, *dns.Msg) (*dns.Msg, error)) *Upstream {
	u := &Upstream{opts: Options{Addr: addr}, empty: make(chan struct{}, 1)}
	x := &proxied{
		up:     u,
		remote: upstreamAddr(addr, UDP),
		calls:  make(map[*Attempt]context.CancelFunc),
		connect: func(ctx context.Context, state request.Request, _ proxy.Options) (*dns.Msg, net.Addr, string, error) {
			m, err := f(ctx, state.Req)
			return m, nil, "", err
		},
	}
	x.ctx, x.stop = context.WithCancel(context.Background())
	u.proxy = x
	return u
}
