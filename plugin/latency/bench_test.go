package latency

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
)

// client is a writer for a client that does nothing with the answer.
type client struct {
	dns.ResponseWriter
	addr net.Addr
}

func (c *client) RemoteAddr() net.Addr        { return c.addr }
func (c *client) WriteMsg(*dns.Msg) error     { return nil }
func (c *client) Write(b []byte) (int, error) { return len(b), nil }

func udpClient(addrPort string) *client {
	return &client{addr: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addrPort))}
}

// serverCtx is the context of a query to the server with this address.
func serverCtx(addr string) context.Context {
	return context.WithValue(context.Background(), dnsserver.Key{}, &dnsserver.Server{Addr: addr})
}

// started returns a handler as a Corefile makes it, for the server with this
// address.
func started(tb testing.TB, conf Config, addr string, next plugin.Handler) *Latency {
	tb.Helper()
	l := New(conf)
	l.Next = next
	l.start([]string{addr})
	tb.Cleanup(l.stop)
	return l
}

// noop answers with a message that was there before.
func noop(m *dns.Msg) plugin.Handler {
	return plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, _ *dns.Msg) (int, error) {
		return 0, w.WriteMsg(m)
	})
}

// passing is a handler that does nothing but to pass the query on: what every
// plugin costs at least.
type passing struct{ next plugin.Handler }

func (p passing) Name() string { return "passing" }

func (p passing) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	return plugin.NextOrFailure(p.Name(), p.next, ctx, w, r)
}

// benchAddr is an address in a label, nothing listens on it.
const benchAddr = "dns://:53"

var benchConfigs = map[string]Config{
	"root zone":       {Zones: []string{"."}, Slow: time.Second, PerSecond: 10, Retries: 65536, Window: time.Minute},
	"retries off":     {Zones: []string{"."}, Slow: time.Second, PerSecond: 10, Window: time.Minute},
	"two other zones": {Zones: []string{"cluster.local.", "example.org."}, Slow: time.Second, PerSecond: 10, Retries: 65536, Window: time.Minute},
}

// lookups are the queries of many clients, A and AAAA.
func lookups(n int) (qs []*dns.Msg, ws []*client) {
	for i := range n {
		q := new(dns.Msg).SetQuestion(fmt.Sprintf("name-%d.example.org.", i/2%1000), []uint16{dns.TypeA, dns.TypeAAAA}[i%2])
		q.Id = uint16(i * 31)
		qs = append(qs, q)
		ws = append(ws, udpClient(fmt.Sprintf("10.0.%d.%d:%d", i/2%7, i/2%250, 1024+i/2%60000)))
	}
	return qs, ws
}

// BenchmarkServeDNS compares with a handler that only passes the query on. The
// difference is to be at most 500 ns and 2 allocations.
func BenchmarkServeDNS(b *testing.B) {
	qs, ws := lookups(1 << 12)
	answer := new(dns.Msg).SetReply(qs[0])
	ctx := serverCtx(benchAddr)
	run := func(b *testing.B, h plugin.Handler) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			q := qs[i%len(qs)]
			q.Id += 2 // of another lookup, not of a retry
			h.ServeDNS(ctx, ws[i%len(ws)], q)
		}
	}
	b.Run("nothing", func(b *testing.B) { run(b, passing{noop(answer)}) })
	for name, conf := range benchConfigs {
		b.Run(name, func(b *testing.B) { run(b, started(b, conf, benchAddr, noop(answer))) })
	}
	b.Run("parallel", func(b *testing.B) {
		l := started(b, benchConfigs["root zone"], benchAddr, noop(answer))
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				l.ServeDNS(ctx, ws[i%len(ws)], qs[i%len(qs)])
			}
		})
	})
}

// TestAllocations: two allocations at most over a handler that only passes on.
// Without the race detector, which makes more.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	qs, ws := lookups(1 << 12)
	answer := new(dns.Msg).SetReply(qs[0])
	ctx := serverCtx(benchAddr)
	count := func(h plugin.Handler) float64 {
		i := 0
		return testing.AllocsPerRun(20000, func() {
			h.ServeDNS(ctx, ws[i%len(ws)], qs[i%len(qs)])
			i++
		})
	}
	base := count(passing{noop(answer)})
	for name, conf := range benchConfigs {
		if got := count(started(t, conf, benchAddr, noop(answer))) - base; got > 2 {
			t.Errorf("%s: %v allocations more than doing nothing, want at most 2", name, got)
		}
	}
}
