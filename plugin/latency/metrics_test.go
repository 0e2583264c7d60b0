package latency

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestExported lints everything that is exported, and checks that labels have
// nothing in them that a client can choose.
func TestExported(t *testing.T) {
	const addr = "dns://192.0.2.53:53"
	conf := testConfig()
	conf.Zones = []string{"org."}
	l := started(t, conf, addr, noop(new(dns.Msg).SetRcode(new(dns.Msg), dns.RcodeNameError)))
	for _, name := range []string{"a.example.org.", "secret.org.", "b.example.net."} {
		l.ServeDNS(serverCtx(addr), udpClient("198.51.100.7:1234"), new(dns.Msg).SetQuestion(name, dns.TypeA))
	}

	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "coredns_latency_") {
			continue
		}
		var names []string
		for _, m := range f.GetMetric() {
			for _, p := range m.GetLabel() {
				names = append(names, p.GetName())
				if v := p.GetValue(); strings.Contains(v, "198.51.100") || strings.Contains(v, "secret") || strings.Contains(v, "example") {
					t.Errorf("%s has a label %s=%q", f.GetName(), p.GetName(), v)
				}
			}
		}
		slices.Sort(names)
		got[f.GetName()] = slices.Compact(names)
	}
	want := map[string][]string{
		"coredns_latency_request_duration_seconds": {"server", "source", "zone"},
		"coredns_latency_quantile_seconds":         {"server", "zone"}, // and quantile, of a summary
		"coredns_latency_max_seconds":              {"server", "zone"},
		"coredns_latency_client_retries_total":     {"cause", "confidence", "server"},
		"coredns_latency_client_wait_seconds":      {"server"},
		"coredns_latency_search_misses_total":      {"server"},
		evictedName:                                nil,
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("exported are %v, want %v", got, want)
	}
	problems, err := testutil.GatherAndLint(prometheus.DefaultGatherer, exported...)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if got := series(t, "coredns_latency_client_retries_total", prometheus.Labels{"server": addr}); len(got) != len(causes)*len(confidences) {
		t.Errorf("there are %d series of retries before the first one", len(got))
	}
}

// TestExposition: classic buckets come out in text, native ones in protobuf.
func TestExposition(t *testing.T) {
	const addr = "dns://192.0.2.53:53"
	clock := &testClock{}
	l := New(testConfig())
	l.clock = clock.read
	l.Next = stepping(clock, 4*time.Second)
	l.start([]string{addr})
	t.Cleanup(l.stop)
	l.ServeDNS(serverCtx(addr), udpClient("192.0.2.1:1234"), new(dns.Msg).SetQuestion("a.", dns.TypeA))

	scrape := func(accept string) string {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		promhttp.Handler().ServeHTTP(w, r)
		return w.Body.String()
	}
	text := scrape("text/plain")
	for _, want := range []string{
		`coredns_latency_request_duration_seconds_bucket{server="` + addr + `",source="local",zone=".",le="2.5"} 0`,
		`coredns_latency_request_duration_seconds_bucket{server="` + addr + `",source="local",zone=".",le="5"} 1`,
		`coredns_latency_request_duration_seconds_count{server="` + addr + `",source="cache",zone="."} 0`,
		`coredns_latency_max_seconds{server="` + addr + `",zone="."} 4`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	_, value, _ := strings.Cut(text, `coredns_latency_quantile_seconds{server="`+addr+`",zone=".",quantile="0.999"} `)
	value, _, _ = strings.Cut(value, "\n")
	if v, err := strconv.ParseFloat(value, 64); err != nil || v < .98*4 || v > 1.02*4 {
		t.Errorf("quantile is %q, want 4", value)
	}
	if b := scrape("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"); !strings.Contains(b, "coredns_latency_request_duration_seconds") {
		t.Error("nothing in protobuf")
	}
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != durationName {
			continue
		}
		for _, m := range f.GetMetric() {
			// 16 buckets for each doubling: a factor of 1.044, the largest not above 1.05.
			if s := m.GetHistogram().GetSchema(); s != 4 {
				t.Errorf("native schema %d, want 4", s)
			}
			if m.GetHistogram().GetSampleCount() == 1 && len(m.GetHistogram().GetPositiveSpan()) != 1 {
				t.Error("no native bucket")
			}
		}
	}
}

// TestNoQueries: what nobody has asked for in the window has no quantiles, rather
// than those of long ago.
func TestNoQueries(t *testing.T) {
	const addr = "dns://192.0.2.53:53"
	clock := &testClock{}
	defer func(c func() time.Duration) { live.clock = c }(live.clock)
	live.clock = clock.read
	l := New(testConfig())
	l.clock = clock.read
	l.Next = stepping(clock, time.Second)
	l.start([]string{addr})
	t.Cleanup(l.stop)
	l.ServeDNS(serverCtx(addr), udpClient("192.0.2.1:1234"), new(dns.Msg).SetQuestion("a.", dns.TypeA))
	server := prometheus.Labels{"server": addr}
	if got := series(t, "coredns_latency_max_seconds", server)["."]; got != 1 {
		t.Errorf("maximum is %v, want 1", got)
	}
	clock.now += 2 * time.Minute
	if got := series(t, "coredns_latency_max_seconds", server); len(got) > 0 {
		t.Errorf("after the window there is a maximum: %v", got)
	}
	if got := series(t, "coredns_latency_quantile_seconds", server)["."]; got != 1 {
		t.Errorf("after the window %v are counted, want 1", got)
	}
}

// TestExemplars: a traced query leaves its trace ID in the histogram, whether or
// not the metadata plugin is there, and others leave none.
func TestExemplars(t *testing.T) {
	const body = "trace 127.0.0.1:1 {\nevery %s\n}\nkubernetes"
	collector := deadUpstream(t)
	var bodies []string
	for _, b := range []string{"metadata\n" + strings.Replace(body, "%s", "1", 1), strings.Replace(body, "%s", "1", 1), strings.Replace(body, "%s", "1000000", 1), "kubernetes"} {
		bodies = append(bodies, strings.Replace(b, "127.0.0.1:1", collector, 1))
	}
	corefile, ips, labels := corefileOf(bodies)
	i := start(t, corefile)
	for n, want := range []bool{true, true, false, false} {
		i.ask(t, ips[n], "a.example.org.", dns.TypeA)
		id := ""
		families, err := prometheus.DefaultGatherer.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() != durationName || m.GetLabel()[0].GetValue() != labels[n] {
					continue
				}
				for _, b := range m.GetHistogram().GetBucket() {
					for _, l := range b.GetExemplar().GetLabel() {
						if l.GetName() == "trace_id" {
							id = l.GetValue()
						}
					}
				}
			}
		}
		if (len(id) >= 16) != want {
			t.Errorf("block %d: trace ID %q, want one: %v", n, id, want)
		}
	}
}
