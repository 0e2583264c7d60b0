package load

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/dnstest"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/resolvconf"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/stub"
)

// keeper keeps everything.
type keeper struct {
	mu      sync.Mutex
	samples []Sample
	waited  []time.Duration
}

func (k *keeper) Add(s Sample) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.samples = append(k.samples, s)
}

func (k *keeper) Unstarted(d time.Duration) { k.waited = append(k.waited, d) }

func (k *keeper) took() (all []time.Duration) {
	for _, s := range k.samples {
		all = append(all, s.Took)
	}
	slices.Sort(all)
	return all
}

// target returns the target that is a network's servers.
func target(n *dnstest.Memory) Target {
	c := resolvconf.Default()
	c.Nameservers = n.Servers
	return Target{Name: "test", Config: c}
}

// answer answers everything.
func answer(dnstest.Packet) dnstest.Kind { return dnstest.OK }

func plan(n *dnstest.Memory) Plan {
	return Plan{
		Names: []string{"a.example.", "b.example."}, Libc: stub.Glibc, Family: stub.Any, Workers: 2,
		For: 10 * time.Second, GiveUp: time.Minute, Seed: 7, Network: n,
	}
}

func TestClosedLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := dnstest.NewMemory(answer, 1)
		n.Delay = time.Second
		k := new(keeper)
		if err := plan(n).Run(t.Context(), []Target{target(n)}, []Collector{k}); err != nil {
			t.Fatal(err)
		}
		// Two workers with lookups of a second for ten seconds.
		if len(k.samples) != 20 || k.took()[19] != time.Second {
			t.Errorf("%d lookups: %v", len(k.samples), k.took())
		}
		names := map[string]int{}
		for _, s := range k.samples {
			names[s.Name]++
		}
		if names["a.example."] != 10 || names["b.example."] != 10 {
			t.Errorf("names %v", names)
		}
	})
}

// TestOpenLoop has one worker that a lost packet stalls for 5 s: the lookups that
// were due in the meantime count with the time for which they waited.
func TestOpenLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := dnstest.NewMemory(func(p dnstest.Packet) dnstest.Kind {
			if p.Number < 2 {
				return dnstest.Drop
			}
			return dnstest.OK
		}, 1)
		k := new(keeper)
		p := plan(n)
		p.Workers, p.Rate = 1, 1
		if err := p.Run(t.Context(), []Target{target(n)}, []Collector{k}); err != nil {
			t.Fatal(err)
		}
		want := []time.Duration{0, 0, 0, 0, 0, 1, 2, 3, 4, 5}
		for i := range want {
			want[i] *= time.Second
		}
		if !slices.Equal(k.took(), want) || len(k.waited) != 0 {
			t.Errorf("took %v, want %v; unstarted %v", k.took(), want, k.waited)
		}
	})
}

// TestUnstarted has a worker that never comes back in time.
func TestUnstarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := dnstest.NewMemory(func(dnstest.Packet) dnstest.Kind { return dnstest.Drop }, 1)
		k := new(keeper)
		p := plan(n)
		p.Workers, p.Rate = 1, 1
		if err := p.Run(t.Context(), []Target{target(n)}, []Collector{k}); err != nil {
			t.Fatal(err)
		}
		if len(k.samples) != 1 || len(k.waited) != 9 || k.waited[0] != 9*time.Second || k.waited[8] != time.Second {
			t.Errorf("%d lookups, unstarted %v", len(k.samples), k.waited)
		}
	})
}

func TestCountAndGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := dnstest.NewMemory(func(dnstest.Packet) dnstest.Kind { return dnstest.Drop }, 1)
		k := new(keeper)
		p := plan(n)
		p.Count, p.GiveUp = 3, time.Second
		if err := p.Run(t.Context(), []Target{target(n)}, []Collector{k}); err != nil {
			t.Fatal(err)
		}
		if len(k.samples) != 3 || k.samples[0].Result.Status != stub.Canceled || k.samples[0].Took != time.Second {
			t.Errorf("%+v", k.samples)
		}
	})
}

// TestInterrupt ends a run; what was under way says nothing and isn't counted.
func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, servers := dnstest.Serve(t, func(p dnstest.Packet) dnstest.Kind {
		if p.Number >= 20 {
			cancel()
			return dnstest.Drop
		}
		return dnstest.OK
	}, 1)
	c := resolvconf.Default()
	c.Nameservers = servers
	k := new(keeper)
	p := plan(nil)
	p.Network, p.For = nil, time.Hour
	if err := p.Run(ctx, []Target{{Name: "test", Config: c}}, []Collector{k}); err != nil {
		t.Fatal(err)
	}
	if len(k.samples) == 0 || len(k.samples) > 10 {
		t.Errorf("%d lookups", len(k.samples))
	}
}

// TestSeed makes the same labels and IDs twice; another seed makes others.
func TestSeed(t *testing.T) {
	names := func(seed uint64) string {
		var all []string
		synctest.Test(t, func(t *testing.T) {
			n := dnstest.NewMemory(answer, 1)
			n.Delay = time.Second
			p := plan(n)
			p.Seed, p.Random = seed, true
			if err := p.Run(t.Context(), []Target{target(n)}, []Collector{new(keeper)}); err != nil {
				t.Fatal(err)
			}
			for _, q := range n.Packets() {
				all = append(all, fmt.Sprint(strings.SplitN(q.Name, ".", 2)[0], q.ID))
			}
		})
		sort.Strings(all)
		return strings.Join(all, " ")
	}
	if a, b, c := names(1), names(1), names(2); a != b || a == c || !strings.HasPrefix(a, "tp-") {
		t.Errorf("seeds 1, 1, 2:\n%s\n%s\n%s", a, b, c)
	}
}

func TestCheck(t *testing.T) {
	if err := plan(nil).Check(); err != nil {
		t.Error(err)
	}
	for flag, change := range map[string]func(*Plan){
		"-f": func(p *Plan) { p.Names = nil }, "-c": func(p *Plan) { p.Workers = 0 }, "-d": func(p *Plan) { p.For = 0 },
		"-n": func(p *Plan) { p.Count = -1 }, "-rate": func(p *Plan) { p.Rate = -1 }, "-give-up": func(p *Plan) { p.GiveUp = 0 },
	} {
		p := plan(nil)
		change(&p)
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

func TestReadNames(t *testing.T) {
	got, err := ReadNames(strings.NewReader("a.example\n\n# comment\n  b.example. # too\n"))
	if err != nil || strings.Join(got, " ") != "a.example b.example." {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"192.0.2.1", "::1", "a..b", ".a", "a b", "http://a", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a"} {
		if _, err := ReadNames(strings.NewReader("ok\n" + bad)); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
