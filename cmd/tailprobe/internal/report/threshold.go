package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Threshold is a share of lookups that may take longer than a time.
type Threshold struct {
	Over  time.Duration
	Share float64 // percent, 0 to 100
}

// ParseThreshold reads a threshold as in 1s=0.1%.
func ParseThreshold(text string) (Threshold, error) {
	d, p, ok := strings.Cut(text, "=")
	over, err := time.ParseDuration(d)
	if !ok || err != nil || over <= 0 {
		return Threshold{}, fmt.Errorf("%q: valid is a time, = and a percentage, as in 1s=0.1%%", text)
	}
	share, err := ParsePercent(p)
	return Threshold{Over: over, Share: share}, err
}

// ParsePercent reads a percentage, with or without its sign.
func ParsePercent(text string) (float64, error) {
	f, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	if err != nil || !(f >= 0 && f <= 100) {
		return 0, fmt.Errorf("%q: valid is a percentage from 0%% to 100%%", text)
	}
	return f, nil
}

// Thresholds are what a run must not cross.
type Thresholds struct {
	Limit  time.Duration // no lookup over it; 0: off
	Over   []Threshold
	Failed float64 // percent of lookups that fail; negative: off
}

// Check returns what was crossed, as sentences.
func (h Thresholds) Check(stats []*Stats) []string {
	failures := []string{}
	for _, s := range stats {
		fail := func(format string, args ...any) {
			failures = append(failures, s.Name()+": "+fmt.Sprintf(format, args...))
		}
		if h.Limit > 0 {
			if n, of := s.Exceed(h.Limit); n > 0 {
				fail("%d of %d lookups took longer than %v (-limit)", n, of, h.Limit)
			}
		}
		for _, o := range h.Over {
			if n, of := s.Exceed(o.Over); share(n, of) > o.Share {
				fail("%.5g%% of lookups took longer than %v, at most %.5g%% may (-fail-over)", share(n, of), o.Over, o.Share)
			}
		}
		if n, of := s.Failed(); h.Failed >= 0 && share(n, of) > h.Failed {
			fail("%.5g%% of lookups failed, at most %.5g%% may (-fail-errors)", share(n, of), h.Failed)
		}
		switch n, of := s.Failed(); {
		case of == 0:
			fail("not one lookup ended")
		case n == of:
			fail("every lookup failed")
		}
	}
	return failures
}
