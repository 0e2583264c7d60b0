package trail

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
)

// How "from cache" is told.
//
// The cache plugin says nothing about where an answer came from, and no single
// point sees it: a plugin before cache may have answered, cache asks the plugins
// behind it both for the client and in the background, and a stale entry that is
// being verified may be answered by either, whichever is first. So there is one
// handler on each side of cache. The front one opens a consult; the back one
// marks every message that goes into cache while the consult is open; a message
// that comes out at the front and carries the mark is not from memory.
//
// The mark is the identity of a string: the back handler gives the owner name of
// the message's first record a backing array of its own, cache copies records
// (as Go values, so the string stays the same string), and the front handler
// compares addresses. What cache stored for one query and serves to the next
// carries the mark of a consult that is over. Nothing of this can be seen on the
// wire.

const (
	frontName = "trail_front"
	backName  = "trail_back"
)

// front stands right before cache.
type front struct{ next plugin.Handler }

// Name implements plugin.Handler.
func (f *front) Name() string { return frontName }

// ServeDNS implements plugin.Handler.
func (f *front) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	rec := From(ctx)
	if rec == nil {
		return Next(frontName, f.next, ctx, w, r)
	}
	c := &rec.first
	if !rec.firstUsed.CompareAndSwap(false, true) {
		c = new(consult)
	}
	c.Context, c.ResponseWriter, c.rec = ctx, w, rec
	return Next(frontName, f.next, c, c, r)
}

// back stands right behind cache.
type back struct{ next plugin.Handler }

// Name implements plugin.Handler.
func (b *back) Name() string { return backName }

// ServeDNS implements plugin.Handler.
func (b *back) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	c, _ := ctx.Value(consultKey{}).(*consult)
	switch {
	case c == nil:
		return Next(backName, b.next, ctx, w, r)
	case isPrefetch(w):
		return Next(backName, b.next, Detach(ctx), w, r)
	}
	rcode, err := Next(backName, b.next, ctx, &marker{ResponseWriter: w, consult: c}, r)
	if o, ok := ctx.Value(ObserverKey{}).(Observer); ok {
		o.Behind(ctx)
	}
	return rcode, err
}

// isPrefetch reports whether w is the writer that cache makes for a refresh in
// the background, which has no client and says so by an address of zeros.
func isPrefetch(w dns.ResponseWriter) bool {
	a, ok := w.RemoteAddr().(*net.TCPAddr)
	return ok && a.IP == nil && a.Port == 0
}

type consultKey struct{}

// consult is one question to the cache plugin: the context it is asked with, the
// writer that it answers to, and the mark of what has gone into cache for it. It
// outlives its query where cache goes on verifying a stale entry that it has
// served meanwhile.
type consult struct {
	context.Context
	dns.ResponseWriter
	rec *Record

	mu   sync.Mutex // guards mark: a verification runs beside the client's goroutine
	mark mark
}

// Value implements context.Context.
func (c *consult) Value(key any) any {
	if key == (consultKey{}) {
		return c
	}
	return c.Context.Value(key)
}

// WriteMsg implements dns.ResponseWriter.
func (c *consult) WriteMsg(m *dns.Msg) error {
	c.mu.Lock()
	fresh := c.mark.on(m)
	c.mu.Unlock()
	c.count(fresh)
	return c.ResponseWriter.WriteMsg(m)
}

// Write implements dns.ResponseWriter. Cache itself never writes raw bytes, it
// only passes them on.
func (c *consult) Write(b []byte) (int, error) {
	c.count(true)
	return c.ResponseWriter.Write(b)
}

func (c *consult) count(fresh bool) {
	c.rec.consults.Add(1)
	if fresh {
		c.rec.misses.Add(1)
	}
}

// marker marks what the plugins behind cache write.
type marker struct {
	dns.ResponseWriter
	consult *consult
}

// WriteMsg implements dns.ResponseWriter.
func (w *marker) WriteMsg(m *dns.Msg) error {
	if m == nil {
		return w.ResponseWriter.WriteMsg(m)
	}
	m, k := newMark(m)
	w.consult.mu.Lock()
	w.consult.mark = k
	w.consult.mu.Unlock()
	return w.ResponseWriter.WriteMsg(m)
}

// mark identifies a message after cache has copied it. The zero mark is on no
// message.
type mark struct {
	name *byte // the first byte of the first record's owner name

	// A message without any record can't carry a mark; it is known by its header.
	// That is exact but for one case: a stale answer without records is being
	// verified, and the new one, just as empty, arrives in the same instant as
	// cache gives up waiting and serves the old one. Then they are equal.
	empty     bool
	rcode     int
	truncated bool
}

// newMark returns a copy of m that is marked, and the mark. Only what is changed
// is copied: m may share its records with a zone.
func newMark(m *dns.Msg) (*dns.Msg, mark) {
	marked := *m
	section, i := firstRecord(&marked)
	if section == nil {
		return m, mark{empty: true, rcode: m.Rcode, truncated: m.Truncated}
	}
	rr := dns.Copy((*section)[i])
	name := strings.Clone(rr.Header().Name)
	rr.Header().Name = name
	*section = slices.Clone(*section)
	(*section)[i] = rr
	return &marked, mark{name: unsafe.StringData(name)}
}

// on reports whether m carries the mark.
func (k mark) on(m *dns.Msg) bool {
	section, i := firstRecord(m)
	if section == nil {
		return k.empty && m.Rcode == k.rcode && m.Truncated == k.truncated
	}
	return k.name != nil && unsafe.StringData((*section)[i].Header().Name) == k.name
}

// firstRecord returns the section and the index of the first record that is a
// record of the DNS; nil if there is none. OPT is not: it is made anew at each
// hop (RFC 6891 section 6.2.1), and cache drops it. Nor is one without an owner
// name, which has no bytes to be known by.
func firstRecord(m *dns.Msg) (*[]dns.RR, int) {
	for _, section := range []*[]dns.RR{&m.Answer, &m.Ns, &m.Extra} {
		for i, rr := range *section {
			if rr != nil && rr.Header().Rrtype != dns.TypeOPT && rr.Header().Name != "" {
				return section, i
			}
		}
	}
	return nil, 0
}
