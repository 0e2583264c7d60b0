package latency

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/resolute-dns/resolute/plugin/internal/trail"

	"github.com/miekg/dns"
)

var log = clog.NewWithPlugin(pluginName)

// slowLog writes at most so many lines a second, and then one that says how many
// it has held back.
type slowLog struct {
	perSecond int

	mu     sync.Mutex
	second time.Duration // when the running second began, by the clock
	lines  int           // written in it
	held   int           // not written
	timer  *time.Timer
	closed bool
}

func newSlowLog(perSecond int) *slowLog { return &slowLog{perSecond: perSecond} }

// log writes the line of a query that was over at now, or holds it back.
func (s *slowLog) log(l line, now time.Duration) {
	if s.allow(now) {
		l.write()
	}
}

func (s *slowLog) allow(now time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now-s.second >= time.Second {
		s.second, s.lines = now, 0
	}
	if s.lines < s.perSecond {
		s.lines++
		return true
	}
	if s.closed {
		return false
	}
	s.held++
	if s.timer == nil {
		s.timer = time.AfterFunc(s.second+time.Second-now, s.flush)
	}
	return false
}

// flush says how many lines were held back.
func (s *slowLog) flush() {
	s.mu.Lock()
	held := s.held
	s.held, s.timer = 0, nil
	s.mu.Unlock()
	if held > 0 {
		write("slow queries not logged", slog.Int("queries", held), slog.Int("limit_per_second", s.perSecond))
	}
}

// close says what there is still to be said, and ends the timer.
func (s *slowLog) close() {
	s.mu.Lock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.flush()
}

// line is what is said about one slow query.
type line struct {
	query    *query
	took     time.Duration
	source   source
	rcode    int
	answered bool
	attempts []trail.Attempt
}

func (l line) write() {
	q := l.query
	rcode := rcodeName(l.rcode)
	if !l.answered && plugin.ClientWrite(l.rcode) {
		rcode = "-" // nobody has answered, nor will the server
	}
	attrs := []slog.Attr{
		slog.String("name", q.name),
		slog.String("type", dns.Type(q.qtype).String()),
		slog.String("client", q.RemoteAddr().String()),
		slog.String("server", q.series.server.name),
		slog.Float64("total_seconds", seconds(l.took)),
		slog.String("source", l.source.String()),
		slog.String("rcode", rcode),
	}
	if len(l.attempts) > 0 {
		attrs = append(attrs, slog.Any("attempts", attempts{l.attempts, wall(q.start)}))
	} else if addr, _ := q.upstream(); addr != "" {
		attrs = append(attrs, slog.String("upstream", addr))
	}
	write("slow query", attrs...)
}

// attempts are what was tried for a query that began at begin.
type attempts struct {
	list  []trail.Attempt
	begin time.Time
}

// MarshalText implements encoding.TextMarshaler: upstream, kind, result, and when
// the attempt began and how long it took, as 50ms+1.2s.
func (a attempts) MarshalText() ([]byte, error) {
	var b strings.Builder
	for i, t := range a.list {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s %s %s %v+%v", t.Upstream, t.Kind, t.Result, t.Start.Sub(a.begin).Round(time.Microsecond), t.Took.Round(time.Microsecond))
		if t.Rcode >= 0 {
			b.WriteString(" " + rcodeName(t.Rcode))
		}
	}
	return []byte(b.String()), nil
}

// MarshalJSON implements json.Marshaler.
func (a attempts) MarshalJSON() ([]byte, error) {
	type attempt struct {
		Upstream string  `json:"upstream"`
		Kind     string  `json:"kind"`
		Result   string  `json:"result"`
		Rcode    string  `json:"rcode,omitempty"`
		Start    float64 `json:"start_seconds"` // after the query's arrival
		Took     float64 `json:"seconds"`
	}
	list := make([]attempt, 0, len(a.list))
	for _, t := range a.list {
		v := attempt{Upstream: t.Upstream, Kind: t.Kind, Result: t.Result, Start: seconds(t.Start.Sub(a.begin)), Took: seconds(t.Took)}
		if t.Rcode >= 0 {
			v.Rcode = rcodeName(t.Rcode)
		}
		list = append(list, v)
	}
	return json.Marshal(list)
}

func rcodeName(rcode int) string {
	if s, ok := dns.RcodeToString[rcode]; ok {
		return s
	}
	return fmt.Sprintf("RCODE%d", rcode)
}

// seconds returns d in seconds, to the microsecond.
func seconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e6 }

// write writes a line as fields of their own under -log-format json, and as
// key=value otherwise, each at the level of information: CoreDNS has no way to
// log fields at another.
func write(message string, attrs ...slog.Attr) {
	if clog.IsJSON() {
		clog.InfoAttrs(message, append([]slog.Attr{slog.String("plugin", pluginName)}, attrs...)...)
		return
	}
	log.Infof("%s: %s", message, keyValues(attrs))
}

// keyValues returns the attributes as text, quoted where that is needed.
func keyValues(attrs []slog.Attr) string {
	var b bytes.Buffer
	h := slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.LevelKey || a.Key == slog.MessageKey {
			return slog.Attr{}
		}
		return a
	}})
	r := slog.NewRecord(time.Time{}, slog.LevelInfo, "", 0)
	r.AddAttrs(attrs...)
	_ = h.Handle(context.Background(), r) // writes to memory
	return strings.TrimSpace(b.String())
}
