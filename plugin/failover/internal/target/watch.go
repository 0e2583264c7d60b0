package target

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// An edit has to take effect within 5 s. Everything is polled, and compared by
// content:
//
//   - Files, because inotify tells of an inode, and the usual edits replace it:
//     a rename, or the swap of the `..data` link two directories up that is how
//     a ConfigMap changes. It costs a descriptor, of which a node has few for
//     all its pods, and says nothing on network file systems. Reading a small
//     file once a second costs some microseconds.
//   - Names, because the system's resolver does not tell TTLs.
const (
	// fileInterval is short because a file counts when it was read alike twice in
	// a row: one that is being rewritten in place is empty or half for a moment.
	fileInterval = time.Second
	// nameInterval is shortened by up to a quarter, so that the instances of a
	// cluster do not ask in step.
	nameInterval = 2 * time.Second
	nameJitter   = nameInterval / 4
	// lookupTimeout lets the system's resolver get past two dead nameservers at 5 s
	// each. Nothing but the name itself waits for it.
	lookupTimeout = 12 * time.Second
	// steady is how many times in a row something has to be seen before it counts:
	// a new version of a file, and every failure.
	steady = 2
)

// Hooks are told what a Watcher finds. Any may be nil. They are called one at a
// time, from the goroutine of Run.
type Hooks struct {
	// Changed is called with the new list, which is never empty and not used by the
	// Watcher any more.
	Changed func(list []Target)
	// Failed is called when a file became unreadable or lost all its nameservers,
	// or a name can't be resolved any more. Its upstreams stay. It is called once
	// for each kind of failure until the TO argument is good again.
	Failed func(to string, err error)
	// Recovered is called when a TO argument for which Failed was called is good
	// again, before Changed if it stands for something else now.
	Recovered func(to string)
}

// Watcher keeps a list of upstreams up to date. It is used by one goroutine at a
// time.
type Watcher struct {
	x       *Expansion
	states  []state
	current []Target
	hooks   Hooks
	jitter  func() time.Duration
}

// state is what is known about an entry apart from what it stands for.
type state struct {
	// seen is what the file was read as last, and times how often in a row; failed
	// is how often in a row there was a failure.
	seen          []Target
	times, failed int
	// reported are the kinds of failures that were reported.
	reported []string
}

// observation is what one look at a file or name gave: the upstreams, or an
// error and what tells it from another one.
type observation struct {
	list []Target
	err  error
	kind string
}

// NewWatcher returns a Watcher that starts with x, or nil if nothing in x can
// change.
func NewWatcher(x *Expansion, hooks Hooks) *Watcher {
	if !slices.ContainsFunc(x.entries, func(e entry) bool { return e.kind != kindAddr }) {
		return nil
	}
	own := *x
	own.entries = slices.Clone(x.entries)
	return &Watcher{
		x:       &own,
		states:  make([]state, len(own.entries)),
		current: own.list(),
		hooks:   hooks,
		jitter:  func() time.Duration { return rand.N(nameJitter) },
	}
}

// Run watches until ctx is done. It returns when all that it started has ended.
func (w *Watcher) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var names sync.WaitGroup
	defer names.Wait()
	defer cancel()

	// A goroutine for each name, at most MaxTOs of them: a name that takes long
	// delays no other, and is not asked for twice at once.
	found := make(chan finding)
	for i := range w.x.entries {
		if e := w.x.entries[i]; e.kind == kindHost {
			names.Go(func() { w.follow(ctx, i, e, found) })
		}
	}
	files := time.NewTicker(fileInterval)
	defer files.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-files.C:
			w.pollFiles()
		case f := <-found:
			w.observe(f.entry, f.observation)
		}
	}
}

// finding is what a lookup gave.
type finding struct {
	entry int
	observation
}

// follow looks a name up again and again. It works on a copy of the entry.
func (w *Watcher) follow(ctx context.Context, i int, e entry, found chan<- finding) {
	timer := time.NewTimer(nameInterval - w.jitter())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		o := w.lookup(ctx, e)
		if o.err == nil {
			e.good = o.list
		}
		select {
		case <-ctx.Done():
			return
		case found <- finding{i, o}:
		}
		timer.Reset(nameInterval - w.jitter())
	}
}

// lookup looks the name of e up. What e stood for before keeps its place, so
// that the order in which a server rotates its answers does not matter.
func (w *Watcher) lookup(ctx context.Context, e entry) observation {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := w.x.src.lookup(ctx, "ip", e.host, w.x.resolvers)
	if err == nil && len(addrs) == 0 {
		err = noAddress(e.host)
	}
	if err != nil {
		return observation{err: err, kind: failure(err)}
	}
	list := e.targets(addrs)
	for _, network := range []string{"ip4", "ip6"} {
		old := ofFamily(e.good, network)
		if len(old) == 0 || len(ofFamily(list, network)) > 0 {
			continue
		}
		// A whole family is gone. Resolvers report no error when one of the two
		// questions failed and the other was answered, so this one is asked alone.
		more, err := w.x.src.lookup(ctx, network, e.host, w.x.resolvers)
		switch {
		case err == nil:
			list = dedup(list, e.targets(more))
		case !notFound(err):
			list = dedup(list, old)
		}
	}
	stay := slices.DeleteFunc(slices.Clone(e.good), func(t Target) bool { return !slices.Contains(list, t) })
	return observation{list: dedup(stay, list)}
}

// targets completes the addresses of a host name.
func (e *entry) targets(addrs []netip.Addr) []Target {
	list := make([]Target, 0, len(addrs))
	for _, a := range addrs {
		list = append(list, newTarget(e.transport, a, e.port, e.serverName))
	}
	return dedup(list)
}

// ofFamily returns those of list that have addresses of network.
func ofFamily(list []Target, network string) []Target {
	return slices.DeleteFunc(slices.Clone(list), func(t Target) bool {
		ap, err := netip.ParseAddrPort(t.Addr)
		return err != nil || ap.Addr().Is4() != (network == "ip4")
	})
}

// pollFiles reads all files once.
func (w *Watcher) pollFiles() {
	for i := range w.x.entries {
		e := &w.x.entries[i]
		if e.kind != kindFile {
			continue
		}
		list, _, err := readServers(w.x.src, e.file)
		if err == nil && len(list) == 0 && len(e.good) > 0 {
			err = fmt.Errorf("%s: no nameserver", e.file)
		}
		o := observation{list: list, err: err}
		if err != nil {
			o.kind = err.Error() // the same text for the same trouble
		}
		w.observe(i, o)
	}
}

// observe takes in what one look at entry i gave.
func (w *Watcher) observe(i int, o observation) {
	e, s := &w.x.entries[i], &w.states[i]
	if o.err != nil {
		s.times = 0
		s.failed = min(s.failed+1, steady)
		if s.failed == steady && !slices.Contains(s.reported, o.kind) {
			s.reported = append(s.reported, o.kind)
			if w.hooks.Failed != nil {
				w.hooks.Failed(e.to, o.err)
			}
		}
		return
	}
	s.failed = 0
	if s.times == 0 || !slices.Equal(o.list, s.seen) {
		s.seen, s.times = o.list, 0
	}
	s.times = min(s.times+1, steady)
	changed := !slices.Equal(o.list, e.good)
	if changed && s.times < steady && e.kind == kindFile {
		return // a name's answer is whole or none at all, a file may be half written
	}
	if len(s.reported) > 0 {
		s.reported = nil
		if w.hooks.Recovered != nil {
			w.hooks.Recovered(e.to)
		}
	}
	if !changed {
		return
	}
	e.good = o.list
	if list := w.x.list(); !slices.Equal(list, w.current) {
		w.current = list
		if w.hooks.Changed != nil {
			w.hooks.Changed(slices.Clone(list))
		}
	}
}
