package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// journal is what the hooks were told. It is safe to read after synctest.Wait.
type journal struct {
	mu  sync.Mutex
	log []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.log = append(j.log, fmt.Sprintf(format, args...))
}

// take returns what was told since the last call, without the texts of errors.
func (j *journal) take() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer func() { j.log = nil }()
	return strings.Join(j.log, "; ")
}

func (j *journal) hooks() Hooks {
	return Hooks{
		Changed:   func(list []Target) { j.add("list %v", list) },
		Failed:    func(to string, _ error) { j.add("failed %s", to) },
		Recovered: func(to string) { j.add("recovered %s", to) },
	}
}

// watch makes a Watcher that reads m.
func watch(t *testing.T, src source, to string) (*Watcher, *journal) {
	t.Helper()
	specs, err := parseWith(src, strings.Fields(to))
	if err != nil {
		t.Fatal(err)
	}
	x, err := specs.expandWith(context.Background(), src, nil)
	if err != nil {
		t.Fatal(err)
	}
	j := new(journal)
	return NewWatcher(x, j.hooks()), j
}

func TestNothingToWatch(t *testing.T) {
	if w, _ := watch(t, new(memory).source(), "192.0.2.1 tls://192.0.2.2"); w != nil {
		t.Error("got a Watcher for addresses alone")
	}
}

// TestFiles reads files once per step.
func TestFiles(t *testing.T) {
	m := &memory{files: map[string]string{"/a": "nameserver 192.0.2.1\nnameserver 192.0.2.2", "/b": ""}}
	w, j := watch(t, m.source(), "/a 192.0.2.9 /b")
	for i, step := range []struct{ a, b, want string }{
		{"nameserver 192.0.2.1\nnameserver 192.0.2.2", "", ""},
		// A new version counts when it was read alike twice.
		{"nameserver 192.0.2.3", "", ""},
		{"# a comment\nnameserver 192.0.2.3", "", "list [192.0.2.3:53 192.0.2.9:53]"},
		{"nameserver 192.0.2.3", "", ""},
		// Half written: nobody hears of it.
		{"nameserver 192.0.2.3", "nameserver 192.0", ""},
		{"", "nameserver 192.0.2.4", ""},
		{"nameserver 192.0.2.4", "nameserver 192.0.2.4", "list [192.0.2.3:53 192.0.2.9:53 192.0.2.4:53]"},
		{"nameserver 192.0.2.4", "nameserver 192.0.2.4", "list [192.0.2.4:53 192.0.2.9:53]"},
		// The order is part of the list.
		{"nameserver 192.0.2.4\nnameserver 192.0.2.5", "nameserver 192.0.2.4", ""},
		{"nameserver 192.0.2.5\nnameserver 192.0.2.4", "nameserver 192.0.2.4", ""},
		{"nameserver 192.0.2.5\nnameserver 192.0.2.4", "nameserver 192.0.2.4", "list [192.0.2.5:53 192.0.2.4:53 192.0.2.9:53]"},
		// Trouble is told once per kind, and the list stays.
		{"", "nameserver 192.0.2.4", ""},
		{"", "nameserver 192.0.2.4", "failed /a"},
		{"", "nameserver 192.0.2.4", ""},
		{"!permission denied", "!permission denied", "failed /a"},
		{"!permission denied", "!permission denied", "failed /b"},
		{"nameserver x", "!permission denied", "failed /a"},
		{"", "!permission denied", ""},
		{"!permission denied", "!permission denied", ""},
		{"nameserver 192.0.2.5\nnameserver 192.0.2.4", "!permission denied", "recovered /a"},
		{"nameserver 192.0.2.5\nnameserver 192.0.2.4", "nameserver 192.0.2.4", "recovered /b"},
		{"!permission denied", "nameserver 192.0.2.4", ""},
		{"!permission denied", "nameserver 192.0.2.4", "failed /a"},
		{"nameserver 192.0.2.6", "nameserver 192.0.2.4", ""},
		{"nameserver 192.0.2.6", "nameserver 192.0.2.4", "recovered /a; list [192.0.2.6:53 192.0.2.9:53 192.0.2.4:53]"},
	} {
		m.files["/a"], m.files["/b"] = step.a, step.b
		w.pollFiles()
		if got := j.take(); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
}

// TestNames looks a name up once per step.
func TestNames(t *testing.T) {
	m := &memory{names: map[string]string{"h.example.": "192.0.2.1 192.0.2.2 2001:db8::1"}}
	src := m.source()
	lost := "" // the network whose question fails unnoticed, as package net has it
	whole := src.lookup
	src.lookup = func(ctx context.Context, network, name string, r []string) ([]netip.Addr, error) {
		addrs, err := whole(ctx, network, name, r)
		if network == lost {
			return nil, errors.New("server misbehaving")
		}
		if network == "ip" && err == nil {
			addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return lost == "ip4" && a.Is4() || lost == "ip6" && a.Is6() })
		}
		return addrs, err
	}
	w, j := watch(t, src, "tls://h.example%resolver.example")
	for i, step := range []struct{ lost, addrs, want string }{
		{"", "192.0.2.2 2001:db8::1 192.0.2.1", ""}, // rotated
		{"ip6", "192.0.2.1 192.0.2.2 2001:db8::1", ""},
		{"ip6", "192.0.2.3 192.0.2.2 2001:db8::1", "list [192.0.2.2:853 [2001:db8::1]:853 192.0.2.3:853]"},
		{"", "192.0.2.3 192.0.2.2", "list [192.0.2.2:853 192.0.2.3:853]"},
		{"", "!", ""},
		{"", "!", "failed tls://h.example%resolver.example"},
		{"", "", "failed tls://h.example%resolver.example"}, // another kind
		{"", "!", ""},
		{"", "192.0.2.3 192.0.2.2", "recovered tls://h.example%resolver.example"},
		{"", "2001:db8::1 192.0.2.2", "list [192.0.2.2:853 [2001:db8::1]:853]"},
		{"ip4", "192.0.2.2 2001:db8::2", "list [192.0.2.2:853 [2001:db8::2]:853]"},
	} {
		lost = step.lost
		m.names["h.example."] = step.addrs
		w.observe(0, w.lookup(t.Context(), w.x.entries[0]))
		if got := j.take(); got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
}

// TestWithin5Seconds changes a file and a name at odd moments beside a name whose
// resolver hangs.
func TestWithin5Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		m := &memory{
			files: map[string]string{"/r": "nameserver 192.0.2.100"},
			names: map[string]string{"h.example.": "192.0.2.200", "hangs.example.": "192.0.2.250"},
		}
		src := m.source()
		read, look := src.readFile, src.lookup
		hang := false
		src.readFile = func(path string) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			return read(path)
		}
		src.lookup = func(ctx context.Context, network, name string, r []string) ([]netip.Addr, error) {
			if hang && name == "hangs.example." {
				<-ctx.Done()
				return nil, &net.DNSError{Err: "i/o timeout", Name: name, IsTimeout: true}
			}
			if hang {
				select { // the first of two resolvers is dead
				case <-time.After(exchangeTimeout):
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			mu.Lock()
			defer mu.Unlock()
			return look(ctx, network, name, r)
		}
		w, j := watch(t, src, "/r h.example hangs.example")
		hang = true

		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			w.Run(ctx)
			close(ended)
		}()
		failed := 0
		for i := range 40 {
			time.Sleep(time.Duration(i*137) * time.Millisecond)
			mu.Lock()
			m.files["/r"] = fmt.Sprintf("nameserver 192.0.2.%d", i)
			m.names["h.example."] = fmt.Sprintf("198.51.100.%d", i)
			mu.Unlock()
			time.Sleep(5 * time.Second)
			synctest.Wait()
			want := fmt.Sprintf("[192.0.2.%d:53 198.51.100.%d:53 192.0.2.250:53]", i, i)
			got := j.take()
			if !strings.Contains(got, want) {
				t.Errorf("change %d: %q, want %q", i, got, want)
			}
			failed += strings.Count(got, "failed hangs.example")
		}
		if failed != 1 {
			t.Errorf("the name whose resolver hangs was reported %d times in some minutes", failed)
		}
		cancel()
		synctest.Wait()
		select {
		case <-ended: // and synctest.Test fails if a goroutine is left
		default:
			t.Error("Run goes on")
		}
	})
}

// TestEdits makes the edits of a real file that matter.
func TestEdits(t *testing.T) {
	dir := t.TempDir()
	write := func(name, server string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("nameserver "+server+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// As the kubelet lays a ConfigMap out: resolv.conf -> ..data/resolv.conf,
	// ..data -> a directory per version.
	plain := write("resolv.conf", "192.0.2.1")
	write("cm/..2026_1/resolv.conf", "192.0.2.11")
	mounted := filepath.Join(dir, "cm", "resolv.conf")
	do(os.Symlink("..2026_1", filepath.Join(dir, "cm", "..data")))
	do(os.Symlink("..data/resolv.conf", mounted))

	w, j := watch(t, system, plain+" "+mounted)
	check := func(what, want string) {
		t.Helper()
		w.pollFiles()
		w.pollFiles()
		if got := j.take(); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	check("nothing", "")
	write("resolv.conf", "192.0.2.2")
	check("rewritten in place", "list [192.0.2.2:53 192.0.2.11:53]")
	do(os.Rename(write("resolv.conf.new", "192.0.2.3"), plain))
	check("renamed", "list [192.0.2.3:53 192.0.2.11:53]")
	write("cm/..2026_2/resolv.conf", "192.0.2.12")
	do(os.Symlink("..2026_2", filepath.Join(dir, "cm", "..data_tmp")))
	do(os.Rename(filepath.Join(dir, "cm", "..data_tmp"), filepath.Join(dir, "cm", "..data")))
	do(os.RemoveAll(filepath.Join(dir, "cm", "..2026_1")))
	check("ConfigMap", "list [192.0.2.3:53 192.0.2.12:53]")
	do(os.Remove(plain))
	check("removed", "failed "+plain)
	check("still removed", "")
	write("resolv.conf", "192.0.2.3")
	check("back", "recovered "+plain)
}

// TestLookupTexts: the error of a lookup is different each time and the same
// trouble nevertheless.
func TestLookupTexts(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{noAddress("a."), "not found"},
		{&net.DNSError{Err: "read udp 127.0.0.1:40000: i/o timeout", IsTimeout: true}, "timeout"},
		{fmt.Errorf("ask 192.0.2.1: %w", context.DeadlineExceeded), "timeout"},
		{&rcodeError{rcode: dns.RcodeRefused, resolver: "192.0.2.1:53", name: "a."}, "failure"},
	} {
		if got := failure(tc.err); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.err, got, tc.want)
		}
	}
}
