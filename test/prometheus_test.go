package test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/resolute-dns/resolute/test/harness"

	"github.com/miekg/dns"
)

// TestPrometheus lets a real Prometheus scrape the server, as text with classic
// buckets and as protobuf with native histograms, and asks it for the p99.9 by
// source.
func TestPrometheus(t *testing.T) {
	prometheus, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("SKIPPED: this test needs prometheus (Debian package prometheus)")
	}
	upstream := harness.Serve(t, func(q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 3600}, A: []byte{192, 0, 2, 1}}}
		return m
	})
	port, metrics := harness.FreePort(t), harness.FreePort(t)
	harness.Start(t, resolute(t), fmt.Sprintf(`.:%d {
	bind 127.0.0.1
	prometheus 127.0.0.1:%d
	latency
	hosts {
		192.0.2.2 local.example.org
		fallthrough
	}
	cache 3600
	failover . %s
}`, port, metrics, upstream.Addr))
	for i := range 200 {
		for _, name := range []string{"local.example.org.", "hit.example.org.", fmt.Sprintf("miss-%d.example.org.", i)} {
			harness.Ask(t, "udp", local(port), new(dns.Msg).SetQuestion(name, dns.TypeA))
		}
	}

	const metric = "coredns_latency_request_duration_seconds"
	for name, tc := range map[string]struct{ feature, quantile, count string }{
		"classic": {"", "histogram_quantile(0.999, sum by (source, le) (" + metric + "_bucket))", "sum by (source) (" + metric + "_count)"},
		"native":  {"native-histograms", "histogram_quantile(0.999, sum by (source) (" + metric + "))", "histogram_count(sum by (source) (" + metric + "))"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := startPrometheus(t, prometheus, tc.feature, local(metrics))
			var counts map[string]float64
			for start := time.Now(); counts["cache"] == 0; {
				counts = ask(t, api, tc.count)
				if time.Since(start) > time.Minute {
					t.Fatalf("nothing was scraped: %v", counts)
				}
				time.Sleep(50 * time.Millisecond)
			}
			// hit.example.org was a miss the first time; what is local is cached too.
			if counts["cache"] != 2*199 || counts["upstream"] != 201 || counts["local"] != 1 {
				t.Errorf("queries by source: %v", counts)
			}
			quantiles := ask(t, api, tc.quantile)
			for _, source := range []string{"cache", "upstream"} {
				if q := quantiles[source]; math.IsNaN(q) || q <= 0 || q > 10 {
					t.Errorf("p99.9 of %s is %v", source, q)
				}
			}
			if local := ask(t, api, `max(coredns_latency_quantile_seconds{quantile="0.999"})`); len(local) != 1 {
				t.Errorf("no quantile gauge: %v", local)
			}
			t.Logf("p99.9 by source: %v", quantiles)
		})
	}
}

// startPrometheus starts a Prometheus that scrapes target, and returns the URL of
// its API.
func startPrometheus(t *testing.T, binary, feature, target string) string {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global:\n  scrape_interval: 1s\nscrape_configs:\n- job_name: coredns\n  static_configs:\n  - targets: ['%s']\n", target)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	addr := local(harness.FreePort(t))
	args := []string{"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + addr, "--log.level=error"}
	if feature != "" {
		args = append(args, "--enable-feature="+feature)
	}
	cmd := exec.Command(binary, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return "http://" + addr + "/api/v1/query"
}

// ask returns the result of an instant query by the label source; an empty one
// while Prometheus starts.
func ask(t *testing.T, api, query string) map[string]float64 {
	t.Helper()
	r, err := http.Get(api + "?query=" + url.QueryEscape(query))
	if err != nil {
		return nil
	}
	defer r.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		return nil
	}
	if answer.Error != "" {
		t.Fatalf("%s: %s", query, answer.Error)
	}
	values := map[string]float64{}
	for _, series := range answer.Data.Result {
		text, _ := series.Value[1].(string)
		values[series.Metric["source"]], err = strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	return values
}
