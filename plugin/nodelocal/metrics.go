package nodelocal

import (
	"sync"

	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	setupErrors = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "setup_errors_total",
		Help:      "Counter of what could not be put in place on the host, or taken away, by step.",
	}, []string{"step"})

	readyGauge = promauto.NewGauge(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: pluginName,
		Name:      "ready",
		Help:      "1 if everything was in place on the host when last looked at, 0 if not.",
	})
)

func init() {
	// All steps from the start, so that a first error is an increase.
	for _, s := range steps {
		setupErrors.WithLabelValues(s)
	}
}

// inPlace is what the gauge is made of: for each interface, whether everything
// is in place.
var inPlace = struct {
	sync.Mutex
	m map[string]bool
}{m: map[string]bool{}}

// setReady notes whether everything is in place for an interface.
func setReady(iface string, ok bool) {
	inPlace.Lock()
	defer inPlace.Unlock()
	inPlace.m[iface] = ok
	updateReady()
}

// forgetReady forgets an interface that isn't kept any more.
func forgetReady(iface string) {
	inPlace.Lock()
	defer inPlace.Unlock()
	delete(inPlace.m, iface)
	updateReady()
}

func updateReady() {
	ready := 1.0
	if len(inPlace.m) == 0 {
		ready = 0
	}
	for _, ok := range inPlace.m {
		if !ok {
			ready = 0
		}
	}
	readyGauge.Set(ready)
}
