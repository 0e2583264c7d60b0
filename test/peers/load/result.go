package load

import (
	"math"
	"slices"
	"time"
)

// Result is a series of queries, in the order in which they were sent.
type Result []Query

// Between returns the queries that were to be sent from from on and before to.
func (r Result) Between(from, to time.Time) Result {
	return r.Where(func(q *Query) bool { return !q.Sent.Before(from) && q.Sent.Before(to) })
}

// Kind returns the queries whose names start with kind.
func (r Result) Kind(kind string) Result {
	return r.Where(func(q *Query) bool { return q.Kind == kind })
}

// Where returns the queries for which keep is true.
func (r Result) Where(keep func(*Query) bool) Result {
	var out Result
	for i := range r {
		if keep(&r[i]) {
			out = append(out, r[i])
		}
	}
	return out
}

// Failed returns how many queries failed.
func (r Result) Failed() int {
	return len(r.Where((*Query).Failed))
}

// Slower returns how many queries took at least d; lost ones did.
func (r Result) Slower(d time.Duration) int {
	return len(r.Where(func(q *Query) bool { return q.time() >= d }))
}

// Last returns when the last query was to be sent.
func (r Result) Last() time.Time {
	if len(r) == 0 {
		return time.Time{}
	}
	return r[len(r)-1].Sent
}

// Percentiles returns for each share, such as .999, the time that it of the
// queries did not exceed. A lost query took [Deadline], a failed one what it took.
func (r Result) Percentiles(shares ...float64) []time.Duration {
	took := make([]time.Duration, len(r))
	for i := range r {
		took[i] = r[i].time()
	}
	slices.Sort(took)
	out := make([]time.Duration, len(shares))
	for i, p := range shares {
		if len(took) > 0 {
			out[i] = took[max(0, int(math.Ceil(p*float64(len(took))))-1)]
		}
	}
	return out
}

// Percentile is [Result.Percentiles] for one share.
func (r Result) Percentile(share float64) time.Duration { return r.Percentiles(share)[0] }

func (q *Query) time() time.Duration {
	if q.Lost() {
		return Deadline
	}
	return q.Took
}
