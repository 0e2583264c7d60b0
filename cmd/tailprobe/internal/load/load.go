// Package load looks names up at many workers for a while, against several sets
// of name servers side by side, and hands every result to a collector.
package load

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/resolvconf"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/stub"
)

// Plan says what to do.
type Plan struct {
	Names   []string // looked up in turn
	Random  bool     // with a random label before the name, which no cache has
	Libc    stub.Libc
	Family  stub.Family
	Keep    bool          // workers remember what glibc's threads learn
	Workers int           // of each target
	For     time.Duration // no lookup starts, or was to start, later
	Count   int           // at most so many lookups of each target; 0: no limit
	Rate    float64       // lookups a second of each target; 0: each worker as fast as it can
	GiveUp  time.Duration // after which a lookup is abandoned
	Seed    uint64
	Network stub.Network // nil: the machine's
}

// Target is a set of name servers, as one resolv.conf has them.
type Target struct {
	Name   string
	Config resolvconf.Config
}

// Sample is one lookup.
type Sample struct {
	Name   string
	Start  time.Time     // when it was to start
	Took   time.Duration // since Start: with a rate, the wait for a worker included
	Result stub.Result
}

// Collector gets the samples of one target, from many goroutines.
type Collector interface {
	Add(Sample)

	// Unstarted gets a lookup that was to start, and for which no worker was free
	// until the end: for how long it had waited by then.
	Unstarted(waited time.Duration)
}

// Run carries out the plan for all targets at the same time, each with its own
// collector. Lookups under way at the end of the time are waited for; when ctx
// ends, they are given up.
func (p Plan) Run(ctx context.Context, targets []Target, collectors []Collector) error {
	var all sync.WaitGroup
	start := time.Now()
	for i, t := range targets {
		r := &run{Plan: p, start: start, target: t, to: collectors[i]}
		r.rotation.Store(rand.New(rand.NewPCG(p.Seed, uint64(i))).Uint32())
		for w := range p.Workers {
			rng := rand.New(rand.NewPCG(p.Seed, uint64(i)<<32|uint64(w)+1))
			resolver, err := stub.New(stub.Options{
				Libc: p.Libc, Family: p.Family, Config: t.Config, Network: p.Network,
				Rand: rng, Rotation: &r.rotation, Keep: p.Keep,
			})
			if err != nil {
				return err
			}
			// Not all at the same instant: some hundred packets at once overflow the
			// receive buffer of a healthy server.
			first := start
			if p.Rate <= 0 {
				first = start.Add(min(maxRamp, p.For/10) * time.Duration(w) / time.Duration(p.Workers))
			}
			r.workers.Go(func() {
				if sleepUntil(ctx, first) {
					r.work(ctx, resolver, rng)
				}
			})
		}
		all.Go(func() {
			r.workers.Wait()
			r.settle(ctx)
		})
	}
	all.Wait()
	return nil
}

// run is the load on one target.
type run struct {
	Plan
	start    time.Time
	target   Target
	to       Collector
	tickets  atomic.Int64
	rotation atomic.Uint32
	workers  sync.WaitGroup
}

// interval is the time between the starts of lookups at a rate.
func (r *run) interval(n int64) time.Duration {
	return time.Duration(float64(n) / r.Rate * float64(time.Second))
}

// work looks names up until the time is over.
func (r *run) work(ctx context.Context, resolver *stub.Resolver, rng *rand.Rand) {
	for ctx.Err() == nil {
		if time.Since(r.start) >= r.For {
			return
		}
		ticket := r.tickets.Add(1) - 1
		if r.Count > 0 && ticket >= int64(r.Count) {
			r.tickets.Add(-1)
			return
		}
		start := time.Now()
		if r.Rate > 0 {
			// The start is that of the schedule, however late a worker is free:
			// otherwise slow lookups would hide those that wait behind them.
			start = r.start.Add(r.interval(ticket))
			if start.Sub(r.start) >= r.For || !sleepUntil(ctx, start) {
				r.tickets.Add(-1)
				return
			}
		}
		name := r.Names[ticket%int64(len(r.Names))]
		if r.Random {
			name = label(rng) + "." + name
		}
		lookup, cancel := context.WithTimeout(ctx, r.GiveUp)
		res := resolver.Lookup(lookup, name)
		cancel()
		if ctx.Err() != nil && res.Status == stub.Canceled {
			return // by the user: says nothing about the server
		}
		r.to.Add(Sample{Name: name, Start: start, Took: time.Since(start), Result: res})
	}
}

// settle accounts for what the schedule had and nobody started.
func (r *run) settle(ctx context.Context) {
	if r.Rate <= 0 || ctx.Err() != nil {
		return
	}
	for n := r.tickets.Load(); r.interval(n) < r.For && (r.Count == 0 || n < int64(r.Count)); n++ {
		r.to.Unstarted(r.For - r.interval(n))
	}
}

// label returns a label that no cache has.
func label(rng *rand.Rand) string {
	var b [6]byte
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return "tp-" + hex.EncodeToString(b[:])
}

func sleepUntil(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Check returns an error that names what doesn't make sense.
func (p Plan) Check() error {
	switch {
	case len(p.Names) == 0:
		return fmt.Errorf("no name to look up: give one, or a file of names with -f")
	case p.Workers < 1 || p.Workers > MaxWorkers:
		return fmt.Errorf("-c %d: valid is 1 to %d", p.Workers, MaxWorkers)
	case p.For <= 0:
		return fmt.Errorf("-d %v: valid is a time above 0, as in 30s", p.For)
	case p.Count < 0:
		return fmt.Errorf("-n %d: valid is 0 (no limit) or more", p.Count)
	case !(p.Rate >= 0 && p.Rate <= MaxRate):
		return fmt.Errorf("-rate %v: valid is 0 (as fast as -c workers can) to %d a second", p.Rate, int(MaxRate))
	case p.GiveUp <= 0:
		return fmt.Errorf("-give-up %v: valid is a time above 0, as in 60s", p.GiveUp)
	}
	return nil
}

// maxRamp is over which time the workers of a closed loop start, if that isn't
// more than a tenth of the run.
const maxRamp = time.Second

// Bounds that protect the pod from a typing error: a worker costs a socket and
// some 100 KB, and no stub needs a million lookups a second.
const (
	MaxWorkers = 10000
	MaxRate    = 1e6
)
