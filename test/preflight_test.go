package test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resolute-dns/resolute/test/harness"

	"github.com/miekg/dns"
)

// preflightReport is the JSON form as documented in docs/preflight.md, as far as
// the tests look at it.
type preflightReport struct {
	Version  int    `json:"version"`
	Corefile string `json:"corefile"`
	Result   string `json:"result"`
	ExitCode int    `json:"exit_code"`
	Errors   []struct {
		File, Directive, Token, Message string
		Line                            int
	}
	Upstreams []preflightUpstream
	Findings  []struct {
		File, Code, Upstream, Message string
		Line                          int
		Ignored                       bool
	}
	Notes []struct{ Message string }
}

type preflightUpstream struct {
	Directive, From, To, Protocol, Address string
	ServerName                             string  `json:"server_name"`
	RTT                                    float64 `json:"rtt_ms"`
	Question, Status, Rcode, Detail        string
	Tries                                  int
	Names                                  []struct{ Question, Status string }
}

// codes returns the codes of the findings that are not about one upstream's
// answer, with their lines.
func (r *preflightReport) traps() string {
	var s []string
	for _, f := range r.Findings {
		switch f.Code {
		case "loop", "single_upstream", "duplicate", "servfail_cached", "no_serve_stale":
			s = append(s, fmt.Sprintf("%s:%d", f.Code, f.Line))
		}
	}
	return strings.Join(s, " ")
}

func (r *preflightReport) statuses() string {
	var s []string
	for _, u := range r.Upstreams {
		s = append(s, u.Status)
	}
	return strings.Join(s, " ")
}

// preflight runs a check and returns what it printed and its exit code.
func preflight(t *testing.T, corefile string, env []string, args ...string) (string, int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "Corefile")
	if err := os.WriteFile(file, []byte(corefile), 0o644); err != nil {
		t.Fatal(err)
	}
	return runPreflight(t, exec.Command(resolute(t), append([]string{"-check", "-conf", file}, args...)...), env)
}

func runPreflight(t *testing.T, cmd *exec.Cmd, env []string) (string, int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), env...)
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if strings.Contains(stderr.String(), "panic") {
		t.Fatal(&stderr)
	}
	return stdout.String(), cmd.ProcessState.ExitCode()
}

// preflightJSON is preflight with -json.
func preflightJSON(t *testing.T, corefile string, args ...string) *preflightReport {
	t.Helper()
	out, code := preflight(t, corefile, nil, append(args, "-json")...)
	return decodeReport(t, out, code)
}

func decodeReport(t *testing.T, out string, code int) *preflightReport {
	t.Helper()
	r := new(preflightReport)
	if err := json.Unmarshal([]byte(out), r); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if r.Version != 1 || r.ExitCode != code {
		t.Errorf("version %d, exit code %d in the report, %d of the process", r.Version, r.ExitCode, code)
	}
	if want := []string{"ok", "findings", "error"}; code < 0 || code > 2 || r.Result != want[code] {
		t.Errorf("exit code %d, result %q", code, r.Result)
	}
	return r
}

// resolver answers every query like a good resolver, after change.
func resolver(change func(m *dns.Msg)) func(*dns.Msg) *dns.Msg {
	return func(q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		name := q.Question[0].Name
		switch q.Question[0].Qtype {
		case dns.TypeNS:
			m.Answer = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: 60}, Ns: "a.root-servers.net."}}
		case dns.TypeA:
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 9)}}
		}
		if change != nil {
			change(m)
		}
		return m
	}
}

// forwarders are the directives with upstreams that the binary has.
func forwarders(t *testing.T) []string {
	t.Helper()
	plugins := output(t, resolute(t), "-plugins")
	return slices.DeleteFunc([]string{"forward", "failover"}, func(d string) bool { return !strings.Contains("\n"+plugins, "\n"+d+"\n") })
}

// TestPreflight has one upstream of each kind. While they are being asked,
// nothing of the Corefile listens: the good one binds its ports.
func TestPreflight(t *testing.T) {
	port, metrics, health, ready := harness.FreePort(t), harness.FreePort(t), harness.FreePort(t), harness.FreePort(t)
	var listening atomic.Value
	good := harness.Serve(t, func(q *dns.Msg) *dns.Msg {
		for _, p := range []int{port, metrics, health, ready} {
			l, err := net.Listen("tcp", local(p))
			if err != nil {
				listening.Store(err)
				continue
			}
			u, err := net.ListenPacket("udp", local(p))
			l.Close()
			if err != nil {
				listening.Store(err)
				continue
			}
			u.Close()
		}
		return resolver(nil)(q)
	})
	upstreams := []struct {
		status string
		*harness.Upstream
	}{
		{"answers", good},
		{"silent", harness.Serve(t, func(*dns.Msg) *dns.Msg { return nil })},
		{"refuses", harness.Serve(t, resolver(func(m *dns.Msg) { m.Rcode, m.Answer = dns.RcodeRefused, nil }))},
		{"lame", harness.Serve(t, resolver(func(m *dns.Msg) { m.RecursionAvailable, m.Answer = false, nil }))},
		{"servfail", harness.Serve(t, resolver(func(m *dns.Msg) { m.Rcode, m.Answer = dns.RcodeServerFailure, nil }))},
		{"slow", harness.Serve(t, resolver(func(*dns.Msg) { <-time.After(600 * time.Millisecond) }))},
		{"bad_rcode", harness.Serve(t, resolver(func(m *dns.Msg) { m.Rcode, m.Answer = dns.RcodeNotImplemented, nil }))},
		{"closed", &harness.Upstream{Addr: local(harness.FreePort(t))}},
	}
	var addrs, want []string
	for _, u := range upstreams {
		addrs = append(addrs, u.Addr)
		want = append(want, u.status)
	}
	pidfile := filepath.Join(t.TempDir(), "pid")

	for _, directive := range forwarders(t) {
		corefile := fmt.Sprintf(".:%d {\n\tbind 127.0.0.1\n\tprometheus 127.0.0.1:%d\n\thealth 127.0.0.1:%d\n\tready 127.0.0.1:%d\n\treload\n\tloop\n\tcache {\n\t\tserve_stale\n\t}\n\t%s . %s\n}\n",
			port, metrics, health, ready, directive, strings.Join(addrs, " "))
		var r *preflightReport
		for try := 0; ; try++ {
			r = preflightJSON(t, corefile, "-pidfile", pidfile)
			// On a machine that is busy enough, slow may be silent.
			if r.statuses() == strings.Join(want, " ") || try == 4 {
				break
			}
			t.Logf("again: %s", r.statuses())
		}
		if r.statuses() != strings.Join(want, " ") {
			t.Fatalf("%s: got %s, want %s", directive, r.statuses(), want)
		}
		if r.ExitCode != 1 || len(r.Findings) != len(want)-1 {
			t.Errorf("exit code %d, findings %+v", r.ExitCode, r.Findings)
		}
		for i, u := range r.Upstreams {
			if u.Address != addrs[i] || u.Directive != directive || u.From != "." || u.To != addrs[i] || u.Protocol != "udp" || u.Question != ". NS" {
				t.Errorf("got %+v", u)
			}
			if answered := u.Rcode != ""; answered != (u.RTT > 0) {
				t.Errorf("%s: rcode %q and RTT %v", u.Status, u.Rcode, u.RTT)
			}
			if u.Status != "answers" && u.Detail == "" {
				t.Errorf("%s: it is not said what that means", u.Status)
			}
			if u.Status == "silent" && u.Tries != 3 {
				t.Errorf("silent after %d tries", u.Tries)
			}
		}
	}
	if err := listening.Load(); err != nil {
		t.Errorf("something listened during the check: %v", err)
	}
	if _, err := os.Stat(pidfile); err == nil {
		t.Error("a pidfile was written")
	}
}

func TestPreflightGood(t *testing.T) {
	a, b := harness.Serve(t, resolver(nil)), harness.Serve(t, resolver(nil))
	corefile := fmt.Sprintf(".:1053 {\n\tforward . %s %s\n}\n", a.Addr, b.Addr)
	out, code := preflight(t, corefile, nil)
	if code != 0 || strings.Count(out, " answers ") != 2 || !strings.Contains(out, "2 upstreams, no findings\n") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

func TestPreflightText(t *testing.T) {
	good := harness.Serve(t, resolver(nil))
	refusing := harness.Serve(t, resolver(func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }))
	corefile := fmt.Sprintf(".:1053 {\n\tcache 30\n\tforward . %s %s\n}\n", good.Addr, refusing.Addr)
	out, code := preflight(t, corefile, nil)
	for _, want := range []string{good.Addr, refusing.Addr, "answers", "refuses", "Corefile:3: forward .\n", "[no_serve_stale]", "2 upstreams, 2 findings"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	if t.Failed() {
		t.Log(out)
	}
	if out, code = preflight(t, corefile, nil, "-check-ignore", "refuses,no_serve_stale"); code != 0 || !strings.Contains(out, "2 upstreams, no findings, 2 ignored\n") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

func TestPreflightErrors(t *testing.T) {
	asked := harness.Serve(t, resolver(nil))
	for name, tc := range map[string]struct {
		corefile, directive, token, message string
		line                                int
	}{
		"unknown directive":      {".:1053 {\n forwad . UP\n}", "", "", "Unknown directive 'forwad'", 2},
		"unknown option":         {".:1053 {\n forward . UP {\n  max_fial 3\n }\n}", "forward", "max_fial", "unknown property 'max_fial'", 3},
		"bad value":              {".:1053 {\n cache {\n  servfail 1\n }\n forward . UP\n}", "cache", "1", "missing unit in duration", 3},
		"missing brace":          {".:1053 {\n forward . UP\n", "", "", "Unexpected token", 2},
		"aa cached, no cache":    {".:1053 {\n aa {\n  answers cached\n }\n forward . UP\n}", "aa", "cached", "'answers cached' needs the cache plugin", 3},
		"two blocks of one zone": {".:1053 {\n forward . UP\n}\n.:1053 {\n whoami\n}", "", "", "already defined", 0},
		"no such Corefile":       {"", "", "", "no such file", 0},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{}
			if tc.corefile == "" {
				args = append(args, "-conf", "/no/such/Corefile")
			}
			r := preflightJSON(t, strings.ReplaceAll(tc.corefile, "UP", asked.Addr), args...)
			if r.ExitCode != 2 || len(r.Errors) != 1 || len(r.Upstreams) != 0 {
				t.Fatalf("got %+v", r)
			}
			e := r.Errors[0]
			if e.Directive != tc.directive || e.Token != tc.token || e.Line != tc.line || !strings.Contains(e.Message, tc.message) {
				t.Errorf("got %+v", e)
			}
			if e.Line > 0 && filepath.Base(e.File) != "Corefile" {
				t.Errorf("file %q", e.File)
			}
		})
	}
	if n := asked.Queries.Load(); n != 0 {
		t.Errorf("%d queries though nothing would start", n)
	}

	out, code := preflight(t, ".:1053 {\n nonsense\n}", nil)
	if code != 2 || !strings.Contains(out, "Corefile:2: Unknown directive 'nonsense'\n") || !strings.Contains(out, "would not start\n") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// TestPreflightStartsWhatServerStarts checks that the two agree: a Corefile with
// exit code 2 does not start, any other does.
func TestPreflightStartsWhatServerStarts(t *testing.T) {
	up := harness.Serve(t, resolver(nil))
	for _, body := range []string{
		"forward . UP", "forward . UP\ncache\naa", "forward UP", "aa {\nanswers cached\n}\nforward . UP",
		"aa {\nanswers cached\n}\ncache\nforward . UP", "bind nonsense0\nforward . UP", "template IN A {\nanswer \"{{ .Name }} 60 IN A 192.0.2.1\"\n}",
	} {
		corefile := fmt.Sprintf(".:%d {\nbind 127.0.0.1\n%s\n}", harness.FreePort(t), strings.ReplaceAll(body, "UP", up.Addr))
		_, code := preflight(t, corefile, nil)
		s := harness.Run(t, resolute(t), corefile)
		started := true
		if code == 2 {
			started = s.Wait(t) == 0
		} else {
			s.WaitLog(t, "CoreDNS-")
		}
		if started == (code == 2) {
			t.Errorf("exit code %d, started: %v\n%s\n%s", code, started, corefile, s.Log())
		}
	}
}

// TestPreflightSources checks that the Corefile is read from where a start would
// read it, with environment variables and imports.
func TestPreflightSources(t *testing.T) {
	a, b := harness.Serve(t, resolver(nil)), harness.Serve(t, resolver(nil))
	corefile := "(common) {\n\tforward . {$FIRST} {$SECOND}\n}\n.:1053 {\n\timport common\n}\n"
	env := []string{"FIRST=" + a.Addr, "SECOND=" + b.Addr}
	dir := t.TempDir()
	for name, content := range map[string]string{"Corefile": corefile, "outer": "import Corefile\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, cmd := range map[string]*exec.Cmd{
		"by default": exec.Command(resolute(t), "-check"),
		"stdin":      exec.Command(resolute(t), "-check", "-conf", "stdin"),
		"imported":   exec.Command(resolute(t), "-check", "-conf", filepath.Join(dir, "outer")),
	} {
		cmd.Dir = dir
		if name == "stdin" {
			cmd.Dir = t.TempDir()
			cmd.Stdin = strings.NewReader(corefile)
		}
		if out, code := runPreflight(t, cmd, env); code != 0 || strings.Count(out, " answers ") != 2 {
			t.Errorf("%s: exit code %d:\n%s", name, code, out)
		}
	}
}

func TestPreflightLoop(t *testing.T) {
	good := harness.Serve(t, resolver(nil))
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	content := "search example.org\nnameserver 127.0.0.1\nnameserver 127.0.0.1\noptions ndots:5\n"
	if err := os.WriteFile(resolv, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, directive := range forwarders(t) {
		for name, tc := range map[string]struct{ corefile, statuses, traps string }{
			"own port":    {".:1053 {\nforward . 127.0.0.1:1053 UP\n}", "own answers", "loop:2"},
			"resolv.conf": {".:53 {\nforward . RESOLV UP\n}", "own answers", "loop:2 duplicate:2"},
			"two blocks":  {".:1053 {\nforward . 127.0.0.1:1054 UP\n}\n.:1054 {\nforward . UP 127.0.0.1:1053\n}", "own answers answers own", "loop:2 loop:5"},
			"no loop":     {".:1053 {\nforward . 127.0.0.1:1054 UP\n}\n.:1054 {\nwhoami\n}", "own answers", ""},
		} {
			corefile := strings.NewReplacer("forward", directive, "UP", good.Addr, "RESOLV", resolv).Replace(tc.corefile)
			r := preflightJSON(t, corefile)
			if r.statuses() != tc.statuses || r.traps() != tc.traps {
				t.Errorf("%s, %s: got %s; %s", directive, name, r.statuses(), r.traps())
			}
			if name == "resolv.conf" && (r.Upstreams[0].To != resolv || r.Upstreams[0].Address != "127.0.0.1:53") {
				t.Errorf("got %+v", r.Upstreams[0])
			}
		}
	}
}

func TestPreflightTraps(t *testing.T) {
	up := harness.Serve(t, resolver(nil))
	r := preflightJSON(t, fmt.Sprintf(".:1053 {\ncache 30\nforward . %s %[1]s\n}", up.Addr))
	if got, want := r.traps(), "servfail_cached:2 no_serve_stale:2 duplicate:3 single_upstream:3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPreflightForceTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveDNS(t, &dns.Server{Listener: l, Handler: handler(resolver(nil))})
	other := harness.Serve(t, resolver(nil))
	for _, directive := range forwarders(t) {
		for option, want := range map[string]string{"": "closed answers", "force_tcp": "answers answers"} {
			r := preflightJSON(t, fmt.Sprintf(".:1053 {\n%s . %s %s {\n%s\n}\n}", directive, l.Addr(), other.Addr, option))
			if r.statuses() != want || option != "" && r.Upstreams[0].Protocol != "tcp" {
				t.Errorf("%s %s: got %+v", directive, option, r.Upstreams)
			}
		}
	}
}

// TestPreflightSource checks that source_address is used: the upstream answers
// no other.
func TestPreflightSource(t *testing.T) {
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answer := resolver(nil)
	serveDNS(t, &dns.Server{PacketConn: p, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if strings.HasPrefix(w.RemoteAddr().String(), "127.0.0.77:") {
			w.WriteMsg(answer(q))
		}
	})})
	for option, want := range map[string]string{"": "silent", "source_address 127.0.0.77": "answers"} {
		r := preflightJSON(t, fmt.Sprintf(".:1053 {\nforward . %s {\n%s\n}\n}", p.LocalAddr(), option))
		if r.statuses() != want {
			t.Errorf("%q: got %+v", option, r.Upstreams)
		}
	}
}

func TestPreflightNames(t *testing.T) {
	good := harness.Serve(t, resolver(nil))
	other := harness.Serve(t, resolver(func(m *dns.Msg) {
		if m.Question[0].Name == "www.example.org." {
			m.Rcode, m.Answer = dns.RcodeNameError, nil
		}
	}))
	corefile := fmt.Sprintf(".:1053 {\nforward corp.example %s\nforward . %s %s {\nexcept local\n}\n}", good.Addr, good.Addr, other.Addr)
	r := preflightJSON(t, corefile, "-check-name", "www.example.org,db.corp.example", "-check-name", "x.local", "-check-ignore", "single_upstream")
	var got []string
	for _, u := range r.Upstreams {
		s := u.Question + " " + u.Status
		for _, n := range u.Names {
			s += ", " + n.Question + " " + n.Status
		}
		got = append(got, s)
	}
	want := []string{
		"corp.example. SOA answers, db.corp.example. A answers",
		". NS answers, www.example.org. A answers",
		". NS answers, www.example.org. A nxdomain",
	}
	if !slices.Equal(got, want) || r.ExitCode != 1 {
		t.Errorf("exit code %d, got %q\nwant %q", r.ExitCode, got, want)
	}
	if len(r.Notes) != 1 || !strings.HasPrefix(r.Notes[0].Message, "x.local. ") {
		t.Errorf("notes: %v", r.Notes)
	}
}

// TestPreflightEncrypted asks a server of ours over TLS, HTTPS and QUIC, with and
// without what is needed to trust it.
func TestPreflightEncrypted(t *testing.T) {
	ca, cert, key := certificates(t, "resolver.example")
	ports := map[string]int{"tls": harness.FreePort(t), "https": harness.FreePort(t), "quic": harness.FreePort(t)}
	server := ""
	for scheme, port := range ports {
		server += fmt.Sprintf("%s://.:%d {\nbind 127.0.0.1\ntls %s %s\nheader {\nresponse set ra\n}\ntemplate ANY ANY {\nanswer \"{{ .Name }} 60 IN A 192.0.2.1\"\n}\n}\n", scheme, port, cert, key)
	}
	harness.Start(t, resolute(t), server)

	for _, directive := range forwarders(t) {
		for scheme, port := range ports {
			for options, want := range map[string]string{
				"tls " + ca + "\ntls_servername resolver.example": "answers",
				"tls " + ca + "\ntls_servername other.example":    "tls_error",
				"tls_servername resolver.example":                 "tls_error",
			} {
				r := preflightJSON(t, fmt.Sprintf(".:1053 {\n%s . %s://127.0.0.1:%d {\n%s\n}\n}", directive, scheme, port, options))
				if r.statuses() != want || r.Upstreams[0].Protocol != scheme || r.Upstreams[0].ServerName == "" {
					t.Errorf("%s, %s, %s: got %+v", directive, scheme, options, r.Upstreams)
				}
			}
		}
		r := preflightJSON(t, fmt.Sprintf(".:1053 {\n%s . tls://127.0.0.1%%resolver.example:%d tls://127.0.0.1%%other.example:%[2]d {\ntls %[3]s\n}\n}", directive, ports["tls"], ca))
		if r.statuses() != "answers tls_error" || r.Upstreams[0].ServerName != "resolver.example" {
			t.Errorf("%s, names of upstreams: got %+v", directive, r.Upstreams)
		}
	}
}

// TestPreflightKubernetes checks that the Corefile of a cluster can be checked
// outside of it, and that the API server is not asked for anything.
func TestPreflightKubernetes(t *testing.T) {
	var requests atomic.Int64
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.NotFound(w, r)
	}))
	defer api.Close()
	a, b := harness.Serve(t, resolver(nil)), harness.Serve(t, resolver(nil))
	for endpoint, notes := range map[string]int{"": 1, "endpoint " + api.URL: 0} {
		corefile := fmt.Sprintf(".:1053 {\nkubernetes cluster.local in-addr.arpa {\npods insecure\nfallthrough in-addr.arpa\n%s\n}\nforward . %s %s\n}", endpoint, a.Addr, b.Addr)
		out, code := preflight(t, corefile, []string{"KUBERNETES_SERVICE_HOST=", "KUBERNETES_SERVICE_PORT="}, "-json")
		r := decodeReport(t, out, code)
		if code != 0 || len(r.Notes) != notes {
			t.Errorf("%s: exit code %d, errors %v, notes %v", endpoint, code, r.Errors, r.Notes)
		}
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("the API server was asked %d times", n)
	}
	out, code := preflight(t, ".:1053 {\nkubernetes cluster.local {\npods sometimes\n}\n}", []string{"KUBERNETES_SERVICE_HOST="}, "-json")
	if r := decodeReport(t, out, code); code != 2 || r.Errors[0].Line != 3 {
		t.Errorf("a mistake in kubernetes: exit code %d, errors %v", code, r.Errors)
	}
}

func TestPreflightUsage(t *testing.T) {
	for _, args := range [][]string{{"-json"}, {"-check-name", "a.example"}, {"-check", "more"}, {"-check", "-check-ignore", "nonsense"}, {"-check", "-check-name", "a..b"}} {
		cmd := exec.Command(resolute(t), args...)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 2 || len(out) == 0 {
			t.Errorf("%v: exit code %d, %q", args, code, out)
		}
	}
	out, _ := exec.Command(resolute(t), "-h").CombinedOutput()
	for _, f := range []string{"-check\n", "-check-name name\n", "-check-ignore code\n", "-json\n"} {
		if !strings.Contains(string(out), "  "+f) {
			t.Errorf("-h does not show %q", f)
		}
	}
}

func handler(answer func(*dns.Msg) *dns.Msg) dns.Handler {
	return dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(answer(q)) })
}

// serveDNS runs s until the end of the test.
func serveDNS(t *testing.T, s *dns.Server) {
	t.Helper()
	started := make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	go s.ActivateAndServe()
	<-started
	t.Cleanup(func() { s.Shutdown() })
}

// certificates makes an authority and a certificate for name, and returns the
// paths of the authority's certificate, the certificate and its key.
func certificates(t *testing.T, name string) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	write := func(file, kind string, der []byte) string {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, authority, authority, &caKey.PublicKey, caKey)
	check(err)
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, authority, &leafKey.PublicKey, caKey)
	check(err)
	keyDER, err := x509.MarshalECPrivateKey(leafKey)
	check(err)
	ca, cert, key = write("ca.pem", "CERTIFICATE", caDER), write("cert.pem", "CERTIFICATE", leafDER), write("key.pem", "EC PRIVATE KEY", keyDER)
	_, err = tls.LoadX509KeyPair(cert, key)
	check(err)
	return ca, cert, key
}
