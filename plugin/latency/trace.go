package latency

import (
	"context"
	"strings"

	"github.com/coredns/coredns/plugin/metadata"

	ot "github.com/opentracing/opentracing-go"
)

// traceID returns the ID of the trace that the query is part of, for an exemplar;
// the empty string when it is not traced. The trace plugin publishes it as
// metadata. Without the metadata plugin it is what the span would tell another
// server.
func (l *Latency) traceID(ctx context.Context) string {
	if !l.traced {
		return ""
	}
	if f := metadata.ValueFunc(ctx, "trace/traceid"); f != nil {
		return f()
	}
	span := ot.SpanFromContext(ctx)
	if span == nil {
		return ""
	}
	carrier := ot.TextMapCarrier{}
	if err := span.Tracer().Inject(span.Context(), ot.TextMap, carrier); err != nil {
		return ""
	}
	for k, v := range carrier {
		// B3 propagation of Zipkin, and Datadog's own.
		if strings.EqualFold(k, "x-b3-traceid") || strings.EqualFold(k, "x-datadog-trace-id") {
			return v
		}
	}
	return ""
}
