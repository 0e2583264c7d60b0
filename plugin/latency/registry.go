package latency

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/resolute-dns/resolute/plugin/latency/internal/retry"
	"github.com/resolute-dns/resolute/plugin/latency/internal/window"

	"github.com/prometheus/client_golang/prometheus"
)

// live are the handlers that serve, and what they share: two of them may have the
// same labels, as views of one zone do and, during a reload, the one that comes
// and the one that goes. A series lives as long as a handler that may use it.
var live = registry{windows: map[labels]*windowSlot{}, servers: map[string]*server{}, clock: monotonic}

type registry struct {
	clock func() time.Duration

	mu      sync.Mutex
	owners  []*owner // in the order in which they came
	entered int      // how many have ever come
	windows map[labels]*windowSlot
	servers map[string]*server
	evicted uint64 // by tables that are gone
}

// owner is a handler that serves.
type owner struct {
	*Latency
	number  int
	servers []string
}

// windowSlot holds the window of one pair of labels.
type windowSlot struct {
	atomic.Pointer[window.Window]
}

// server is what there is once for each address that is listened on.
type server struct {
	name         string
	searchMisses prometheus.Counter
	wait         prometheus.Observer
	retries      atomic.Pointer[retry.Table] // nil: none, see retries.go
	entries      int                         // of the table; guarded by the registry
}

// enter adds a handler for the servers.
func (r *registry) enter(l *Latency, servers []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entered++
	r.owners = append(r.owners, &owner{Latency: l, number: r.entered, servers: servers})
	r.settle()
}

// leave takes l out, and what nobody else uses.
func (r *registry) leave(l *Latency) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owners = slices.DeleteFunc(r.owners, func(o *owner) bool { return o.Latency == l })
	r.settle()
}

// settle makes everything what the owners need. The lock is held.
func (r *registry) settle() {
	entries := map[string]int{}
	for _, o := range r.owners {
		for _, name := range o.servers {
			entries[name] = max(entries[name], o.config.Retries)
			if r.servers[name] == nil {
				r.servers[name] = &server{name: name, searchMisses: searchMisses.WithLabelValues(name)}
			}
		}
	}
	for name, s := range r.servers {
		n, used := entries[name]
		r.evicted += s.resize(n)
		if !used {
			delete(r.servers, name)
			searchMisses.DeleteLabelValues(name)
			clientWait.DeleteLabelValues(name)
			clientRetries.DeletePartialMatch(prometheus.Labels{"server": name})
		}
	}
	for k, slot := range r.windows {
		switch length := r.length(k); {
		case length == 0:
			delete(r.windows, k)
			requestDuration.DeletePartialMatch(prometheus.Labels{"server": k.server, "zone": k.zone})
		case slot.Load().Length() != length:
			slot.Store(window.New(length))
		}
	}
}

// length returns how long the window for k is to be: the longest that an owner
// wants, or 0 when there is none. The lock is held.
func (r *registry) length(k labels) time.Duration {
	var length time.Duration
	for _, o := range r.owners {
		if o.zones.byName[k.zone] != nil && slices.Contains(o.servers, k.server) {
			length = max(length, o.config.Window)
		}
	}
	return length
}

// bind returns the series of l's zone for the server, made if they are not there
// yet; nil when l has left.
func (r *registry) bind(l *Latency, name string, z *zone) *bound {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := *z.bound.Load()
	if i := slices.IndexFunc(list, func(b *bound) bool { return b.server.name == name }); i >= 0 {
		return list[i]
	}
	i := slices.IndexFunc(r.owners, func(o *owner) bool { return o.Latency == l })
	if i < 0 {
		return nil
	}
	if o := r.owners[i]; !slices.Contains(o.servers, name) {
		o.servers = append(o.servers, name) // not where it was expected to listen
		r.settle()
	}
	k := labels{name, z.name}
	slot := r.windows[k]
	if slot == nil {
		slot = &windowSlot{}
		slot.Store(window.New(r.length(k)))
		r.windows[k] = slot
	}
	b := newBound(k, r.servers[name], slot)
	list = append(slices.Clone(list), b)
	z.bound.Store(&list)
	return b
}

// all returns the windows, the servers, and how many lookups the tables of
// servers that are gone have evicted.
func (r *registry) all() (map[labels]*windowSlot, []*server, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.windows), slices.Collect(maps.Values(r.servers)), r.evicted
}

// mark returns a number that handlers which come later are found by, see since.
func (r *registry) mark() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.entered
}

// since returns the handlers that have come after the mark.
func (r *registry) since(mark int) []*Latency {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ls []*Latency
	for _, o := range r.owners {
		if o.number > mark {
			ls = append(ls, o.Latency)
		}
	}
	return ls
}
