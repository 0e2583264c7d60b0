package stub

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/dnstest"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/resolvconf"

	"golang.org/x/net/dns/dnsmessage"
)

// resolver returns one with servers and options.
func resolver(t *testing.T, libc Libc, options string, n Network, servers []netip.AddrPort) *Resolver {
	t.Helper()
	c := resolvconf.Parse("options " + options + "\nsearch x.test\n")
	c.Nameservers = servers
	r, err := New(Options{Libc: libc, Family: Any, Config: c, Network: n, Rand: rand.New(rand.NewPCG(1, 2))})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wire writes packets as "seconds server.socket type", IDs left out.
func wire(packets []dnstest.Packet) string {
	ports := map[netip.AddrPort]int{}
	var all []string
	for _, p := range packets {
		if _, ok := ports[p.From]; !ok {
			ports[p.From] = len(ports) + 1
		}
		tcp := ""
		if p.TCP {
			tcp = "tcp"
		}
		all = append(all, fmt.Sprintf("%v %d.%d%s %s", p.At.Sub(packets[0].At).Seconds(), p.Server+1, ports[p.From], tcp, p.Type))
	}
	return strings.Join(all, ", ")
}

// TestTimes has the default timeout of 5 s, in synthetic time.
func TestTimes(t *testing.T) {
	tests := map[string]struct {
		libc    Libc
		options string
		servers int
		script  dnstest.Script
		want    string
		took    time.Duration
		status  Status
		lost    Types
	}{
		"answered": {Glibc, "", 1, always(dnstest.OK), "0 1.1 A, 0 1.1 AAAA", 0, OK, Types{}},
		"AAAA lost": {Glibc, "", 1, lose("AAAA", 1),
			"0 1.1 A, 0 1.1 AAAA, 5 1.1 A, 5 1.1 AAAA", 5 * time.Second, OK, Types{AAAA: true}},
		"AAAA lost twice": {Glibc, "", 1, lose("AAAA", 2),
			"0 1.1 A, 0 1.1 AAAA, 5 1.1 A, 5 1.1 AAAA, 10 1.2 A, 10 1.3 AAAA", 10 * time.Second, OK, Types{AAAA: true}},
		"AAAA lost always": {Glibc, "", 1, lose("AAAA", 9),
			"0 1.1 A, 0 1.1 AAAA, 5 1.1 A, 5 1.1 AAAA, 10 1.2 A, 10 1.3 AAAA", 15 * time.Second, OK, Types{AAAA: true}},
		"both lost": {Glibc, "", 1, lose("", 1),
			"0 1.1 A, 0 1.1 AAAA, 5 1.1 A, 5 1.1 AAAA", 5 * time.Second, OK, Types{A: true, AAAA: true}},
		"three dead servers": {Glibc, "attempts:1", 3, always(dnstest.Drop),
			"0 1.1 A, 0 1.1 AAAA, 5 2.2 A, 5 2.2 AAAA, 8 3.3 A, 8 3.3 AAAA", 14 * time.Second, TryAgain, Types{A: true, AAAA: true}},
		"sockets are kept by server": {Glibc, "timeout:2", 2, always(dnstest.Drop),
			"0 1.1 A, 0 1.1 AAAA, 2 2.2 A, 2 2.2 AAAA, 4 1.1 A, 4 1.1 AAAA, 6 2.2 A, 6 2.2 AAAA", 8 * time.Second, TryAgain, Types{A: true, AAAA: true}},
		"musl, AAAA lost": {Musl, "", 1, lose("AAAA", 1),
			"0 1.1 A, 0 1.1 AAAA, 2.5 1.1 AAAA", 2500 * time.Millisecond, OK, Types{AAAA: true}},
		"musl, all lost": {Musl, "", 2, always(dnstest.Drop),
			"0 1.1 A, 0 2.1 A, 0 1.1 AAAA, 0 2.1 AAAA, 2.5 1.1 A, 2.5 2.1 A, 2.5 1.1 AAAA, 2.5 2.1 AAAA", 5 * time.Second, TryAgain, Types{A: true, AAAA: true}},
		"musl, SERVFAIL": {Musl, "timeout:1 attempts:1", 1, always(dnstest.ServFail),
			"0 1.1 A, 0 1.1 AAAA, 0 1.1 A, 0 1.1 AAAA, 0 1.1 A, 0 1.1 AAAA", time.Second, TryAgain, Types{A: true, AAAA: true}},
		"musl, truncated": {Musl, "", 1, truncated, "0 1.1 A, 0 1.1 AAAA, 0 1.2tcp A, 0 1.3tcp AAAA", 0, OK, Types{}},
		"truncated":       {Glibc, "", 1, truncated, "0 1.1 A, 0 1.1 AAAA, 0 1.2tcp A, 0 1.2tcp AAAA", 0, OK, Types{}},
		"no attempts":     {Glibc, "attempts:0", 1, always(dnstest.OK), "", 0, TryAgain, Types{}},
		"no time in musl": {Musl, "timeout:0", 1, always(dnstest.OK), "", 0, TryAgain, Types{}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := dnstest.NewMemory(tc.script, tc.servers)
				start := time.Now()
				res := resolver(t, tc.libc, tc.options, n, n.Servers).Lookup(t.Context(), "a.example.")
				if got := wire(n.Packets()); got != tc.want {
					t.Errorf("sent    %s\nwant    %s", got, tc.want)
				}
				if took := time.Since(start); took != tc.took || res.Status != tc.status || res.Lost != tc.lost {
					t.Errorf("%s after %v, lost %+v; want %s after %v, lost %+v", res.Status, took, res.Lost, tc.status, tc.took, tc.lost)
				}
				udp, tcp := 0, 0
				for _, p := range n.Packets() {
					if p.TCP {
						tcp++
					} else {
						udp++
					}
				}
				if res.SentUDP != udp || res.SentTCP != tcp {
					t.Errorf("counted %d and %d packets, sent %d and %d", res.SentUDP, res.SentTCP, udp, tcp)
				}
			})
		})
	}
}

// TestLateAnswer is slow without loss.
func TestLateAnswer(t *testing.T) {
	for _, libc := range []Libc{Glibc, Musl} {
		synctest.Test(t, func(t *testing.T) {
			n := dnstest.NewMemory(always(dnstest.OK), 1)
			n.Delay = 2 * time.Second
			start := time.Now()
			res := resolver(t, libc, "", n, n.Servers).Lookup(t.Context(), "a.example.")
			if took := time.Since(start); took != n.Delay || res.Status != OK || res.Lost != (Types{}) || res.Timeouts != 0 {
				t.Errorf("%s: %s after %v, lost %+v", libc, res.Status, took, res.Lost)
			}
		})
	}
}

// TestKeep is about what a glibc thread remembers of a lost reply.
func TestKeep(t *testing.T) {
	for keep, want := range map[bool]string{false: "0 1.1 A, 0 1.1 AAAA", true: "0 1.1 A, 0 1.1 AAAA"} {
		synctest.Test(t, func(t *testing.T) {
			n := dnstest.NewMemory(loseFirstAAAA, 1)
			r := resolver(t, Glibc, "", n, n.Servers)
			r.Keep = keep
			r.Lookup(t.Context(), "a.example.")
			if r.single != true {
				t.Error("nothing was learnt")
			}
			r.Lookup(t.Context(), "b.example.")
			if r.single != keep {
				t.Errorf("keep %v: one query at a time: %v", keep, r.single)
			}
			packets := n.Packets()
			if got := wire(packets[4:]); got != want {
				t.Errorf("keep %v: %s", keep, got)
			}
		})
	}
}

// TestRealSockets looks names up over real sockets, packet by packet.
func TestRealSockets(t *testing.T) {
	for _, libc := range []Libc{Glibc, Musl} {
		log, servers := dnstest.Serve(t, byType(dnstest.OK, dnstest.NoData), 1)
		res := resolver(t, libc, "ndots:2", nil, servers).Lookup(t.Context(), "a.example")
		if res.Status != OK || len(res.Addrs) != 1 || res.Questions != 1 || res.Sockets != 1 {
			t.Errorf("%s: %+v", libc, res)
		}
		p := log.Packets()
		if len(p) != 2 || p[0].Type != "A" || p[1].Type != "AAAA" || p[0].From != p[1].From || p[0].ID == p[1].ID || p[0].Name != "a.example.x.test" {
			t.Errorf("%s sent %+v", libc, p)
		}
	}
}

// TestRealTCP uses the system's TCP.
func TestRealTCP(t *testing.T) {
	log, servers := dnstest.Serve(t, always(dnstest.OK), 1)
	res := resolver(t, Glibc, "use-vc", nil, servers).Lookup(t.Context(), "a.example.")
	p := log.Packets()
	if res.Status != OK || len(p) != 2 || !p[0].TCP || p[0].From != p[1].From {
		t.Errorf("%+v after %+v", res, p)
	}
	if len(res.Replies) != 2 || !res.Replies[0].TCP || res.Replies[0].Rcode != "NOERROR" || !res.Replies[0].RA {
		t.Errorf("replies %+v", res.Replies)
	}
}

// TestCancel gives up while a server is silent.
func TestCancel(t *testing.T) {
	for _, libc := range []Libc{Glibc, Musl} {
		for _, options := range []string{"", "use-vc"} {
			ctx, cancel := context.WithCancel(t.Context())
			_, servers := dnstest.Serve(t, func(dnstest.Packet) dnstest.Kind {
				cancel()
				return dnstest.Drop
			}, 1)
			if res := resolver(t, libc, options, nil, servers).Lookup(ctx, "a.example."); res.Status != Canceled {
				t.Errorf("%s %q: %s", libc, options, res.Status)
			}
		}
	}
}

// TestDiscarded goes through what the rule of send_dg looks at.
func TestDiscarded(t *testing.T) {
	for i := range 1 << 5 {
		on := func(bit int) bool { return i&(1<<bit) != 0 }
		m := message{aa: on(0), ra: on(1)}
		if on(2) {
			m.answers = 1
		}
		if on(3) {
			m.extra = 1
		}
		if on(4) {
			m.rcode = dnsmessage.RCodeNameError
		}
		if got := m.discarded(); got != (i == 0) {
			t.Errorf("%+v: discarded %v", m, got)
		}
	}
}

func TestNewErrors(t *testing.T) {
	good := Options{Libc: Glibc, Family: Any, Rand: rand.New(rand.NewPCG(1, 2))}
	for name, change := range map[string]func(*Options){
		"libc":       func(o *Options) { o.Libc = "bsd" },
		"family":     func(o *Options) { o.Family = "7" },
		"randomness": func(o *Options) { o.Rand = nil },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParseMessage must not panic, whatever a server sends.
func FuzzParseMessage(f *testing.F) {
	q, err := newQuery(1, "a.example", dnsmessage.TypeA, true, true)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(q.wire)
	f.Add([]byte("\x00\x01\x84\x00\x00\x01\x00\x01\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x7f\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := parseMessage(b)
		if !ok && len(m.addrs) > 0 {
			t.Error("addresses from no message")
		}
		m.answersTo(&q)
		m.discarded()
	})
}

// FuzzNewQuery must not panic, whatever a user types.
func FuzzNewQuery(f *testing.F) {
	f.Add("a.example")
	f.Add("..")
	f.Fuzz(func(t *testing.T, name string) {
		if q, err := newQuery(1, name, dnsmessage.TypeA, false, false); err == nil && len(q.wire) < headerSize {
			t.Errorf("%q gave %d bytes", name, len(q.wire))
		}
	})
}
