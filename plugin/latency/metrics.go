package latency

import (
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// durationBuckets are the classic buckets. Their edges are the bounds that people
// ask about: what a cache, a network and an upstream take, and the time-outs of
// resolvers (2.5 s is musl's, 5 s is glibc's).
var durationBuckets = []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 2.5, 5, 10}

// waitBuckets begin where retries are recognised, and have an edge a little above
// each resolver's time-out: who waited for one has waited for the answer besides.
var waitBuckets = []float64{.3, .6, 1, 1.2, 2, 2.5, 3, 5, 5.5, 7.5, 10, 11, 15, 20, 30}

var (
	requestDuration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace:                   plugin.Namespace,
		Subsystem:                   pluginName,
		Name:                        "request_duration_seconds",
		Help:                        "Histogram of the time until a query was answered, or given up, by where the answer came from.",
		Buckets:                     durationBuckets,
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
	}, []string{"server", "zone", "source"})

	searchMisses = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "search_misses_total",
		Help:      "Counter of NXDOMAIN answers to names that look like a search list's expansion of another name.",
	}, []string{"server"})

	clientRetries = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "client_retries_total",
		Help:      "Counter of lookups that a client had to repeat, by why and by how sure that is.",
	}, []string{"server", "cause", "confidence"})

	clientWait = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace:                   plugin.Namespace,
		Subsystem:                   pluginName,
		Name:                        "client_wait_seconds",
		Help:                        "Histogram of the time that clients which repeated a lookup had waited in the end, from their first packet.",
		Buckets:                     waitBuckets,
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
	}, []string{"server"})
)

// labels name the series of a handler.
type labels struct{ server, zone string }

// bound are the series of one pair of labels, looked up once: to find them for
// each query would cost more than all the rest.
type bound struct {
	server    *server
	durations [len(sourceNames)]prometheus.Observer
	window    *windowSlot
}

func newBound(k labels, s *server, w *windowSlot) *bound {
	b := &bound{server: s, window: w}
	for s, name := range sourceNames {
		b.durations[s] = requestDuration.WithLabelValues(k.server, k.zone, name)
	}
	return b
}

// observe notes that a query was over at end, after took.
func (b *bound) observe(s source, took, end time.Duration, traceID string) {
	if traceID == "" {
		b.durations[s].Observe(took.Seconds())
	} else {
		b.durations[s].(prometheus.ExemplarObserver).ObserveWithExemplar(took.Seconds(), prometheus.Labels{"trace_id": traceID})
	}
	b.window.Load().Add(took, end)
}

// bind returns the series of the zone for the server, nil when the handler was
// stopped.
func (l *Latency) bind(server string, z *zone) *bound {
	for _, b := range *z.bound.Load() {
		if b.server.name == server {
			return b
		}
	}
	return live.bind(l, server, z)
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, name), help, labels, nil)
}

var (
	quantileDesc = desc("quantile_seconds", "Quantiles of the time until a query was answered, or given up, over the last window; sum and count since start.", "server", "zone")
	maxDesc      = desc("max_seconds", "The longest time that a query took in the last window.", "server", "zone")
	evictedDesc  = desc("retries_evicted_total", "Counter of lookups that were forgotten before their time, so that retries of them can't be recognised.")
)

// quantiles are those exported.
var quantiles = []float64{.5, .9, .99, .999}

// Describe implements prometheus.Collector.
func (r *registry) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{quantileDesc, maxDesc, evictedDesc} {
		c <- d
	}
}

// Collect implements prometheus.Collector. Without a query in the window there
// are no quantiles and there is no maximum.
func (r *registry) Collect(c chan<- prometheus.Metric) {
	now := r.clock()
	windows, servers, evicted := r.all()
	for k, w := range windows {
		s := w.Load().Snapshot(now, quantiles...)
		c <- prometheus.MustNewConstSummary(quantileDesc, s.Count, s.Sum, s.Quantiles, k.server, k.zone)
		if len(s.Quantiles) > 0 {
			c <- prometheus.MustNewConstMetric(maxDesc, prometheus.GaugeValue, s.Max.Seconds(), k.server, k.zone)
		}
	}
	for _, s := range servers {
		s.overdue(now)
		if t := s.retries.Load(); t != nil {
			evicted += t.Evicted()
		}
	}
	c <- prometheus.MustNewConstMetric(evictedDesc, prometheus.CounterValue, float64(evicted))
}

func init() { prometheus.MustRegister(&live) }
