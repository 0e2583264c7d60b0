package test

import (
	"strings"
	"testing"

	"github.com/resolute-dns/resolute/test/harness"
)

// What getaddrinfo returns (netdb.h).
const (
	eaiNoName = "-2"
	eaiAgain  = "-3"
	eaiNoData = "-5"
)

// lameCorefile is a server for a host of its own, where the resolver library
// finds it on port 53. Behind it is an upstream that sets neither AA nor RA. It
// has addresses for a.example and svc.second.example, and svc.first.example and
// empty.example without any.
const lameCorefile = `
.:53 {
	bind 127.0.0.1
	AA
	cache 30
	forward . 127.0.0.1:5301
}
.:5301 {
	bind 127.0.0.1
	header {
		response clear aa ra
	}
	template IN A example {
		match ^(a|svc\.second)\.example\.$
		answer "{{ .Name }} 30 IN A 192.0.2.2"
		fallthrough
	}
	template IN ANY example {
		rcode NOERROR
		authority "example. 30 IN SOA ns.example. admin.example. 1 60 60 60 60"
	}
}
`

// TestGlibc looks names up with the C library of this machine, without and with
// aa. Glibc takes an empty answer of the lame shape for a server that can't help
// and gives up with "try again", its search list included.
func TestGlibc(t *testing.T) {
	program := getaddrinfo(t)
	lookups := []string{"a.example.", "0", "a.example.", "6", "empty.example.", "0", "svc", "0"}
	for name, tc := range map[string]struct {
		directive string
		want      []string // of the lookups, alternatives separated by |
	}{
		"without aa": {"", []string{"0 192.0.2.2", eaiAgain + " -", eaiAgain + " -", eaiAgain + " -"}},
		"with aa": {"aa", []string{"0 192.0.2.2", eaiNoData + " -|" + eaiNoName + " -",
			eaiNoData + " -|" + eaiNoName + " -", "0 192.0.2.2"}},
		"with RA only": {"aa {\nbit ra\nanswers empty\n}", []string{"0 192.0.2.2", eaiNoData + " -|" + eaiNoName + " -",
			eaiNoData + " -|" + eaiNoName + " -", "0 192.0.2.2"}},
	} {
		t.Run(name, func(t *testing.T) {
			ns := harness.NewNamespace(t, map[string]string{
				"resolv.conf":   "nameserver 127.0.0.1\nsearch first.example second.example\noptions timeout:1 attempts:1\n",
				"nsswitch.conf": "hosts: dns\n",
			})
			ns.Start(t, resolute(t), strings.ReplaceAll(lameCorefile, "AA", tc.directive))

			// The second time, the answers come from the cache.
			for _, when := range []string{"miss", "hit"} {
				cmd := ns.Command(program, lookups...)
				var stderr strings.Builder
				cmd.Stderr = &stderr
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("%v: %s", err, &stderr)
				}
				t.Logf("%s: %s%s", when, &stderr, out)
				lines := strings.Split(strings.TrimSpace(string(out)), "\n")
				for i, want := range tc.want {
					_, got, _ := strings.Cut(lines[i], " ")
					ok := false
					for _, w := range strings.Split(want, "|") {
						ok = ok || got == w
					}
					if !ok {
						t.Errorf("%s: %s family %s: got %q, want %q", when, lookups[2*i], lookups[2*i+1], got, want)
					}
				}
			}
		})
	}
}
