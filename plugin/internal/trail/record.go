// Package trail keeps what happened to one query on its way through the plugin
// chain: plugins far back write to it, plugins in front read it when the answer
// comes by.
//
// The front-most of our plugins makes the record with [Start]; everything
// behind finds it in the context with [From]. A record belongs to one query of
// one client. Work that goes on in the background for the *next* client (the
// refreshes of the cache plugin) runs with the same context, so everything here
// is safe for concurrent use, and such work is cut off from the record with
// [Detach] where it can be told.
package trail

import (
	"context"
	"sync"
	"sync/atomic"
)

// Record is the trail of one query. It is a context itself, so that carrying it
// costs no allocation besides its own. Make one with [Start].
type Record struct {
	context.Context

	// consults counts how often the cache plugin was asked, misses how many of
	// those answers came from behind it. A plugin in front of cache may ask more
	// than once for one answer (dns64 looks for AAAA and then for A).
	consults, misses atomic.Int32

	mu       sync.Mutex // guards the following
	attempts []Attempt
	finished bool
	asked    bool   // an upstream, see NoteUpstream
	upstream string // the last one

	// first is the consult of nearly every query, which has one.
	first     consult
	firstUsed atomic.Bool
}

type recordKey struct{}

// Value implements context.Context.
func (r *Record) Value(key any) any {
	if key == (recordKey{}) {
		return r
	}
	return r.Context.Value(key)
}

// Start returns the record that ctx carries, or a new one. The returned record
// is the context to go on with.
func Start(ctx context.Context) *Record {
	if r := From(ctx); r != nil {
		return r
	}
	return &Record{Context: ctx}
}

// StartIn is [Start] with the memory for a new record, which must be zero: for a
// plugin that has some to spare. It is not used when ctx carries a record.
func StartIn(ctx context.Context, memory *Record) *Record {
	if r := From(ctx); r != nil {
		return r
	}
	memory.Context = ctx
	return memory
}

// From returns the record that ctx carries, nil if there is none.
func From(ctx context.Context) *Record {
	r, _ := ctx.Value(recordKey{}).(*Record)
	return r
}

// Detach returns ctx without the record and the consult in it, for work that
// goes on in the background on behalf of nobody.
func Detach(ctx context.Context) context.Context { return detached{ctx} }

type detached struct{ context.Context }

// Value implements context.Context.
func (d detached) Value(key any) any {
	switch key {
	case recordKey{}, consultKey{}:
		return nil
	}
	return d.Context.Value(key)
}

// Cached reports whether the answer that has reached the front came out of the
// cache plugin's memory: cache was asked, and nothing behind it was needed. It
// is false where cache was not asked at all, because a plugin before it
// answered or because the server block has none, and in a block without
// [Watch].
func (r *Record) Cached() bool {
	return r.consults.Load() > 0 && r.misses.Load() == 0
}
