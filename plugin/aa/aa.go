// Package aa implements a plugin that sets the AA bit, or RA, in answers to stub
// resolvers, so that glibc doesn't throw them away.
package aa

import (
	"context"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metrics"
	"github.com/coredns/coredns/request"

	"github.com/resolute-dns/resolute/plugin/internal/trail"

	"github.com/miekg/dns"
)

// AA is the handler of the aa directive.
type AA struct {
	Next plugin.Handler

	rule    rule
	touched counters
	trail   bool // there is a cache plugin behind, whose answers are told apart
}

// Name implements plugin.Handler.
func (a *AA) Name() string { return pluginName }

// ServeDNS implements plugin.Handler.
func (a *AA) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	state := request.Request{W: w, Req: r}
	zone := a.rule.zone(&state)
	counts := couldDiscard(&state)
	if zone == "" && !counts {
		return plugin.NextOrFailure(pluginName, a.Next, ctx, w, r)
	}

	aw := newWriter()
	aw.ResponseWriter, aw.rule, aw.req, aw.server = w, &a.rule, r, metrics.WithServer(ctx)
	aw.zone, aw.counts, aw.touched = zone, counts, &a.touched
	if a.trail && zone != "" {
		aw.trail = trail.Start(ctx)
		ctx = aw.trail
	}
	return trail.Next(pluginName, a.Next, ctx, aw, r)
}

// couldDiscard reports whether the query is one whose answer glibc might throw
// away: a stub's query over UDP without EDNS.
func couldDiscard(state *request.Request) bool {
	q := state.Req
	return q.Opcode == dns.OpcodeQuery && q.RecursionDesired && q.IsEdns0() == nil && state.Proto() == "udp"
}
