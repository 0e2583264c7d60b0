package retry

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// traffic makes up the queries of clients that lose nothing, and their answers.
// Times are in µs.
type traffic struct {
	rnd     *rand.Rand
	packets []seen
	lookups int
}

type seen struct {
	at, answered int
	client       netip.AddrPort
	id, qtype    uint16
	name         string
}

func (t *traffic) addr() netip.Addr {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 10<<24|uint32(t.rnd.IntN(1<<24)))
	return netip.AddrFrom4(a)
}

func (t *traffic) id() uint16        { return uint16(t.rnd.Uint32()) }
func (t *traffic) ephemeral() uint16 { return uint16(32768 + t.rnd.IntN(28232)) }
func (t *traffic) ms(min, max int) int {
	return 1000*min + t.rnd.IntN(1000*(max-min)+1)
}

// send adds a query. Most are answered from a cache, some take their time.
func (t *traffic) send(at int, addr netip.Addr, port, id, qtype uint16, name string) {
	after := t.rnd.IntN(500)
	switch t.rnd.IntN(20) {
	case 0, 1, 2:
		after = t.ms(1, 60)
	case 3:
		after = t.ms(60, 400)
	}
	t.packets = append(t.packets, seen{at, at + after, netip.AddrPortFrom(addr, port), id, qtype, name})
}

// lookup adds the queries of one lookup of a stub resolver.
func (t *traffic) lookup(at int, library string, addr netip.Addr, port uint16, name string) {
	t.lookups++
	a, aaaa := t.id(), t.id()
	switch library {
	case "musl":
		aaaa = a + 150 + uint16(t.rnd.IntN(400))
	case "Go":
		for _, i := range t.rnd.Perm(2) {
			t.send(at+i*20, addr, t.ephemeral(), t.id(), []uint16{dns.TypeA, dns.TypeAAAA}[i], name)
		}
		return
	case "c-ares":
		t.send(at, addr, port, aaaa, dns.TypeAAAA, name)
		t.send(at+10, addr, port, a, dns.TypeA, name)
		return
	case "A":
		t.send(at, addr, port, a, dns.TypeA, name)
		return
	case "AAAA":
		t.send(at, addr, port, aaaa, dns.TypeAAAA, name)
		return
	}
	t.send(at, addr, port, a, dns.TypeA, name)
	t.send(at+15, addr, port, aaaa, dns.TypeAAAA, name)
}

// lossFreeLookups is how many lookups each kind of traffic has, or a few more.
const lossFreeLookups = 100_000

// libraries that have a socket for each lookup.
var libraries = []string{"glibc", "glibc", "musl", "Go", "A", "AAAA"}

// periods of pollers in ms: those of clients' timers, and others.
var periods = []int{500, 1000, 2000, 2500, 3000, 5000, 5000, 5000, 7000, 10_000}

var lossFree = map[string]func(t *traffic){
	// 200 threads of one pod, one name, as fast as they can.
	"burst": func(t *traffic) {
		addr := t.addr()
		for i := range lossFreeLookups {
			t.lookup(i*400+t.rnd.IntN(300), "glibc", addr, t.ephemeral(), "svc.example.")
		}
	},
	// Pods that ask for one name every few seconds, with a socket each time.
	"pollers": func(t *traffic) {
		for t.lookups < lossFreeLookups {
			addr, library, period := t.addr(), libraries[t.rnd.IntN(len(libraries))], periods[t.rnd.IntN(len(periods))]
			at := t.ms(0, 10_000)
			for range 100 {
				t.lookup(at, library, addr, t.ephemeral(), "svc.example.")
				at += period*1000 + t.rnd.IntN(3000)
			}
		}
	},
	// The same with a socket for ever, and that one name or a few.
	"pollers with one socket": func(t *traffic) {
		for t.lookups < lossFreeLookups {
			addr, port, period := t.addr(), t.ephemeral(), periods[t.rnd.IntN(len(periods))]
			library, names := []string{"c-ares", "A"}[t.rnd.IntN(2)], 1+t.rnd.IntN(3)
			at := t.ms(0, 10_000)
			for range 100 {
				for n := range names {
					t.lookup(at+n*1000, library, addr, port, fmt.Sprintf("n%d.example.", n))
				}
				at += period*1000 + t.rnd.IntN(3000)
			}
		}
	},
	// A, and some time later AAAA, from a new socket.
	"A then AAAA": func(t *traffic) {
		for t.lookups < lossFreeLookups {
			addr, period := t.addr(), periods[t.rnd.IntN(len(periods))]
			at := t.ms(0, 10_000)
			for range 50 {
				t.lookup(at, "A", addr, t.ephemeral(), "svc.example.")
				at += period*1000 + t.rnd.IntN(3000)
				t.lookup(at, "AAAA", addr, t.ephemeral(), "svc.example.")
				at += t.ms(1, 10_000)
			}
		}
	},
	// The same from one socket that other names are asked from, too.
	"A then AAAA, one socket": func(t *traffic) {
		for t.lookups < lossFreeLookups {
			addr, port, period := t.addr(), t.ephemeral(), periods[t.rnd.IntN(len(periods))]
			at := t.ms(0, 10_000)
			for range 25 {
				for n, q := range []string{"A", "AAAA"} {
					for name := range 2 {
						t.lookup(at+n*period*1000+t.rnd.IntN(3000), q, addr, port, fmt.Sprintf("n%d.example.", name))
					}
				}
				at += 2*period*1000 + t.ms(1, 10_000)
			}
		}
	},
	// CoreDNS with 4 sockets and a TTL of 5 s: A and AAAA each when their time
	// is over and somebody asks.
	"forwarder": func(t *traffic) {
		addr, ports := t.addr(), make([]uint16, 4)
		for i := range ports {
			ports[i] = t.ephemeral()
		}
		for n := range 500 {
			a, aaaa := t.ms(0, 5000), t.ms(0, 5000)
			for range lossFreeLookups / 1000 {
				t.lookup(a, "A", addr, ports[t.rnd.IntN(4)], fmt.Sprintf("n%d.example.", n))
				t.lookup(aaaa, "AAAA", addr, ports[t.rnd.IntN(4)], fmt.Sprintf("n%d.example.", n))
				a += t.ms(5000, 5500)
				aaaa += t.ms(5000, 5500)
			}
		}
	},
	// One that asks from a new port each time, and caches nothing: unbound.
	"forwarder, random ports": func(t *traffic) {
		addr := t.addr()
		for range lossFreeLookups {
			t.lookup(t.ms(0, 200_000), []string{"A", "AAAA"}[t.rnd.IntN(2)], addr, uint16(1024+t.rnd.IntN(64000)),
				fmt.Sprintf("n%d.example.", t.rnd.IntN(500)))
		}
	},
	// All kinds of clients behind one address that has only a few ports.
	"NAT": func(t *traffic) {
		addr := t.addr()
		for i := range lossFreeLookups {
			t.lookup(i*2000+t.rnd.IntN(2000), libraries[t.rnd.IntN(len(libraries))], addr, uint16(20000+i%3000),
				fmt.Sprintf("n%d.example.", t.rnd.IntN(50)))
		}
	},
	// The same, with ports and names used again at random.
	"NAT at random": func(t *traffic) {
		addr := t.addr()
		for range lossFreeLookups {
			t.lookup(t.ms(0, 1_000_000), libraries[t.rnd.IntN(len(libraries))], addr, uint16(20000+t.rnd.IntN(300)),
				fmt.Sprintf("n%d.example.", t.rnd.IntN(100)))
		}
	},
	// Pods at random: names, libraries, times.
	"pods": func(t *traffic) {
		for t.lookups < lossFreeLookups {
			addr := t.addr()
			for range 200 {
				library := libraries[t.rnd.IntN(len(libraries))]
				if t.rnd.IntN(5) == 0 {
					t.lookup(t.ms(0, 100_000), library, addr, 40000, fmt.Sprintf("n%d.example.", t.rnd.IntN(10)))
				} else {
					t.lookup(t.ms(0, 100_000), library, addr, t.ephemeral(), fmt.Sprintf("n%d.example.", t.rnd.IntN(10)))
				}
			}
		}
	},
}

// TestLossFree has no retry found, certain or high, where nothing is lost. By
// chance an ID comes again once in 65536 lookups, so most kinds of this traffic
// have some.
func TestLossFree(t *testing.T) {
	for name, generate := range lossFree {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range lossFreeSeeds {
				low, wrong := runLossFree(generate, seed)
				t.Logf("seed %d: %d low", seed, low)
				for _, w := range wrong {
					t.Errorf("seed %d: %s", seed, w)
				}
			}
		})
	}
}

func runLossFree(generate func(*traffic), seed uint64) (low int, wrong []string) {
	tr := &traffic{rnd: rand.New(rand.NewPCG(seed, 4))}
	generate(tr)
	type packet struct {
		at    int
		query bool
		i     int
	}
	events := make([]packet, 0, 2*len(tr.packets))
	for i, p := range tr.packets {
		events = append(events, packet{p.at, true, i}, packet{p.answered, false, i})
	}
	slices.SortStableFunc(events, func(a, b packet) int { return cmp.Compare(a.at, b.at) })

	epoch := time.Unix(0, 0)
	tab := New(Config{Entries: 65536, Now: func() time.Time { return epoch }})
	tickets := make([]Ticket, len(tr.packets))
	for _, e := range events {
		now := epoch.Add(time.Duration(e.at) * time.Microsecond)
		p := tr.packets[e.i]
		var v Verdict
		if e.query {
			v, tickets[e.i] = tab.Query(p.client, p.id, p.qtype, p.name, now)
		} else {
			v, _ = tab.Answer(tickets[e.i], now)
		}
		if v.Confidence == Low {
			low++
		} else if v != (Verdict{}) {
			wrong = append(wrong, fmt.Sprintf("%s %s at %v", v.Cause, v.Confidence, p))
		}
	}
	return low, wrong
}
