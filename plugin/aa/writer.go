package aa

import (
	"sync"

	"github.com/coredns/coredns/request"

	"github.com/resolute-dns/resolute/plugin/internal/trail"

	"github.com/miekg/dns"
)

// writer applies the rule to the answer of one query.
type writer struct {
	dns.ResponseWriter
	rule    *rule
	touched *counters
	req     *dns.Msg
	server  string
	zone    string        // the zone the query is in scope of; empty: only count
	counts  bool          // an answer of the discarded shape counts
	trail   *trail.Record // nil: nothing is cached
}

// WriteMsg implements dns.ResponseWriter.
func (w *writer) WriteMsg(m *dns.Msg) error {
	if m == nil {
		return w.ResponseWriter.WriteMsg(m)
	}
	if w.counts && discarded(w.req, m) {
		discardedShape.WithLabelValues(w.server).Inc()
	}
	if w.zone == "" {
		return w.ResponseWriter.WriteMsg(m)
	}
	cached := w.trail != nil && w.trail.Cached()
	if !w.rule.touches(w.req, m, cached) {
		return w.ResponseWriter.WriteMsg(m)
	}

	// The message may be somebody else's, so the header is copied. The records
	// are shared, and left alone.
	touched := *m
	state := request.Request{W: w.ResponseWriter, Req: w.req}
	if truncates(&state, &touched) {
		return w.ResponseWriter.WriteMsg(m)
	}
	w.rule.set(&touched)
	w.touched.of(w.server, w.zone, cached).Inc()
	return w.ResponseWriter.WriteMsg(&touched)
}

// A writer is needed for every query, to look at an answer that nearly always
// needs nothing. It can't be used again for the next query, because others may
// hold on to it (cache does while it verifies a stale entry in the background).
// So writers are cut from small blocks: one allocation for many queries, and
// nothing is ever used twice.
const (
	// perBlock is a compromise: the price of the allocation is down to a few
	// percent of what it was, and a block that some slow query keeps alive holds
	// no more than some 30 finished ones.
	perBlock = 32
)

type block struct {
	writers [perBlock]writer
	used    int
}

var blocks = sync.Pool{New: func() any { return new(block) }}

func newWriter() *writer {
	b := blocks.Get().(*block)
	w := &b.writers[b.used]
	b.used++
	if b.used < perBlock {
		blocks.Put(b)
	}
	return w
}
