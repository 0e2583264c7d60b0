package failover

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/forward"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"
)

// BenchmarkExchange compares the whole way of a query through failover with that
// through stock forward, to an upstream that answers at once. The two take turns
// in the same run; what counts is the ratio of the CPU time, user and system, of
// this process, which the upstream is part of on both sides.
func BenchmarkExchange(b *testing.B) {
	addr := echo(b)
	ours := benchHandler(b, "failover", addr)
	stock := benchHandler(b, "forward", addr)

	const inFlight, batch, rounds = 64, 20000, 9
	run := func(h plugin.Handler) (cpu time.Duration, mallocs float64) {
		done := make(chan struct{})
		m0, c0 := mallocCount(), cpuTime()
		for worker := range inFlight {
			go func() {
				defer func() { done <- struct{}{} }()
				// No two queries in flight are the same: they would be asked once.
				q := new(dns.Msg).SetQuestion(fmt.Sprintf("a-name-of-usual-length-%02d.example.org.", worker), dns.TypeA)
				q.SetEdns0(1232, false)
				for range batch / inFlight {
					if _, err := h.ServeDNS(context.Background(), &benchWriter{}, q); err != nil {
						b.Error(err)
						return
					}
				}
			}()
		}
		for range inFlight {
			<-done
		}
		return cpuTime() - c0, float64(mallocCount()-m0) / batch
	}
	run(ours)
	run(stock)
	var ratios []float64
	var oursAllocs, stockAllocs float64
	for b.Loop() {
		for range rounds {
			o, oa := run(ours)
			s, sa := run(stock)
			ratios = append(ratios, float64(o)/float64(s))
			oursAllocs, stockAllocs = oa, sa
		}
	}
	slices.Sort(ratios)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ratios[len(ratios)/2], "cpu/stock")
	b.ReportMetric(ratios[0], "min-cpu/stock")
	b.ReportMetric(ratios[len(ratios)-1], "max-cpu/stock")
	b.ReportMetric(oursAllocs, "allocs/query")
	b.ReportMetric(stockAllocs, "stock-allocs/query")
}

// benchHandler makes the handler of a directive and starts it.
func benchHandler(b *testing.B, directive, addr string) plugin.Handler {
	b.Helper()
	setup, err := caddy.DirectiveAction("dns", directive)
	if err != nil {
		b.Fatal(err)
	}
	c := caddy.NewTestController("dns", directive+" . "+addr)
	c.ServerBlockKeys = []string{"."}
	if err := setup(c); err != nil {
		b.Fatal(err)
	}
	h := dnsserver.GetConfig(c).Plugin[0](nil)
	switch h := h.(type) {
	case *Failover:
		if err := h.start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(h.stop)
	case interface {
		OnStartup() error
		OnShutdown() error
	}:
		if err := h.OnStartup(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { h.OnShutdown() })
	}
	return h
}

// echo starts an upstream that sends every query back as its own answer, with
// next to no work.
func echo(b *testing.B) string {
	b.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	go func() {
		runtime.LockOSThread()
		buf := make([]byte, 4096)
		for i := 0; ; i++ {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			buf[2] |= 0x80 // QR
			c.WriteToUDPAddrPort(buf[:n], from)
			if i%64 == 0 {
				echoTime.Store(int64(usage(syscall.RUSAGE_THREAD)))
			}
		}
	}()
	return c.LocalAddr().String()
}

// echoTime is the CPU time that the upstream has used.
var echoTime atomic.Int64

type benchWriter struct{ test.ResponseWriter }

func (*benchWriter) WriteMsg(*dns.Msg) error { return nil }

// cpuTime is what this process has used, without the upstream.
func cpuTime() time.Duration {
	return usage(syscall.RUSAGE_SELF) - time.Duration(echoTime.Load())
}

func usage(who int) time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(who, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func mallocCount() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}
