package failover

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin/pkg/transport"

	"github.com/resolute-dns/resolute/plugin/failover/internal/pool"
	"github.com/resolute-dns/resolute/plugin/failover/internal/race"
	"github.com/resolute-dns/resolute/plugin/failover/internal/target"
	"github.com/resolute-dns/resolute/plugin/failover/internal/wire"
)

// start begins to serve. What a predecessor with the same key has learnt about
// its upstreams is taken over: at a reload it is still running.
func (f *Failover) start() error {
	upstreams, err := f.upstreams(f.config.targets)
	if err != nil {
		return err
	}
	cold, err := f.config.probe.pack()
	if err != nil {
		return err
	}
	f.group = race.New(race.Config{
		Pool: f.config.poolConfig(rand.Uint64), Observer: observer{},
		BadRcodes: f.config.failoverRcodes, ColdProbe: cold,
	}, upstreams)
	if before := running.enter(f); before != nil {
		f.group.Inherit(before.group)
	}
	f.since = time.Now()
	f.group.Start()

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	if w := f.watcher(); w != nil {
		wg.Go(func() { w.Run(ctx) })
	}
	f.rest = func() {
		cancel()
		wg.Wait()
		running.leave(f)
		f.group.Rest()
	}
	return nil
}

// drainTime is longer than a server takes to end after SIGTERM: CoreDNS gives its
// listeners 5 s (graceTimeout in core/dnsserver), and no query takes longer.
const drainTime = 10 * time.Second

// retire ends what goes on by itself, and the rest when the last queries must
// have their answers. On SIGTERM, caddy calls this *before* it stops to take
// queries, and those in flight are not to be lost. At a reload it is called when
// the last one has been answered; the sockets are closed as idle ones then.
func (f *Failover) retire() {
	f.rest()
	time.AfterFunc(drainTime, f.group.Close)
}

// stop ends everything at once.
func (f *Failover) stop() {
	f.rest()
	f.group.Close()
}

// upstreams makes what the group needs of targets.
func (f *Failover) upstreams(targets []target.Target) ([]*race.Upstream, error) {
	us := make([]*race.Upstream, 0, len(targets))
	labels := target.Labels(targets)
	for _, t := range targets {
		s := newSeries(labels[t], t.Transport == transport.HTTPS || t.Transport == transport.QUIC)
		w, err := wire.New(f.config.wireOptions(t, s.hooks()))
		if err != nil {
			s.drop()
			for _, u := range us {
				u.Wire.Close()
				series(u).drop()
			}
			return nil, err
		}
		us = append(us, &race.Upstream{ID: labels[t], Wire: w, User: s})
	}
	return us, nil
}

// watcher returns what keeps the list of upstreams up to date, nil without the
// watch option or when nothing in the list can change.
func (f *Failover) watcher() *target.Watcher {
	if !f.config.watch {
		return nil
	}
	return target.NewWatcher(f.config.expansion, target.Hooks{
		Changed: func(list []target.Target) {
			us, err := f.upstreams(list)
			if err != nil {
				log.Errorf("New list of upstreams can't be used, the old one stays: %v", err)
				watchReloads.WithLabelValues("failed").Inc()
				return
			}
			f.group.Set(us)
			watchReloads.WithLabelValues("ok").Inc()
			log.Infof("Upstreams are now %v", f.group)
		},
		Failed: func(to string, err error) {
			watchReloads.WithLabelValues("failed").Inc()
			log.Warningf("%s can't be used any more, its upstreams stay as they were: %v", to, err)
		},
		Recovered: func(to string) { log.Infof("%s can be used again", to) },
	})
}

// readyAfter is how long an upstream that has not answered yet keeps the server
// from being ready. Longer, and an outage of the upstreams would take every pod
// out of service, which serves nobody: cluster names do not need them.
const readyAfter = 2 * time.Second

// Ready implements ready.Readiness: it is true once an upstream has answered, or
// two seconds after the start.
func (f *Failover) Ready() bool {
	return f.group != nil && (f.group.Answered() || time.Since(f.since) >= readyAfter)
}

// observer logs and counts what happens in a group.
type observer struct{}

// Attempt implements race.Observer.
func (observer) Attempt(a race.Attempt) { series(a.Upstream).count(a) }

// Event implements race.Observer: one line for each change of state.
func (observer) Event(e pool.Event) {
	switch e.Kind {
	case pool.Ejected:
		ejections.WithLabelValues(e.ID, string(e.Reason)).Inc()
		log.Warning(e)
	case pool.NeverAnswered, pool.AllOut:
		log.Warning(e)
	default:
		log.Info(e)
	}
}

// Coalesced implements race.Observer.
func (observer) Coalesced() { coalesced.Inc() }

// Failed implements race.Observer.
func (observer) Failed(pool.Failure) { noUpstream.Inc() }

// Left implements race.Observer.
func (observer) Left(u *race.Upstream) { series(u).drop() }
