package failover

import (
	"strconv"
	"sync"

	"github.com/resolute-dns/resolute/plugin/failover/internal/race"
	"github.com/resolute-dns/resolute/plugin/failover/internal/wire"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// upstreamSeries are the metrics of one upstream, bound once: looking a label up
// for each attempt would cost more than the attempt's decision.
type upstreamSeries struct {
	to       string // the label: address and port, as forward has it
	proxied  bool   // pkg/proxy fills its own histogram
	rtt      prometheus.Observer
	attempts map[race.Kind]map[race.Result]prometheus.Counter
	firstWin prometheus.Counter // of attempts: what nearly all are
	noerror  prometheus.Observer
	nxdomain prometheus.Observer
}

var (
	allKinds   = []race.Kind{race.First, race.Hedge, race.Retry, race.Probe}
	allResults = []race.Result{race.Win, race.Late, race.Rcode, race.Timeout, race.Error, race.Cancelled}
)

// series returns what the group's owner has attached to u.
func series(u *race.Upstream) *upstreamSeries { return u.User.(*upstreamSeries) }

func newSeries(to string, proxied bool) *upstreamSeries {
	inUse.acquire(to)
	s := &upstreamSeries{
		to: to, proxied: proxied, rtt: upstreamRTT.WithLabelValues(to),
		attempts: map[race.Kind]map[race.Result]prometheus.Counter{},
		noerror:  proxyDuration.WithLabelValues(pluginName, to, "NOERROR"),
		nxdomain: proxyDuration.WithLabelValues(pluginName, to, "NXDOMAIN"),
	}
	for _, k := range allKinds {
		s.attempts[k] = map[race.Result]prometheus.Counter{}
		for _, r := range allResults {
			if k == race.Probe && r == race.Win {
				continue // nobody wins a probe
			}
			s.attempts[k][r] = attempts.WithLabelValues(to, string(k), string(r))
		}
	}
	s.firstWin = s.attempts[race.First][race.Win]
	s.attempts[race.Probe][race.Good] = attempts.WithLabelValues(to, string(race.Probe), string(race.Good))
	return s
}

// count counts an attempt that has ended.
func (s *upstreamSeries) count(a race.Attempt) {
	if a.Kind == race.First && a.Result == race.Win {
		s.firstWin.Inc()
	} else if c := s.attempts[a.Kind][a.Result]; c != nil {
		c.Inc()
	}
	if a.Result == race.Cancelled {
		return // how long it took was up to us
	}
	s.rtt.Observe(a.Took.Seconds())
	// As pkg/proxy has it: what came of clients' queries and has a reply.
	if a.Rcode < 0 || a.Kind == race.Probe || s.proxied {
		return
	}
	switch a.Rcode {
	case dns.RcodeSuccess:
		s.noerror.Observe(a.Took.Seconds())
	case dns.RcodeNameError:
		s.nxdomain.Observe(a.Took.Seconds())
	default:
		proxyDuration.WithLabelValues(pluginName, s.to, rcodeLabel(a.Rcode)).Observe(a.Took.Seconds())
	}
}

func rcodeLabel(rcode int) string {
	if s, ok := dns.RcodeToString[rcode]; ok {
		return s
	}
	return strconv.Itoa(rcode)
}

// hooks counts what package wire has to tell.
func (s *upstreamSeries) hooks() wire.Hooks {
	return wire.Hooks{Ignored: func(_ wire.Proto, why wire.Ignored) {
		ignored.WithLabelValues(s.to, why.String()).Inc()
	}}
}

// drop deletes the series when no directive uses the upstream any more.
func (s *upstreamSeries) drop() {
	if !inUse.release(s.to) {
		return
	}
	to := prometheus.Labels{"to": s.to}
	upstreamRTT.DeletePartialMatch(to)
	attempts.DeletePartialMatch(to)
	ejections.DeletePartialMatch(to)
	ignored.DeletePartialMatch(to)
	proxyDuration.DeletePartialMatch(prometheus.Labels{"proxy_name": pluginName, "to": s.to})
}

// inUse counts the users of a label: several directives may name the same
// upstream, and at a reload the new instance starts before the old one ends.
var inUse = labelCount{n: map[string]int{}}

type labelCount struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *labelCount) acquire(label string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[label]++
}

// release reports whether it was the last user.
func (c *labelCount) release(label string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[label]--
	if c.n[label] > 0 {
		return false
	}
	delete(c.n, label)
	return true
}
