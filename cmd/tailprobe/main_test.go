package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/dnstest"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/report"
)

// tailprobe runs a command line.
func tailprobe(ctx context.Context, stdin string, args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = run(ctx, append([]string{"tailprobe"}, args...), strings.NewReader(stdin), &o, &e)
	return code, o.String(), e.String()
}

// serve starts a server and returns its address.
func serve(t *testing.T, script dnstest.Script) (*dnstest.Log, string) {
	t.Helper()
	log, servers := dnstest.Serve(t, script, 1)
	return log, servers[0].String()
}

func always(k dnstest.Kind) dnstest.Script { return func(dnstest.Packet) dnstest.Kind { return k } }

func TestHelpFitsTheScreen(t *testing.T) {
	for _, args := range [][]string{{"-h"}, {"--help"}, {}} {
		code, out, errs := tailprobe(t.Context(), "", args...)
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if code != 0 || errs != "" || len(lines) > 24 {
			t.Errorf("%q: code %d, %d lines, %s", args, code, len(lines), errs)
		}
		for _, l := range lines {
			if len(l) > 80 {
				t.Errorf("%d columns: %s", len(l), l)
			}
		}
		for _, want := range []string{"tailprobe NAME  ", "tailprobe doctor  ", "-server IP -server IP"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q", want)
			}
		}
	}
}

// TestFlagsAreDocumented looks for each flag in the list and in the README.
func TestFlagsAreDocumented(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := tailprobe(t.Context(), "", "flags")
	_, list2, _ := tailprobe(t.Context(), "", "doctor", "-h")
	for _, f := range append(loadFlags(), doctorFlags()...) {
		name := "-" + f.Names()[0]
		if !strings.Contains(list+list2, "  "+name+" ") {
			t.Errorf("%s isn't in the lists", name)
		}
		if !strings.Contains(string(readme), "| `"+name) {
			t.Errorf("%s isn't in the README", name)
		}
	}
}

// TestCommandLine has flags behind names, with one dash or two, as people write
// them.
func TestCommandLine(t *testing.T) {
	log, server := serve(t, always(dnstest.OK))
	svg := filepath.Join(t.TempDir(), "x.svg")
	code, out, errs := tailprobe(t.Context(), "", "a.example", "-c", "4", "-d", "1h", "-limit", "1h", "--n=8", "-server", server,
		"-options", "ndots:3", "-search", "x.test", "-libc", "musl", "-seed", "5", "-svg", svg, "-json", "b.example.", "-resolv-conf", os.DevNull)
	if code != 0 {
		t.Fatalf("code %d: %s%s", code, out, errs)
	}
	var r report.Report
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if r.Schema != report.SchemaVersion || r.Libc != "musl" || r.Workers != 4 || r.Seed != 5 || r.Names != 2 || !r.Passed || r.Ended != report.Complete {
		t.Errorf("%+v", r)
	}
	if len(r.Targets) != 1 || r.Targets[0].Lookups != 8 || r.Targets[0].Status["ok"] != 8 || r.Targets[0].SentUDP != 16 || r.Targets[0].Options.Ndots != 3 {
		t.Errorf("%+v", r.Targets)
	}
	names := map[string]int{}
	for _, p := range log.Packets() {
		names[p.Name]++
	}
	if names["a.example.x.test"] != 8 || names["b.example"] != 8 {
		t.Errorf("asked %v", names)
	}
	if b, err := os.ReadFile(svg); err != nil || !bytes.Contains(b, []byte("<svg")) {
		t.Errorf("picture: %v", err)
	}
}

func TestSideBySide(t *testing.T) {
	_, good := serve(t, always(dnstest.OK))
	_, bad := serve(t, always(dnstest.NXDomain))
	code, out, errs := tailprobe(t.Context(), "# names\na.example.\n", "-f", "-", "-n", "3", "-c", "1", "-server", good, "-server", bad+","+good)
	if code != 0 || !strings.Contains(out, good) || !strings.Contains(out, bad+","+good) || !strings.Contains(out, "no such name") {
		t.Errorf("code %d:\n%s%s", code, out, errs)
	}
}

func TestExitCodes(t *testing.T) {
	_, good := serve(t, always(dnstest.OK))
	_, bad := serve(t, always(dnstest.ServFail))
	half := func(p dnstest.Packet) dnstest.Kind {
		if strings.HasPrefix(p.Name, "a.") {
			return dnstest.Refused
		}
		return dnstest.OK
	}
	_, some := serve(t, half)
	names := filepath.Join(t.TempDir(), "names")
	if err := os.WriteFile(names, []byte("192.0.2.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	load := func(server string, more ...string) []string {
		return append([]string{"a.example.", "b.example.", "-n", "4", "-c", "1", "-server", server, "-resolv-conf", os.DevNull}, more...)
	}
	tests := map[string]struct {
		args []string
		code int
		want string // in the output
	}{
		"passed":                {load(good, "-limit", "1h"), 0, "passed"},
		"errors are allowed":    {load(some, "-limit", "1h"), 0, "REFUSED"},
		"errors aren't":         {load(some, "-limit", "1h", "-fail-errors", "10%"), 1, "50% of lookups failed, at most 10% may"},
		"limit":                 {load(good, "-limit", "1ns"), 1, "took longer than 1ns (-limit)"},
		"share":                 {load(good, "-limit", "0", "-fail-over", "1ns=99%"), 1, "(-fail-over)"},
		"nothing works":         {load(bad, "-limit", "1h"), 1, "every lookup failed"},
		"no such flag":          {load(good, "-x"), 2, "-x"},
		"bad value":             {load(good, "-c", "many"), 2, "flag -c: "},
		"bad limit":             {load(good, "-limit", "5"), 2, "valid is a time with its unit"},
		"bad rate":              {load(good, "-rate", "x"), 2, "valid is a number"},
		"negative limit":        {load(good, "-limit", "-5s"), 2, "-limit -5s: valid is"},
		"bad slow":              {load(good, "-slow", "0s"), 2, "-slow 0s: valid is"},
		"bad workers":           {load(good, "-c", "0"), 2, "-c 0: valid is 1 to"},
		"bad server":            {load("dns.example"), 2, `-server "dns.example": valid is`},
		"bad port":              {load("192.0.2.1:0"), 2, "valid is"},
		"bad libc":              {load(good, "-libc", "bsd"), 2, `-libc "bsd": valid is glibc, musl or auto`},
		"bad family":            {load(good, "-family", "5"), 2, `-family "5": valid is any, 4 or 6`},
		"bad options":           {load(good, "-options", "ndots:99"), 2, `-options: option "ndots:99"`},
		"bad threshold":         {load(good, "-fail-over", "1s"), 2, `-fail-over "1s": valid is`},
		"bad percentage":        {load(good, "-fail-errors", "200%"), 2, `-fail-errors "200%": valid is`},
		"bad name":              {[]string{"a..b"}, 2, `"a..b" isn't a host name`},
		"bad file":              {[]string{"-f", names}, 2, "line 1"},
		"missing file":          {[]string{"-f", names + ".not"}, 2, "-f"},
		"missing resolv.conf":   {[]string{"a.example", "-resolv-conf", names + ".not"}, 2, "-resolv-conf"},
		"picture can't be made": {load(good, "-svg", names+"/x.svg"), 2, "-svg"},
		"doctor with argument":  {[]string{"doctor", "a.example"}, 2, "-name"},
		"doctor without root":   {[]string{"doctor", "-root", names + ".not"}, 2, "-root"},
		"doctor, bad server":    {[]string{"doctor", "-server", "x"}, 2, "-server"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			code, out, errs := tailprobe(t.Context(), "", tc.args...)
			if code != tc.code || !strings.Contains(out+errs, tc.want) {
				t.Errorf("code %d, want %d with %q:\n%s%s", code, tc.code, tc.want, out, errs)
			}
		})
	}
}

// TestInterrupted has a summary after a signal, of what there was until then.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, server := serve(t, func(p dnstest.Packet) dnstest.Kind {
		if p.Number == 100 {
			cancel()
		}
		return dnstest.OK
	})
	code, out, errs := tailprobe(ctx, "", "a.example.", "-c", "2", "-d", "24h", "-limit", "1h", "-server", server)
	if code != 0 || !strings.Contains(out, "interrupted") || !strings.Contains(out, "p99.9") || !strings.Contains(out, "passed") {
		t.Errorf("code %d:\n%s%s", code, out, errs)
	}
}

func TestDoctor(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"resolv.conf": "nameserver 192.0.2.1\nsearch a b c\noptions ndots:5\n", "nsswitch.conf": "hosts: files dns\n"} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, server := serve(t, always(dnstest.OK))
	args := []string{"doctor", "-root", root, "-server", server, "-wait", "0s", "-timeout", "1m", "-tries", "1"}
	code, out, errs := tailprobe(t.Context(), "", args...)
	if code != 1 || !strings.Contains(out, "ndots-search") || !strings.Contains(out, "1 problems") {
		t.Errorf("code %d:\n%s%s", code, out, errs)
	}
	code, out, errs = tailprobe(t.Context(), "", append(args, "-json")...)
	if code != 1 || !json.Valid([]byte(out)) {
		t.Errorf("code %d:\n%s%s", code, out, errs)
	}
	if err := os.WriteFile(filepath.Join(root, "etc", "resolv.conf"), []byte("nameserver 192.0.2.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := tailprobe(t.Context(), "", args...); code != 0 {
		t.Errorf("code %d:\n%s", code, out)
	}
}
