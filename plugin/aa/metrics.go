package aa

import (
	"slices"
	"strconv"
	"sync/atomic"

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

// counters finds the counters of answers in which a bit was set, without looking
// labels up for each answer. The zero value is ready.
type counters struct {
	// list has one entry for each server and zone that was asked for. There are
	// few: it is never changed, only replaced.
	list atomic.Pointer[[]touchedCounter]
}

type touchedCounter struct {
	server, zone string
	cached       bool
	prometheus.Counter
}

// of returns the counter with these labels.
func (c *counters) of(server, zone string, cached bool) prometheus.Counter {
	for {
		list := c.list.Load()
		if list != nil {
			for i := range *list {
				t := &(*list)[i]
				if t.cached == cached && t.server == server && t.zone == zone {
					return t
				}
			}
		} else {
			list = new([]touchedCounter)
			if !c.list.CompareAndSwap(nil, list) {
				continue
			}
		}
		counter := answersTouched.WithLabelValues(server, zone, strconv.FormatBool(cached))
		more := append(slices.Clone(*list), touchedCounter{server, zone, cached, counter})
		c.list.CompareAndSwap(list, &more) // if somebody else was faster, it is found the next time round
	}
}
