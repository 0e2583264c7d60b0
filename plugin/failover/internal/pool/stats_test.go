package pool

import (
	"slices"
	"time"
)

// stats of the queries that arrived in [from, to).
type stats struct {
	n, failed           int
	p50, p99, p999, max time.Duration
	over                int // slower than 1 s
}

func (s *sim) stats(from, to time.Duration) stats {
	var took []time.Duration
	var st stats
	for _, x := range s.samples {
		if x.at < from || x.at >= to || !x.honest {
			continue
		}
		took = append(took, x.took)
		if x.failed {
			st.failed++
		}
		if x.took > time.Second {
			st.over++
		}
	}
	st.n = len(took)
	if st.n == 0 {
		return st
	}
	slices.Sort(took)
	at := func(q float64) time.Duration { return took[min(int(q*float64(len(took))), len(took)-1)] }
	st.p50, st.p99, st.p999, st.max = at(.5), at(.99), at(.999), took[len(took)-1]
	return st
}

// amplification is upstream queries per client query in [from, to).
func (s *sim) amplification(from, to time.Duration) float64 {
	c, u := 0, 0
	for _, x := range s.samples {
		if x.at >= from && x.at < to {
			c++
		}
	}
	for _, t := range s.sentAt {
		if t >= from && t < to {
			u++
		}
	}
	if c == 0 {
		return 0
	}
	return float64(u) / float64(c)
}

// worstWindow is the highest amplification of any ten seconds in [from, to).
func (s *sim) worstWindow(from, to time.Duration) float64 {
	n := int(to/time.Second) + 1
	c, u := make([]int, n+1), make([]int, n+1)
	for _, x := range s.samples {
		if x.at < to {
			c[x.at/time.Second]++
		}
	}
	for _, t := range s.sentAt {
		if t < to {
			u[t/time.Second]++
		}
	}
	worst := 0.0
	for i := int(from / time.Second); i+10 <= int(to/time.Second); i++ {
		sc, su := 0, 0
		for k := i; k < i+10; k++ {
			sc, su = sc+c[k], su+u[k]
		}
		if sc > 0 {
			worst = max(worst, float64(su)/float64(sc))
		}
	}
	return worst
}

// count returns how many events of a kind there were, about upstream u or about any if u < 0.
func (s *sim) count(k EventKind, u int) int {
	n := 0
	for _, e := range s.events {
		if e.Kind == k && (u < 0 || e.u == u) {
			n++
		}
	}
	return n
}

// first is when the first event of a kind about u came at or after t, or -1.
func (s *sim) first(k EventKind, u int, t time.Duration) time.Duration {
	for _, e := range s.events {
		if e.Kind == k && (u < 0 || e.u == u) && e.At >= t {
			return e.At
		}
	}
	return -1
}
