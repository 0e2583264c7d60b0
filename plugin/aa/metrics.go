package aa

import (
	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	answersTouched = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "answers_total",
		Help:      "Counter of answers in which the AA or the RA bit was set.",
	}, []string{"server", "zone", "cached"})

	discardedShape = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "discarded_shape_total",
		Help:      "Counter of answers to stub resolvers that glibc would have thrown away had nothing been done, over all names and clients.",
	}, []string{"server"})
)
