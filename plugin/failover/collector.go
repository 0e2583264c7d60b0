package failover

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/resolute-dns/resolute/plugin/failover/internal/pool"
	"github.com/resolute-dns/resolute/plugin/failover/internal/race"
	"github.com/resolute-dns/resolute/plugin/failover/internal/wire"

	"github.com/prometheus/client_golang/prometheus"
)

// running are the directives of this process, by their key: for the collector,
// and for the successor of each at a reload.
var running = registry{byKey: map[string]*Failover{}}

type registry struct {
	mu     sync.Mutex
	byKey  map[string]*Failover
	denied uint64 // of those that have ended
}

// enter makes f the one for its key and returns who was it before.
func (r *registry) enter(f *Failover) *Failover {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.byKey[f.key]
	r.byKey[f.key] = f
	return before
}

// leave takes f out, unless a successor has already entered. The second time it
// does nothing.
func (r *registry) leave(f *Failover) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.left {
		return
	}
	f.left = true
	r.denied += f.group.Numbers().Denied
	if r.byKey[f.key] == f {
		delete(r.byKey, f.key)
	}
}

func init() { prometheus.MustRegister(&running) }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, name), help, labels, nil)
}

var (
	upDesc       = desc("upstream_up", "Whether an upstream is in service (1) or not (0).", "to")
	inflightDesc = desc("inflight", "Attempts at an upstream that may still be answered.", "to")
	socketsDesc  = desc("sockets", "Open sockets to an upstream.", "to", "proto")
	hedgeDesc    = desc("hedge_delay_seconds", "How long a silent upstream is waited for before another one is asked; the longest of all directives.")
	tokensDesc   = desc("budget_tokens", "Extra attempts that could be made now; the fewest of all directives.")
	deniedDesc   = desc("budget_denied_total", "Counter of extra attempts that were not made for lack of budget.")
)

// Describe implements prometheus.Collector.
func (r *registry) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{upDesc, inflightDesc, socketsDesc, hedgeDesc, tokensDesc, deniedDesc} {
		c <- d
	}
}

// state is what is known of one address. Several directives may name it.
type state struct {
	up       bool // for everyone
	inflight int
	sockets  [2]int // by wire.Proto
}

// Collect implements prometheus.Collector.
func (r *registry) Collect(c chan<- prometheus.Metric) {
	r.mu.Lock()
	all := slices.Collect(maps.Values(r.byKey))
	denied := r.denied
	r.mu.Unlock()

	states := map[string]*state{}
	var hedge time.Duration
	tokens := -1.0
	for _, f := range all {
		n := f.group.Numbers()
		denied += n.Denied
		hedge = max(hedge, n.HedgeDelay)
		if tokens < 0 || n.Tokens < tokens {
			tokens = n.Tokens
		}
		up := map[string]pool.Status{}
		for _, s := range f.group.Statuses(nil) {
			up[s.ID] = s
		}
		f.group.Upstreams(func(u *race.Upstream) {
			to := series(u).to
			if states[to] == nil {
				states[to] = &state{up: true}
			}
			s := states[to]
			s.up = s.up && up[u.ID].Up
			s.inflight += up[u.ID].Inflight
			sockets := u.Wire.Stats()
			s.sockets[wire.UDP] += sockets.UDPSockets
			s.sockets[wire.TCP] += sockets.TCPConns
		})
	}

	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for to, s := range states {
		up := 0.0
		if s.up {
			up = 1
		}
		gauge(upDesc, up, to)
		gauge(inflightDesc, float64(s.inflight), to)
		for _, p := range []wire.Proto{wire.UDP, wire.TCP} {
			gauge(socketsDesc, float64(s.sockets[p]), to, p.String())
		}
	}
	if len(all) > 0 {
		gauge(hedgeDesc, hedge.Seconds())
		gauge(tokensDesc, tokens)
	}
	c <- prometheus.MustNewConstMetric(deniedDesc, prometheus.CounterValue, float64(denied))
}
