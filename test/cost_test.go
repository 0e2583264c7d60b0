package test

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resolute-dns/resolute/test/harness"

	"github.com/miekg/dns"
)

// The benchmarks here compare the CPU time, user and system, that two whole
// servers take for a query while they get as many as they take. The two take
// turns; the ratio is what counts, and is printed with its spread.

// BenchmarkServer compares ours with failover to stock CoreDNS with forward, built
// from the same modules with the same flags, for names never asked before: one
// upstream that answers at once, no cache.
func BenchmarkServer(b *testing.B) {
	binary, err := harness.Binary()
	if err != nil {
		b.Fatal(err)
	}
	stock, err := harness.Stock()
	if err != nil {
		b.Fatal(err)
	}
	upstream := echo(b)
	compare(b,
		side{binary, "failover . " + upstream},
		side{stock, "forward . " + upstream},
		func() string { return fmt.Sprintf("name-%09d.example.org.", floodName.Add(1)) })
}

// BenchmarkLatency compares the same binary with and without latency and aa, for
// names that are in the cache.
func BenchmarkLatency(b *testing.B) {
	binary, err := harness.Binary()
	if err != nil {
		b.Fatal(err)
	}
	const answers = "cache 3600\ntemplate IN A {\nanswer \"{{ .Name }} 3600 IN A 192.0.2.1\"\n}"
	compare(b,
		side{binary, "prometheus 127.0.0.1:0\nlatency\naa\n" + answers},
		side{binary, "prometheus 127.0.0.1:0\n" + answers},
		func() string { return fmt.Sprintf("name-%03d.example.org.", floodName.Add(1)%1000) })
}

// side is one of the two servers: a binary and what is in its server block.
type side struct{ binary, block string }

func compare(b *testing.B, ours, theirs side, name func() string) {
	var servers [2]*harness.Server
	var addrs [2]string
	for i, s := range []side{ours, theirs} {
		port := harness.FreePort(b)
		servers[i] = harness.Start(b, s.binary, fmt.Sprintf(".:%d {\nbind 127.0.0.1\n%s\n}\n", port, s.block))
		addrs[i] = local(port)
	}
	const rounds, batch = 15, 20000
	perQuery := func(i int) float64 {
		before := cpu(b, servers[i].PID())
		flood(b, addrs[i], batch, name)
		return (cpu(b, servers[i].PID()) - before).Seconds() / batch * 1e6
	}
	perQuery(0)
	perQuery(1)
	var ratios, first, second []float64
	for b.Loop() {
		for range rounds {
			o, s := perQuery(0), perQuery(1)
			ratios, first, second = append(ratios, o/s), append(first, o), append(second, s)
		}
	}
	for _, s := range [][]float64{ratios, first, second} {
		slices.Sort(s)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(first[len(first)/2], "us-cpu/query")
	b.ReportMetric(second[len(second)/2], "other-us-cpu/query")
	b.ReportMetric(ratios[len(ratios)/2], "cpu-ratio")
	b.ReportMetric(ratios[0], "min-cpu-ratio")
	b.ReportMetric(ratios[len(ratios)-1], "max-cpu-ratio")
}

// cpu returns the time that the threads of a process have run, in the kernel too.
// It is to the nanosecond, where /proc/PID/stat has ticks of 10 ms: the first
// field of schedstat (Documentation/scheduler/sched-stats in Linux). Go's runtime
// keeps its threads.
func cpu(b *testing.B, pid int) (sum time.Duration) {
	b.Helper()
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		ns, _ := strconv.ParseInt(strings.Fields(string(stat))[0], 10, 64)
		sum += time.Duration(ns)
	}
	if sum == 0 {
		b.Skip("SKIPPED: the CPU time of a process is read from Linux's schedstat")
	}
	return sum
}

var floodName atomic.Int64

// echo starts an upstream that sends every query back as its own answer.
func echo(b *testing.B) string {
	b.Helper()
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
			buf[2] |= 0x80 // QR
			c.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	return c.LocalAddr().String()
}

// flood asks n times, 64 at a time.
func flood(b *testing.B, addr string, n int, name func() string) {
	b.Helper()
	const inFlight = 64
	var wg sync.WaitGroup
	for range inFlight {
		wg.Go(func() {
			c, err := net.Dial("udp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			buf := make([]byte, 4096)
			for range n / inFlight {
				q, _ := new(dns.Msg).SetQuestion(name(), dns.TypeA).Pack()
				for try := 0; ; try++ {
					c.Write(q)
					c.SetReadDeadline(time.Now().Add(2 * time.Second))
					if m, err := c.Read(buf); err == nil && m > 2 && binary.BigEndian.Uint16(buf) == binary.BigEndian.Uint16(q) {
						break
					}
					if try == 5 {
						b.Error("the server does not answer")
						return
					}
				}
			}
		})
	}
	wg.Wait()
}
