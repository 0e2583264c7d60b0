package report

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/load"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/resolvconf"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/stub"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The histogram counts microseconds up to ten minutes, more than any library
// waits, with an error below 0.1 %.
const (
	lowest  = 1
	highest = int64(10 * time.Minute / time.Microsecond)
	digits  = 3
)

// edges are the times over which lookups are counted: glibc waits 5 s and, with
// two attempts, 10; musl 2.5 s.
var edges = []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 10 * time.Second}

// maxErrors bounds how many different errors of sockets are told apart.
const maxErrors = 20

// StatsOptions says what to count.
type StatsOptions struct {
	Limit    time.Duration     // a lookup that takes longer is given to OnSlow
	SlowFrom time.Duration     // one that takes longer counts as slow
	Edges    []time.Duration   // further times over which lookups are counted
	OnSlow   func(load.Sample) // called for one lookup at a time; may be nil
}

// Stats collects the lookups of one target. It implements [load.Collector].
type Stats struct {
	o StatsOptions

	mu    sync.Mutex
	t     Target
	hist  *hdrhistogram.Histogram
	edges []time.Duration
	over  []int64
	fails int64 // neither OK, nor NODATA, nor NONAME
}

// NewStats returns a collector.
func NewStats(target load.Target, o StatsOptions) *Stats {
	c := &target.Config
	s := &Stats{
		o:     o,
		edges: slices.Concat(edges, o.Edges, []time.Duration{o.Limit}),
		hist:  hdrhistogram.New(lowest, highest, digits),
		t: Target{
			Name: target.Name, Search: append([]string{}, c.Search...), Nameservers: []string{},
			Options: Options{Ndots: c.Ndots, Timeout: c.Timeout, Attempts: c.Attempts, AsWritten: append([]string{}, c.Options...)},
			Status:  map[string]int64{}, Errors: map[string]int64{}, Rcodes: map[string]int64{},
		},
	}
	for _, ns := range c.Nameservers {
		text := ns.String()
		if ns.Port() == resolvconf.DNSPort {
			text = ns.Addr().String()
		}
		s.t.Nameservers = append(s.t.Nameservers, text)
	}
	slices.Sort(s.edges)
	s.edges = slices.Compact(s.edges)
	if s.edges[0] <= 0 {
		s.edges = s.edges[1:] // no limit
	}
	s.over = make([]int64, len(s.edges))
	return s
}

// Add implements [load.Collector].
func (s *Stats) Add(p load.Sample) {
	r := &p.Result
	s.mu.Lock()
	defer s.mu.Unlock()
	s.time(p.Took)
	t := &s.t
	t.Status[string(r.Status)]++
	if failed(r.Status) {
		s.fails++
	}
	t.Questions += int64(r.Questions)
	t.SentUDP += int64(r.SentUDP)
	t.SentTCP += int64(r.SentTCP)
	t.Sockets += int64(r.Sockets)
	t.Timeouts += int64(r.Timeouts)
	t.Replies += int64(len(r.Replies))
	discarded, good := false, false
	for _, y := range r.Replies {
		t.Rcodes[y.Rcode]++
		add(&t.Flags.AA, y.AA)
		add(&t.Flags.RA, y.RA)
		add(&t.Flags.TC, y.TC)
		add(&t.Flags.Discarded, y.Discarded)
		discarded = discarded || y.Discarded
		good = good || y.Rcode == "NOERROR" && !y.Discarded
	}
	add(&t.Flags.OldGlibc, discarded && good)
	if r.Err != nil {
		text := r.Err.Error()
		if _, ok := t.Errors[text]; !ok && len(t.Errors) >= maxErrors {
			text = "other"
		}
		t.Errors[text]++
	}

	lost := r.Lost
	add(&t.Lost.Both, lost.A && lost.AAAA)
	add(&t.Lost.A, lost.A && !lost.AAAA)
	add(&t.Lost.AAAA, !lost.A && lost.AAAA)
	if p.Took > s.o.SlowFrom {
		t.Slow.Count++
		add(&t.Slow.Both, lost.A && lost.AAAA)
		add(&t.Slow.A, lost.A && !lost.AAAA)
		add(&t.Slow.AAAA, !lost.A && lost.AAAA)
		add(&t.Slow.Nothing, !lost.A && !lost.AAAA)
	}
	if s.o.Limit > 0 && p.Took > s.o.Limit && s.o.OnSlow != nil {
		s.o.OnSlow(p)
	}
}

// Unstarted implements [load.Collector].
func (s *Stats) Unstarted(waited time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.time(waited)
	s.t.Unstarted++
	s.fails++
	if waited > s.o.SlowFrom {
		s.t.Slow.Count++
		s.t.Slow.Nothing++
	}
}

// time counts a lookup by how long it took.
func (s *Stats) time(d time.Duration) {
	s.t.Lookups++
	// In range by the clamp, so that it can't fail.
	_ = s.hist.RecordValue(min(max(int64(d/time.Microsecond), lowest), highest))
	for i, e := range s.edges {
		if d > e {
			s.over[i]++
		}
	}
}

// Target returns the statistics after a run of elapsed.
func (s *Stats) Target(elapsed time.Duration) Target {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.t
	if elapsed > 0 {
		t.PerSecond = round(float64(t.Lookups-t.Unstarted) / elapsed.Seconds())
	}
	t.Over = []Over{}
	for i, e := range s.edges {
		t.Over = append(t.Over, Over{Than: ms(e), Count: s.over[i], Share: share(s.over[i], t.Lookups)})
	}
	if t.Lookups > 0 {
		at := func(q float64) float64 { return float64(s.hist.ValueAtQuantile(q)) / 1000 }
		t.Latency = Latency{
			Min: float64(s.hist.Min()) / 1000, Mean: round(s.hist.Mean() / 1000),
			P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: float64(s.hist.Max()) / 1000,
		}
	}
	return t
}

// Progress returns how many lookups there were, how many took longer than the
// limit, how many failed, and the longest.
func (s *Stats) Progress() (lookups, over, fails int64, longest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range s.edges {
		if e == s.o.Limit {
			over = s.over[i]
		}
	}
	return s.t.Lookups, over, s.fails, time.Duration(s.hist.Max()) * time.Microsecond
}

// Exceed returns how many lookups took longer than d, which is the limit or one
// of the edges that the collector was made with.
func (s *Stats) Exceed(d time.Duration) (count, of int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.edges, d); i >= 0 {
		count = s.over[i]
	}
	return count, s.t.Lookups
}

// Failed returns how many lookups had no answer or an error.
func (s *Stats) Failed() (count, of int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fails, s.t.Lookups
}

// Name returns the name of the target.
func (s *Stats) Name() string { return s.t.Name }

// failed says which statuses are no answer. That a name doesn't exist is one.
func failed(s stub.Status) bool {
	return s != stub.OK && s != stub.NoData && s != stub.NoName
}

func add(n *int64, yes bool) {
	if yes {
		*n++
	}
}

// ms returns milliseconds.
func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// round keeps three decimals.
func round(f float64) float64 { return math.Round(f*1000) / 1000 }

// share returns n of a total in percent.
func share(n, of int64) float64 {
	if of == 0 {
		return 0
	}
	return math.Round(float64(n)/float64(of)*1e7) / 1e5
}
