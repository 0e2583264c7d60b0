package wire

import (
	"context"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/pkg/proxy"
	"github.com/coredns/coredns/plugin/pkg/transport"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"
)

// benchServer answers as cheaply as can be, with the query and QR set, or not
// at all. It allocates nothing, so that what is reported is the client's.
func benchServer(b *testing.B, answer bool) string {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if answer {
				buf[2] |= flagQR
				c.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
	return c.LocalAddr().String()
}

// workers share n exchanges.
func workers(n, count int, exchange func(w int)) {
	var wg sync.WaitGroup
	for w := range count {
		share := n / count
		if w < n%count {
			share++
		}
		wg.Go(func() {
			for range share {
				exchange(w)
			}
		})
	}
	wg.Wait()
}

// BenchmarkUDPExchange is one query at a time, without the work on messages.
func BenchmarkUDPExchange(b *testing.B) {
	addr := benchServer(b, true)
	up := newUpstream(b, Options{Addr: addr})
	query := pack(b, "example.org.")
	done := make(chan *Attempt, 1)
	a := &Attempt{Query: query, Done: done}
	b.ReportAllocs()
	for b.Loop() {
		up.Send(a)
		<-done
		a.Release()
	}
}

// BenchmarkUDPSendCancel is the cost of an attempt that is never answered.
func BenchmarkUDPSendCancel(b *testing.B) {
	addr := benchServer(b, false)
	up := newUpstream(b, Options{Addr: addr})
	a := &Attempt{Query: pack(b, "example.org."), Done: make(chan *Attempt, 1)}
	b.ReportAllocs()
	for b.Loop() {
		up.Send(a)
		a.Cancel()
	}
}

// BenchmarkUDPAgainstProxy is the same work with this package and with
// plugin/pkg/proxy, in turns: pack, exchange, unpack. It prints the ratio.
func BenchmarkUDPAgainstProxy(b *testing.B) {
	addr := benchServer(b, true)
	up := newUpstream(b, Options{Addr: addr})
	p := proxy.NewProxy("wire_benchmark", addr, transport.DNS)
	p.Start(time.Second)
	defer p.Stop()

	const count = 64
	type worker struct {
		req  *dns.Msg
		done chan *Attempt
		a    Attempt
		buf  []byte
	}
	ws := make([]worker, count)
	for i := range ws {
		ws[i] = worker{req: new(dns.Msg), done: make(chan *Attempt, 1), buf: make([]byte, 512)}
		ws[i].req.SetQuestion("example.org.", dns.TypeA)
		ws[i].req.SetEdns0(1232, false)
	}
	ours := func(i int) {
		w := &ws[i]
		var err error
		if w.a.Query, err = w.req.PackBuffer(w.buf); err != nil {
			b.Error(err)
			return
		}
		w.a.Done = w.done
		up.Send(&w.a)
		<-w.done
		m, err := w.a.Unpack()
		if err != nil {
			b.Error(err)
			return
		}
		m.Id = w.req.Id
		w.a.Release()
	}
	stock := func(i int) {
		state := request.Request{Req: ws[i].req, W: &test.ResponseWriter{}}
		if _, _, _, err := p.Connect(context.Background(), state, proxy.Options{}); err != nil {
			b.Error(err)
		}
	}
	workers(1000, count, ours)
	workers(1000, count, stock)
	var spent [2]time.Duration
	var allocs [2]uint64
	var before, after runtime.MemStats
	b.ResetTimer()
	for left := b.N; left > 0; left -= 2000 {
		n := min(left, 2000)
		for i, f := range []func(int){ours, stock} {
			runtime.ReadMemStats(&before)
			start := time.Now()
			workers(n, count, f)
			spent[i] += time.Since(start)
			runtime.ReadMemStats(&after)
			allocs[i] += after.Mallocs - before.Mallocs
		}
	}
	n := float64(b.N)
	b.ReportMetric(float64(spent[0])/n, "wire-ns/op")
	b.ReportMetric(float64(spent[1])/n, "proxy-ns/op")
	b.ReportMetric(float64(allocs[0])/n, "wire-allocs/op")
	b.ReportMetric(float64(allocs[1])/n, "proxy-allocs/op")
	b.ReportMetric(float64(spent[0])/float64(spent[1]), "wire/proxy")
	b.ReportMetric(0, "ns/op")
}
