package stub

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/dnstest"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/resolvconf"
)

// TestRealLibc compares every packet of ours with those of the C libraries of
// this machine, which run in network namespaces with a resolv.conf of their own.
func TestRealLibc(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: the comparison with real C libraries makes network namespaces and needs root")
	}
	// They wait most of the time, so that there are more than CPUs at a time.
	type key struct {
		libc Libc
		name string
	}
	programs := map[Libc]string{Glibc: build(t, "cc"), Musl: build(t, "musl-gcc", "-static")}
	var mu sync.Mutex
	results := map[key]outcome{}
	var all sync.WaitGroup
	slots := make(chan struct{}, 60)
	for libc, program := range programs {
		for name, sc := range scenarios {
			if program == "" || sc.only != "" && sc.only != libc {
				continue
			}
			all.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				o := sc.compare(t, libc, program)
				mu.Lock()
				defer mu.Unlock()
				results[key{libc, name}] = o
			})
		}
	}
	all.Wait()
	for k, o := range results {
		t.Run(string(k.libc)+"/"+strings.ReplaceAll(k.name, " ", "_"), func(t *testing.T) {
			// What differs on a busy machine has to differ three times more, alone.
			for try := 0; !o.same() && try < 3; try++ {
				o = scenarios[k.name].compare(t, k.libc, programs[k.libc])
			}
			if !o.same() {
				t.Fatalf("%s:\n%s\nours:\n%s", k.libc, o.real, o.ours)
			}
			t.Logf("same as %s:\n%s", k.libc, o.ours)
		})
	}
}

// build compiles the program that calls getaddrinfo. It returns "" if it can't,
// and says so.
func build(t *testing.T, cc ...string) string {
	for _, tool := range []string{cc[0], "unshare", "mount", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Run(cc[0], func(t *testing.T) { t.Skipf("SKIPPED: no comparison with a real C library without %s", tool) })
			return ""
		}
	}
	program := filepath.Join(t.TempDir(), "lookup")
	args := append(cc[1:], "-O1", "-o", program, "testdata/lookup.c")
	if out, err := exec.Command(cc[0], args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", cc[0], err, out)
	}
	return program
}

// outcome is what the real library did, and ours.
type outcome struct{ real, ours transcript }

func (o outcome) same() bool { return o.real.equal(o.ours) }

// compare runs a scenario with both, at the same time.
func (sc scenario) compare(t *testing.T, libc Libc, program string) (o outcome) {
	var both sync.WaitGroup
	both.Go(func() {
		o.real = sc.run(t, func(dir string) ([]byte, error) { return sc.realLookups(dir, program) })
	})
	both.Go(func() { o.ours = sc.run(t, func(string) ([]byte, error) { return sc.ourLookups(libc) }) })
	both.Wait()
	return o
}

// transcript is what went over the wire, and what came of it.
type transcript struct {
	lines   []string
	gaps    []time.Duration // before each line
	results string
}

// tolerance is how much later than the other a packet may be. The shortest gap is
// that of musl with attempts:3, 333 ms.
const tolerance = 200 * time.Millisecond

func (a transcript) equal(b transcript) bool {
	if strings.Join(a.lines, "\n") != strings.Join(b.lines, "\n") || a.results != b.results {
		return false
	}
	for i := range a.gaps {
		if d := a.gaps[i] - b.gaps[i]; d.Abs() > tolerance {
			return false
		}
	}
	return true
}

func (a transcript) String() string {
	var b strings.Builder
	for i, l := range a.lines {
		fmt.Fprintf(&b, "%6d ms  %s\n", a.gaps[i].Milliseconds(), l)
	}
	return b.String() + "results: " + a.results
}

// run starts the scenario's servers in a network namespace, of which the calling
// thread becomes a part, and does the lookups there.
func (sc scenario) run(t *testing.T, lookups func(dir string) ([]byte, error)) (tr transcript) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte(sc.resolvConf()), 0o644); err != nil {
		t.Error(err)
		return tr
	}
	done := make(chan error)
	var out []byte
	var log *dnstest.Log
	go func() {
		done <- func() error {
			// Never unlocked: the thread ends with the goroutine.
			runtime.LockOSThread()
			if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
				return fmt.Errorf("ip: %w: %s", err, out)
			}
			var err error
			if sc.script != nil {
				addrs := []string{"127.0.0.1:53", "127.0.0.2:53", "127.0.0.3:53"}[:max(sc.servers, 1)]
				if log, _, err = dnstest.Start(t, sc.script, addrs...); err != nil {
					return err
				}
			} else {
				log = new(dnstest.Log)
			}
			out, err = lookups(dir)
			return err
		}()
	}()
	if err := <-done; err != nil {
		t.Error(err)
		return tr
	}
	packets := log.Packets()
	tr.results = strings.Join(strings.Split(strings.TrimSpace(string(out)), "\n"), ", ")
	ports, ids := map[netip.AddrPort]int{}, map[uint16]int{}
	for i, p := range packets {
		if _, ok := ports[p.From]; !ok {
			ports[p.From] = len(ports) + 1
		}
		if _, ok := ids[p.ID]; !ok {
			ids[p.ID] = len(ids) + 1
		}
		proto := "udp"
		if p.TCP {
			proto = "tcp"
		}
		gap := time.Duration(0)
		if i > 0 {
			gap = p.At.Sub(packets[i-1].At)
		}
		tr.gaps = append(tr.gaps, gap)
		server := p.Server + 1
		if strings.Contains(sc.options, "rotate") {
			// Starts at random.
			server = (p.Server-packets[0].Server+sc.servers)%sc.servers + 1
		}
		tr.lines = append(tr.lines, fmt.Sprintf("%s to server %d, socket %d, ID %d: %s %s rd=%v ad=%v edns=%d",
			proto, server, ports[p.From], ids[p.ID], p.Name, p.Type, p.RD, p.AD, p.EDNS))
	}
	return tr
}

// realLookups runs the C program, for which the files in /etc are ours.
func (sc scenario) realLookups(dir, program string) ([]byte, error) {
	if err := os.WriteFile(filepath.Join(dir, "nsswitch.conf"), []byte("hosts: dns\n"), 0o644); err != nil {
		return nil, err
	}
	script := `set -e; for f in resolv.conf nsswitch.conf; do [ -e /etc/$f ] || continue; mount --bind "$DIR/$f" /etc/$f; done; exec "$@"`
	args := []string{"--mount", "--propagation", "private", "sh", "-c", script, "sh", program}
	for _, name := range sc.names {
		args = append(args, name, string(sc.fam()))
	}
	cmd := exec.Command("unshare", args...)
	cmd.Env = append(os.Environ(), "DIR="+dir, "RES_OPTIONS=", "LOCALDOMAIN=")
	cmd.Env = cmd.Env[:len(cmd.Env)-2]
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("getaddrinfo: %w", err)
	}
	return out, nil
}

// codes are the numbers of netdb.h.
var codes = map[Status]string{OK: "0", NoName: "-2", NoData: "-5", TryAgain: "-3", Fail: "-4"}

// ourLookups does the same with a [Resolver].
func (sc scenario) ourLookups(libc Libc) ([]byte, error) {
	r, err := New(Options{Libc: libc, Family: sc.fam(), Config: resolvconf.Parse(sc.resolvConf()), Rand: rand.New(rand.NewPCG(1, 2)), Keep: true})
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	for _, name := range sc.names {
		res := r.Lookup(testContext, name)
		code := codes[res.Status]
		switch {
		case libc == Musl && res.Status == NoData:
			code = codes[NoName] // musl before 1.2.4 doesn't tell them apart
		case libc == Glibc && res.Status == Fail:
			code = codes[NoName] // nor does glibc's getaddrinfo
		}
		fmt.Fprintln(&out, code, len(res.Addrs))
	}
	return []byte(out.String()), nil
}
