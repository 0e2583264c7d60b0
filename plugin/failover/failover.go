// Package failover implements a plugin that sends queries to upstream resolvers
// and lets no client wait for a dead one. It takes the place of forward.
package failover

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/dnstap"
	"github.com/coredns/coredns/plugin/metadata"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/coredns/coredns/request"

	"github.com/resolute-dns/resolute/plugin/failover/internal/race"
	"github.com/resolute-dns/resolute/plugin/failover/internal/wire"
	"github.com/resolute-dns/resolute/plugin/internal/trail"

	"github.com/miekg/dns"
)

var log = clog.NewWithPlugin(pluginName)

// Failover is the handler of one failover directive.
type Failover struct {
	Next plugin.Handler

	config     *config
	key        string // of the directive, the same over a reload
	group      *race.Group
	rest       func() // ends what start has begun, but for the group
	concurrent atomic.Int64
	taps       []*dnstap.Dnstap
	since      time.Time // when it was started
	left       bool      // guarded by running: it has left
}

// errLimitExceeded is returned with REFUSED, as forward does.
var errLimitExceeded = errors.New("concurrent queries exceeded max_concurrent")

// Name implements plugin.Handler.
func (f *Failover) Name() string { return pluginName }

// ServeDNS implements plugin.Handler.
func (f *Failover) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	state := request.Request{W: w, Req: r}
	if !f.match(&state) {
		return plugin.NextOrFailure(pluginName, f.Next, ctx, w, r)
	}
	if limit := f.config.maxConcurrent; limit > 0 {
		defer f.concurrent.Add(-1)
		if f.concurrent.Add(1) > limit {
			rejected.Inc()
			return dns.RcodeRefused, errLimitExceeded
		}
	}

	m, err := f.ask(ctx, &state)
	if err != nil {
		return f.failed(ctx, err)
	}
	if f.goesOn(m) {
		return plugin.NextOrFailure(pluginName, f.Next, ctx, w, r)
	}
	w.WriteMsg(m)
	return dns.RcodeSuccess, nil
}

// match reports whether the query is for this directive.
func (f *Failover) match(state *request.Request) bool {
	if f.config.from == "." && len(f.config.except) == 0 {
		return true // the usual case, without the cost of making the name canonical
	}
	name := state.Name()
	if !plugin.Name(f.config.from).Matches(name) {
		return false
	}
	// FROM itself can't be excepted, as in forward.
	return dns.Name(name) == dns.Name(f.config.from) || plugin.Zones(f.config.except).Matches(name) == ""
}

// failed returns what a handler returns when there is no answer.
//
// The SERVFAIL goes without an error on purpose: cache keeps one that comes with
// an error, for the 5 s of its servfail option, and the name would stay broken
// after the first upstream is back. Failures are counted, and the changes of
// state that cause them are logged.
func (f *Failover) failed(ctx context.Context, err error) (int, error) {
	var nobody race.FailedError
	switch {
	case errors.As(err, &nobody), errors.Is(err, race.ErrClosed):
		return dns.RcodeServerFailure, nil
	case errors.Is(err, wire.ErrBadQuery):
		return dns.RcodeFormatError, err
	case ctx.Err() != nil:
		return dns.RcodeServerFailure, ctx.Err()
	}
	return dns.RcodeServerFailure, err
}

// job is what a query needs besides the memory of the race, used again and again.
type job struct {
	query race.Query
	buf   []byte
}

// packSize holds nearly all queries: a name of 255 bytes, the header, OPT with a
// cookie and client subnet.
const packSize = 512

var jobs = sync.Pool{New: func() any { return &job{buf: make([]byte, packSize)} }}

// ask returns an answer to the query in state that is ready to be written.
func (f *Failover) ask(ctx context.Context, state *request.Request) (*dns.Msg, error) {
	r := state.Req
	j := jobs.Get().(*job)
	defer jobs.Put(j)
	packed, err := r.PackBuffer(j.buf)
	if err != nil {
		return nil, errors.Join(wire.ErrBadQuery, err)
	}
	c := f.config
	j.query = race.Query{
		Packed:   packed,
		RetryTCP: c.preferUDP && !c.forceTCP,
		// A signature is made over the bytes of one client, and an update is to
		// be made once.
		Alone: r.Opcode != dns.OpcodeQuery || r.IsTsig() != nil,
	}
	if c.forceTCP || !c.preferUDP && state.Proto() == "tcp" {
		j.query.Proto = wire.TCP
	}
	// Also where no attempt is made for this query: it may share somebody else's.
	trail.From(ctx).NoteUpstream("")
	watch := f.watch(ctx, state)
	if watch != nil {
		j.query.Observer = watch
	}

	m, err := f.group.Exchange(ctx, &j.query)
	j.query = race.Query{}
	if err != nil {
		return nil, err
	}
	if to := watch.winner(); to != "" {
		metadata.SetValueFunc(ctx, "failover/upstream", func() string { return to })
		// What log formats and dashboards that were made for forward know.
		metadata.SetValueFunc(ctx, "forward/upstream", func() string { return to })
	}
	m.Id = r.Id
	m.Question = append(m.Question[:0], r.Question...) // in the client's case
	return m, nil
}

// goesOn reports whether m is to be left to the next failover directive, by next
// or next_on_nodata.
func (f *Failover) goesOn(m *dns.Msg) bool {
	if f.Next == nil {
		return false
	}
	if name := f.Next.Name(); name != pluginName && name != "forward" {
		return false
	}
	return slices.Contains(f.config.nextRcodes, m.Rcode) ||
		f.config.nextOnNodata && m.Rcode == dns.RcodeSuccess && len(m.Answer) == 0
}
