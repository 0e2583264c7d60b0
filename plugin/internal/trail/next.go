package trail

import (
	"context"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
)

// Next calls the next plugin. It is plugin.NextOrFailure for handlers that wrap
// the writer: what that adds, a wrapper which tells the *prometheus* plugin who
// wrote, reaches it from the plugin right behind it only. A query that is traced
// goes through plugin.NextOrFailure, and gets its spans.
func Next(name string, next plugin.Handler, ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if next == nil || ot.SpanFromContext(ctx) != nil {
		return plugin.NextOrFailure(name, next, ctx, w, r)
	}
	return next.ServeDNS(ctx, w, r)
}
