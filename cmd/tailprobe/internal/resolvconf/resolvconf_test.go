package resolvconf

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func addrs(list ...string) []netip.AddrPort {
	var all []netip.AddrPort
	for _, a := range list {
		all = append(all, netip.AddrPortFrom(netip.MustParseAddr(a), DNSPort))
	}
	return all
}

func TestParse(t *testing.T) {
	tests := map[string]struct {
		text string
		want func(*Config)
		warn []string // parts of the warnings, in order
	}{
		"empty": {"", func(*Config) {}, nil},
		"kubernetes": {
			"search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n",
			func(c *Config) {
				c.Nameservers, c.Ndots, c.HasSearch = addrs("10.96.0.10"), 5, true
				c.Search = []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"}
			}, nil},
		"comments and spaces": {
			"# a\n; b\nnameserver\t192.0.2.1 # c\r\nnameserver fe80::1%eth0\n nameserver 192.0.2.9\n",
			func(c *Config) { c.Nameservers = addrs("192.0.2.1", "fe80::1%eth0") }, []string{"line 5: starts with a space"}},
		"the last search counts": {
			"domain a.test b.test\nsearch c.test. .d.test .\n",
			func(c *Config) { c.HasSearch, c.Search = true, []string{"c.test", "d.test", ""} }, []string{"line 2: search replaces"}},
		"all options": {
			"options rotate edns0 single-request single-request-reopen use-vc trust-ad no-tld-query no-aaaa timeout:3 attempts:4 ndots:0 no-reload\n",
			func(c *Config) {
				c.Rotate, c.EDNS0, c.SingleRequest, c.SingleRequestReopen, c.UseVC, c.TrustAD, c.NoTLDQuery, c.NoAAAA =
					true, true, true, true, true, true, true, true
				c.Timeout, c.Attempts, c.Ndots = 3, 4, 0
			}, nil},
		"out of range": {
			"options ndots:99 timeout:99 attempts:99 timeout:x timeout:-1\n",
			func(c *Config) { c.Ndots, c.Timeout, c.Attempts = 15, 60, 10 },
			[]string{`"ndots:99"`, `"timeout:99"`, `"attempts:99"`, `"timeout:x"`, `"timeout:-1"`}},
		"mistakes": {
			"nameserver dns.example\nnameserver\nnamserver 192.0.2.1\noptions singel-request rotated\n",
			func(c *Config) { c.Rotate = true },
			[]string{`"dns.example" isn't`, "without an address", `unknown keyword "namserver"`, `unknown option "singel-request"`, `takes it for "rotate"`}},
		"four name servers": {
			"nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n",
			func(c *Config) { c.Nameservers = addrs("192.0.2.1", "192.0.2.2", "192.0.2.3") }, []string{"1 name servers beyond the first 3"}},
		"too long for musl": {
			"search " + strings.Repeat("a", 250) + "\n",
			func(c *Config) { c.HasSearch, c.Search = true, []string{strings.Repeat("a", 250)} }, []string{"longer than 254"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			want := Default()
			tc.want(&want)
			got := Parse(tc.text)
			warnings := got.Warnings
			got.Warnings, got.Options = nil, nil
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			if len(warnings) != len(tc.warn) {
				t.Fatalf("warnings %q, want %q", warnings, tc.warn)
			}
			for i, w := range warnings {
				if !strings.Contains(w.String(), tc.warn[i]) {
					t.Errorf("warning %q, want %q", w, tc.warn[i])
				}
			}
		})
	}
}

func TestGlibc(t *testing.T) {
	if c := Parse("options timeout:99 attempts:99").Glibc(); c.Timeout != MaxTimeout || c.Attempts != MaxAttempts {
		t.Errorf("%+v", c)
	}
	if c := Default().Glibc(); c.Timeout != 5 || c.Attempts != 2 {
		t.Errorf("%+v", c)
	}
}

func TestEnv(t *testing.T) {
	c := Parse("search a.test\noptions ndots:5\n")
	env := map[string]string{"LOCALDOMAIN": "b.test c.test", "RES_OPTIONS": "ndots:2 rotate bad"}
	c.Env(func(k string) string { return env[k] })
	if strings.Join(c.Search, " ") != "b.test c.test" || c.Ndots != 2 || !c.Rotate || len(c.Warnings) != 1 {
		t.Errorf("%+v", c)
	}
}

func TestSearchFromHost(t *testing.T) {
	for host, want := range map[string]string{"web": "", "web.a.test": "a.test", "web.": "", "": ""} {
		c := Default()
		c.SearchFromHost(host)
		if got := strings.Join(c.Search, " "); got != want {
			t.Errorf("%q: %q, want %q", host, got, want)
		}
	}
	c := Parse("search x.test")
	if c.SearchFromHost("web.a.test"); c.Search[0] != "x.test" {
		t.Errorf("the host replaced the file: %q", c.Search)
	}
}

// FuzzParse must not panic, and stay within the bounds of the libraries.
func FuzzParse(f *testing.F) {
	f.Add("search a b\nnameserver 192.0.2.1\noptions ndots:5 timeout:1\n")
	f.Add("options \nsearch\t.\nnameserver ::1%")
	f.Fuzz(func(t *testing.T, text string) {
		c := Parse(text)
		if c.Ndots < 0 || c.Ndots > MaxNdots || c.Timeout < 0 || c.Timeout > MaxTimeoutMusl || c.Attempts < 0 || c.Attempts > MaxAttemptsMusl ||
			len(c.Nameservers) > MaxNameservers {
			t.Errorf("%+v", c)
		}
	})
}
