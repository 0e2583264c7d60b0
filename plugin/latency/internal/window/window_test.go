package window

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// start is some moment in the life of a process, at which a slice begins.
const start = 5 * time.Hour

// inputs are latencies as they come, in seconds.
var inputs = map[string]func(r *rand.Rand) float64{
	"uniform": func(r *rand.Rand) float64 { return .0001 + r.Float64()*.1 },
	// Hits of the cache, and what stalls for 5 s.
	"bimodal": func(r *rand.Rand) float64 {
		if r.Float64() < .005 {
			return 5 + r.NormFloat64()*.01
		}
		return .00005 + r.ExpFloat64()*.00002
	},
	// Pareto with infinite variance.
	"heavy-tailed": func(r *rand.Rand) float64 { return .0002 * math.Pow(1-r.Float64(), -1/1.1) },
	"constant":     func(*rand.Rand) float64 { return .002 },
	"drifting":     nil, // see below: another distribution in each slice
}

// TestQuantiles compares with the exact quantiles of the same latencies, while the
// window turns over several times.
func TestQuantiles(t *testing.T) {
	const length, perSlice, slice = time.Minute, 4000, time.Minute / 10
	quantiles := []float64{.5, .9, .99, .999}
	for name, next := range inputs {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			w := New(length)
			var bySlice [][]float64
			for turn := range 35 {
				in := next
				if in == nil {
					scale := math.Pow(3, float64(turn%7))
					in = func(r *rand.Rand) float64 { return .0001 * scale * (1 + r.ExpFloat64()) }
				}
				var added []float64
				for i := range perSlice {
					d := time.Duration(in(rng) * 1e9)
					now := start + (time.Duration(turn)*slice + time.Duration(i)*slice/perSlice)
					w.Add(d, now)
					added = append(added, d.Seconds())
					if i != perSlice/2 && i != perSlice-1 {
						continue
					}
					// What the window looks back over: this slice and ten before.
					exact := slices.Concat(append(slices.Clone(bySlice[max(0, turn-10):]), added)...)
					slices.Sort(exact)
					got := w.Snapshot(now, quantiles...)
					for _, q := range quantiles {
						want := exact[int(math.Ceil(q*float64(len(exact))-1e-9))-1]
						if math.Abs(got.Quantiles[q]-want) > .02*want {
							t.Errorf("slice %d: quantile %v is %v, want %v", turn, q, got.Quantiles[q], want)
						}
					}
					if want := exact[len(exact)-1]; got.Max.Seconds() != want {
						t.Errorf("slice %d: maximum is %v, want %v", turn, got.Max.Seconds(), want)
					}
					if want := uint64(turn*perSlice + i + 1); got.Count != want {
						t.Errorf("slice %d: count is %d, want %d", turn, got.Count, want)
					}
				}
				bySlice = append(bySlice, added)
			}
		})
	}
}

// TestTurning follows one latency through its window.
func TestTurning(t *testing.T) {
	const length = time.Minute
	w := New(length)
	w.Add(5*time.Second, start+time.Second)
	w.Add(time.Millisecond, start+30*time.Second)
	for _, tc := range []struct {
		at  time.Duration
		max time.Duration
		p50 float64
	}{
		{time.Second, 5 * time.Second, .001},
		{61 * time.Second, 5 * time.Second, .001},
		{66 * time.Second, time.Millisecond, .001},
		{95 * time.Second, time.Millisecond, .001},
		{97 * time.Second, 0, 0},
		{24 * time.Hour, 0, 0},
	} {
		got := w.Snapshot(start+tc.at, .5)
		if got.Max != tc.max || math.Abs(got.Quantiles[.5]-tc.p50) > .02*tc.p50 {
			t.Errorf("after %v: max %v, p50 %v, want %v and %v", tc.at, got.Max, got.Quantiles[.5], tc.max, tc.p50)
		}
		if _, ok := got.Quantiles[.5]; ok != (tc.max > 0) {
			t.Errorf("after %v: a quantile of nothing, or none of something", tc.at)
		}
		if got.Count != 2 || got.Sum != 5.001 {
			t.Errorf("after %v: count %d and sum %v", tc.at, got.Count, got.Sum)
		}
	}
	// The shards were not used for days: what they hand in now is too old.
	w.Add(time.Second, start+48*time.Hour)
	if got := w.Snapshot(start+48*time.Hour, .5); got.Max != time.Second || got.Count != 3 {
		t.Errorf("after a long rest: %+v", got)
	}
}

// TestFew checks the quantiles of few values: none is better than the values are.
func TestFew(t *testing.T) {
	w := New(time.Minute)
	for n := 1; n <= 20; n++ {
		w.Add(time.Duration(n)*time.Second, start)
		got := w.Snapshot(start, 0, .5, .9, .999, 1)
		for q, want := range map[float64]float64{0: 1, .5: math.Ceil(.5 * float64(n)), .9: math.Ceil(.9*float64(n) - 1e-9), .999: float64(n), 1: float64(n)} {
			if math.Abs(got.Quantiles[q]-want) > .02*want {
				t.Errorf("of %d values: quantile %v is %v, want %v", n, q, got.Quantiles[q], want)
			}
		}
	}
}

// TestLateShard checks that a part that a shard hands in after the ring has come
// round does not show up as new, nor deletes what is.
func TestLateShard(t *testing.T) {
	w := New(time.Minute)
	newPart := func(d time.Duration, turn int64) *shard {
		s := &shard{part: part{turn: turn, sketch: newSketch(), max: d}}
		if err := s.sketch.Add(d.Seconds()); err != nil {
			t.Fatal(err)
		}
		return s
	}
	const late = perWindow + 3 // the same place in the ring as 2
	w.store(newPart(time.Second, late))
	w.store(newPart(3*time.Second, 2))
	got := w.Snapshot(late*w.slice, .5)
	if got.Max != time.Second || math.Abs(got.Quantiles[.5]-1) > .02 || got.Count != 2 {
		t.Errorf("got %+v, want what is new", got)
	}
}

// TestRange checks what is shorter or longer than the sketch takes, and clocks that
// go backwards.
func TestRange(t *testing.T) {
	w := New(time.Minute)
	for _, d := range []time.Duration{0, -time.Second, 1, 30 * time.Hour} {
		w.Add(d, -time.Hour)
	}
	got := w.Snapshot(-time.Minute, 0, 1)
	if got.Count != 4 || got.Max != 30*time.Hour {
		t.Errorf("got %+v", got)
	}
	if q := got.Quantiles[0]; math.Abs(q-shortest.Seconds()) > accuracy*q {
		t.Errorf("the shortest is %v", q)
	}
	if q := got.Quantiles[1]; math.Abs(q-longest.Seconds()) > accuracy*q {
		t.Errorf("the longest is %v", q)
	}
	if got := w.Snapshot(-time.Minute, -1, 2); len(got.Quantiles) != 0 {
		t.Errorf("quantiles of nonsense: %v", got.Quantiles)
	}
	if w.Length() != time.Minute {
		t.Errorf("length is %v", w.Length())
	}
}

// TestConcurrent adds from many goroutines while others look, over several turns
// of the window, and checks that nothing is lost or counted twice.
func TestConcurrent(t *testing.T) {
	const goroutines, each = 8, 3000
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(goroutines))
	w := New(10 * time.Second)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range each {
				w.Add(time.Duration(1+g)*time.Millisecond, start+time.Duration(i)*10*time.Millisecond)
			}
		})
	}
	wg.Go(func() {
		var before uint64
		for i := range 100 {
			got := w.Snapshot(start+time.Duration(i)*300*time.Millisecond, .5, .999)
			if got.Count < before {
				t.Errorf("count went from %d to %d", before, got.Count)
			}
			before = got.Count
		}
	})
	wg.Wait()
	got := w.Snapshot(start+each*10*time.Millisecond, .999)
	want := float64(each*goroutines*(goroutines+1)/2) / 1000
	if got.Count != goroutines*each || math.Abs(got.Sum-want) > 1e-6 {
		t.Errorf("count %d and sum %v, want %d and %v", got.Count, got.Sum, goroutines*each, want)
	}
	if got.Max != goroutines*time.Millisecond {
		t.Errorf("max is %v", got.Max)
	}
}

// TestMemory checks that a window stays as large as the range of what it takes
// allows, however much is added.
func TestMemory(t *testing.T) {
	w := New(time.Minute)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	fill := func(n, from int) {
		rng := rand.New(rand.NewPCG(3, 4))
		for i := range n {
			d := time.Duration(math.Exp(rng.Float64()*math.Log(float64(longest)*10)) * float64(shortest) / 10)
			w.Add(d, start+time.Duration(from+i)*time.Millisecond)
		}
	}
	before := heap()
	fill(100_000, 0)
	full := heap()
	fill(1_000_000, 100_000)
	after := heap()
	runtime.KeepAlive(w)
	parts := uint64(len(w.shards) + len(w.ring))
	if limit := parts * 32 << 10; full-before > limit {
		t.Errorf("a window of %d parts takes %d bytes, want at most %d", parts, full-before, limit)
	}
	if after > full+64<<10 {
		t.Errorf("it grew from %d to %d bytes", full-before, after-before)
	}
	t.Logf("%d bytes in %d parts", after-before, parts)
}

func BenchmarkAdd(b *testing.B) {
	for _, procs := range []int{1, runtime.GOMAXPROCS(0)} {
		b.Run(fmt.Sprint(procs), func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			w := New(time.Minute)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					w.Add(time.Duration(100000+i%1000000), start+time.Duration(i)*10*time.Microsecond)
				}
			})
		})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	w := New(time.Minute)
	for i := range 1000000 {
		w.Add(time.Duration(i*1000), start+time.Duration(i)*60*time.Microsecond)
	}
	for b.Loop() {
		w.Snapshot(start+time.Minute, .5, .9, .99, .999)
	}
}
