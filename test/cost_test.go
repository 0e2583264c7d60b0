package test

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
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

// BenchmarkServer compares the CPU time, user and system, that the whole server
// takes for a query for a new name: ours with failover, and stock CoreDNS with
// forward, built from the same modules with the same flags. One upstream answers
// at once, there is no cache, and as many queries are sent as the server takes.
// The two take turns; the ratio is what counts, and is printed with its spread.
func BenchmarkServer(b *testing.B) {
	binary, err := harness.Binary()
	if err != nil {
		b.Fatal(err)
	}
	stock, err := harness.Stock()
	if err != nil {
		b.Fatal(err)
	}
	binaries := map[string]string{"failover": binary, "forward": stock}
	upstream := echo(b)
	servers := map[string]*harness.Server{}
	addrs := map[string]string{}
	for _, directive := range []string{"failover", "forward"} {
		port := harness.FreePort(b)
		servers[directive] = harness.Start(b, binaries[directive], fmt.Sprintf(".:%d {\n\tbind 127.0.0.1\n\t%s . %s\n}\n", port, directive, upstream))
		addrs[directive] = local(port)
	}

	const rounds, batch = 9, 20000
	perQuery := func(directive string) float64 {
		before := cpu(b, servers[directive].PID())
		flood(b, addrs[directive], batch)
		return (cpu(b, servers[directive].PID()) - before).Seconds() / batch * 1e6
	}
	for directive := range servers {
		perQuery(directive)
	}
	var ratios, ours, theirs []float64
	for b.Loop() {
		for range rounds {
			o, s := perQuery("failover"), perQuery("forward")
			ratios, ours, theirs = append(ratios, o/s), append(ours, o), append(theirs, s)
		}
	}
	for _, s := range [][]float64{ratios, ours, theirs} {
		slices.Sort(s)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours[len(ours)/2], "us-cpu/query")
	b.ReportMetric(theirs[len(theirs)/2], "stock-us-cpu/query")
	b.ReportMetric(ratios[len(ratios)/2], "cpu/stock")
	b.ReportMetric(ratios[0], "min-cpu/stock")
	b.ReportMetric(ratios[len(ratios)-1], "max-cpu/stock")
}

// clockTick is the unit of the times in /proc/PID/stat, USER_HZ, which is 100 on
// every architecture that Go supports.
const clockTick = 10 * time.Millisecond

// cpu returns the user and system time of a process (proc(5): fields 14 and 15 of
// stat, counted behind the name of the command, which may contain anything).
func cpu(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Skipf("SKIPPED: the CPU time of a process is read from /proc: %v", err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	utime, _ := strconv.Atoi(fields[11])
	stime, _ := strconv.Atoi(fields[12])
	return time.Duration(utime+stime) * clockTick
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

// flood asks n times for names never asked before, 64 at a time.
func flood(b *testing.B, addr string, n int) {
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
				name := fmt.Sprintf("name-%09d.example.org.", floodName.Add(1))
				q, _ := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
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
