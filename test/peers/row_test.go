package peers_test

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// rates returns the query rates at which a row is run.
func (r *row) rates() []int {
	switch {
	case long:
		return []int{20, 100, 600, 1000}
	case r.many:
		return []int{600, 100}
	}
	return []int{100}
}

// TestRows breaks upstreams in all the ways that are known, under load.
func TestRows(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes minutes")
	}
	var results table
	t.Cleanup(results.print)
	healthy := &reference{byRate: map[int]time.Duration{}}
	for i := range rows {
		r := &rows[i]
		for _, qps := range r.rates() {
			t.Run(fmt.Sprintf("%s/%d", r.name, qps), func(t *testing.T) {
				// The rows without a fault are measured first, and those with much
				// load have the machine for themselves.
				if i > 0 && qps <= 100 {
					t.Parallel()
				}
				r.run(t, i, qps, &results, healthy)
			})
		}
	}
}

// reference is the p99.9 of our side without a fault, by query rate.
type reference struct {
	mu     sync.Mutex
	byRate map[int]time.Duration
}

// run measures a row and fails the test for what does not hold. A bound of time
// that was missed is measured once more: the machine may have been late, and which
// upstream is asked next is drawn by lot, so that once in a while a faulty one is
// not asked for a second or two and found out later than usual.
func (r *row) run(t *testing.T, order, qps int, results *table, healthy *reference) {
	for attempt := range 2 {
		again := false
		for _, o := range measure(t, r, qps) {
			if o.directive == stock {
				results.add(order, o, "")
				if r.stock != nil {
					if text := r.stock(o); text != "" {
						t.Errorf("forward: %s", text)
					}
				}
				continue
			}
			found := check(o, healthy.of(o))
			switch {
			case len(found) == 0:
				results.add(order, o, "")
			case attempt == 0 && found.allTimed():
				results.add(order, o, "measured again")
				t.Logf("measured again (the longest stall was %v, %.1f %% starved), because of %v",
					o.watch.Longest(o.start, o.end), 100*o.starved, found)
				again = true
			default:
				results.add(order, o, "FAIL")
				for _, one := range found {
					t.Error(one.text)
				}
				t.Logf("log of failover:\n%s", o.srv.Log())
			}
		}
		if !again {
			return
		}
	}
}

// of returns how slow the slowest of a thousand queries is without a fault: in
// the row's own warm-up, or in the row without a fault if there is none.
func (h *reference) of(o *outcome) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o.row.bad == 0 && o.row.kind == nil {
		h.byRate[o.qps] = o.during().Percentile(.999)
	}
	if o.row.atStart || o.row.bad == 0 {
		return h.byRate[o.qps]
	}
	return o.load.Between(o.start.Add(time.Second), o.onset).Percentile(.999)
}
