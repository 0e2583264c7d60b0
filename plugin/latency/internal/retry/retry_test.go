package retry

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/miekg/dns"
)

func TestSize(t *testing.T) {
	if size := unsafe.Sizeof(entry{}); size != 64 {
		t.Errorf("an entry has %d bytes", size)
	}
	for entries, want := range map[int]int{-1: 4, 0: 4, 1: 4, 4: 4, 5: 8, 1000: 1024, 65536: 65536, 65537: 131072} {
		if got := len(New(Config{Entries: entries}).entries); got != want {
			t.Errorf("%d entries become %d, want %d", entries, got, want)
		}
	}
}

func TestHash(t *testing.T) {
	s := newSeeds()
	base := func(addr string, qtype uint16, name string) uint64 {
		h, _ := s.hash(netip.MustParseAddr(addr), qtype, name)
		return h
	}
	want := base("192.0.2.1", dns.TypeA, "www.example.")
	if base("::ffff:192.0.2.1", dns.TypeAAAA, "wWw.eXample.") != want {
		t.Error("not the same lookup")
	}
	for _, other := range []uint64{
		base("192.0.2.2", dns.TypeA, "www.example."),
		base("192.0.2.1", dns.TypeTXT, "www.example."),
		base("192.0.2.1", dns.TypeA, "www-example."),
		base("192.0.2.1", dns.TypeA, ""),
		base("192.0.2.1", dns.TypeA, strings.Repeat("A", 5000)),
		base("2001:db8::1", dns.TypeA, "www.example."),
	} {
		if other == want {
			t.Error("the same lookup")
		}
	}
}

func TestSince(t *testing.T) {
	for _, tc := range []struct{ now, then, want uint32 }{
		{5, 2, 3},
		{2, 5, 0},              // handled in another order
		{3, 1<<32 - 2, 5},      // wraps around
		{1<<32 - 2, 3, 0},      // both
		{0, 20_000, 1<<32 - 1}, // very old
	} {
		if got := since(tc.now, tc.then); got != tc.want {
			t.Errorf("from %d to %d: %d, want %d", tc.then, tc.now, got, tc.want)
		}
	}
}

// TestTimers has the gaps that are and aren't a client's.
func TestTimers(t *testing.T) {
	for _, tc := range []struct {
		gap                uint32
		second, musl, some bool
	}{
		{300, false, false, false},
		{500, false, true, true},
		{989, false, false, false},
		{990, true, true, true},
		{1101, false, false, false},
		{2500, false, true, true},
		{2750, false, false, true},
		{3101, false, false, false},
		{5000, true, false, true},
		{5070, true, false, true},
		{6000, false, false, false},
		{10_050, true, false, true},
	} {
		if a, b, c := nearSecond(tc.gap), nearMusl(tc.gap), near(tc.gap); a != tc.second || b != tc.musl || c != tc.some {
			t.Errorf("%d ms: %v %v %v", tc.gap, a, b, c)
		}
	}
}

// TestBurst loses one twin of every 50th lookup of 200 threads that look up one
// name as fast as they can, and counts. Half of the threads' ports are used
// again while the client that lost a packet waits.
func TestBurst(t *testing.T) {
	const lookups, every = 40_000, 50
	epoch := time.Unix(0, 0)
	tab := New(Config{Entries: 65536, Now: func() time.Time { return epoch }})
	rnd := rand.New(rand.NewPCG(1, 2))
	got := map[Verdict]int{}
	ask := func(port, id, qtype uint16, at time.Duration) {
		v, k := tab.Query(netip.AddrPortFrom(client, port), id, qtype, "svc.example.", epoch.Add(at))
		got[v]++
		v, _ = tab.Answer(k, epoch.Add(at+100*time.Microsecond))
		got[v]++
	}
	type lost struct {
		at            time.Duration
		port, a, aaaa uint16
	}
	var again []lost
	busy := map[uint16]bool{}
	for i := range lookups {
		at := time.Duration(i) * 500 * time.Microsecond
		for len(again) > 0 && again[0].at+5*time.Second <= at {
			l := again[0]
			again = again[1:]
			delete(busy, l.port)
			ask(l.port, l.a, dns.TypeA, at)
			ask(l.port, l.aaaa, dns.TypeAAAA, at+200*time.Microsecond)
		}
		port := uint16(32768 + rnd.IntN(28232))
		for busy[port] {
			port++
		}
		a, aaaa := uint16(rnd.Uint32()), uint16(rnd.Uint32())
		drop := -1
		if i%every == 0 {
			drop = i / every % 2
			again = append(again, lost{at: at, port: port, a: a, aaaa: aaaa})
			busy[port] = true
		}
		if drop != 0 {
			ask(port, a, dns.TypeA, at)
		}
		if drop != 1 {
			ask(port, aaaa, dns.TypeAAAA, at)
		}
	}
	for {
		v, wait := tab.Overdue(epoch.Add(time.Hour))
		if v == (Verdict{}) && wait == 0 {
			break
		}
		got[v]++
	}
	want := lookups/every - len(again)
	sure := got[Verdict{LostRequest, Certain}] + got[Verdict{LostRequest, High}]
	t.Logf("%d lost, %v, %d evicted", want, got, tab.Evicted())
	if sure != want {
		t.Errorf("%d lost requests found, want %d", sure, want)
	}
}

// TestFlood has a million names and ports leave the memory as it was, and a
// lookup that was remembered before is forgotten without harm.
func TestFlood(t *testing.T) {
	const queries = 1_000_000
	tab := New(Config{Entries: 4096})
	now := time.Now()
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.example.", i)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range queries {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		at := now.Add(time.Duration(i) * time.Microsecond)
		_, k := tab.Query(netip.AddrPortFrom(addr, uint16(rnd.Uint32())), uint16(rnd.Uint32()), dns.TypeA, names[i%1000], at)
		if i%2 == 0 {
			tab.Answer(k, at)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > 1000 {
		t.Errorf("%d allocations", n)
	}
	if got, want := tab.Evicted(), uint64(queries-4096); got < want || got > queries {
		t.Errorf("%d evicted, want %d or a few more", got, want)
	}
	if v, k := tab.Query(netip.AddrPortFrom(client, 1), 1, dns.TypeA, "a.", now.Add(time.Minute)); v != (Verdict{}) || k.base == 0 {
		t.Errorf("got %v %v", v, k)
	}
}

// TestEviction has the lookup that misses its twin outlive those that don't.
func TestEviction(t *testing.T) {
	tab := New(Config{Entries: 4})
	now := time.Now()
	ask := func(port, qtype uint16, at time.Duration) Verdict {
		v, k := tab.Query(netip.AddrPortFrom(client, port), 100*port+qtype, qtype, "a.", now.Add(at))
		tab.Answer(k, now.Add(at))
		return v
	}
	ask(1, dns.TypeA, 0)
	for port := range uint16(100) {
		ask(port+2, dns.TypeA, time.Second)
		ask(port+2, dns.TypeAAAA, time.Second)
	}
	ask(1, dns.TypeA, 5*time.Second)
	if v := ask(1, dns.TypeAAAA, 5*time.Second); v.Cause != LostRequest {
		t.Errorf("got %v", v)
	}
	if got := tab.Evicted(); got != 97 {
		t.Errorf("%d evicted, want 97", got)
	}
}

// TestQueueFull has more retries at once than can wait.
func TestQueueFull(t *testing.T) {
	const n = 2 * queueLen
	tab := New(Config{Entries: 8 * n})
	now := time.Now()
	got := 0
	for _, at := range []time.Duration{0, 5 * time.Second} {
		for i := range uint16(n) {
			v, k := tab.Query(netip.AddrPortFrom(client, i), i, dns.TypeA, "a.", now.Add(at))
			if v != (Verdict{}) {
				got++
			}
			if v, _ := tab.Answer(k, now.Add(at)); v != (Verdict{}) {
				got++
			}
		}
	}
	for {
		v, wait := tab.Overdue(now.Add(time.Hour))
		if v == (Verdict{}) && wait == 0 {
			break
		}
		got++
	}
	// Those that seem to share their port are doubtful, and not counted.
	if want := n * 95 / 100; got < want || got > n {
		t.Errorf("%d retries found, want %d to %d", got, want, n)
	}
}

// TestConcurrent has every packet handled by a goroutine of its own, and counts.
func TestConcurrent(t *testing.T) {
	const clients = 2000
	tab := New(Config{Entries: 65536})
	now := time.Now()
	var lost atomic.Int64
	var wg sync.WaitGroup
	for i := range clients {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1000)
		ask := func(id, qtype uint16, at time.Duration) {
			v, k := tab.Query(addr, id, qtype, "svc.example.", now.Add(at))
			if v.Cause == LostRequest && v.Confidence != Low {
				lost.Add(1)
			}
			tab.Answer(k, now.Add(at))
			tab.Overdue(now.Add(at))
			tab.Evicted()
		}
		wg.Go(func() {
			var both sync.WaitGroup
			both.Go(func() { ask(1, dns.TypeA, 0) })
			if i%2 == 0 {
				both.Go(func() { ask(9999, dns.TypeAAAA, 0) })
			}
			both.Wait()
			ask(1, dns.TypeA, 5*time.Second)
			ask(9999, dns.TypeAAAA, 5*time.Second)
		})
	}
	wg.Wait()
	if got := lost.Load(); got != clients/2 {
		t.Errorf("%d lost requests, want %d", got, clients/2)
	}
}

// FuzzTable plays any sequence of queries and answers: nothing panics, no
// waiting time is longer than the time played, and memory doesn't grow.
func FuzzTable(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		b := make([]byte, 4*rnd.IntN(500))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tab := New(Config{Entries: 8})
		start := tab.epoch
		now, end := start, start
		var tickets [8]Ticket
		heard := func(v Verdict, wait time.Duration) {
			if (v.Cause == "") != (v.Confidence == "") {
				t.Errorf("half a verdict: %v", v)
			}
			if wait < 0 || wait > end.Sub(start) {
				t.Errorf("waited %v of %v", wait, end.Sub(start))
			}
		}
		for ; len(b) >= 4; b = b[4:] {
			x := binary.LittleEndian.Uint32(b)
			// From a little back to a few seconds on.
			now = now.Add(time.Duration(int(x&0xff)*20-200) * time.Millisecond)
			if now.After(end) {
				end = now
			}
			switch id := uint16(x >> 8 & 3); x >> 29 {
			case 0, 1, 2, 3:
				addr := netip.AddrPortFrom(client, uint16(x>>10&1))
				qtype := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeA, dns.TypeTXT}[x>>11&3]
				v, k := tab.Query(addr, id, qtype, []string{"a.", "B."}[x>>13&1], now)
				tickets[x>>14&7] = k
				heard(v, 0)
			case 4, 5, 6:
				heard(tab.Answer(tickets[x>>14&7], now))
			case 7:
				heard(tab.Overdue(now))
			}
		}
		tab.Answer(Ticket{base: 1, index: 1 << 31}, now)
		if len(tab.entries) != 8 || tab.queue.n > queueLen {
			t.Error("memory grew")
		}
	})
}

func BenchmarkTable(b *testing.B) {
	for _, bc := range []struct {
		name  string
		names int
	}{{"one name", 1}, {"10000 names", 10_000}} {
		names := make([]string, bc.names)
		for i := range names {
			names[i] = fmt.Sprintf("service-%d.namespace.svc.cluster.local.", i)
		}
		b.Run(bc.name, func(b *testing.B) {
			tab := New(Config{Entries: 65536})
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				// Pairs of A and AAAA from new ports, 10000 lookups a second.
				rnd := rand.New(rand.NewPCG(rand.Uint64(), 1))
				now := tab.epoch
				var r uint64
				for i := 0; pb.Next(); i++ {
					qtype := dns.TypeAAAA
					if i%2 == 0 {
						r = rnd.Uint64()
						qtype = dns.TypeA
						now = now.Add(100 * time.Microsecond)
					}
					addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(r)}), uint16(r>>8))
					_, k := tab.Query(addr, uint16(r>>24)+qtype, qtype, names[int(r>>40)%len(names)], now)
					tab.Answer(k, now)
				}
			})
		})
	}
}
