package pool

import (
	"math/bits"
	"time"
)

const (
	// hedgeTail is the share of queries that run longer than the hedge delay. With 5 % and more the extra load sits at
	// the budget all the time and nothing is left for a fault; 3 % leaves two thirds of the default budget unspent.
	hedgeTail = 0.03
	// hedgeMin keeps scheduling noise and a cold cache at the upstream from costing a second query.
	hedgeMin = 10 * time.Millisecond
	// hedgeMax is what a client may lose to a dead upstream, however slow the names are that it usually asks for.
	hedgeMax = 200 * time.Millisecond
	// hedgeUnknown is used until hedgeSamples answers were seen: more than the round trip to any sane upstream.
	hedgeUnknown = 50 * time.Millisecond
	hedgeSamples = 20
	// hedgeRefresh bounds the work: the quantile is read off at most once in this time.
	hedgeRefresh = time.Second
	// hedgeMemory: past this many samples, or after hedgeAge, old ones count half. A 97th percentile of fewer than
	// some hundred samples is noise.
	hedgeMemory = 1000
	hedgeAge    = time.Minute

	// hedgeRepeat is the shortest wait before the same upstream is asked again on another socket (there is no other to
	// ask). It helps against a lost packet only, which is rarer than a slow name.
	hedgeRepeat = 200 * time.Millisecond
)

// hedger estimates the hedge delay from the time that answered client queries took.
//
// It is fed with the whole time of a query, not with the round trip of the attempt that won: the latter is cut off at
// the hedge delay, so each estimate would be lower than the one before.
type hedger struct {
	delay   time.Duration
	total   uint32
	last    time.Duration // when delay was computed
	halved  time.Duration
	buckets [160]uint32 // microseconds, eight buckets an octave, up to about a second
}

func newHedger(now time.Duration) hedger {
	return hedger{delay: hedgeUnknown, last: now, halved: now}
}

func (h *hedger) add(d, now time.Duration) {
	us := uint64(max(d, 0) / time.Microsecond)
	i := us
	if us >= 16 {
		shift := bits.Len64(us) - 4
		i = uint64(shift)*8 + us>>shift
	}
	h.buckets[min(i, uint64(len(h.buckets)-1))]++
	h.total++
	if now-h.last >= hedgeRefresh || (h.delay == hedgeUnknown && h.total == hedgeSamples) {
		h.compute(now)
	}
}

func (h *hedger) compute(now time.Duration) {
	h.last = now
	if h.total < hedgeSamples {
		return
	}
	above, limit := uint32(0), uint32(float64(h.total)*hedgeTail)
	i := len(h.buckets) - 1
	for ; i > 0; i-- {
		above += h.buckets[i]
		if above > limit {
			break
		}
	}
	upper := uint64(i + 1)
	if i >= 16 {
		upper = uint64(i%8+9) << (i/8 - 1)
	}
	h.delay = min(max(time.Duration(upper)*time.Microsecond, hedgeMin), hedgeMax)

	if h.total > hedgeMemory || now-h.halved > hedgeAge {
		h.total, h.halved = 0, now
		for i := range h.buckets {
			h.buckets[i] /= 2
			h.total += h.buckets[i]
		}
	}
}

// hedgeDelay is how long a silent attempt is waited for before another upstream is asked.
func (p *Pool) hedgeDelay() time.Duration {
	switch p.cfg.Hedge {
	case HedgeFixed:
		return p.cfg.HedgeDelay
	case HedgeOff:
		return freeAfter
	}
	return p.hedge.delay
}
