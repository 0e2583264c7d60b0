package load

import (
	"testing"
	"time"

	"github.com/resolute-dns/resolute/test/peers/fault"

	"github.com/miekg/dns"
)

// run sends about n queries to a server in mode m.
func run(t *testing.T, m fault.Mode, n int, kind func(int) string) Result {
	t.Helper()
	u := fault.New(t, m)
	w := NewWatch()
	defer w.Stop()
	l := Start(t, Config{Server: u.Addr, QPS: 500, Kind: kind})
	for start := time.Now(); l.Count() < n; time.Sleep(tick) {
		if time.Since(start) > 30*time.Second {
			t.Fatalf("only %d queries were sent", l.Count())
		}
	}
	return l.Stop(t, w)
}

func TestLoad(t *testing.T) {
	r := run(t, fault.Healthy, 100, func(n int) string {
		if n%10 == 3 {
			return "slow"
		}
		return "q"
	})
	if len(r) < 100 || r.Failed() > 0 {
		t.Errorf("%d queries, %d failed: %+v", len(r), r.Failed(), r.Where((*Query).Failed))
	}
	for i := range r[1:] {
		if d := r[i+1].Sent.Sub(r[i].Sent); d != 2*time.Millisecond {
			t.Errorf("queries %d and %d are %v apart", i, i+1, d)
		}
	}
	slow, quick := r.Kind("slow"), r.Kind("q")
	if len(slow) < 10 || len(slow)+len(quick) != len(r) || slow.Slower(time.Second) != len(slow) || quick.Slower(time.Second) != 0 {
		t.Errorf("%d slow names, %d others, %d and %d over a second", len(slow), len(quick), slow.Slower(time.Second), quick.Slower(time.Second))
	}
	if n := len(r.Between(r[10].Sent, r[20].Sent)); n != 10 {
		t.Errorf("got %d of 10 queries", n)
	}
}

func TestFailures(t *testing.T) {
	r := run(t, fault.Refused, 20, nil)
	if r.Failed() != len(r) || r[0].Rcode != dns.RcodeRefused || r[0].Lost() {
		t.Errorf("%d of %d failed, the first: %+v", r.Failed(), len(r), r[0])
	}
	r = run(t, fault.Lame, 20, nil)
	if r.Failed() != len(r) || !r[0].Wrong {
		t.Errorf("%d of %d failed, the first: %+v", r.Failed(), len(r), r[0])
	}
}

func TestLost(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes as long as a query may take")
	}
	t.Parallel()
	r := run(t, fault.Dead, 20, nil)
	if r.Failed() != len(r) || !r[0].Lost() || r.Percentile(.5) != Deadline {
		t.Errorf("%d of %d failed, the first: %+v", r.Failed(), len(r), r[0])
	}
}

func TestPercentiles(t *testing.T) {
	r := Result{{}} // one is lost
	for i := range 999 {
		r = append(r, Query{Took: time.Duration(999-i) * time.Millisecond})
	}
	got := r.Percentiles(0, .5, .99, .999, 1)
	for i, want := range []time.Duration{1, 500, 990, 999, 6000} {
		if got[i] != want*time.Millisecond {
			t.Errorf("%d: got %v, want %v ms", i, got[i], int64(want))
		}
	}
	if got := (Result{}).Percentile(.5); got != 0 {
		t.Errorf("nothing: got %v", got)
	}
}

func TestWatch(t *testing.T) {
	w := &Watch{}
	at := func(ms int) time.Time { return time.Unix(0, 0).Add(time.Duration(ms) * time.Millisecond) }
	w.saw(at(100), at(120))
	w.saw(at(130), at(131)) // too short to count
	w.saw(at(200), at(250))
	for _, tc := range []struct{ from, to, lost, longest int }{
		{0, 100, 0, 0}, {0, 110, 10, 20}, {105, 110, 5, 20}, {110, 220, 30, 50}, {0, 1000, 70, 50}, {250, 300, 0, 0},
	} {
		if got := w.Lost(at(tc.from), at(tc.to)); got != time.Duration(tc.lost)*time.Millisecond {
			t.Errorf("%d to %d: lost %v, want %d ms", tc.from, tc.to, got, tc.lost)
		}
		if got := w.Longest(at(tc.from), at(tc.to)); got != time.Duration(tc.longest)*time.Millisecond {
			t.Errorf("%d to %d: longest %v, want %d ms", tc.from, tc.to, got, tc.longest)
		}
	}
}
