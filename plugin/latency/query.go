package latency

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin/metadata"

	"github.com/resolute-dns/resolute/plugin/internal/trail"

	"github.com/miekg/dns"
)

// query is one query of a client on its way: the context and the writer that the
// plugins behind get.
type query struct {
	context.Context    // what the plugins in front have put into it
	dns.ResponseWriter // the client's

	handler *Latency // nil: not observed
	series  *bound
	record  *trail.Record
	memory  trail.Record // of the record, if this is the front-most of our plugins
	retry   ticket
	name    string // as received
	qtype   uint16
	start   time.Duration // of the clock
	status  int           // what the plugins behind have returned

	// The first answer. A plugin that writes after its return, or from several
	// goroutines, does wrong but must do no harm.
	state atomic.Int32 // one of the states below
	end   time.Duration
	rcode int

	mu       sync.Mutex  // guards metadata
	metadata any         // the map that stands in for the metadata plugin's; nil: not asked for yet
	made     atomic.Bool // there is one
}

const (
	unanswered = iota
	answering  // end and rcode are being set
	answered
)

// WriteMsg implements dns.ResponseWriter.
func (q *query) WriteMsg(m *dns.Msg) error {
	err := q.ResponseWriter.WriteMsg(m)
	if m != nil {
		q.wrote(m.Rcode)
	}
	return err
}

// Write implements dns.ResponseWriter.
func (q *query) Write(b []byte) (int, error) {
	n, err := q.ResponseWriter.Write(b)
	if len(b) > 3 {
		q.wrote(int(b[3] & 0xf)) // RFC 1035 section 4.1.1
	}
	return n, err
}

// wrote notes an answer. The first one counts: a zone transfer goes on for as long
// as the zone is large.
func (q *query) wrote(rcode int) {
	if q.state.CompareAndSwap(unanswered, answering) {
		q.end, q.rcode = q.handler.clock(), rcode
		q.state.Store(answered)
	}
}

// answer returns when the client was answered, and how.
func (q *query) answer() (end time.Duration, rcode int, ok bool) {
	if q.state.Load() != answered {
		return 0, 0, false
	}
	return q.end, q.rcode, true
}

type queryKey struct{}

// Value implements context.Context.
func (q *query) Value(key any) any {
	switch key {
	case queryKey{}:
		return q
	case trail.ObserverKey{}:
		if q.handler != nil {
			return q
		}
	case metadataKey:
		if v := q.Context.Value(key); v != nil || q.handler == nil {
			return v
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.metadata == nil {
			q.metadata = metadata.ContextWithMetadata(context.Background()).Value(key)
			q.made.Store(true)
		}
		return q.metadata
	}
	return q.Context.Value(key)
}

// touchedMetadata reports whether there is metadata that forward could have
// written to. Asking for the metadata itself would make it.
func (q *query) touchedMetadata() bool {
	return q.made.Load() || q.Context.Value(metadataKey) != nil
}

// metadataKey is the key of the metadata in a context, which package metadata
// keeps to itself. It is learnt by letting the package ask for it. With it the
// map is made when the first plugin wants it, and answers from memory, which are
// most, do without.
var metadataKey = func() any {
	c := &keyCatcher{Context: context.Background()}
	metadata.ValueFuncs(c)
	return c.key
}()

type keyCatcher struct {
	context.Context
	key any
}

// Value implements context.Context.
func (c *keyCatcher) Value(key any) any {
	c.key = key
	return nil
}

// Each client's query needs one of these, and it can't be used again for the next:
// what goes on in the background holds on to contexts and writers. So queries are
// cut from blocks, which brings the price of the allocation down to that of
// zeroing memory; a block is freed when the last of its queries is.
const (
	// perBlock is a compromise: a slow query keeps at most some 6 KB of memory
	// that nobody needs any more.
	perBlock = 16
)

type block struct {
	queries [perBlock]query
	used    int
}

var blocks = sync.Pool{New: func() any { return new(block) }}

func newQuery() *query {
	b := blocks.Get().(*block)
	q := &b.queries[b.used]
	b.used++
	if b.used < perBlock {
		blocks.Put(b)
	}
	return q
}
