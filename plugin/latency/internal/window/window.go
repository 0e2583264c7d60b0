// Package window keeps the latencies of the last while: quantiles that are right
// to two percent, and the exact maximum.
//
// A window is a ring of slices of time. What is added goes to one of several
// shards, so that cores do not wait for each other, and from there, once a slice
// is over or somebody asks, into the ring. When the ring comes round, the oldest
// slice is forgotten as a whole.
package window

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/DataDog/sketches-go/ddsketch"
	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/store"
)

const (
	// perWindow is how many slices a window is made of. The window looks back over
	// its length and up to one slice more, as the slice that time is in has only
	// begun: with ten, a gauge over a minute forgets after 60 to 66 seconds.
	perWindow = 10

	// accuracy is the relative error of a quantile by the sketch. It is half of
	// what is promised.
	accuracy = .01

	// The sketch takes values in this range, others count as its ends (the
	// maximum is exact nevertheless). It bounds the memory: some 1,230 bins of 8 bytes.
	// No handler answers in less, no client waits for more.
	shortest = 100 * time.Nanosecond
	longest  = time.Hour

	// maxShards bounds the memory on machines with many cores. A shard is locked
	// for some 30 ns, so two cores that happen to choose the same one hardly
	// notice.
	maxShards = 32
)

// bins is the same for all sketches, which makes them mergeable. The logarithm is
// interpolated: half the time for one percent more bins.
var bins = func() mapping.IndexMapping {
	m, err := mapping.NewCubicallyInterpolatedMapping(accuracy)
	if err != nil {
		panic(err) // for an accuracy that is not between 0 and 1
	}
	return m
}()

// Window is safe for concurrent use. Make one with [New].
type Window struct {
	length time.Duration
	slice  time.Duration
	shards []shard

	mu    sync.Mutex // guards the following; taken with a shard's lock held, never before it
	ring  [perWindow + 1]part
	count uint64
	sum   float64
}

// part is what was added during one slice of time.
type part struct {
	turn   int64 // the number of the slice
	sketch *ddsketch.DDSketch
	max    time.Duration
	sum    float64 // seconds
}

type shard struct {
	mu sync.Mutex
	part
	_ [64]byte // a cache line between one shard's numbers and the next one's
}

// New returns a window that looks back over length.
func New(length time.Duration) *Window {
	n := 1
	for n < min(runtime.GOMAXPROCS(0), maxShards) {
		n *= 2
	}
	w := &Window{length: length, slice: max(length/perWindow, 1), shards: make([]shard, n)}
	for i := range w.shards {
		w.shards[i].sketch = newSketch()
	}
	return w
}

func newSketch() *ddsketch.DDSketch {
	return ddsketch.NewDDSketch(bins, store.NewDenseStore(), store.NewDenseStore())
}

// Length returns how far the window looks back.
func (w *Window) Length() time.Duration { return w.length }

// turn returns the number of the slice that now is in.
func (w *Window) turn(now time.Duration) int64 { return int64(max(now, 0) / w.slice) }

// Add adds a latency that was measured at now, which is the time since any moment
// that stays the same for the window.
func (w *Window) Add(d, now time.Duration) {
	turn := w.turn(now)
	s := &w.shards[rand.Uint32()&uint32(len(w.shards)-1)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turn < turn {
		w.store(s)
		s.turn = turn
	}
	s.sum += d.Seconds()
	s.max = max(s.max, d)
	// There is no error for a value in the range.
	_ = s.sketch.Add(min(max(d, shortest), longest).Seconds())
}

// store moves the shard's part to the ring. The shard is locked.
func (w *Window) store(s *shard) {
	if s.sketch.IsEmpty() {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count += uint64(s.sketch.GetCount())
	w.sum += s.sum
	// A slot with a later turn than this part's means that the part is as old as
	// the window is long: nobody used this shard meanwhile.
	if slot := &w.ring[s.turn%int64(len(w.ring))]; slot.sketch == nil || slot.turn <= s.turn {
		slot.add(&s.part)
	}
	s.sketch.Clear()
	s.max, s.sum = 0, 0
}

// add adds o to the slot of its turn.
func (p *part) add(o *part) {
	if p.sketch == nil {
		p.sketch = newSketch()
	}
	if p.turn != o.turn {
		p.sketch.Clear()
		p.max, p.turn = 0, o.turn
	}
	p.max = max(p.max, o.max)
	_ = p.sketch.MergeWith(o.sketch) // fails for other bins only
}

// Snapshot is what a window holds at a time.
type Snapshot struct {
	Quantiles map[float64]float64 // in seconds; empty when nothing was added during the window
	Max       time.Duration       // exact
	Count     uint64              // of all that was ever added
	Sum       float64             // in seconds, likewise
}

// Snapshot returns the quantiles of what was added during the window that ends
// now. It costs some hundred times what Add does.
func (w *Window) Snapshot(now time.Duration, quantiles ...float64) Snapshot {
	turn := w.turn(now)
	for i := range w.shards {
		s := &w.shards[i]
		s.mu.Lock()
		w.store(s)
		s.mu.Unlock()
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	r := Snapshot{Count: w.count, Sum: w.sum, Quantiles: map[float64]float64{}}
	all := newSketch()
	for i := range w.ring {
		if p := &w.ring[i]; p.sketch != nil && p.turn > turn-int64(len(w.ring)) {
			_ = all.MergeWith(p.sketch)
			r.Max = max(r.Max, p.max)
		}
	}
	if all.IsEmpty() {
		return r
	}
	n := all.GetCount()
	for _, q := range quantiles {
		if q < 0 || q > 1 {
			continue
		}
		// The smallest value that a share of q is not above: with few values, the
		// 99.9th percentile is the largest. The sketch counts ranks from 0 to n-1
		// and rounds down, and half a rank keeps it clear of rounding.
		rank := max(math.Ceil(q*n-1e-9)-1, 0)
		if v, err := all.GetValueAtQuantile(min((rank+.5)/max(n-1, 1), 1)); err == nil {
			r.Quantiles[q] = min(v, max(r.Max, shortest).Seconds())
		}
	}
	return r
}
