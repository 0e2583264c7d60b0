package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resolute-dns/resolute/test/harness"

	"github.com/miekg/dns"
)

// example starts an example Corefile, made fit for this machine, and returns the
// ports that stand for those in it.
func example(t *testing.T, name, upstream string) map[string]int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "corefile-examples", name+".Corefile"))
	if err != nil {
		t.Fatal(err)
	}
	corefile, ports := harness.Localize(t, string(b), upstream)
	if strings.Contains(corefile, "kubernetes ") {
		corefile = harness.WithKubernetes(corefile, harness.KubernetesAPI(t))
	}
	harness.Start(t, resolute(t), corefile)
	return ports
}

// exampleTests has a test for each example that shows that it does what it is
// for. TestExamples fails for a file without one.
var exampleTests = map[string]func(t *testing.T){
	"demo": func(t *testing.T) {
		ports := example(t, "demo", "")
		aaaa := func(port string) *dns.Msg {
			return harness.Ask(t, "udp", local(ports[port]), new(dns.Msg).SetQuestion("lame.example.", dns.TypeAAAA))
		}
		if !isLame(aaaa("1054")) {
			t.Error("port 1054 is to show the lame shape")
		}
		if m := aaaa("1053"); isLame(m) || !m.Authoritative {
			t.Errorf("port 1053 is to show the AA bit: %v", m)
		}
		m := harness.Ask(t, "udp", local(ports["1053"]), new(dns.Msg).SetQuestion("a.example.org.", dns.TypeA))
		if len(m.Answer) != 1 {
			t.Errorf("no address: %v", m)
		}
	},
	"cluster": func(t *testing.T) {
		upstream := lameUpstream(t)
		ports := example(t, "cluster", upstream.Addr)
		ask := func(name string, qtype uint16) *dns.Msg {
			return harness.Ask(t, "udp", local(ports["53"]), new(dns.Msg).SetQuestion(name, qtype))
		}
		if m := ask("web.default.svc.cluster.local.", dns.TypeA); len(m.Answer) != 1 || !strings.Contains(m.Answer[0].String(), "10.96.0.80") {
			t.Errorf("no cluster name: %v", m)
		}
		if m := ask("a.example.org.", dns.TypeA); len(m.Answer) != 1 || m.Authoritative {
			t.Errorf("an answer with an address is to be left as it is: %v", m)
		}
		if m := ask("nodata.example.org.", dns.TypeA); isLame(m) {
			t.Errorf("the lame shape: %v", m)
		}
	},
	"resilient": func(t *testing.T) {
		var dead atomic.Bool
		upstream := harness.Serve(t, func(q *dns.Msg) *dns.Msg {
			if dead.Load() {
				return nil
			}
			m := new(dns.Msg).SetReply(q)
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: []byte{192, 0, 2, 1}}}
			return m
		})
		ports := example(t, "resilient", upstream.Addr)
		ask := func() *dns.Msg {
			return harness.Ask(t, "udp", local(ports["53"]), new(dns.Msg).SetQuestion("a.example.org.", dns.TypeA))
		}
		if m := ask(); len(m.Answer) != 1 {
			t.Fatalf("no answer: %v", m)
		}
		dead.Store(true)
		// The answer gets old, and then it is served with a TTL of 0.
		for start := time.Now(); ; {
			m := ask()
			if len(m.Answer) != 1 {
				t.Fatalf("with all upstreams dead: %v", m)
			}
			if m.Answer[0].Header().Ttl == 0 {
				break
			}
			if time.Since(start) > 30*time.Second {
				t.Fatal("the answer does not get old")
			}
		}
	},
	"dot": func(t *testing.T) {
		addr, ca := harness.ServeTLS(t, []string{"dns.quad9.net", "one.one.one.one"}, func(q *dns.Msg) *dns.Msg {
			m := new(dns.Msg).SetReply(q)
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: []byte{192, 0, 2, 1}}}
			return m
		})
		t.Setenv("SSL_CERT_FILE", ca) // what the server trusts
		ports := example(t, "dot", addr)
		m := harness.Ask(t, "udp", local(ports["53"]), new(dns.Msg).SetQuestion("a.example.org.", dns.TypeA))
		if len(m.Answer) != 1 {
			t.Errorf("no answer: %v", m)
		}
	},
	"legacy-glibc": func(t *testing.T) {
		upstream := lameUpstream(t)
		b, err := os.ReadFile("../corefile-examples/legacy-glibc.Corefile")
		if err != nil {
			t.Fatal(err)
		}
		for clients, want := range map[string]bool{"127.0.0.0/8": true, "10.20.0.0/16": false} {
			corefile, ports := harness.Localize(t, strings.Replace(string(b), "10.20.0.0/16", clients, 1), upstream.Addr)
			harness.Start(t, resolute(t), corefile)
			for _, when := range []string{"miss", "hit"} {
				m := harness.Ask(t, "udp", local(ports["53"]), new(dns.Msg).SetQuestion("nodata.example.org.", dns.TypeAAAA))
				if m.Authoritative != want || m.RecursionAvailable != want {
					t.Errorf("clients %s, %s: got AA %v, RA %v, want %v", clients, when, m.Authoritative, m.RecursionAvailable, want)
				}
			}
			m := harness.Ask(t, "udp", local(ports["53"]), new(dns.Msg).SetQuestion("ns-check.example.org.", dns.TypeAAAA))
			if m.Authoritative {
				t.Errorf("clients %s: an excepted name was touched", clients)
			}
		}
	},
}

func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../corefile-examples/*.Corefile")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".Corefile")
		t.Run(name, func(t *testing.T) {
			test := exampleTests[name]
			if test == nil {
				t.Fatal("there is no test for this example")
			}
			test(t)
		})
	}
}

var corefileFence = regexp.MustCompile("(?ms)^(?:~~~|```) *corefile\n(.*?)^(?:~~~|```)$")

var nodelocalLine = regexp.MustCompile(`(?m)^\s*nodelocal\s`)

// TestReadmes starts every Corefile in the documents, and checks the form of the
// README of each plugin.
func TestReadmes(t *testing.T) {
	upstream := lameUpstream(t)
	api := harness.KubernetesAPI(t)

	docs, _ := filepath.Glob("../*.md")
	more, _ := filepath.Glob("../docs/*.md")
	plugins, _ := filepath.Glob("../plugin/*/README.md")
	directives, _ := filepath.Glob("../plugin/*/setup.go")
	if len(plugins) != len(directives) {
		t.Errorf("%d READMEs for %d directives", len(plugins), len(directives))
	}
	for _, file := range append(append(docs, more...), plugins...) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		fences := corefileFence.FindAllStringSubmatch(string(b), -1)
		t.Run(strings.TrimPrefix(file, "../"), func(t *testing.T) {
			if strings.HasPrefix(file, "../plugin/") {
				checkManPage(t, string(b), len(fences))
			}
			for _, fence := range fences {
				corefile, _ := harness.Localize(t, fence[1], upstream.Addr)
				corefile = harness.WithKubernetes(corefile, api)
				if nodelocalLine.MatchString(corefile) {
					// It changes the network of the host it runs on.
					harness.NewNamespace(t, nil).Start(t, resolute(t), corefile)
					continue
				}
				harness.Start(t, resolute(t), corefile)
			}
		})
	}
}

// checkManPage checks for the sections that CoreDNS wants in a plugin's README,
// in their order, and for enough examples.
func checkManPage(t *testing.T, text string, examples int) {
	t.Helper()
	at := 0
	for _, section := range []string{"Name", "Description", "Syntax", "Metrics", "Ready", "Examples", "Bugs"} {
		i := strings.Index(text[at:], "\n## "+section+"\n")
		if i < 0 {
			t.Errorf("no section %q, or not in its place", section)
			continue
		}
		at += i
	}
	if examples < 3 {
		t.Errorf("%d example Corefiles, want at least 3", examples)
	}
}
