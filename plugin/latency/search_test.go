package latency

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/miekg/dns"
)

// TestSearchRule has the names that a pod of the namespace ns asks for on its way
// to a name, on a node whose search domain is corp.example, and names that are
// asked for as they are. All do not exist.
func TestSearchRule(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("search corp.example C.Internal. ns.svc.cluster.local svc.cluster.local cluster.local .\nnameserver 192.0.2.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rule := newSearchRule(file)
	tests := []struct {
		name string
		want bool
	}{
		// www.example.com
		{"www.example.com.ns.svc.cluster.local.", true},
		{"www.example.com.svc.cluster.local.", true},
		{"www.example.com.cluster.local.", true},
		{"www.example.com.corp.example.", true},
		{"www.example.com.c.internal.", true},
		{"WWW.Example.COM.NS.svc.Cluster.Local.", true},
		{"www.example.com.", false},
		// example.com, two labels
		{"example.com.ns.svc.cluster.local.", true},
		{"example.com.svc.cluster.local.", true},
		{"example.com.cluster.local.", true},
		// A service of another namespace, by its short and its full name.
		{"db.other.ns.svc.cluster.local.", true},
		{"db.other.svc.cluster.local.ns.svc.cluster.local.", true},
		{"db.other.svc.cluster.local.svc.cluster.local.", true},
		{"db.other.svc.cluster.local.cluster.local.", true},
		{"db.other.svc.cluster.local.corp.example.", true},
		// One label.
		{"db.svc.cluster.local.", true},
		{"db.cluster.local.", true},
		// Another cluster domain, where the form of the name tells.
		{"www.example.com.ns.svc.k8s.example.", true},
		{"www.example.com.svc.k8s.example.", true},

		// What exists, or would if it were there.
		{"db.other.svc.cluster.local.", false},
		{"10-1-2-3.other.pod.cluster.local.", false},
		{"pod.cluster.local.", false},
		{"dns-version.cluster.local.", false},
		{"ns.dns.cluster.local.", false},
		{"cluster.local.", false},
		{"svc.cluster.local.", false},
		{"host.corp.example.", false},
		{"host.prod.corp.example.", false},
		{"com.corp.example.", false},
		{"svc.example.com.", false},
		{"a.b.svc.", false},
		{"no.such.name.example.org.", false},
		{".", false},

		// The errors that the README admits.
		{"db-0.db.other.svc.cluster.local.", true},     // a host of a headless service
		{"example.de.svc.cluster.local.", false},       // a namespace may be called de
		{"db.ns.svc.cluster.local.", false},            // db, which is not in ns
		{"www.example.de.corp.example.", false},        // no well-known top-level domain
		{"www.example.com.k8s.example.", false},        // the last of another cluster domain
		{"www.example.com.other-node.example.", false}, // a search domain that this node does not have
		{"monitor.com.corp.example.", true},            // a department called com
		{"a.svc.example.com.", true},                   // an outside name with such a label
	}
	for _, tc := range tests {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			if got := rule.matches(tc.name, qtype); got != tc.want {
				t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
			}
		}
		if rule.matches(tc.name, dns.TypeSRV) {
			t.Errorf("%s: no resolver appends to the name of a %s", tc.name, "SRV")
		}
	}
	for _, name := range []string{"_http._tcp.web.ns.svc.cluster.local.", "_dmarc.a.b.ns.svc.cluster.local."} {
		if rule.matches(name, dns.TypeA) {
			t.Errorf("%s is no host's name", name)
		}
	}
	if s := newSearchRule(filepath.Join(t.TempDir(), "missing")); len(s.domains) > 0 || !s.matches("a.b.c.d.svc.cluster.local.", dns.TypeA) {
		t.Error("without resolv.conf")
	}
}

// TestSearchMisses counts in a server: what does not exist, and nothing else.
func TestSearchMisses(t *testing.T) {
	corefile, ips, labels := corefileOf([]string{"cache\nforward . " + upstream(t)})
	i := start(t, corefile)
	for _, name := range []string{
		"no.example.com.ns.svc.cluster.local.", "no.example.com.ns.svc.cluster.local.", // from the cache as well
		"no.example.com.", "a.example.com.ns.svc.cluster.local.", "fail.example.com.ns.svc.cluster.local.",
	} {
		i.ask(t, ips[0], name, dns.TypeA)
	}
	if got := series(t, "coredns_latency_search_misses_total", nil)[labels[0]]; got != 2 {
		t.Errorf("%v misses, want 2", got)
	}
}
