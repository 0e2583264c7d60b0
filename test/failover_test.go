package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resolute-dns/resolute/test/harness"
)

// TestFailoverBadCorefiles checks that the server does not start on a mistake in
// a failover directive, and says which.
func TestFailoverBadCorefiles(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(empty, []byte("search example.org\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	sixteen := ""
	for i := range 16 {
		sixteen += fmt.Sprintf(" 127.0.1.%d", i+1)
	}
	for name, tc := range map[string]struct{ directive, err string }{
		"no upstream":                {"failover .", "failover"},
		"file that is not there":     {"failover . /no/such/file", "/no/such/file"},
		"file without nameserver":    {"failover . " + empty, empty},
		"16 upstreams":               {"failover ." + sixteen, "more than 15 TOs configured: 16"},
		"two names for one endpoint": {"failover . tls://127.0.0.1%a.example {\ntls_servername b.example\n}", "a.example"},
		"hedge of nonsense":          {"failover . 127.0.0.1 {\nhedge soon\n}", "soon"},
		"budget 300":                 {"failover . 127.0.0.1 {\nbudget 300\n}", "300"},
		"deadline of an hour":        {"failover . 127.0.0.1 {\ndeadline 1h\n}", "1h"},
		"unknown option":             {"failover . 127.0.0.1 {\nhegde 1ms\n}", "hegde"},
		"unknown transport":          {"failover . grpc://127.0.0.1", "grpc"},
	} {
		t.Run(name, func(t *testing.T) {
			s := harness.Run(t, resolute(t), fmt.Sprintf(".:%d {\nbind 127.0.0.1\n%s\n}", harness.FreePort(t), tc.directive))
			if code := s.Wait(t); code == 0 {
				t.Error("exit code 0")
			}
			if log := s.Log(); !strings.Contains(log, "plugin/failover") || !strings.Contains(log, tc.err) {
				t.Errorf("no plugin/failover and %q in:\n%s", tc.err, log)
			}
		})
	}
}

// TestWatch edits the file that failover watches, in the ways files are edited,
// and asks all the while. No query is lost, and the new upstream is asked within
// 5 s; the time is left to the plugin's own tests, here it just has to happen.
func TestWatch(t *testing.T) {
	// Nameservers of a resolv.conf have no ports, so each upstream has an address
	// of its own, and port 53.
	ns := harness.NewNamespace(t, map[string]string{"resolv.conf": "nameserver 127.0.0.1\n", "nsswitch.conf": "hosts: dns\n"})

	dir := t.TempDir()
	data := func(version, ip string) { // a ConfigMap's volume
		d := filepath.Join(dir, version)
		os.Mkdir(d, 0o755)
		os.WriteFile(filepath.Join(d, "upstreams"), []byte("nameserver "+ip+"\n"), 0o644)
		tmp := filepath.Join(dir, "..data_tmp")
		os.Symlink(version, tmp)
		if err := os.Rename(tmp, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	data("..1", "127.0.0.11")
	file := filepath.Join(dir, "upstreams")
	os.Symlink(filepath.Join("..data", "upstreams"), file)

	corefile := fmt.Sprintf(".:53 {\nbind 127.0.0.1\nerrors\nfailover . %s {\nwatch\n}\n}\n", file)
	for _, ip := range []string{"127.0.0.11", "127.0.0.12", "127.0.0.13"} {
		corefile += fmt.Sprintf(".:53 {\nbind %s\ntemplate IN A {\nanswer \"{{ .Name }} 1 IN A %s\"\n}\ntemplate IN ANY {\nrcode NOERROR\n}\n}\n", ip, ip)
	}
	s := ns.Start(t, resolute(t), corefile)
	program := getaddrinfo(t)
	var asked atomic.Int64
	ask := func() string {
		out, err := ns.Command(program, fmt.Sprintf("n%d.example.", asked.Add(1)), "4").Output()
		fields := strings.Fields(string(out))
		if err != nil || len(fields) != 3 || fields[1] != "0" {
			t.Fatalf("query %d was lost: %v, %q\n%s", asked.Load(), err, out, s.Log())
		}
		return fields[2]
	}
	until := func(ip string) {
		t.Helper()
		for start := time.Now(); ask() != ip; {
			if time.Since(start) > time.Minute {
				t.Fatalf("%s is never asked:\n%s", ip, s.Log())
			}
		}
	}
	until("127.0.0.11")
	data("..2", "127.0.0.12") // the link is swapped
	until("127.0.0.12")
	replacement := filepath.Join(dir, "..2", "new") // renamed over
	os.WriteFile(replacement, []byte("nameserver 127.0.0.13\n"), 0o644)
	os.Rename(replacement, filepath.Join(dir, "..2", "upstreams"))
	until("127.0.0.13")
	// Broken versions change nothing, and are told of.
	os.WriteFile(filepath.Join(dir, "..2", "upstreams"), nil, 0o644)
	s.WaitLog(t, "can't be used any more")
	if ip := ask(); ip != "127.0.0.13" {
		t.Errorf("with an empty file, %s was asked", ip)
	}
	os.WriteFile(filepath.Join(dir, "..2", "upstreams"), []byte("nameserver 127.0.0.11\n"), 0o644) // in place
	until("127.0.0.11")
	t.Logf("%d queries, none lost", asked.Load())
}

// getaddrinfo builds testdata/getaddrinfo.c.
func getaddrinfo(t *testing.T) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("SKIPPED: this test needs a C compiler")
	}
	program := filepath.Join(t.TempDir(), "getaddrinfo")
	if out, err := exec.Command(cc, "-o", program, "testdata/getaddrinfo.c").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: this test needs glibc and its headers: %v\n%s", err, out)
	}
	return program
}

// TestIPv6Upstreams asks upstreams that are known by an IPv6 address, one of them
// a link-local one, which means something with its interface only.
func TestIPv6Upstreams(t *testing.T) {
	ns := harness.NewNamespace(t, map[string]string{"resolv.conf": "nameserver 127.0.0.1\n", "nsswitch.conf": "hosts: dns\n"})
	for _, args := range [][]string{
		{"link", "add", "uplink", "type", "veth", "peer", "name", "far"},
		{"link", "set", "far", "up"},
		{"link", "set", "uplink", "up"},
		{"addr", "add", "fe80::53/64", "dev", "uplink", "nodad"},
	} {
		if out, err := ns.Command("ip", args...).CombinedOutput(); err != nil {
			t.Skipf("SKIPPED: no interface can be made: %v %s", err, out)
		}
	}
	program := getaddrinfo(t)
	for _, to := range []string{"[::1]:5301", "[fe80::53%uplink]:5301"} {
		t.Run(to, func(t *testing.T) {
			s := ns.Start(t, resolute(t), `
.:53 {
	bind 127.0.0.1
	errors
	failover . `+to+`
}
.:5301 {
	template IN A {
		answer "{{ .Name }} 1 IN A 192.0.2.6"
	}
	template IN ANY {
		rcode NOERROR
	}
}`)
			out, err := ns.Command(program, "a.example.", "4").Output()
			if err != nil || strings.TrimSpace(string(out)) != "a.example. 0 192.0.2.6" {
				t.Errorf("got %q, %v\n%s", out, err, s.Log())
			}
			s.Stop(t)
		})
	}
}
