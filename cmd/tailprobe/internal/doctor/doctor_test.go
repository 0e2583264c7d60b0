package doctor

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/dnstest"
)

// The beginnings of library files, as far as the doctor reads them.
const (
	glibc236 = "\x7fELF...GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\nCopyright"
	glibc231 = "\x7fELF...GNU C Library (Debian GLIBC 2.31-13) stable release version 2.31.\n"
	glibc219 = "\x7fELF...GNU C Library (Ubuntu EGLIBC 2.19-0ubuntu6) stable release version 2.19, by Roland McGrath et al.\n"
	musl125  = "\x7fELF...\x00musl libc (x86_64)\nVersion %s\x001.2.5\x00..."
	musl123  = "\x7fELF...\x001.2.3-git-1\x00..."

	glibcFile = "lib/x86_64-linux-gnu/libc.so.6"
	muslFile  = "lib/ld-musl-x86_64.so.1"

	files = "hosts: files dns\n"
	clean = "nameserver 192.0.2.1\nsearch x.test\noptions ndots:1\n"
	kube  = "nameserver 192.0.2.1\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"

	conntrack0 = "entries  insert_failed drop\n00000000  0000000a 00000000\n00000000  00000001 00000000\n"
	conntrack1 = "entries  insert_failed drop\n00000000  0000000a 00000000\n00000000  00000003 00000000\n"
	snmp0      = "Ip: Forwarding\nIp: 1\nUdp: InDatagrams InErrors RcvbufErrors InCsumErrors\nUdp: 100 0 0 0\n"
	snmp1      = "Ip: Forwarding\nIp: 1\nUdp: InDatagrams InErrors RcvbufErrors InCsumErrors\nUdp: 120 9 9 0\n"
)

// tree writes files, by path, into a new root.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		write(t, root, name, text)
	}
	return root
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	file := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// host is a root without any finding, but for what change does.
func host(change map[string]string) map[string]string {
	all := map[string]string{
		"etc/resolv.conf": clean, "etc/nsswitch.conf": files, glibcFile: glibc236,
		"proc/net/stat/nf_conntrack": "entries insert_failed drop\n0 0 0\n", "proc/net/snmp": snmp0,
	}
	for name, text := range change {
		if text == "" {
			delete(all, name)
		} else {
			all[name] = text
		}
	}
	return all
}

// examine runs the doctor on a root, with servers in memory.
func examine(t *testing.T, root string, script dnstest.Script) Diagnosis {
	t.Helper()
	return examineSlow(t, root, script, 0)
}

// examineSlow has servers that answer after a delay of synthetic time.
func examineSlow(t *testing.T, root string, script dnstest.Script, delay time.Duration) (d Diagnosis) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := dnstest.NewMemory(script, 3)
		n.Delay = delay
		var err error
		d, err = Examine(t.Context(), Options{Root: root, Tries: 2, Timeout: time.Second, Wait: time.Minute, Network: n, Rand: rand.New(rand.NewPCG(1, 2))})
		if err != nil {
			t.Fatal(err)
		}
	})
	return d
}

func TestSlowServer(t *testing.T) {
	if got := ids(examineSlow(t, tree(t, host(nil)), always(dnstest.OK), 300*time.Millisecond)); got != "nameserver-slow" {
		t.Errorf("found %s", got)
	}
}

// always answers in one way.
func always(k dnstest.Kind) dnstest.Script { return func(dnstest.Packet) dnstest.Kind { return k } }

// ids lists findings, notes in parentheses.
func ids(d Diagnosis) string {
	var all []string
	for _, f := range d.Findings {
		id := f.ID
		if f.Severity == Note {
			id = "(" + id + ")"
		}
		all = append(all, id)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestFindings(t *testing.T) {
	ok := always(dnstest.OK)
	tests := map[string]struct {
		files  map[string]string
		script dnstest.Script
		want   string
	}{
		"nothing":                  {nil, ok, ""},
		"ndots and a long search":  {map[string]string{"etc/resolv.conf": kube}, ok, "ndots-search"},
		"ndots 1, long search":     {map[string]string{"etc/resolv.conf": strings.ReplaceAll(kube, "ndots:5", "ndots:1")}, ok, ""},
		"no resolv.conf":           {map[string]string{"etc/resolv.conf": ""}, ok, "nameserver-dead resolv-conf-missing"},
		"no nameserver":            {map[string]string{"etc/resolv.conf": "search x.test\n"}, ok, "nameserver-dead no-nameserver"},
		"mistakes":                 {map[string]string{"etc/resolv.conf": clean + "options nodts:2 timeout:99\n"}, ok, "resolv-conf-ignored resolv-conf-ignored"},
		"no attempts":              {map[string]string{"etc/resolv.conf": clean + "options attempts:0\n"}, ok, "attempts-zero"},
		"nsswitch, glibc 2.31":     {map[string]string{"etc/nsswitch.conf": "", glibcFile: glibc231}, ok, "nsswitch-missing"},
		"nsswitch, glibc 2.36":     {map[string]string{"etc/nsswitch.conf": ""}, ok, "(nsswitch-missing)"},
		"nsswitch, musl":           {map[string]string{"etc/nsswitch.conf": "", glibcFile: "", muslFile: musl125}, ok, "(nsswitch-missing)"},
		"nsswitch without dns":     {map[string]string{"etc/nsswitch.conf": "hosts: files\n"}, ok, "nsswitch-no-dns"},
		"nsswitch, dns first":      {map[string]string{"etc/nsswitch.conf": "# a\nhosts: dns files # b\n"}, ok, "nsswitch-dns-first"},
		"nsswitch without hosts":   {map[string]string{"etc/nsswitch.conf": "passwd: files\n"}, ok, "(nsswitch-no-hosts)"},
		"old glibc":                {map[string]string{glibcFile: glibc219}, ok, "glibc-old"},
		"old glibc, long list":     {map[string]string{glibcFile: glibc219, "etc/resolv.conf": "nameserver 192.0.2.1\nsearch a b c d e f g\n"}, ok, "glibc-old search-cut"},
		"musl, single-request":     {map[string]string{glibcFile: "", muslFile: musl125, "etc/resolv.conf": clean + "options single-request-reopen timeout:2\n"}, ok, "musl-ignores-options"},
		"musl, edns0":              {map[string]string{glibcFile: "", muslFile: musl125, "etc/resolv.conf": clean + "options edns0\n"}, ok, "(musl-ignores-options)"},
		"musl, timeout 0":          {map[string]string{glibcFile: "", muslFile: musl125, "etc/resolv.conf": clean + "options timeout:0\n"}, ok, "timeout-zero"},
		"musl, root in the list":   {map[string]string{glibcFile: "", muslFile: musl125, "etc/resolv.conf": "nameserver 192.0.2.1\nsearch a .\n"}, ok, "search-root"},
		"glibc, single-request":    {map[string]string{"etc/resolv.conf": clean + "options single-request\n"}, ok, ""},
		"musl 1.2.3":               {map[string]string{glibcFile: "", muslFile: musl123}, ok, "(musl-no-tcp)"},
		"conntrack, not rising":    {map[string]string{"proc/net/stat/nf_conntrack": conntrack0}, ok, "(conntrack-insert-failed)"},
		"conntrack, not readable":  {map[string]string{"proc/net/stat/nf_conntrack": ""}, ok, "(conntrack-unreadable)"},
		"UDP errors, not rising":   {map[string]string{"proc/net/snmp": snmp1}, ok, "(udp-in-errors) (udp-rcvbuf-errors)"},
		"IPv6 errors, not rising":  {map[string]string{"proc/net/snmp6": "Udp6InErrors 1\nUdp6RcvbufErrors 1\n"}, ok, "(udp6-in-errors) (udp6-rcvbuf-errors)"},
		"dead server":              {nil, always(dnstest.Drop), "nameserver-dead"},
		"lame server":              {nil, always(dnstest.Lame), "nameserver-lame"},
		"server without recursion": {nil, always(dnstest.NoRA), "nameserver-no-recursion"},
		"refusing server":          {nil, always(dnstest.Refused), "nameserver-refuses"},
		"failing server":           {nil, always(dnstest.ServFail), "nameserver-servfail"},
		"authoritative NODATA":     {nil, always(dnstest.LameAA), ""},
		"server without TCP": {nil, func(p dnstest.Packet) dnstest.Kind {
			if p.TCP {
				return dnstest.Drop
			}
			return dnstest.OK
		}, "nameserver-no-tcp"},
		"AAAA lost": {nil, func(p dnstest.Packet) dnstest.Kind {
			if p.Type == "AAAA" && !p.TCP {
				return dnstest.Drop
			}
			return dnstest.OK
		}, "nameserver-lossy"},
		"one of two dead": {map[string]string{"etc/resolv.conf": "nameserver 192.0.2.1\nnameserver 192.0.2.2\n"},
			func(p dnstest.Packet) dnstest.Kind {
				if p.Server == 1 {
					return dnstest.Drop
				}
				return dnstest.OK
			}, "nameserver-dead"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := examine(t, tree(t, host(tc.files)), tc.script)
			if got := ids(d); got != tc.want {
				t.Errorf("found %s, want %s\n%+v", got, tc.want, d)
			}
			for _, f := range d.Findings {
				if f.Subject == "" || f.Evidence == "" || f.Means == "" || f.Do == "" {
					t.Errorf("not explained: %+v", f)
				}
			}
		})
	}
}

// TestRising has counters that rise while the name server is asked.
func TestRising(t *testing.T) {
	root := tree(t, host(map[string]string{"proc/net/stat/nf_conntrack": conntrack0}))
	d := examine(t, root, func(dnstest.Packet) dnstest.Kind {
		write(t, root, "proc/net/stat/nf_conntrack", conntrack1)
		write(t, root, "proc/net/snmp", snmp1)
		return dnstest.OK
	})
	if got, want := ids(d), "conntrack-insert-failed udp-in-errors udp-rcvbuf-errors"; got != want || d.Problems != 3 {
		t.Errorf("found %s, want %s", got, want)
	}
	for _, f := range d.Findings {
		if f.ID == "conntrack-insert-failed" && !strings.Contains(f.Evidence, "from 11 to 13") {
			t.Errorf("evidence: %s", f.Evidence)
		}
	}
}

// TestRealServer asks over real sockets, for the name that clusters have.
func TestRealServer(t *testing.T) {
	log, servers := dnstest.Serve(t, always(dnstest.Lame), 1)
	d, err := Examine(t.Context(), Options{
		Root: tree(t, host(map[string]string{"etc/resolv.conf": kube})), Servers: servers, Tries: 1, Timeout: 30 * time.Second, Rand: rand.New(rand.NewPCG(1, 2)),
	})
	if err != nil || ids(d) != "nameserver-lame ndots-search" {
		t.Errorf("%v: %s", err, ids(d))
	}
	if p := log.Packets(); len(p) == 0 || p[0].Name != "kubernetes.default.svc.cluster.local" {
		t.Errorf("asked %+v", p)
	}
}

func TestFindLibc(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  Libc
	}{
		"debian":       {map[string]string{glibcFile: glibc231}, Libc{"glibc", "2.31", "/" + glibcFile}},
		"red hat":      {map[string]string{"lib64/libc.so.6": glibc219}, Libc{"glibc", "2.19", "/lib64/libc.so.6"}},
		"alpine":       {map[string]string{muslFile: musl125}, Libc{"musl", "1.2.5", "/" + muslFile}},
		"musl git":     {map[string]string{muslFile: musl123}, Libc{"musl", "1.2.3", "/" + muslFile}},
		"both":         {map[string]string{glibcFile: glibc231, muslFile: musl125}, Libc{"glibc", "2.31", "/" + glibcFile}},
		"unknown":      {map[string]string{glibcFile: "?"}, Libc{"glibc", "", "/" + glibcFile}},
		"static image": {nil, Libc{Kind: "none"}},
	} {
		if got := FindLibc(tree(t, tc.files)); got != tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

func TestCheck(t *testing.T) {
	good := Options{Root: t.TempDir(), Tries: 1, Timeout: 1}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for flag, change := range map[string]func(*Options){
		"-root": func(o *Options) { o.Root += "/missing" }, "-tries": func(o *Options) { o.Tries = 0 }, "-timeout": func(o *Options) { o.Timeout = 0 },
		"-wait": func(o *Options) { o.Wait = -1 }, "-name": func(o *Options) { o.Name = "a..b" },
	} {
		o := good
		change(&o)
		if err := o.Check(); err == nil || !strings.HasPrefix(err.Error(), flag) {
			t.Errorf("%s: %v", flag, err)
		}
	}
}

// TestFindingsAreDocumented looks for the ID of each finding in the README.
func TestFindingsAreDocumented(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, w := range watched {
		found[counterID(w.name)] = true
	}
	for _, name := range sources {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "find" {
					if lit, ok := call.Args[0].(*ast.BasicLit); ok {
						id, _ := strconv.Unquote(lit.Value)
						found[id] = true
					}
				}
			}
			return true
		})
	}
	if len(found) < 25 {
		t.Errorf("only %d findings in the source", len(found))
	}
	for id := range found {
		if !strings.Contains(string(readme), "| `"+id+"` |") {
			t.Errorf("the README doesn't explain %s", id)
		}
	}
}

func TestOutput(t *testing.T) {
	d := examine(t, tree(t, host(map[string]string{"etc/resolv.conf": kube, "etc/nsswitch.conf": ""})), always(dnstest.OK))
	var b strings.Builder
	if err := d.Text(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"glibc 2.36", "ndots:5", "PROBLEM: /etc/resolv.conf (ndots-search)", "NOTE: /etc/nsswitch.conf", "192.0.2.1: 2 of 2 answered", "1 problems, 1 notes\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
	b.Reset()
	if err := d.JSON(&b); err != nil {
		t.Fatal(err)
	}
	var back Diagnosis
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil || back.Problems != 1 || strings.Contains(b.String(), "null") {
		t.Errorf("%v: %s", err, &b)
	}
}

// FuzzCounters must not panic on what a kernel writes.
func FuzzCounters(f *testing.F) {
	f.Add(conntrack0)
	f.Add(snmp1)
	f.Add("Udp: a b\nUdp: 1\nUdp:")
	f.Fuzz(func(_ *testing.T, text string) {
		m := map[string]uint64{}
		parseConntrack(text, m)
		parseSNMP(text, m)
		parseSNMP6(text, m)
	})
}
