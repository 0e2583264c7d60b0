package failover

import (
	"errors"

	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// The counters and histograms. What is a state and not an event (who is up, how
// many sockets there are) is read from the groups when it is scraped, see
// collector.go.
var (
	upstreamRTT = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "upstream_rtt_seconds",
		Help:      "Histogram of the time each attempt at an upstream took, those without a reply included.",
		Buckets:   rttBuckets,
	}, []string{"to"})

	attempts = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "attempts_total",
		Help:      "Counter of attempts at an upstream, by why they were made and how they ended.",
	}, []string{"to", "kind", "result"})

	ejections = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "ejections_total",
		Help:      "Counter of the times an upstream was taken out of service.",
	}, []string{"to", "reason"})

	ignored = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "ignored_replies_total",
		Help:      "Counter of messages from an upstream's address that are no reply to a query that waits.",
	}, []string{"to", "reason"})

	noUpstream = promauto.NewCounter(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "no_upstream_total",
		Help:      "Counter of client queries that no upstream answered.",
	})

	coalesced = promauto.NewCounter(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "coalesced_total",
		Help:      "Counter of client queries that got the answer to the same question of another client.",
	})

	rejected = promauto.NewCounter(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "max_concurrent_rejects_total",
		Help:      "Counter of client queries that were refused because too many were in flight.",
	})

	watchReloads = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "watch_reloads_total",
		Help:      "Counter of changes of a watched file or host name, by whether they could be used.",
	}, []string{"result"})

	proxyDuration = proxyRequestDuration()
)

// rttBuckets have the bounds that operators ask about as exact edges: the hedge
// delays, one second, and the 2 s and 5 s of other people's time-outs.
var rttBuckets = []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5}

// proxyRequestDuration returns the histogram that pkg/proxy fills for forward, so
// that dashboards made for that go on working. The package does not export it,
// but the registry hands out what is registered under the same description.
func proxyRequestDuration() *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace:                   plugin.Namespace,
		Subsystem:                   "proxy",
		Name:                        "request_duration_seconds",
		Buckets:                     plugin.TimeBuckets,
		NativeHistogramBucketFactor: plugin.NativeHistogramBucketFactor,
		Help:                        "Histogram of the time each request took.",
	}, []string{"proxy_name", "to", "rcode"})
	var exists prometheus.AlreadyRegisteredError
	if err := prometheus.Register(h); errors.As(err, &exists) {
		if registered, ok := exists.ExistingCollector.(*prometheus.HistogramVec); ok {
			return registered
		}
	}
	return h
}
