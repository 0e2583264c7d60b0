package test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/resolute-dns/resolute/test/harness"

	"github.com/miekg/dns"
)

// ourPlugins are the directives that stock CoreDNS doesn't have.
var ourPlugins = []string{"aa", "failover", "latency", "nodelocal"}

func output(t *testing.T, binary string, args ...string) string {
	t.Helper()
	out, err := exec.Command(binary, args...).Output()
	if err != nil {
		t.Fatalf("%s %v: %v", binary, args, err)
	}
	return string(out)
}

func TestVersion(t *testing.T) {
	got := strings.Split(output(t, resolute(t), "-version"), "\n")
	want := strings.Split(output(t, stock(t), "-version"), "\n")
	if got[0] != "CoreDNS-1.15.0" || got[0] != want[0] {
		t.Errorf("first line is %q, stock's is %q", got[0], want[0])
	}
	if len(got) < 3 || !strings.HasPrefix(got[2], "Resolute-") {
		t.Errorf("no line of our own: %q", got)
	}
}

func TestPlugins(t *testing.T) {
	got := strings.Fields(output(t, resolute(t), "-plugins"))
	want := append(strings.Fields(output(t, stock(t), "-plugins")), ourPlugins...)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want stock's and %v", got, ourPlugins)
	}
}

// flagLines returns what -h prints about flags.
func flagLines(t *testing.T, binary string) []string {
	t.Helper()
	out, _ := exec.Command(binary, "-h").CombinedOutput() // exits with 0 or 2, by Go's version
	lines := strings.Split(string(out), "\n")
	return lines[1:] // the first names the binary
}

func TestFlags(t *testing.T) {
	got := flagLines(t, resolute(t))
	for _, line := range flagLines(t, stock(t)) {
		if !slices.Contains(got, line) {
			t.Errorf("stock has this, ours has not: %q", line)
		}
	}
}

// stockCorefile has none of our directives. It touches many plugins, and none
// that gives different answers each time (keepttl: nor one second later).
const stockCorefile = `
.:PORT {
	bind 127.0.0.1
	errors
	log
	chaos
	any
	local
	acl {
		block type HINFO
		filter type NAPTR
	}
	cache 30 {
		keepttl
	}
	header {
		response set ra
	}
	rewrite name alias.example.org a.example.org
	hosts {
		192.0.2.7 h.example.org
		fallthrough
	}
	file ZONE example.org
	template IN TXT big.example.net {
		answer "{{ .Name }} 30 IN TXT \"{{ .Name }}0123456789012345678901234567890123456789012345678901234567890123456789\""
		answer "{{ .Name }} 30 IN TXT \"1{{ .Name }}0123456789012345678901234567890123456789012345678901234567890123456789\""
		answer "{{ .Name }} 30 IN TXT \"2{{ .Name }}0123456789012345678901234567890123456789012345678901234567890123456789\""
		answer "{{ .Name }} 30 IN TXT \"3{{ .Name }}0123456789012345678901234567890123456789012345678901234567890123456789\""
		answer "{{ .Name }} 30 IN TXT \"4{{ .Name }}0123456789012345678901234567890123456789012345678901234567890123456789\""
	}
	forward . UPSTREAM
}`

const stockZone = `example.org. 3600 IN SOA ns.example.org. admin.example.org. 1 7200 3600 1209600 3600
example.org. 3600 IN NS ns.example.org.
ns.example.org. 3600 IN A 192.0.2.1
a.example.org. 3600 IN A 192.0.2.2
sub.example.org. 3600 IN NS ns.sub.example.org.
w.example.org. 3600 IN CNAME a.example.org.
`

// TestStockCorefile asks our build and stock CoreDNS the same questions under
// the same Corefile. The answers are the same, bit for bit.
func TestStockCorefile(t *testing.T) {
	upstream := harness.Serve(t, func(q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		switch name := q.Question[0].Name; {
		case strings.HasPrefix(name, "servfail."):
			m.Rcode = dns.RcodeServerFailure
		case strings.HasPrefix(name, "refused."):
			m.Rcode = dns.RcodeRefused
		case q.Question[0].Qtype == dns.TypeA:
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 9)}}
		}
		return m
	})
	zone := filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(zone, []byte(stockZone), 0o644); err != nil {
		t.Fatal(err)
	}
	addrs := map[string]string{}
	for name, binary := range map[string]string{"ours": resolute(t), "stock": stock(t)} {
		port := harness.FreePort(t)
		corefile := strings.NewReplacer("PORT", fmt.Sprint(port), "ZONE", zone, "UPSTREAM", upstream.Addr).Replace(stockCorefile)
		harness.Start(t, binary, corefile)
		addrs[name] = local(port)
	}

	id := uint16(0)
	for _, name := range []string{
		"a.example.org.", "A.eXample.org.", "alias.example.org.", "w.example.org.", "none.example.org.", "x.sub.example.org.",
		"h.example.org.", "localhost.", "big.example.net.", "elsewhere.example.", "servfail.example.", "refused.example.", "version.bind.",
	} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeANY, dns.TypeHINFO, dns.TypeNAPTR} {
			for _, network := range []string{"udp", "tcp"} {
				for variant, change := range map[string]func(*dns.Msg){
					"plain": func(*dns.Msg) {},
					"again": func(*dns.Msg) {},
					"EDNS":  func(q *dns.Msg) { q.SetEdns0(4096, false) },
					"DO":    func(q *dns.Msg) { q.SetEdns0(1232, true) },
					"CD":    func(q *dns.Msg) { q.CheckingDisabled = true },
					"no RD": func(q *dns.Msg) { q.RecursionDesired = false },
					"CH":    func(q *dns.Msg) { q.Question[0].Qclass = dns.ClassCHAOS },
				} {
					id++
					q := new(dns.Msg).SetQuestion(name, qtype)
					q.Id = id
					change(q)
					answers := map[string][]byte{}
					for server, addr := range addrs {
						answers[server] = askRaw(t, network, addr, q)
					}
					if !bytes.Equal(answers["ours"], answers["stock"]) {
						t.Errorf("%s %s %s, %s:\nours\n%s\nstock\n%s", network, name, dns.TypeToString[qtype], variant, hex.Dump(answers["ours"]), hex.Dump(answers["stock"]))
					}
				}
			}
		}
	}
	t.Logf("%d answers compared", id)
}

// askRaw sends q and returns the bytes of the answer.
func askRaw(t *testing.T, network, addr string, q *dns.Msg) []byte {
	t.Helper()
	c, err := dns.DialTimeout(network, addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	c.UDPSize = dns.MaxMsgSize
	if err := c.WriteMsg(q); err != nil {
		t.Fatal(err)
	}
	b, err := c.ReadMsgHeader(nil)
	if err != nil {
		t.Fatalf("%s over %s: %v", q.Question[0].String(), network, err)
	}
	return b
}

// TestSignals checks what CoreDNS's documentation promises for signals.
func TestSignals(t *testing.T) {
	port := harness.FreePort(t)
	corefile := fmt.Sprintf(".:%d {\n\tbind 127.0.0.1\n\taa\n\twhoami\n}\n", port)
	s := harness.Start(t, resolute(t), corefile)
	ask := func() { harness.Ask(t, "udp", local(port), new(dns.Msg).SetQuestion("example.org.", dns.TypeA)) }

	ask()
	s.Signal(syscall.SIGHUP)
	ask()
	s.Signal(syscall.SIGUSR1)
	s.WaitLog(t, "Reloading complete")
	ask()
	s.Signal(syscall.SIGTERM)
	if code := s.Wait(t); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}

// TestBadCorefiles checks that the server does not start on a mistake, and says
// which.
func TestBadCorefiles(t *testing.T) {
	for name, tc := range map[string]struct{ corefile, err string }{
		"unknown option":               {"aa {\n answer all\n}", "plugin/aa: Corefile:3 - Error during parsing: unknown property 'answer'"},
		"bad CIDR":                     {"aa {\n clients 10.0.0.0/99\n}", "'10.0.0.0/99' is not a CIDR prefix"},
		"answers cached without cache": {"aa {\n answers cached\n}", "'answers cached' needs the cache plugin"},
		"aa twice":                     {"aa\naa", "plugin/aa: this plugin can only be used once per Server Block"},
	} {
		t.Run(name, func(t *testing.T) {
			s := harness.Run(t, resolute(t), fmt.Sprintf(".:%d {\n%s\nwhoami\n}", harness.FreePort(t), tc.corefile))
			if code := s.Wait(t); code == 0 {
				t.Error("exit code 0")
			}
			if !strings.Contains(strings.ReplaceAll(s.Log(), filepath.Dir(s.Corefile)+"/", ""), tc.err) {
				t.Errorf("no %q in:\n%s", tc.err, s.Log())
			}
		})
	}
}
