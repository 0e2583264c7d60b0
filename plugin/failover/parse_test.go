package failover

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin/pkg/dnstest"

	// What is compared with.
	_ "github.com/coredns/coredns/plugin/forward"

	"github.com/miekg/dns"
)

// testParse parses one Corefile snippet.
func testParse(input string) ([]*config, error) {
	return parse(caddy.NewTestController("dns", input))
}

// testFiles makes files to be used as TO and for tls.
func testFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"two.conf":   "search example\nnameserver 192.0.2.1\nnameserver 2001:db8::1%en0\n",
		"empty.conf": "# nameserver 192.0.2.1\n",
		"null.conf":  "",
		"many.conf":  strings.Repeat("nameserver 192.0.2.1\nnameserver 192.0.2.2\n", 12),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// testResolver answers for names in up.example.
func testResolver(t *testing.T) string {
	t.Helper()
	s := dnstest.NewMultipleServer(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		name := r.Question[0].Name
		switch {
		case !dns.IsSubDomain("up.example.", name):
			m.Rcode = dns.RcodeNameError
		case r.Question[0].Qtype == dns.TypeA:
			rr, err := dns.NewRR(name + " A 192.0.2.77")
			if err != nil {
				t.Error(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		_ = w.WriteMsg(m)
	})
	t.Cleanup(s.Close)
	return s.Addr
}

// The corpus. RESOLVER and DIR are replaced, ; is a new line, DIRECTIVE is forward or
// failover.
var (
	corpusTOs = []string{
		"", "127.0.0.1", "127.0.0.1:53", "127.0.0.1:8080", "127.0.0.1:domain", "::1", "[::1]", "[::1]:53", "[2003::1]:5353",
		"::ffff:192.0.2.1", "fe80::1%eth0", "[fe80::1%eth0]:53", "192.0.2.1%eth0", "192.0.2.1:53%eth0", "dns://192.0.2.1",
		"dns://[::1]:54", "tls://192.0.2.1", "tls://192.0.2.1:8853", "tls://192.0.2.1%resolver.example",
		"tls://192.0.2.1%resolver.example:8853", "tls://192.0.2.1:853%resolver.example", "tls://[2001:db8::1%resolver.example]:853",
		"tls://fe80::1%resolver.example", "tls://[2001:db8::1%resolver.example]", "tls://192.0.2.1%",
		"quic://192.0.2.1", "quic://192.0.2.1%resolver.example:853", "https://192.0.2.1", "https://[::1]:8443",
		"https://192.0.2.1%resolver.example", "tls://192.0.2.1 quic://192.0.2.1", "192.0.2.1 192.0.2.1",
		"10.0.0.10:53 10.0.0.11:1053 [2003::1]:53", "DIR/two.conf", "dns://DIR/two.conf", "tls://DIR/two.conf", "DIR/many.conf",
		"DIR/empty.conf", "DIR/null.conf", "DIR/empty.conf DIR/null.conf", "DIR/empty.conf 127.0.0.1", "127.0.0.1 DIR/null.conf",
		"https://192.0.2.1/", "https://192.0.2.1/dns-query", "https://up.example/x", "grpc://192.0.2.1", "grpc://up.example", "unix:///tmp/x",
		"https3://192.0.2.1:443", "https3://up.example", "tls://", "dns://", "https://", "%", "[", "a..example", "[::1]%x",
		strings.Repeat("192.0.2.1 ", 15), strings.Repeat("192.0.2.1 ", 16), strings.Repeat("192.0.2.1 ", 15) + "DIR/null.conf",
	}
	corpusNames = []string{
		"a.up.example", "a.up.example.", "a.up.example:5353", "tls://a.up.example", "tls://a.up.example%resolver.example:853",
		"quic://a.up.example%resolver.example", "https://a.up.example:8443", "a.up.example 192.0.2.77 b.up.example",
		"nobody.example", "127.0.0.1 nobody.example", "DIR/nowhere.conf", "192.0.2.1/", "192.0.2.0/24", "a27.0.0.1", "256.0.0.1", "nowhere.conf",
		"[192.0.2.1%a%b]:53", "192.0.2.1:53:53", strings.Repeat("a.up.example ", 16),
	}
	corpusOptions = []string{
		"", "except a.example", "except a.example 10.0.0.0/8", "except a..example", "except", "force_tcp", "force_tcp yes", "prefer_udp",
		"prefer_udp yes", "force_tcp;prefer_udp", "force_tcp {", "expire 10s", "expire 0s", "expire -1s", "expire ten", "expire", "expire 10",
		"max_age 1m", "max_age 0s", "max_age -1s", "max_age x", "max_age", "expire 10s;max_age 10s", "expire 30s;max_age 10s", "max_age 1s",
		"expire 20s max_age 1m", "expire 20s 1m", "max_idle_conns 10", "max_idle_conns 0", "max_idle_conns -1", "max_idle_conns many", "max_idle_conns",
		"read_timeout 5s", "read_timeout 500ms", "read_timeout 0s", "read_timeout -1s", "read_timeout x", "read_timeout",
		"max_fails 0", "max_fails 3", "max_fails -1", "max_fails 4294967296", "max_fails", "max_fails 3 4",
		"max_connect_attempts 0", "max_connect_attempts 5", "max_connect_attempts -4", "max_connect_attempts many", "max_connect_attempts",
		"health_check 0.5s", "health_check 5s no_rec", "health_check 5s domain example.org", "health_check 0s", "health_check 1s no_rec domain .",
		"health_check 1s domain example.org no_rec", "health_check", "health_check no_rec", "health_check 1s domain", "health_check -1s",
		"health_check 1s domain example..org", "health_check 1s rec", "health_check domain example.org",
		"doh_method GET", "doh_method POST", "doh_method get", "doh_method PUT", "doh_method",
		"tls", "tls DIR/nowhere.pem", "tls a b c d", "tls DIR/two.conf", "tls DIR/a DIR/b",
		"tls_servername resolver.example", "tls_servername", "tls;tls_servername resolver.example",
		"policy random", "policy round_robin", "policy sequential", "policy fastest", "policy Random", "policy",
		"max_concurrent 1000", "max_concurrent 0", "max_concurrent -4", "max_concurrent many", "max_concurrent",
		"next NXDOMAIN", "next nxdomain ServFail", "next NOERROR", "next INVALID", "next NXDOMAIN INVALID", "next", "next_on_nodata", "next_on_nodata yes",
		"failfast_all_unhealthy_upstreams", "failfast_all_unhealthy_upstreams false",
		"failover ServFail Refused", "failover NXDOMAIN;failover NOTIMP", "failover NOERROR", "failover servfail x", "failover",
		"source_address 192.0.2.1", "source_address 2001:db8::1", "source_address ::ffff:192.0.2.1", "source_address x", "source_address",
		"resolver 10.96.0.10", "resolver 10.96.0.10:5353 ::1 [::1]:53", "resolver [::1]", "resolver dns.example", "resolver fe80::1%eth0", "resolver",
		"blaatl", "}", "policy sequential;failover SERVFAIL REFUSED;max_fails 3;health_check 5s domain example.org.",
	}
	corpusWhole = []string{
		"DIRECTIVE", "DIRECTIVE .", "DIRECTIVE . {;}", "DIRECTIVE . 127.0.0.1 {;}", "DIRECTIVE . 127.0.0.1 { }", "DIRECTIVE . 127.0.0.1 {",
		"DIRECTIVE example.org 127.0.0.1", "DIRECTIVE 10.9.3.0/18 127.0.0.1", "DIRECTIVE 10.0.0.0/8 127.0.0.1", "DIRECTIVE 2001:db8::/33 127.0.0.1",
		"DIRECTIVE a..example 127.0.0.1", "DIRECTIVE " + strings.Repeat("x", 64) + " 127.0.0.1", "DIRECTIVE dns://.:53 127.0.0.1",
		"DIRECTIVE . ::1;DIRECTIVE com ::2", "DIRECTIVE . ::1;DIRECTIVE . ::2 {;next NXDOMAIN;}", "DIRECTIVE . ::1;DIRECTIVE",
		"DIRECTIVE . tls://192.0.2.1%a.example {;tls_servername b.example;}", "DIRECTIVE . quic://192.0.2.1%a.example {;tls_servername b.example;}",
		"DIRECTIVE . https://192.0.2.1%a.example {;tls_servername b.example;}", "DIRECTIVE . 192.0.2.1%eth0 {;tls_servername b.example;}",
		"DIRECTIVE . tls://192.0.2.1%a.example tls://192.0.2.2 {;tls;}", "DIRECTIVE . 127.0.0.1 {;tls_servername b.example;}",
	}
	// What forward takes and failover refuses: it can't work, or is not used in
	// the way that was meant.
	corpusStricter = []string{
		"DIRECTIVE . 127.0.0.1:", "DIRECTIVE . 127.0.0.1:0", "DIRECTIVE . 127.0.0.1:65536", "DIRECTIVE . 127.0.0.1:nonsense", // not a port
		"DIRECTIVE . https3://192.0.2.1",                                                          // taken for an empty address
		"DIRECTIVE . DIR 192.0.2.1",                                                               // a directory
		"DIRECTIVE . tls://192.0.2.1%a..b", "DIRECTIVE . tls://192.0.2.1 {;tls_servername a..b;}", // no certificate has it
		"DIRECTIVE . tls://fe80::1%resolver.example:853", "DIRECTIVE . 192.0.2.1%a:53%b 192.0.2.2", // ambiguous
		"DIRECTIVE . fe80::1%eth0:53",
	}
)

func corpus(resolver, dir string) (same, stricter []string) {
	r := strings.NewReplacer("DIRECTIVE", "DIRECTIVE", "RESOLVER", resolver, "DIR", dir, ";", "\n")
	for _, s := range corpusWhole {
		same = append(same, r.Replace(s))
	}
	for _, to := range corpusTOs {
		same = append(same, "DIRECTIVE . "+r.Replace(to))
	}
	for _, to := range corpusNames {
		same = append(same, "DIRECTIVE . "+r.Replace(to+" {;resolver RESOLVER;}"))
	}
	for _, o := range corpusOptions {
		same = append(same, "DIRECTIVE . 192.0.2.1 tls://192.0.2.2 https://192.0.2.3 {\n"+r.Replace(o)+"\n}")
	}
	for _, s := range corpusStricter {
		stricter = append(stricter, r.Replace(s))
	}
	return same, stricter
}

// TestSameAsForward runs forward's own setup beside ours.
func TestSameAsForward(t *testing.T) {
	setupForward, err := caddy.DirectiveAction("dns", "forward")
	if err != nil {
		t.Fatal(err)
	}
	forward := func(input string) error {
		return setupForward(caddy.NewTestController("dns", strings.ReplaceAll(input, "DIRECTIVE", "forward")))
	}
	same, stricter := corpus(testResolver(t), testFiles(t))
	taken := 0
	for _, input := range same {
		theirs := forward(input)
		_, ours := testParse(strings.ReplaceAll(input, "DIRECTIVE", "failover"))
		if (theirs == nil) != (ours == nil) {
			t.Errorf("%q:\n\tforward:  %v\n\tfailover: %v", input, theirs, ours)
		}
		if theirs == nil {
			taken++
		}
	}
	t.Logf("%d inputs, %d taken", len(same), taken)
	if taken < 100 || len(same)-taken < 100 {
		t.Errorf("forward takes %d of %d inputs", taken, len(same))
	}
	for _, input := range stricter {
		if theirs := forward(input); theirs != nil {
			t.Errorf("%q: forward refuses it too: %v", input, theirs)
		}
		if _, ours := testParse(strings.ReplaceAll(input, "DIRECTIVE", "failover")); ours == nil {
			t.Errorf("%q is taken", input)
		}
	}
}

// TestErrors checks that errors name what is wrong and what is valid.
func TestErrors(t *testing.T) {
	dir := testFiles(t)
	for input, want := range map[string]string{
		"failover":                                            "want 'failover FROM TO...'",
		"failover .":                                          "no upstream after '.'",
		"failover a..example 192.0.2.1":                       "unable to normalize FROM 'a..example'",
		"failover . " + dir + "/nowhere":                      dir + "/nowhere: no such file",
		"failover . " + dir + "/null.conf":                    "no upstream is left: no nameserver in " + dir + "/null.conf",
		"failover . https://192.0.2.1/":                       "/dns-query is always used",
		"failover . grpc://192.0.2.1":                         "valid are dns, tls, quic and https",
		"failover . tls://192.0.2.1%a_b..c":                   "'a_b..c' is not a TLS server name",
		"failover . tls://192.0.2.1%-a":                       "'-a' is not a TLS server name",
		"failover . 192.0.2.300":                              "'192.0.2.300' is not an IP address",
		"failover . " + strings.Repeat("192.0.2.1 ", 16):      "more than 15 TOs configured: 16",
		"failover . tls://192.0.2.1%a {\ntls_servername b\n}": "both tls_servername 'b' and '%a' of tls://192.0.2.1:853",
	} {
		if _, err := testParse(input); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", input, err, want)
		}
	}
	for option, want := range map[string]string{
		"hedges":                      "unknown property 'hedges': valid are budget, deadline, doh_method, except",
		"tls_servername a..b":         "'a..b' is not a TLS server name",
		"tls_servername":              "'tls_servername' needs a value: want the name in the servers' certificates",
		"tls " + dir + "/nowhere":     dir + "/nowhere",
		"policy fastest":              "unknown policy 'fastest': want random, round_robin or sequential",
		"max_idle_conns -1":           "max_idle_conns can't be negative: -1",
		"max_fails few":               "max_fails: 'few' is invalid: want a number",
		"expire soon":                 "expire: 'soon' is not a duration",
		"read_timeout 0s":             "read_timeout must be positive",
		"expire 30s\nmax_age 10s":     "max_age 10s must not be less than expire 30s",
		"doh_method PUT":              "'PUT' is not a method: want POST or GET",
		"failover NOERROR":            "NOERROR cannot be used",
		"failover SERVFAL":            "'SERVFAL' is not a valid rcode",
		"force_tcp on":                "'force_tcp' takes no value: 'on' is too much",
		"resolver dns.example":        "resolver must be an IP address or IP:port, not 'dns.example'",
		"source_address eth0":         "invalid IP address 'eth0'",
		"health_check 1s rec":         "unknown option 'rec': valid are no_rec and domain FQDN",
		"hedge":                       "'hedge' needs a value: want auto, off or a delay",
		"hedge nonsense":              "hedge: 'nonsense' is not valid: want auto, off or a delay",
		"hedge 0s":                    "at least 1ms",
		"hedge -5ms":                  "hedge: '-5ms' is not valid",
		"hedge 50":                    "hedge: '50' is not valid",
		"hedge 50ms 60ms":             "hedge: '60ms' is too much",
		"hedge 4s":                    "hedge 4s must be less than deadline 4s",
		"hedge 200ms\ndeadline 150ms": "hedge 200ms must be less than deadline 150ms",
		"budget 300":                  "budget: '300' is not valid: want extra queries per 100 client queries, 0 to 100",
		"budget -1":                   "budget: '-1' is not valid",
		"budget 10%":                  "budget: '10%' is not valid",
		"budget 10 20":                "budget: '10 20' is not valid",
		"budget":                      "'budget' needs a value",
		"deadline never":              "deadline: 'never' is not valid: want a duration from 100ms to 30s",
		"deadline 99ms":               "deadline: '99ms' is not valid",
		"deadline 31s":                "deadline: '31s' is not valid",
		"deadline 1s 2s":              "deadline: '1s 2s' is not valid",
		"deadline":                    "'deadline' needs a value",
		"probe":                       "'probe' needs a value: want NAME [TYPE] or off",
		"probe example..org":          "probe: 'example..org' is not a domain name",
		"probe example.org BOGUS":     "probe: 'BOGUS' is not a type to ask for: want one such as A",
		"probe example.org AXFR":      "probe: 'AXFR' is not a type to ask for",
		"probe example.org ANY":       "probe: 'ANY' is not a type to ask for",
		"probe off A":                 "probe off takes no type",
		"probe example.org A twice":   "probe: 'twice' is too much",
		"watch 5s":                    "'watch' takes no value: '5s' is too much",
	} {
		if _, err := testParse("failover . 192.0.2.1 {\n" + option + "\n}"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", option, err, want)
		}
	}
}

// TestWarnings checks that what can't be honoured is said, and nothing else.
func TestWarnings(t *testing.T) {
	dir := testFiles(t)
	for input, want := range map[string]string{
		". 192.0.2.1": "",
		". 192.0.2.1 {\nread_timeout 2s\nmax_fails 2\nmax_connect_attempts 2\nhealth_check 0.5s no_rec\nmax_idle_conns 0\nfailfast_all_unhealthy_upstreams\n}": "",
		". 192.0.2.1 {\nmax_fails 0\n}":                  "",
		". https://192.0.2.1 {\nmax_idle_conns 5\n}":     "",
		". " + dir + "/two.conf {\nwatch\n}":             "",
		". 192.0.2.1 {\nread_timeout 5s\n}":              "read_timeout 5s is not used",
		". 192.0.2.1 {\nmax_fails 3\n}":                  "max_fails 3 is not used",
		". 192.0.2.1 {\nmax_connect_attempts 0\n}":       "max_connect_attempts 0 is not used",
		". 192.0.2.1 {\nhealth_check 5s\n}":              "health_check interval 5s is not used",
		". 192.0.2.1 {\nmax_idle_conns 5\n}":             "max_idle_conns 5 is used for https:// alone",
		". 192.0.2.1 {\nexpire 0s\n}":                    "expire 0s is taken for 100ms",
		". 192.0.2.1 {\nwatch\n}":                        "watch has nothing to watch",
		". 192.0.2.1 {\nexcept a..b\n}":                  "except: 'a..b' is not a zone",
		"10.0.0.0/9 192.0.2.1":                           "'10.0.0.0/9' is more than one zone",
		". 192.0.2.1 " + dir + "/null.conf":              "null.conf has no nameserver and is left out",
		". tls://" + dir + "/two.conf":                   "asked over plain DNS",
		". fe80::1":                                      "a link-local address needs an interface",
		". 192.0.2.1 ::1 {\nsource_address 192.0.2.9\n}": "source_address 192.0.2.9 can't be used to reach [::1]:53",
		". https://192.0.2.1%a {\ntls_servername b\n}":   "'a' of https://192.0.2.1:443 is not used: tls_servername 'b'",
	} {
		cs, err := testParse("failover " + input)
		if err != nil {
			t.Errorf("%s: %v", input, err)
			continue
		}
		got := cs[0].warnings
		if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || !strings.Contains(got[0], want)) {
			t.Errorf("%s: warnings %q, want %q", input, got, want)
		}
	}
}

func TestSeveral(t *testing.T) {
	cs, err := testParse("failover a.example 192.0.2.1\nfailover b.example 192.0.2.2 {\nnext NXDOMAIN\n}\nfailover . 192.0.2.3")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range cs {
		got = append(got, c.from+" "+c.targets[0].String())
	}
	if want := []string{"a.example. 192.0.2.1:53", "b.example. 192.0.2.2:53", ". 192.0.2.3:53"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
}
