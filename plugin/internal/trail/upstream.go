package trail

import "context"

// NoteUpstream notes that the query was taken to an upstream server, whatever
// came of it: addr is the one asked last, empty where that is not known (the
// answer to somebody else's query served this one too). It is for plugins that
// do not call [Record.AddAttempt]. A nil record is fine: nobody wants to know.
func (r *Record) NoteUpstream(addr string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		return
	}
	r.asked = true
	if addr != "" {
		r.upstream = addr
	}
}

// Upstream returns what [Record.NoteUpstream] has noted. Asked is true as well
// when there is an attempt.
func (r *Record) Upstream() (addr string, asked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.upstream, r.asked || len(r.attempts) > 0
}

// ObserverKey is the key of the [Observer] in the context, if there is one.
type ObserverKey struct{}

// Observer is told what can't be seen from in front of the cache plugin.
type Observer interface {
	// Behind is called after the plugins behind cache have been asked for a
	// client, in a block with [Watch], with the context that they were called
	// with: cache gives them a metadata map of their own when it verifies a stale
	// entry, and what they write to it does not come to the front. The call may
	// come from another goroutine than the query's, and after its end.
	Behind(ctx context.Context)
}
