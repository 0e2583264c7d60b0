package latency

import (
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/coredns/coredns/plugin/pkg/transport"

	"github.com/resolute-dns/resolute/plugin/latency/internal/retry"
)

// There is one table of recent lookups for each address that is listened on for
// plain DNS, as large as the largest that a server block on it asks for. What a
// table finds out may come out of it with somebody else's answer, so it must not
// mix queries that are counted under different labels; and server blocks do not
// multiply the memory. A table stays across a reload that does not change its
// size.

var (
	causes      = []retry.Cause{retry.LostRequest, retry.LostReply, retry.SlowUpstream, retry.Unknown}
	confidences = []retry.Confidence{retry.Certain, retry.High, retry.Low}
)

// resize gives the server a table with so many entries, 0 for none, and returns
// how many lookups the one before has evicted, if it is gone.
func (s *server) resize(entries int) (evicted uint64) {
	if entries == s.entries || !isPlain(s.name) {
		return 0
	}
	if t := s.retries.Load(); t != nil {
		evicted = t.Evicted()
	}
	s.entries = entries
	if entries == 0 {
		s.retries.Store(nil)
		return evicted
	}
	if s.wait == nil {
		s.wait = clientWait.WithLabelValues(s.name)
	}
	for _, cause := range causes {
		for _, confidence := range confidences {
			// From the start, so that the first retry is a change.
			clientRetries.WithLabelValues(s.name, string(cause), string(confidence))
		}
	}
	s.retries.Store(retry.New(retry.Config{Entries: entries}))
	return evicted
}

// isPlain reports whether the server with this address takes plain DNS. Over DoT,
// DoH, DoQ and gRPC no packet of a client gets lost without its transport sending
// it again.
func isPlain(server string) bool { return strings.HasPrefix(server, transport.DNS+"://") }

// clientOf returns the address of a client that came by UDP. By TCP nothing gets
// lost either.
func clientOf(addr net.Addr) (netip.AddrPort, bool) {
	if u, ok := addr.(interface{ Unwrap() net.Addr }); ok { // of the proxyproto plugin
		addr = u.Unwrap()
	}
	a, ok := addr.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	return a.AddrPort(), true
}

// ticket stands for the query in a table; the zero ticket for one that is in none.
type ticket struct {
	table *retry.Table
	retry.Ticket
}

// noteQuery enters the query into the server's table.
func (q *query) noteQuery(id uint16) {
	s := q.series.server
	t := s.retries.Load()
	if t == nil || q.handler.config.Retries == 0 {
		return
	}
	client, ok := clientOf(q.RemoteAddr())
	if !ok {
		return
	}
	v, k := t.Query(client, id, q.qtype, q.name, wall(q.start))
	q.retry = ticket{t, k}
	s.retried(v, 0)
}

// noteAnswer tells the table that the client was answered at end.
func (q *query) noteAnswer(end time.Duration) {
	if q.retry.table != nil {
		q.series.server.retried(q.retry.table.Answer(q.retry.Ticket, wall(end)))
	}
}

// overdue counts what the table has held back for want of other queries.
func (s *server) overdue(now time.Duration) {
	t := s.retries.Load()
	for t != nil {
		v, wait := t.Overdue(wall(now))
		if v == (retry.Verdict{}) && wait == 0 {
			return
		}
		s.retried(v, wait)
	}
}

// retried counts what a table has found out: most often nothing.
func (s *server) retried(v retry.Verdict, wait time.Duration) {
	if v != (retry.Verdict{}) {
		clientRetries.WithLabelValues(s.name, string(v.Cause), string(v.Confidence)).Inc()
	}
	if wait > 0 {
		s.wait.Observe(wait.Seconds())
	}
}
