package latency

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// zoneFile has an alias for a name that another plugin has to look up.
const zoneFile = `
$ORIGIN example.net.
@ 30 IN SOA ns admin 1 60 60 60 60
@ 30 IN NS ns
a 30 IN A 192.0.2.1
alias 30 IN CNAME a.example.org.
`

// TestSource asks whole servers, made of the real plugins, and checks what each
// answer was counted as.
func TestSource(t *testing.T) {
	up, dead := upstream(t), deadUpstream(t)
	zone := filepath.Join(t.TempDir(), "example.net.zone")
	if err := os.WriteFile(zone, []byte(zoneFile), 0o600); err != nil {
		t.Fatal(err)
	}
	forward := "forward . " + up
	file := "file " + zone + " example.net"
	hosts := "hosts {\n192.0.2.7 h.example.org\nfallthrough\n}"

	type query struct {
		name  string
		qtype uint16
		want  string
	}
	a := func(name, want string) query { return query{name, dns.TypeA, want} }
	aaaa := func(name, want string) query { return query{name, dns.TypeAAAA, want} }
	tests := []struct {
		name, body string
		queries    []query
	}{
		{"forward", forward, []query{a("a.example.org.", "upstream"), a("a.example.org.", "upstream")}},
		{"cache", "cache\n" + forward, []query{a("a.example.org.", "upstream"), a("A.example.org.", "cache")}},
		{"cache and metadata", "metadata\ncache\n" + forward, []query{a("a.example.org.", "upstream"), a("a.example.org.", "cache")}},
		{"metadata", "metadata\n" + forward, []query{a("a.example.org.", "upstream")}},
		{"negative", "cache\n" + forward, []query{a("no.example.org.", "upstream"), a("no.example.org.", "cache"), aaaa("a.example.org.", "upstream"), aaaa("a.example.org.", "cache")}},
		{"an upstream's SERVFAIL", "cache\n" + forward, []query{a("fail.example.org.", "upstream"), a("fail.example.org.", "cache")}},
		{"errors, nobody there", "errors\nforward . " + dead, []query{a("a.example.org.", "none"), a("a.example.org.", "none")}},
		// What nobody has answered, cache answers by itself for the next 5 s.
		{"nobody there, cache", "errors\ncache\nforward . " + dead, []query{a("a.example.org.", "none"), a("a.example.org.", "cache")}},
		{"forward leaves the name out", "forward . " + up + " {\nexcept example.org\n}", []query{a("a.example.org.", "none")}},
		{"hosts", hosts + "\n" + forward, []query{a("h.example.org.", "local"), a("a.example.org.", "upstream")}},
		{"hosts behind cache", "cache\n" + hosts + "\n" + forward, []query{a("h.example.org.", "local"), a("h.example.org.", "cache"), aaaa("h.example.org.", "local")}},
		{"file", file, []query{a("a.example.net.", "local"), a("no.example.net.", "local"), a("a.example.org.", "none")}},
		{"file, an alias for a name of the upstream", file + "\n" + forward, []query{a("alias.example.net.", "upstream"), a("a.example.net.", "local")}},
		{"the same with metadata", "metadata\n" + file + "\n" + forward, []query{a("alias.example.net.", "upstream"), a("a.example.net.", "local")}},
		{"the same with cache", "cache\n" + file + "\n" + forward, []query{a("alias.example.net.", "upstream"), a("alias.example.net.", "cache"), a("a.example.net.", "local")}},
		{"the same with metadata and cache", "metadata\ncache\n" + file + "\n" + forward, []query{a("alias.example.net.", "upstream"), a("alias.example.net.", "cache")}},
		// The target comes from memory, the alias does not.
		{"an alias for a name in the cache", "cache\n" + file + "\n" + forward, []query{a("a.example.org.", "upstream"), a("alias.example.net.", "local")}},
		{"template", "template IN A {\nanswer \"{{ .Name }} 30 IN A 192.0.2.1\"\n}", []query{a("a.example.org.", "local"), aaaa("a.example.org.", "none")}},
		{"kubernetes", "kubernetes", []query{a("web.default.svc.cluster.local.", "local")}},
		{"kubernetes behind cache", "cache\nkubernetes", []query{a("web.default.svc.cluster.local.", "local"), a("web.default.svc.cluster.local.", "cache")}},
		{"failover", "cache\nfailover", []query{a("a.example.org.", "upstream"), a("a.example.org.", "cache"), a("dead.example.org.", "none"), a("dead.example.org.", "none")}},
		{"failover without cache", "failover", []query{a("a.example.org.", "upstream")}},
		// It asks for AAAA, then for A.
		{"dns64", "cache\ndns64\n" + forward, []query{aaaa("a.example.org.", "upstream"), aaaa("a.example.org.", "cache")}},
		{"dns64, half in the cache", "cache\ndns64 {\nallow_ipv4\n}\n" + forward, []query{a("a.example.org.", "upstream"), aaaa("a.example.org.", "upstream"), aaaa("a.example.org.", "cache")}},
		{"erratic", "erratic {\ndrop 0\ndelay 0\n}", []query{a("a.example.org.", "local")}},
		{"no plugin", "errors", []query{a("a.example.org.", "none")}},
		{"cache leaves the name out", "cache . {\ndisable success\n}\n" + forward, []query{a("a.example.org.", "upstream"), a("a.example.org.", "upstream")}},
	}
	var bodies []string
	for _, tc := range tests {
		bodies = append(bodies, tc.body)
	}
	corefile, ips, labels := corefileOf(bodies)
	i := start(t, corefile)
	for n, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			want := map[string]float64{}
			for k, q := range tc.queries {
				i.ask(t, ips[n], q.name, q.qtype)
				want[q.want]++
				if got := sources(t, labels[n]); !maps.Equal(got, want) {
					t.Fatalf("after query %d for %s: counted %v, want %v", k, q.name, got, want)
				}
			}
		})
	}
}

// TestDropped: a query to which nobody answers, not even the server, is observed
// like the others.
func TestDropped(t *testing.T) {
	corefile, ips, labels := corefileOf([]string{"erratic {\ndrop 1\n}"})
	i := start(t, corefile)
	i.send(t, ips[0], "a.example.org.", dns.TypeA)
	if got := sources(t, labels[0]); !maps.Equal(got, map[string]float64{"none": 1}) {
		t.Errorf("counted %v, want one answer of nobody", got)
	}
}

// TestSourceOfOldAnswers has an entry of the cache grow old, which takes a second
// of real time, as cache counts it in such. Then it is refreshed in the
// background, served stale, or verified.
func TestSourceOfOldAnswers(t *testing.T) {
	forward := "forward . " + upstream(t)
	const old = "cache {\nsuccess 9984 30 0\n%s\n}\n"
	tests := []struct {
		name, body string
		want       map[string]float64 // for the first, one at once, and one later
	}{
		{"expired", strings.ReplaceAll(old, "%s", "") + forward, map[string]float64{"upstream": 2, "cache": 1}},
		{"stale", strings.ReplaceAll(old, "%s", "serve_stale 1h") + forward, map[string]float64{"upstream": 1, "cache": 2}},
		{"verified", strings.ReplaceAll(old, "%s", "serve_stale 1h verify") + forward, map[string]float64{"upstream": 2, "cache": 1}},
		{"verified in time", strings.ReplaceAll(old, "%s", "serve_stale 1h verify 2s") + forward, map[string]float64{"upstream": 2, "cache": 1}},
		{"verified in time, with metadata", "metadata\n" + strings.ReplaceAll(old, "%s", "serve_stale 1h verify 2s") + forward, map[string]float64{"upstream": 2, "cache": 1}},
		{"verified in time, by failover", strings.ReplaceAll(old, "%s", "serve_stale 1h verify 2s") + "failover", map[string]float64{"upstream": 2, "cache": 1}},
		{"verified in time, by a local plugin", strings.ReplaceAll(old, "%s", "serve_stale 1h verify 2s") + "kubernetes", map[string]float64{"local": 2, "cache": 1}},
		{"prefetch", strings.ReplaceAll(old, "%s", "prefetch 1 1m 90%\nserve_stale 1h") + forward, map[string]float64{"upstream": 1, "cache": 2}},
	}
	var bodies []string
	for _, tc := range tests {
		bodies = append(bodies, tc.body)
	}
	corefile, ips, labels := corefileOf(bodies)
	i := start(t, corefile)
	for n := range tests {
		i.ask(t, ips[n], "a.example.org.", dns.TypeA)
		i.ask(t, ips[n], "a.example.org.", dns.TypeA)
	}
	time.Sleep(1100 * time.Millisecond)
	for n, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			i.ask(t, ips[n], "a.example.org.", dns.TypeA)
			if got := sources(t, labels[n]); !maps.Equal(got, tc.want) {
				t.Errorf("counted %v, want %v", got, tc.want)
			}
		})
	}
}
