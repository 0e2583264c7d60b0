package latency

import (
	"context"

	"github.com/coredns/coredns/plugin/metadata"

	"github.com/resolute-dns/resolute/plugin/internal/trail"
)

// source says where an answer came from.
type source int

const (
	// fromCache is an answer out of the cache plugin's memory, stale or not, for
	// which nothing behind it was waited for in the end.
	fromCache source = iota
	// fromUpstream is an answer for which another server was asked, by forward
	// or failover.
	fromUpstream
	// fromLocal is an answer that this server made by itself: kubernetes, file,
	// hosts and so on, and every other plugin that writes.
	fromLocal
	// fromNone: no plugin has written an answer. The client gets what the server
	// answers for them (SERVFAIL), or nothing.
	fromNone
)

var sourceNames = [...]string{fromCache: "cache", fromUpstream: "upstream", fromLocal: "local", fromNone: "none"}

func (s source) String() string { return sourceNames[s] }

// source returns where the query's answer came from. The order matters: an answer
// from memory may be given after an upstream was asked in vain, to verify a stale
// entry; and one by a local plugin may have needed an upstream, for the target of
// an alias.
func (q *query) source(answered bool) source {
	switch {
	case !answered:
		return fromNone
	case q.record.Cached():
		return fromCache
	}
	if _, asked := q.upstream(); asked {
		return fromUpstream
	}
	return fromLocal
}

// upstream reports whether an upstream was asked, and returns the one that was
// asked last, as far as it is known.
func (q *query) upstream() (addr string, asked bool) {
	addr, asked = q.record.Upstream()
	if addr == "" && q.touchedMetadata() {
		addr = forwardUpstream(q)
	}
	return addr, asked || addr != ""
}

// Behind implements trail.Observer.
func (q *query) Behind(ctx context.Context) {
	if !q.touchedMetadata() {
		return // and ctx has no map of its own either: cache makes it as a copy
	}
	if addr := forwardUpstream(ctx); addr != "" {
		trail.From(ctx).NoteUpstream(addr)
	}
}

// forwardUpstream returns what forward has published in the metadata of ctx.
func forwardUpstream(ctx context.Context) string {
	if f := metadata.ValueFunc(ctx, "forward/upstream"); f != nil {
		return f()
	}
	return ""
}
