package peers_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/resolute-dns/resolute/test/peers/fault"
	"github.com/resolute-dns/resolute/test/peers/load"
)

// TestSoak has upstreams break and heal at random, one after the other, and looks
// at what the server is left with afterwards. PEERS_SOAK says for how long; the
// binary may be one with the race detector.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	duration := 20 * time.Second
	if text := os.Getenv("PEERS_SOAK"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	directive := sides(t)[len(sides(t))-1] // without ours, the test tests itself
	s := startSide(t, directive, upstreams(t, 3), corefile{})
	w := watch(t)
	conf := load.Config{Server: s.addr, QPS: 300}

	// The same load without faults makes what is made once and kept.
	l := load.Start(t, conf)
	pace(3 * time.Second)
	if r := l.Stop(t, w); r.Failed() > 0 {
		t.Fatalf("%d of %d queries failed without any fault", r.Failed(), len(r))
	}
	before := s.resources(t)

	queries, failed, slow := 0, 0, 0
	rng := rand.New(rand.NewPCG(uint64(duration), 1))
	for end := time.Now().Add(duration); time.Now().Before(end); {
		// A load of its own for each fault: all the results of ten minutes are not
		// to be kept.
		l := load.Start(t, conf)
		u := s.upstreams[rng.IntN(len(s.upstreams))]
		m := soakModes[rng.IntN(len(soakModes))]
		u.Set(t, m)
		pace(time.Duration(500+rng.IntN(2500)) * time.Millisecond)
		u.Set(t, fault.Healthy)
		if directive == ours {
			// Two faults at a time are more than is promised.
			if !await(patience, s.up) {
				t.Fatalf("%s is not used again after %+v", u.Addr, m)
			}
		}
		r := l.Stop(t, w)
		queries += len(r)
		failed += r.Failed()
		slow += r.Slower(noWait)
		if n := r.Failed(); n > 0 {
			lost := len(r.Where((*load.Query).Lost))
			bad := r.Where((*load.Query).Failed)
			t.Logf("%s %+v: %d failed, %d of them without any reply, from %v to %v; threads of the server have waited %v for a processor in all",
				u.Addr, m, n, lost, bad[0].Sent.Format(time.StampMilli), bad.Last().Format(time.StampMilli), s.starved())
		}
	}
	t.Logf("%s: %d queries, %d failed, %d took over %v, %v ejections", directive, queries, failed, slow, noWait, s.metrics.sum("coredns_failover_ejections_total"))
	if directive == ours && failed > 0 {
		t.Errorf("%d of %d queries failed\n%s", failed, queries, s.srv.Log())
	}

	// What an ended query leaves behind goes within seconds.
	var after resources
	if !await(patience, func() bool { after = s.resources(t); return after.near(before) }) {
		t.Errorf("before the faults %v, long after them %v", before, after)
	}
	t.Logf("before the faults %v, after them %v", before, after)
	for _, bad := range []string{"DATA RACE", "panic", "Recovered from"} {
		if log := s.srv.Log(); strings.Contains(log, bad) {
			t.Errorf("%q in the log:\n%s", bad, log)
		}
	}
}

var soakModes = []fault.Mode{
	fault.Dead, fault.OnlyProbes, fault.Drops(.3), fault.Drops(.1), fault.Slow(300 * time.Millisecond), fault.Slow(800 * time.Millisecond),
	fault.Servfail, fault.Refused, fault.Closed, fault.Blackhole, fault.Flaps(300 * time.Millisecond), fault.Healthy,
}

// resources is what a server has of what can leak.
type resources struct {
	goroutines, files int
	memory            int64 // resident, in bytes
}

func (r resources) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %d MiB", r.goroutines, r.files, r.memory>>20)
}

// near reports whether r is not more than what changes by itself: a connection or
// two of each upstream, what the runtime keeps of the heap of a busier time.
func (r resources) near(base resources) bool {
	return r.goroutines <= base.goroutines+20 && r.files <= base.files+30 && r.memory <= base.memory*3/2+32<<20
}

func (s *side) resources(t *testing.T) (r resources) {
	t.Helper()
	r.goroutines = int(s.metrics.sum("go_goroutines"))
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.srv.PID()))
	if err != nil {
		t.Fatalf("%v\n%s", err, s.srv.Log())
	}
	r.files = len(files)
	status, err := os.Open(fmt.Sprintf("/proc/%d/status", s.srv.PID()))
	if err != nil {
		t.Fatal(err)
	}
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "VmRSS: %d kB", &r.memory); err == nil {
			r.memory <<= 10
			break
		}
	}
	if r.goroutines == 0 || r.memory == 0 {
		t.Fatalf("no numbers: %v", r)
	}
	return r
}
