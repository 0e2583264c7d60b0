package failover

import (
	"context"

	"github.com/coredns/coredns/plugin/dnstap"
	"github.com/coredns/coredns/plugin/dnstap/msg"
	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"

	"github.com/resolute-dns/resolute/plugin/failover/internal/race"
	"github.com/resolute-dns/resolute/plugin/internal/trail"

	tap "github.com/dnstap/golang-dnstap"
	ot "github.com/opentracing/opentracing-go"
	otext "github.com/opentracing/opentracing-go/ext"
)

// queryWatch passes the attempts made for one query on to whoever wants to know:
// the trail, dnstap, tracing, metadata.
type queryWatch struct {
	f     *Failover
	ctx   context.Context
	state *request.Request
	trail *trail.Record
	span  ot.Span
	won   string // the upstream whose answer it is
}

// watch returns nil when nobody wants to know, which is the usual case.
func (f *Failover) watch(ctx context.Context, state *request.Request) *queryWatch {
	record, span := trail.From(ctx), ot.SpanFromContext(ctx)
	if record == nil && span == nil && len(f.taps) == 0 && metadata.ValueFuncs(ctx) == nil {
		return nil
	}
	return &queryWatch{f: f, ctx: ctx, state: state, trail: record, span: span}
}

// winner returns the upstream that gave the answer, the empty string if it is not
// known.
func (w *queryWatch) winner() string {
	if w == nil {
		return ""
	}
	return w.won
}

// Attempt implements the observer of a race.Query.
func (w *queryWatch) Attempt(a race.Attempt) {
	to := series(a.Upstream).to
	if a.Result == race.Win || a.Result == race.Rcode && w.won == "" {
		w.won = to
	}
	if w.trail != nil {
		w.trail.AddAttempt(trail.Attempt{
			Upstream: to, Kind: string(a.Kind), Result: string(a.Result), Rcode: a.Rcode, Start: a.Started, Took: a.Took,
		})
	}
	if w.span != nil {
		span := w.span.Tracer().StartSpan("connect", ot.ChildOf(w.span.Context()), ot.StartTime(a.Started))
		otext.PeerAddress.Set(span, to)
		span.FinishWithOptions(ot.FinishOptions{FinishTime: a.Started.Add(a.Took)})
	}
	for _, t := range w.f.taps {
		w.tap(t, a)
	}
}

// tap sends the query of an attempt, and its reply if there is one, to dnstap: as
// FORWARDER messages, of which this server is the one that asks.
func (w *queryWatch) tap(t *dnstap.Dnstap, a race.Attempt) {
	local, remote := a.Wire.Local(), a.Wire.Remote()
	if remote == nil {
		return // it never left
	}
	message := func(kind tap.Message_Type) *tap.Message {
		m := new(tap.Message)
		msg.SetType(m, kind)
		msg.SetQueryTime(m, a.Started)
		if local != nil {
			msg.SetQueryAddress(m, local)
		}
		msg.SetResponseAddress(m, remote)
		return m
	}

	q := message(tap.Message_FORWARDER_QUERY)
	if t.IncludeRawMessage {
		q.QueryMessage, _ = w.state.Req.Pack()
	}
	t.TapMessageWithMetadata(w.ctx, q, *w.state)

	if a.Rcode < 0 {
		return
	}
	r := message(tap.Message_FORWARDER_RESPONSE)
	msg.SetResponseTime(r, a.Started.Add(a.Took))
	if t.IncludeRawMessage {
		r.ResponseMessage = append([]byte(nil), a.Wire.Raw()...)
	}
	t.TapMessageWithMetadata(w.ctx, r, *w.state)
}
