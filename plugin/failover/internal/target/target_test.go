package target

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin/pkg/dnstest"

	"github.com/miekg/dns"
)

// memory is a source in memory.
type memory struct {
	files map[string]string // content; "!" in front of it is an error
	names map[string]string // addresses; "!" for a failure
}

func (m *memory) source() source {
	return source{
		readFile: func(path string) ([]byte, error) {
			b, ok := m.files[path]
			if !ok {
				return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
			}
			if msg, bad := strings.CutPrefix(b, "!"); bad {
				return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New(msg)}
			}
			return []byte(b), nil
		},
		lookup: func(_ context.Context, network, name string, _ []string) ([]netip.Addr, error) {
			if strings.HasPrefix(m.names[name], "!") {
				return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
			}
			var addrs []netip.Addr
			for _, s := range strings.Fields(m.names[name]) {
				if a := netip.MustParseAddr(s); network == "ip" || a.Is4() == (network == "ip4") {
					addrs = append(addrs, a)
				}
			}
			if len(addrs) == 0 {
				return nil, noAddress(name)
			}
			return addrs, nil
		},
	}
}

func ids(list []Target) string {
	var s []string
	for _, t := range list {
		s = append(s, t.ID())
	}
	return strings.Join(s, " ")
}

func TestExpand(t *testing.T) {
	m := &memory{
		files: map[string]string{
			"/r":     "# nameserver 203.0.113.1\nsearch example\nnameserver 192.0.2.1\r\n nameserver 192.0.2.2 # two\nnameserver 192.0.2.1\n",
			"/v6":    "nameserver fe80::1%eth0\nnameserver 2001:DB8:0::1%eth0\n",
			"/empty": "# nameserver 192.0.2.1\n",
			"/null":  "",
			"/some":  "nameserver dns.example\nnameserver 192.0.2.9\nnameserver",
			"/bad":   "nameserver dns.example\n",
			"/dir":   "!is a directory",
			"here":   "nameserver 192.0.2.4",
			"/many":  strings.Repeat("nameserver 192.0.2.1\n", 40),
		},
		names: map[string]string{
			"one.example.": "192.0.2.11", "two.example.": "2001:db8::2 192.0.2.11", "ll.example.": "fe80::5%eth1",
		},
	}
	for to, want := range map[string]string{
		"192.0.2.1":                                  "dns://192.0.2.1:53",
		"dns://192.0.2.1:5353":                       "dns://192.0.2.1:5353",
		"192.0.2.1:domain":                           "dns://192.0.2.1:53",
		"192.0.2.1%eth0":                             "dns://192.0.2.1:53",
		"192.0.2.1:53%eth0":                          "dns://192.0.2.1:53",
		"::1":                                        "dns://[::1]:53",
		"[::1]":                                      "dns://[::1]:53",
		"[2003:0::1]:5353":                           "dns://[2003::1]:5353",
		"::ffff:192.0.2.1":                           "dns://192.0.2.1:53",
		"fe80::1":                                    "dns://[fe80::1]:53",
		"fe80::1%eth0":                               "dns://[fe80::1%eth0]:53",
		"[fe80::1%eth0]":                             "dns://[fe80::1%eth0]:53",
		"[fe80::1%eth0]:53 [fe80::1%eth1]:53":        "dns://[fe80::1%eth0]:53 dns://[fe80::1%eth1]:53",
		"[fe80::1]:53%eth0":                          "dns://[fe80::1%eth0]:53",
		"2001:db8::1%resolver.example":               "dns://[2001:db8::1]:53",
		"tls://192.0.2.1":                            "tls://192.0.2.1:853",
		"tls://192.0.2.1%":                           "tls://192.0.2.1:853",
		"tls://192.0.2.1%Resolver.example:8853":      "tls://192.0.2.1:8853#resolver.example",
		"tls://192.0.2.1:853%resolver.example.":      "tls://192.0.2.1:853#resolver.example",
		"tls://fe80::1%resolver.example":             "tls://[fe80::1]:853#resolver.example",
		"tls://[2001:db8::1%a_b.example]:853":        "tls://[2001:db8::1]:853#a_b.example",
		"tls://192.0.2.1%192.0.2.1":                  "tls://192.0.2.1:853#192.0.2.1",
		"quic://192.0.2.1 tls://192.0.2.1":           "quic://192.0.2.1:853 tls://192.0.2.1:853",
		"quic://192.0.2.1%q quic://192.0.2.1:853%Q":  "quic://192.0.2.1:853#q",
		"https://192.0.2.1%doh.example":              "https://192.0.2.1:443#doh.example",
		"192.0.2.2 192.0.2.1 192.0.2.2:53":           "dns://192.0.2.2:53 dns://192.0.2.1:53",
		"/r":                                         "dns://192.0.2.1:53 dns://192.0.2.2:53",
		"dns:///r here":                              "dns://192.0.2.1:53 dns://192.0.2.2:53 dns://192.0.2.4:53",
		"tls:///r":                                   "dns://192.0.2.1:53 dns://192.0.2.2:53",
		"/v6":                                        "dns://[fe80::1%eth0]:53 dns://[2001:db8::1]:53",
		"/empty 192.0.2.3 /null":                     "dns://192.0.2.3:53",
		"/some":                                      "dns://192.0.2.9:53",
		"/many":                                      "dns://192.0.2.1:53",
		"one.example":                                "dns://192.0.2.11:53",
		"one.example.:5353":                          "dns://192.0.2.11:5353",
		"one.example%eth0":                           "dns://192.0.2.11:53",
		"two.example one.example 192.0.2.12":         "dns://[2001:db8::2]:53 dns://192.0.2.11:53 dns://192.0.2.12:53",
		"tls://two.example%Resolver.example:8853":    "tls://[2001:db8::2]:8853#resolver.example tls://192.0.2.11:8853#resolver.example",
		"https://one.example quic://one.example":     "https://192.0.2.11:443 quic://192.0.2.11:853",
		"ll.example tls://ll.example":                "dns://[fe80::5%eth1]:53 tls://[fe80::5%eth1]:853",
		strings.Repeat("192.0.2.1 ", 15) + "/empty":  "dns://192.0.2.1:53",
		strings.Repeat("one.example ", 14) + "/many": "dns://192.0.2.11:53 dns://192.0.2.1:53",

		"":                                       "! '' is not an upstream",
		"tls://":                                 "! 'tls://' is not an upstream: want an IP address, a file or a host name",
		"grpc://192.0.2.1":                       "! 'grpc' is not supported as a protocol to upstreams: valid are dns, tls, quic and https",
		"https3://192.0.2.1":                     "! 'https3' is not supported",
		"unix:///r":                              "! 'unix' is not supported",
		"grpc://one.example":                     "! 'grpc' is not supported",
		"https://192.0.2.1/":                     "! without a path",
		"https://one.example/dns-query":          "! without a path",
		"192.0.2.256":                            "! not an IP address, and a host name is not made of numbers",
		"192.0.2.0/24":                           "! not a file that can be read",
		"/nowhere":                               "! '/nowhere' is not an IP address, and not a file that can be read: open /nowhere",
		"/dir 192.0.2.1":                         "! is a directory",
		"/empty /null":                           "! no upstream is left: no nameserver in /empty, /null",
		"/bad 192.0.2.1":                         "! /bad: no nameserver with an IP address, only 'dns.example'",
		"192.0.2.1:":                             "! '' is not a port: valid are 1 to 65535",
		"192.0.2.1:0":                            "! '0' is not a port",
		"192.0.2.1:65536":                        "! '65536' is not a port",
		"192.0.2.1:nonsense":                     "! 'nonsense' is not a port",
		"one.example:nonsense":                   "! 'nonsense' is not a port",
		"a..example":                             "! not an IP address, a file or a host name",
		"one.example:53:53":                      "! not an IP address, a file or a host name",
		"192.0.2.1%a%b":                          "! not an IP address, a file or a host name",
		"[::1]%a":                                "! not an IP address, a file or a host name",
		"[::1%a]:53%b":                           "! more than one %",
		"fe80::1%eth0:53":                        "! 'eth0:53' is not a network interface: want fe80::1%eth0 or [fe80::1%eth0]:53",
		"tls://192.0.2.1%res olver":              "! 'res olver' is not a TLS server name",
		"tls://192.0.2.1%a..b":                   "! 'a..b' is not a TLS server name: want a host name such as resolver.example",
		"tls://fe80::1%a:853":                    "! 'a:853' is not a TLS server name",
		"quic://one.example%-a":                  "! '-a' is not a TLS server name",
		"nobody.example":                         "! 'nobody.example' failed to resolve",
		strings.Repeat("192.0.2.1 ", 16):         "! more than 15 TOs configured: 16",
		strings.Repeat("one.example ", 17):       "! more than 15 TOs configured: 17",
		"/r " + strings.Repeat("192.0.2.1 ", 15): "! more than 15 TOs configured: 16",
	} {
		args := strings.Fields(to)
		if to == "" || strings.Contains(to, "res olver") {
			args = []string{to}
		}
		specs, err := parseWith(m.source(), args)
		var x *Expansion
		if err == nil {
			x, err = specs.expandWith(context.Background(), m.source(), nil)
		}
		wantErr, bad := strings.CutPrefix(want, "! ")
		switch {
		case bad && (err == nil || !strings.Contains(err.Error(), wantErr)):
			t.Errorf("%q: error %v, want one with %q", to, err, wantErr)
		case !bad && err != nil:
			t.Errorf("%q: %v", to, err)
		case !bad && ids(x.Targets) != want:
			t.Errorf("%q: %s, want %s", to, ids(x.Targets), want)
		}
	}
}

func TestNotes(t *testing.T) {
	m := &memory{files: map[string]string{"/r": "nameserver 192.0.2.1\nnameserver x\n", "/empty": ""}}
	for to, want := range map[string]string{
		"192.0.2.1": "", "192.0.2.1 /empty": "/empty has no nameserver and is left out", "tls:///r": "plain DNS",
		"/r": "'nameserver x' in /r is skipped", "fe80::1": "needs an interface", "tls://fe80::1%x": "needs an interface",
	} {
		specs, err := parseWith(m.source(), strings.Fields(to))
		if err != nil {
			t.Fatal(err)
		}
		x, err := specs.expandWith(context.Background(), m.source(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(x.Notes, "; "); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s: notes %q, want %q", to, got, want)
		}
	}
}

func TestSpecs(t *testing.T) {
	m := &memory{files: map[string]string{"/r": ""}}
	specs, err := parseWith(m.source(), []string{"tls://192.0.2.1%a", "quic://x.example%B", "https://192.0.2.2%a", "192.0.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	if got := specs.ServerNames(); !reflect.DeepEqual(got, []string{"a", "b"}) {
		t.Errorf("server names %q", got)
	}
	for to, want := range map[string]bool{"192.0.2.1": false, "/r": true, "x.example": true} {
		if specs, err := parseWith(m.source(), []string{to}); err != nil || specs.Watchable() != want {
			t.Errorf("%s: watchable %t (%v), want %t", to, specs.Watchable(), err, want)
		}
	}
}

func TestLabels(t *testing.T) {
	dot, doq := Target{Transport: "tls", Addr: "192.0.2.1:853"}, Target{Transport: "quic", Addr: "192.0.2.1:853"}
	plain := Target{Transport: "dns", Addr: "192.0.2.1:53"}
	want := map[Target]string{dot: "tls://192.0.2.1:853", doq: "quic://192.0.2.1:853", plain: "192.0.2.1:53"}
	if got := Labels([]Target{dot, doq, plain, plain}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
}

// TestSystem reads real files.
func TestSystem(t *testing.T) {
	dir := t.TempDir()
	file, big := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "big")
	if err := os.WriteFile(file, []byte("nameserver 192.0.2.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(big, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	specs, err := Parse([]string{file, "192.0.2.2"})
	if err != nil {
		t.Fatal(err)
	}
	x, err := specs.Expand(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(x.Targets) != 2 || x.Targets[0].Addr != "192.0.2.1:53" {
		t.Errorf("got %v", x.Targets)
	}
	for _, path := range []string{dir, big} {
		if _, err := Parse([]string{path}); err == nil {
			t.Errorf("%s was taken", path)
		}
	}
}

func TestLookupAtResolvers(t *testing.T) {
	s := dnstest.NewMultipleServer(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		q := r.Question[0]
		add := func(records ...string) {
			for _, s := range records {
				if rr, err := dns.NewRR(s); err == nil && rr.Header().Rrtype == q.Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		switch q.Name {
		case "both.example.":
			add("both.example. A 192.0.2.1", "both.example. AAAA 2001:db8::1", "both.example. A 192.0.2.2")
		case "half.example.": // one family is broken
			add("half.example. A 192.0.2.1")
			if q.Qtype == dns.TypeAAAA {
				m.Rcode = dns.RcodeServerFailure
			}
		case "big.example.":
			if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
				m.Truncated = true
			} else {
				add("big.example. A 192.0.2.3")
			}
		case "none.example.":
		case "broken.example.":
			m.Rcode = dns.RcodeServerFailure
		default:
			m.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(m)
	})
	defer s.Close()
	dead, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := dead.LocalAddr().String()
	dead.Close()

	for _, tc := range []struct{ network, name, want string }{
		{"ip", "both.example.", "192.0.2.1 192.0.2.2 2001:db8::1"},
		{"ip4", "both.example.", "192.0.2.1 192.0.2.2"},
		{"ip6", "both.example.", "2001:db8::1"},
		{"ip", "half.example.", "192.0.2.1"},
		{"ip6", "half.example.", "failure"},
		{"ip", "big.example.", "192.0.2.3"},
		{"ip", "none.example.", "not found"},
		{"ip", "nx.example.", "not found"},
		{"ip", "broken.example.", "failure"},
	} {
		addrs, err := lookup(context.Background(), tc.network, tc.name, []string{s.Addr})
		got := make([]string, 0, len(addrs))
		for _, a := range addrs {
			got = append(got, a.String())
		}
		if err != nil {
			got = append(got, failure(err))
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s %s: %v (%v), want %s", tc.network, tc.name, got, err, tc.want)
		}
	}
	// The first resolver is dead, or does not know: the second one is asked.
	if addrs, err := lookup(context.Background(), "ip4", "both.example.", []string{closed, s.Addr}); err != nil || len(addrs) != 2 {
		t.Errorf("behind a dead resolver: %v, %v", addrs, err)
	}
	if _, err := lookup(context.Background(), "ip4", "nx.example.", []string{closed, s.Addr}); err == nil || notFound(err) {
		t.Errorf("a dead resolver and one that says no: %v, want a failure", err)
	}

	// A resolver that is silent: the question ends with the context.
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _, _ = silent.ReadFrom(make([]byte, 512)) // the question has arrived
		cancel()
	}()
	if _, err := lookup(ctx, "ip", "both.example.", []string{silent.LocalAddr().String()}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "[fe80::1%eth0]:53", "tls://192.0.2.1%a:853", "quic://[::1]:853%b", "h.example:53", "[", "%", "::%:", "https://[a%]:1"} {
		f.Add(s)
	}
	m := &memory{files: map[string]string{"r": "nameserver ::1%a"}}
	f.Fuzz(func(t *testing.T, to string) {
		specs, err := parseWith(m.source(), []string{to})
		if err != nil {
			return
		}
		for _, e := range specs {
			if e.kind == kindHost && !slices.Contains([]string{"dns", "tls", "quic", "https"}, e.transport) {
				t.Errorf("%q: %+v", to, e)
			}
			if e.kind != kindAddr {
				continue
			}
			ap, err := netip.ParseAddrPort(e.addr.Addr)
			if err != nil || ap.String() != e.addr.Addr || ap.Port() == 0 {
				t.Errorf("%q: address %q (%v)", to, e.addr.Addr, err)
			}
			if e.addr.ServerName != "" && CheckServerName(e.addr.ServerName) != nil {
				t.Errorf("%q: server name %q", to, e.addr.ServerName)
			}
		}
	})
}
