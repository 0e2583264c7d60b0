// Package latency implements a plugin that measures what the clients feel: how
// long answers take by where they come from, and how long clients that had to ask
// again have really waited.
package latency

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics"

	"github.com/resolute-dns/resolute/plugin/internal/trail"

	"github.com/miekg/dns"
)

// Latency is the handler of the latency directive.
type Latency struct {
	Next plugin.Handler

	config Config
	zones  zones
	search *searchRule
	slow   *slowLog // nil: off
	traced bool     // there is a trace plugin in front
	clock  func() time.Duration

	stopped sync.Once
}

// New returns a handler for conf that observes nothing until it is started.
func New(conf Config) *Latency {
	return &Latency{config: conf, zones: newZones(conf.Zones), search: newSearchRule(""), clock: monotonic}
}

// start makes the handler one that exports metrics about servers.
func (l *Latency) start(servers []string) {
	if l.config.Slow > 0 {
		l.slow = newSlowLog(l.config.PerSecond)
	}
	live.enter(l, servers)
}

// stop gives up everything that the handler has. Queries that are still on their
// way are counted where nobody looks.
func (l *Latency) stop() {
	l.stopped.Do(func() {
		live.leave(l)
		if l.slow != nil {
			l.slow.close()
		}
	})
}

// Name implements plugin.Handler.
func (l *Latency) Name() string { return pluginName }

// ServeDNS implements plugin.Handler.
func (l *Latency) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if ctx.Value(queryKey{}) != nil {
		return l.serveInner(ctx, w, r)
	}
	q := newQuery()
	q.start, q.Context, q.ResponseWriter = l.clock(), ctx, w
	// An inner query may be observed by another server block, so even one that is
	// not observed here has to be recognised there.
	if z := l.zones.match(r); z != nil {
		q.series = l.bind(metrics.WithServer(ctx), z)
	}
	if q.series == nil {
		return plugin.NextOrFailure(pluginName, l.Next, q, w, r)
	}

	q.handler = l
	q.name, q.qtype = r.Question[0].Name, r.Question[0].Qtype // plugins behind rewrite them in place
	q.noteQuery(r.Id)
	q.record = trail.StartIn(q, &q.memory)
	q.status = dns.RcodeServerFailure // what the server answers after a panic
	defer q.finish()
	status, err := trail.Next(pluginName, l.Next, q.record, q, r)
	q.status = status
	return status, err
}

// serveInner passes on what a plugin behind asks this server on behalf of a query
// that is on its way already, to follow an alias for instance: the client has
// asked one question, and gets one answer.
func (l *Latency) serveInner(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	status, err := plugin.NextOrFailure(pluginName, l.Next, ctx, w, r)
	// With the metadata plugin, each inner query has a map of its own.
	if addr := forwardUpstream(ctx); addr != "" {
		trail.From(ctx).NoteUpstream(addr)
	}
	return status, err
}

// finish is called when the query is over, be it by a panic.
func (q *query) finish() {
	l := q.handler
	end, rcode, answered := q.answer()
	if !answered {
		end, rcode = l.clock(), q.status
	}
	took := end - q.start
	attempts := q.record.Finish()
	source := q.source(answered)

	q.series.observe(source, took, end, l.traceID(q.Context))
	if rcode == dns.RcodeNameError && l.search.matches(q.name, q.qtype) {
		q.series.server.searchMisses.Inc()
	}
	// An answer has been sent, or the server will send it: CoreDNS answers for
	// its plugins where they return an error code without having written.
	if answered || !plugin.ClientWrite(rcode) {
		q.noteAnswer(end)
	}
	if l.slow != nil && took >= l.config.Slow {
		l.slow.log(line{query: q, took: took, source: source, rcode: rcode, answered: answered, attempts: attempts}, end)
	}
}

// monotonic is the clock: the time since a moment at the start of the process. It
// costs a third of time.Now, which asks for the time of day as well.
func monotonic() time.Duration { return time.Since(clockBase) }

var clockBase = time.Now()

// wall returns a moment of the clock as a time.
func wall(moment time.Duration) time.Time { return clockBase.Add(moment) }

// zone is one of those observed.
type zone struct {
	name string
	// bound are the series used so far, one for each server. The list is never
	// changed, only replaced.
	bound atomic.Pointer[[]*bound]
}

// zones tell which zone a name is in. There may be many, so they are looked up
// by the name's suffixes and not gone through; and most suffixes are of a length
// that no zone has.
type zones struct {
	byName  map[string]*zone
	root    *zone     // nil: not observed
	lengths [256]bool // of the names; longer ones (with escapes) count as 255
}

func lengthOf(name string) uint8 { return uint8(min(len(name), 255)) }

func newZones(names []string) zones {
	z := zones{byName: map[string]*zone{}}
	for _, name := range names {
		z.byName[name] = &zone{name: name}
		z.byName[name].bound.Store(new([]*bound))
		z.lengths[lengthOf(name)] = true
	}
	z.root = z.byName["."]
	return z
}

// match returns the longest zone that the query's name is in, nil if there is
// none.
func (z *zones) match(r *dns.Msg) *zone {
	if len(r.Question) == 0 {
		return nil
	}
	if z.root != nil && len(z.byName) == 1 {
		return z.root
	}
	name := strings.ToLower(r.Question[0].Name)
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		if suffix := name[off:]; z.lengths[lengthOf(suffix)] {
			if zone := z.byName[suffix]; zone != nil {
				return zone
			}
		}
	}
	return z.root
}
