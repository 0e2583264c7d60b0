package peers_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resolute-dns/resolute/test/peers/fault"
	"github.com/resolute-dns/resolute/test/peers/load"
)

// How long the parts of a row are.
var (
	warmTime  = 3 * time.Second
	faultTime = 8 * time.Second
)

// healTime is within what time an upstream that is well again is to be used.
const healTime = 10 * time.Second

func init() {
	if long {
		warmTime, faultTime = 5*time.Second, 20*time.Second
	}
}

// outcome is what one side did in one row.
type outcome struct {
	*side
	row  *row
	qps  int
	load load.Result

	start, onset, heal, end time.Time // heal is the end of the fault, if it heals or not

	named     time.Duration // after the start, the log named the dead upstream; 0: it did not
	ejections float64
	starved   float64 // share of the time that threads of the server waited for a processor
	watch     *load.Watch
}

// during returns the queries that were sent while the fault was there.
func (o *outcome) during() load.Result { return o.load.Between(o.onset, o.heal) }

// measure runs a row on all sides at the same time.
func measure(t *testing.T, r *row, qps int) []*outcome {
	t.Helper()
	var all []*outcome
	w := watch(t)
	loads := map[*outcome]*load.Load{}
	for _, directive := range sides(t) {
		ups := upstreams(t, 3)
		if r.atStart {
			set(t, ups[:r.bad], r.mode)
		}
		o := &outcome{row: r, qps: qps, watch: w}
		o.side = startSide(t, directive, ups, corefile{options: r.options})
		o.start = time.Now()
		loads[o] = load.Start(t, load.Config{Server: o.addr, QPS: qps, Kind: r.kind})
		all = append(all, o)
	}
	waitNamed := awaitNames(all)
	before := make([]time.Duration, len(all))
	for i, o := range all {
		before[i] = o.side.starved()
	}

	if !r.atStart {
		pace(warmTime)
	}
	for _, o := range all {
		o.onset = time.Now()
		if r.atStart {
			o.onset = o.start
		} else {
			set(t, o.upstreams[:r.bad], r.mode)
		}
	}
	pace(faultTime)
	for _, o := range all {
		o.heal = time.Now()
		if r.heals {
			set(t, o.upstreams[:r.bad], fault.Healthy)
		}
	}
	for _, o := range all {
		if r.heals && o.gauges != nil {
			await(healTime+2*time.Second, o.up)
			pace(time.Second) // to see how the upstream does that is back
		}
	}
	for i, o := range all {
		o.end = time.Now()
		o.starved = float64(o.side.starved()-before[i]) / float64(o.end.Sub(o.start))
	}
	waitNamed()

	var stopped sync.WaitGroup // a side whose queries are lost takes six seconds
	for o, l := range loads {
		stopped.Go(func() { o.load = l.Stop(t, w) })
	}
	stopped.Wait()
	for _, o := range all {
		o.ejections = o.metrics.sum("coredns_failover_ejections_total")
	}
	return all
}

// pace lets the load run for d.
func pace(d time.Duration) { time.Sleep(d) }

// awaitNames waits in the background until the log of our side names the upstream
// that is dead from the start. The function that it returns waits for the end of
// that.
func awaitNames(all []*outcome) func() {
	var ended sync.WaitGroup
	for _, o := range all {
		if o.gauges == nil || !o.row.atStart {
			continue
		}
		ended.Go(func() {
			if await(faultTime, func() bool { return o.logNames(o.upstreams[0].Addr) }) {
				o.named = time.Since(o.side.started)
			}
		})
	}
	return ended.Wait
}

// logNames reports whether a line of the log says that addr has not answered.
func (s *side) logNames(addr string) bool {
	for line := range strings.Lines(s.srv.Log()) {
		if strings.Contains(line, addr) && strings.Contains(line, "has not answered since start") {
			return true
		}
	}
	return false
}

// amplification returns how many queries the upstreams got for each of the
// clients, over all of the load and in the worst ten seconds.
func (o *outcome) amplification() (overall, worst float64) {
	const window = 10 * time.Second
	overall = o.ratio(o.start, o.end)
	if o.end.Sub(o.start) <= window {
		return overall, overall
	}
	for from := o.start; !from.Add(window).After(o.end); from = from.Add(500 * time.Millisecond) {
		worst = max(worst, o.ratio(from, from.Add(window)))
	}
	return overall, worst
}

func (o *outcome) ratio(from, to time.Time) float64 {
	return float64(o.received(from, to)) / float64(max(1, len(o.load.Between(from, to))))
}

// detected returns how long after the onset the last of the bad upstreams was
// ejected, and false if one was not.
func (o *outcome) detected() (time.Duration, bool) {
	return o.lastTurn(false, o.onset, o.heal)
}

// recovered returns how long after the fault all upstreams were in use again.
func (o *outcome) recovered() (time.Duration, bool) {
	return o.lastTurn(true, o.heal, o.end.Add(poll))
}

func (o *outcome) lastTurn(up bool, from, before time.Time) (time.Duration, bool) {
	var last time.Duration
	if o.gauges == nil || o.row.bad == 0 {
		return 0, false
	}
	for _, u := range o.upstreams[:o.row.bad] {
		at, ok := o.gauges.turned(u.Addr, up, from)
		if !ok || at.After(before) {
			return 0, false
		}
		last = max(last, at.Sub(from)-o.watch.Lost(from, at))
	}
	return last, true
}

// disturbed reports whether the machine was busy enough with other work to be the
// reason for a time that is too long.
func (o *outcome) disturbed() bool {
	return o.watch.Longest(o.start, o.end) > 25*time.Millisecond || o.starved > .1
}
