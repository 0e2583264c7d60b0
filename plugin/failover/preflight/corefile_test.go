package preflight

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/etcd"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/root"
	_ "github.com/coredns/coredns/plugin/tls"
	_ "github.com/coredns/coredns/plugin/whoami"
)

func input(corefile string) caddy.Input {
	return caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(corefile), ServerTypeName: serverType}
}

func mustRead(t *testing.T, text string) *corefile {
	t.Helper()
	c, _, errs := read(input(text), new(progress))
	if len(errs) > 0 {
		t.Fatalf("%s\n%v", text, errs)
	}
	c.resolve(context.Background())
	return c
}

func TestReadErrors(t *testing.T) {
	for name, tc := range map[string]struct{ corefile, want string }{
		"unknown directive":        {".:1053 {\n forwad . 192.0.2.1\n}", "Corefile:2: Unknown directive 'forwad'"},
		"no closing brace":         {".:1053 {\n whoami", "Corefile:2: Unexpected token 'whoami', expecting '}'"},
		"bad option":               {".:1053 {\n forward . 192.0.2.1 {\n  max_fial 3\n }\n}", "Corefile:3: plugin/forward: unknown property 'max_fial'"},
		"bad value":                {".:1053 {\n forward . 192.0.2.1 {\n  max_fails many\n }\n}", "Corefile:3: plugin/forward: strconv.ParseUint: parsing \"many\": invalid syntax"},
		"no such file or host":     {".:1053 {\n forward . a..example\n}", "Corefile:2: plugin/forward: not an IP address, file, or valid domain"},
		"bad zone":                 {"..x {\n whoami\n}", "Corefile"},
		"the same zone twice":      {".:1053 {\n whoami\n}\n.:1053 {\n whoami\n}", "Corefile: cannot serve dns://.:1053 - it is already defined"},
		"missing certificate":      {".:1053 {\n forward . tls://192.0.2.1 {\n  tls /no/such/ca.pem\n }\n}", "Corefile:3: plugin/forward: "},
		"file to import not found": {"import /no/such/file\n", "Corefile:1: File to import not found: /no/such/file"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _, errs := read(input(tc.corefile), new(progress))
			if c != nil || len(errs) == 0 {
				t.Fatalf("no error")
			}
			var all []string
			for _, e := range errs {
				all = append(all, e.String())
			}
			if !slices.ContainsFunc(all, func(s string) bool { return strings.HasPrefix(s, tc.want) }) {
				t.Errorf("got %q, want %q", all, tc.want)
			}
		})
	}
}

func TestReadAllErrors(t *testing.T) {
	_, _, errs := read(input(".:1053 {\n forward . 192.0.2.1 {\n  policy best\n }\n cache {\n  servfail never\n }\n}"), new(progress))
	if len(errs) != 2 || errs[0].Line != 6 || errs[1].Line != 3 || errs[1].Token != "best" || errs[1].Directive != "forward" {
		t.Errorf("got %v", errs)
	}
}

func TestReadOptions(t *testing.T) {
	c := mustRead(t, `
example.org:1053 corp.example:1053 {
	cache 30 {
		servfail 2s
		serve_stale 30m
	}
	forward . 192.0.2.1 tls://192.0.2.2%a.example 192.0.2.3:5353 {
		except x.corp.example
		force_tcp
		source_address 127.0.0.9
		max_fails 3
		policy sequential
		doh_method GET
	}
}
. {
	cache
	forward 10.in-addr.arpa 192.0.2.1
	forward . tls://192.0.2.9 {
		tls_servername b.example
	}
}`)
	if len(c.blocks) != 2 || len(c.forwards()) != 3 {
		t.Fatalf("got %d blocks, %d directives", len(c.blocks), len(c.forwards()))
	}
	b := c.blocks[0]
	if b.cache.servfail != 2*time.Second || !b.cache.stale || b.cache.Line != 3 {
		t.Errorf("cache: %+v", b.cache)
	}
	if d := c.blocks[1].cache; d.servfail != 5*time.Second || d.stale {
		t.Errorf("cache by default: %+v", d)
	}
	f := b.forwards[0]
	if f.Line != 7 || f.question != "example.org." || !f.forceTCP || f.source.String() != "127.0.0.9" || f.dohMethod != "GET" || !slices.Equal(f.except, []string{"x.corp.example."}) {
		t.Errorf("forward: %+v", f)
	}
	var got []string
	for _, f := range c.forwards() {
		for _, u := range f.upstreams {
			got = append(got, fmt.Sprintf("%s %s %s", u.protocol(f), u.target.Addr, f.tlsFor(u.target).ServerName))
		}
	}
	want := []string{"tcp 192.0.2.1:53 ", "tls 192.0.2.2:853 a.example", "tcp 192.0.2.3:5353 ", "udp 192.0.2.1:53 ", "tls 192.0.2.9:853 b.example"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	for name, want := range map[string]bool{"www.example.org.": true, "x.corp.example.": false, "a.x.corp.example.": false} {
		if f.matches(name) != want {
			t.Errorf("%s: taken: %v", name, !want)
		}
	}
}

func TestReadEmpty(t *testing.T) {
	if c := mustRead(t, ""); len(c.blocks) != 1 || c.blocks[0].listens[0].port != "53" {
		t.Errorf("got %+v", c)
	}
}

// TestReadSkips checks that directives are not set up that would wait for a
// service.
func TestReadSkips(t *testing.T) {
	_, notes, errs := read(input(".:1053 {\n etcd {\n  endpoint http://192.0.2.1:2379\n }\n tls {\n  acme example.org\n }\n}"), new(progress))
	if len(errs) > 0 || len(notes) != 2 || notes[0].Line != 5 || notes[1].Line != 2 {
		t.Errorf("got notes %v, errors %v", notes, errs)
	}
}

func TestZoneToAsk(t *testing.T) {
	for _, tc := range []struct {
		zones string
		from  string
		want  string
	}{
		{".", ".", "."},
		{".", "example.org.", "example.org."},
		{"example.org.", ".", "example.org."},
		{"example.org. .", ".", "."},
		{"a.example. b.example.", "b.example.", "b.example."},
		{"a.example.", "b.a.example.", "b.a.example."},
		{"a.example.", "b.example.", "b.example."}, // never asked anything
	} {
		if got := zoneToAsk(strings.Fields(tc.zones), tc.from); got != tc.want {
			t.Errorf("zones %s, FROM %s: got %s, want %s", tc.zones, tc.from, got, tc.want)
		}
	}
}

func TestLocate(t *testing.T) {
	at := Place{"Corefile", 7}
	for _, tc := range []struct{ text, directive, place, message string }{
		{"Corefile:3 - Error during parsing: no", "", "Corefile:3", "no"},
		{"/etc/x y/other:3 - Syntax error: no", "", "/etc/x y/other:3", "no"},
		{"plugin/aa: Corefile:3 - Error during parsing: no", "aa", "Corefile:3", "plugin/aa: no"},
		{"plugin/file: zone:3 - Error during parsing: no", "file", "Corefile:7", "plugin/file: zone:3 - Error during parsing: no"},
		{"cannot serve dns://.:1053 - it is", "", "Corefile:7", "cannot serve dns://.:1053 - it is"},
		{"plain", "aa", "Corefile:7", "plain"},
		{"Corefile:99999999999999999999 - Error during parsing: no", "", "Corefile:7", "Corefile:99999999999999999999 - Error during parsing: no"},
	} {
		e := locate(fmt.Errorf("%s", tc.text), tc.directive, at)
		if e.Place.String() != tc.place || e.Message != tc.message {
			t.Errorf("%q: got %s, %q", tc.text, e.Place, e.Message)
		}
	}
}

func TestTraps(t *testing.T) {
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 10.0.0.7\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	two := "192.0.2.1 192.0.2.2"
	good := "cache 30 {\n serve_stale\n}\n"
	for name, tc := range map[string]struct{ corefile, want string }{
		"nothing":                     {". {\n" + good + "forward . " + two + "\n}", ""},
		"no cache":                    {". {\nforward . " + two + "\n}", ""},
		"cache without forward":       {". {\ncache\nwhoami\n}", ""},
		"no serve_stale":              {". {\ncache\nforward . " + two + "\n}", "no_serve_stale:2"},
		"serve_stale off":             {". {\ncache {\nserve_stale 0s\n}\nforward . " + two + "\n}", "no_serve_stale:2"},
		"one upstream":                {". {\nforward . 192.0.2.1\n}", "single_upstream:2"},
		"one upstream, cached":        {". {\n" + good + "forward . 192.0.2.1\n}", "servfail_cached:2 single_upstream:5"},
		"one upstream, servfail 1s":   {". {\ncache {\nserve_stale\nservfail 1s\n}\nforward . 192.0.2.1\n}", "single_upstream:6"},
		"twice":                       {". {\nforward . " + two + " 192.0.2.1:53\n}", "duplicate:2"},
		"twice, by another transport": {". {\nforward . 192.0.2.1 tls://192.0.2.1\n}", ""},
		"twice in a file":             {".:1053 {\nforward . " + resolv + "\n}", "duplicate:2"},
		"file and address":            {".:1053 {\nforward . " + resolv + " 192.0.2.1\n}", "duplicate:2 duplicate:2"},

		"itself":                       {".:1053 {\nforward . 192.0.2.1 127.0.0.1:1053\n}", "loop:2"},
		"itself by resolv.conf":        {". {\nforward . " + resolv + "\n}", "duplicate:2 loop:2"},
		"itself, only":                 {".:1053 {\ncache\nforward . 127.0.0.1:1053\n}", "loop:3"},
		"itself, by [::1]":             {".:1053 {\nforward . 192.0.2.1 [::1]:1053\n}", "loop:2"},
		"itself, by 0.0.0.0":           {".:1053 {\nforward . 192.0.2.1 0.0.0.0:1053\n}", "loop:2"},
		"itself, by the interface":     {".:1053 {\nforward . 192.0.2.1 10.0.0.7:1053\n}", "loop:2"},
		"itself, bound":                {".:1053 {\nbind 127.0.0.1\nforward . 192.0.2.1 127.0.0.1:1053\n}", "loop:3"},
		"itself, by TLS":               {"tls://.:1053 {\nforward . 192.0.2.1 tls://127.0.0.1:1053\n}", "loop:2"},
		"itself, for one zone":         {".:1053 {\nforward a.example 127.0.0.1:1053 192.0.2.1\n}", "loop:2"},
		"another port":                 {".:1053 {\nforward . 192.0.2.1 127.0.0.1:1054\n}", ""},
		"another transport":            {".:1053 {\nforward . 192.0.2.1 tls://127.0.0.1:1053\n}", ""},
		"another machine":              {".:1053 {\nforward . 192.0.2.1 10.0.0.8:1053\n}", ""},
		"another address of ours":      {".:1053 {\nbind 127.0.0.1\nforward . 192.0.2.1 10.0.0.7:1053\n}", ""},
		"excepted":                     {"a.example:1053 {\nforward . 192.0.2.1 127.0.0.1:1053 {\nexcept a.example\n}\n}", ""},
		"another block":                {".:1053 {\nforward . 127.0.0.1:1054\n}\n.:1054 {\nwhoami\n}", ""},
		"another zone":                 {".:1053 {\nforward a.example 127.0.0.1:1053 192.0.2.1\n}\na.example:1053 {\nwhoami\n}", ""},
		"two blocks, round":            {".:1053 {\nforward . 127.0.0.1:1054\n}\n.:1054 {\nforward . 127.0.0.1:1053\n}", "loop:2 loop:5"},
		"two blocks, round for a zone": {".:1053 {\nforward . 127.0.0.1:1054\n}\n.:1054 {\nforward b.example 127.0.0.1:1053\nforward . " + two + "\n}", "loop:2 loop:5"},
		"another block that loops":     {".:1053 {\nforward . 127.0.0.1:1054\n}\n.:1054 {\nforward . 192.0.2.1 127.0.0.1:1054\n}", "loop:5"},
	} {
		t.Run(name, func(t *testing.T) {
			c := mustRead(t, tc.corefile)
			c.findOwn([]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.0.0.7")})
			var got []string
			for _, f := range traps(c) {
				got = append(got, fmt.Sprintf("%s:%d", f.Code, f.Line))
			}
			slices.Sort(got)
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("got %q, want %q", s, tc.want)
			}
		})
	}
}

func TestNames(t *testing.T) {
	c := mustRead(t, ".:1053 {\nforward corp.example 192.0.2.1\nforward . 192.0.2.2 {\nexcept local\n}\n}\nb.example:1053 {\nforward . 192.0.2.3\n}")
	names := []string{"www.corp.example.", "www.example.org.", "www.b.example.", "printer.local."}
	c.assignNames(names)
	var got []string
	for _, f := range c.forwards() {
		for _, u := range f.upstreams {
			got = append(got, u.target.Addr+" "+strings.Join(u.names, " "))
		}
	}
	want := []string{"192.0.2.1:53 www.corp.example.", "192.0.2.2:53 www.example.org.", "192.0.2.3:53 www.b.example."}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if notes := unaskedNotes(c, names); len(notes) != 1 || !strings.HasPrefix(notes[0].Message, "printer.local.") {
		t.Errorf("got %v", notes)
	}
}

// FuzzRead checks that no Corefile makes the reading panic. Whether it starts
// does not matter.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		"", "{", "}", ". {", ". {\n}", "(a) {\n}\n. {\nimport a\n}", ".:53, {\n}", "{$X} {\nforward {$Y}\n}",
		". {\nforward . 192.0.2.1 {\nexcept\n}\n}", ". {\nforward\n}", ". {\ncache {\nservfail\n{\n}\n}\n}", ". {\naa {\nanswers\n}\n}",
		"tls://[::1]:1 {\nbind ::1\nforward . [fe80::1%lo]:53 tls://192.0.2.1%a\ntls {\nkeylog\n}\n}", "10.0.0.0/8 {\nforward 10.0.0.0/9 0.0.0.0\n}",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, corefile string) {
		// Names would be looked up, files read.
		if strings.ContainsAny(corefile, "/\\") && strings.Contains(corefile, "import") || strings.Contains(corefile, "keylog") {
			t.Skip()
		}
		c, _, errs := read(input(corefile), new(progress))
		for _, e := range errs {
			if strings.HasPrefix(e.Message, "panic") {
				t.Fatal(e)
			}
		}
		if c == nil {
			return
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		c.resolve(ctx)
		c.findOwn(nil)
		traps(c)
	})
}
