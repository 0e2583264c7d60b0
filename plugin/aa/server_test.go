package aa

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/dns64"
	_ "github.com/coredns/coredns/plugin/header"
	_ "github.com/coredns/coredns/plugin/template"

	"github.com/miekg/dns"
)

// The directives in these tests stand where plugin.cfg puts them.
func init() {
	i := slices.Index(dnsserver.Directives, "dnstap")
	if err := dnsserver.SetDirectives(slices.Insert(dnsserver.Directives, i+1, pluginName)); err != nil {
		panic(err)
	}
	dnsserver.Quiet = true
}

// lameZone answers every A query, and AAAA with an empty answer, in both cases
// without AA and RA.
const lameZone = `
	header {
		response clear aa ra
	}
	template IN A {
		answer "{{ .Name }} 30 IN A 192.0.2.1"
	}
	template IN AAAA {
		rcode NOERROR
		authority "{{ .Zone }} 30 IN SOA ns.example.org. admin.example.org. 1 60 60 60 60"
	}`

// start starts a CoreDNS with the Corefile and returns the addresses of its UDP
// listeners by the zone of their server block.
func start(t *testing.T, corefile string) (*caddy.Instance, []string) {
	t.Helper()
	i, err := caddy.Start(caddy.CaddyfileInput{Contents: []byte(corefile), Filepath: "Corefile", ServerTypeName: "dns"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		i.ShutdownCallbacks()
		i.Stop()
	})
	var addrs []string
	for _, s := range i.Servers() {
		addrs = append(addrs, s.LocalAddr().String())
	}
	return i, addrs
}

func ask(t *testing.T, addr, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m, err := dns.Exchange(new(dns.Msg).SetQuestion(name, qtype), addr)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestCachedInServer checks what mode `cached` makes of misses and hits in a
// whole server, where the handlers around cache are put in by callbacks.
func TestCachedInServer(t *testing.T) {
	tests := map[string]string{
		"one zone":   ".:0 {\nbind 127.0.0.1\naa {\nanswers cached\n}\ncache 30" + lameZone + "\n}",
		"more zones": "example.org:0 example.net:0 {\nbind 127.0.0.1\naa {\nanswers cached\n}\ncache 30" + lameZone + "\n}",
		"plugins between": ".:0 {\nbind 127.0.0.1\naa {\nanswers cached\n}\ncache 30\ndns64 {\ntranslate_all\n}" +
			lameZone + "\n}",
	}
	for name, corefile := range tests {
		t.Run(name, func(t *testing.T) {
			_, addrs := start(t, corefile)
			for i, want := range []bool{false, true, true} {
				m := ask(t, addrs[0], "a.example.org.", dns.TypeA)
				if m.Authoritative != want {
					t.Errorf("query %d: AA is %v, want %v", i, m.Authoritative, want)
				}
			}
		})
	}
}

// TestCachedDNS64 checks an answer that dns64 makes of two questions to cache.
func TestCachedDNS64(t *testing.T) {
	_, addrs := start(t, ".:0 {\nbind 127.0.0.1\naa {\nanswers cached\n}\ncache 30\ndns64 {\nallow_ipv4\n}"+lameZone+"\n}")
	// The A record gets into the cache, the AAAA is still missing from it.
	ask(t, addrs[0], "a.example.org.", dns.TypeA)
	for i, want := range []bool{false, true} {
		m := ask(t, addrs[0], "a.example.org.", dns.TypeAAAA)
		if len(m.Answer) != 1 {
			t.Fatalf("dns64 did nothing: %v", m)
		}
		if m.Authoritative != want {
			t.Errorf("query %d: AA is %v, want %v", i, m.Authoritative, want)
		}
	}
}

func TestServerBlocks(t *testing.T) {
	const cached = "bind 127.0.0.1\naa {\nanswers cached\n}\n"
	t.Run("answers cached without cache", func(t *testing.T) {
		for name, corefile := range map[string]string{
			"alone":               ".:0 {\n" + cached + lameZone + "\n}",
			"cache in another":    ".:0 {\n" + cached + lameZone + "\n}\nexample.net:0 {\ncache\n}",
			"cache in the former": "example.net:0 {\ncache\n}\n.:0 {\n" + cached + lameZone + "\n}",
		} {
			t.Run(name, func(t *testing.T) {
				i, err := caddy.Start(caddy.CaddyfileInput{Contents: []byte(corefile), ServerTypeName: "dns"})
				if err == nil {
					i.Stop()
					t.Fatal("it started")
				}
				if want := "plugin/aa: 'answers cached' needs the cache plugin"; !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q in it", err, want)
				}
			})
		}
	})

	t.Run("blocks with and without", func(t *testing.T) {
		var blocks []string
		for i, body := range []string{
			"aa\ncache",                       // 0: on hit and miss
			"cache",                           // 1: never
			"aa",                              // 2: always, no cache
			"aa {\nanswers cached\n}\ncache",  // 3: on hits
			"aa {\nanswers empty\n}\ncache\n", // 4: nothing here is empty
		} {
			blocks = append(blocks, fmt.Sprintf(".:0 {\nbind 127.0.0.%d\n%s%s\n}", i+1, body, lameZone))
		}
		_, addrs := start(t, strings.Join(blocks, "\n"))
		for _, addr := range addrs {
			var first, second bool
			first = ask(t, addr, "a.example.org.", dns.TypeA).Authoritative
			second = ask(t, addr, "a.example.org.", dns.TypeA).Authoritative
			want := map[string][2]bool{
				"127.0.0.1": {true, true},
				"127.0.0.2": {false, false},
				"127.0.0.3": {true, true},
				"127.0.0.4": {false, true},
				"127.0.0.5": {false, false},
			}[addr[:strings.LastIndex(addr, ":")]]
			if got := [2]bool{first, second}; got != want {
				t.Errorf("%s: got AA %v, want %v", addr, got, want)
			}
		}
	})

	t.Run("reload", func(t *testing.T) {
		corefile := ".:0 {\n" + cached + "cache 30" + lameZone + "\n}"
		i, addrs := start(t, corefile)
		ask(t, addrs[0], "a.example.org.", dns.TypeA) // a server that has not begun to serve yet can't be stopped
		for range 3 {
			// A Corefile that fails half-way must leave nothing behind.
			if _, err := i.Restart(caddy.CaddyfileInput{Contents: []byte(".:0 {\naa\ncache {\nnonsense\n}\n}"), ServerTypeName: "dns"}); err == nil {
				t.Fatal("nonsense was taken")
			}
			var err error
			i, err = i.Restart(caddy.CaddyfileInput{Contents: []byte(corefile), ServerTypeName: "dns"})
			if err != nil {
				t.Fatal(err)
			}
			addr := i.Servers()[0].LocalAddr().String()
			for n, want := range []bool{false, true} {
				if got := ask(t, addr, "a.example.org.", dns.TypeA).Authoritative; got != want {
					t.Errorf("query %d: AA is %v, want %v", n, got, want)
				}
			}
		}
		i.ShutdownCallbacks()
		i.Stop()
	})
}
