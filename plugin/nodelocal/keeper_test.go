package nodelocal

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// kept is what is there of some("10.0.0.1", "fd00::a").
const kept = "nodelocaldns 10.0.0.1 fd00::a, resolute_nodelocaldns 12"

func mustOpen(t *testing.T, f *fake, s *setting) *keeper {
	t.Helper()
	k, err := open(f, s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func expect(t *testing.T, f *fake, want string) {
	t.Helper()
	if got := f.state(); got != want {
		t.Errorf("there is %q, want %q", got, want)
	}
}

func TestKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		k := mustOpen(t, f, some("10.0.0.1", "fd00::a"))
		want := []string{"addLink nodelocaldns dummy", "up nodelocaldns", "addAddress 10.0.0.1", "addAddress fd00::a", "setTable 12"}
		if got := f.take(); !slices.Equal(got, want) {
			t.Errorf("done %q, want %q", got, want)
		}
		expect(t, f, kept)
		if testutil.ToFloat64(readyGauge) != 1 {
			t.Error("not ready")
		}

		time.Sleep(10 * time.Minute)
		if got := f.take(); len(got) > 0 {
			t.Errorf("done without need: %q", got)
		}
		for name, damage := range map[string]func(){
			"address":   func() { delete(f.addrs, netip.MustParseAddr("10.0.0.1")) },
			"down":      func() { f.links["nodelocaldns"].up = false },
			"interface": func() { clear(f.links); clear(f.addrs) },
			"table":     func() { clear(f.tables) },
			"rule": func() {
				f.tables["resolute_nodelocaldns"][output] = f.tables["resolute_nodelocaldns"][output][1:]
			},
			"everything": func() { clear(f.links); clear(f.addrs); clear(f.tables) },
			"more":       func() { f.addrs[netip.MustParseAddr("10.0.0.9")] = "nodelocaldns" },
		} {
			f.mu.Lock()
			damage()
			f.mu.Unlock()
			time.Sleep(time.Minute)
			synctest.Wait()
			if f.state() != kept || !f.links["nodelocaldns"].up {
				t.Errorf("%s: not put right: %s", name, f.state())
			}
		}
		// Not ours to judge.
		f.mu.Lock()
		f.links["eth0"] = &link{}
		f.addrs[netip.MustParseAddr("192.0.2.1")] = "eth0"
		f.addrs[netip.MustParseAddr("fe80::1")] = "nodelocaldns"
		f.tables["other"] = table{"c": {"accept"}}
		f.mu.Unlock()
		time.Sleep(time.Minute)
		k.close()
		expect(t, f, "eth0 192.0.2.1, other 1")
		if testutil.ToFloat64(readyGauge) != 0 {
			t.Error("ready at the end")
		}
	})
}

// TestUpdate has a second server start before the first one ends.
func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		before := mustOpen(t, f, some("10.0.0.1", "fd00::a"))
		after := mustOpen(t, f, some("10.0.0.1", "10.0.0.2"))
		both := "nodelocaldns 10.0.0.1 10.0.0.2 fd00::a, resolute_nodelocaldns 12"
		expect(t, f, both)
		f.take()
		time.Sleep(10 * time.Minute)
		if got := f.take(); len(got) > 0 {
			t.Errorf("the two work against each other: %q", got)
		}
		if !before.divert() || len(f.take()) != 4 {
			t.Error("the old one keeps what comes")
		}
		before.close()
		expect(t, f, both)
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, f, "nodelocaldns 10.0.0.1 10.0.0.2, resolute_nodelocaldns 12")
		if after.divert() {
			t.Error("the last one gives away what comes")
		}
		after.close()
		expect(t, f, "")

		// The new one gives up: the old one takes over again.
		before = mustOpen(t, f, some("10.0.0.1", "fd00::a"))
		after = mustOpen(t, f, some("10.0.0.1"))
		after.close()
		time.Sleep(time.Minute)
		synctest.Wait()
		expect(t, f, kept)
		before.close()
	})
}

func TestSkipTeardown(t *testing.T) {
	f := newFake()
	s := some("10.0.0.1", "fd00::a")
	s.skipTeardown = true
	mustOpen(t, f, s).close()
	expect(t, f, kept)
	mustOpen(t, f, some("10.0.0.1", "fd00::a")).close()
	expect(t, f, "")
}

func TestKinds(t *testing.T) {
	f := newFake()
	f.noDummy = true
	k := mustOpen(t, f, some("10.0.0.1", "fd00::a"))
	if f.links["nodelocaldns"].kind != kindBridge {
		t.Errorf("a %s where there are no dummies", f.links["nodelocaldns"].kind)
	}
	k.settle()
	expect(t, f, kept)
	k.close()
	expect(t, f, "")

	// node-cache's own interface, with an address of its own.
	f = newFake()
	f.links["nodelocaldns"] = &link{kind: kindDummy}
	f.addrs[netip.MustParseAddr("10.0.0.7")] = "nodelocaldns"
	k = mustOpen(t, f, some("10.0.0.1", "fd00::a"))
	expect(t, f, kept)
	k.close()
	expect(t, f, "")
}

// TestMistakes checks what the server doesn't start on, and that the host is as
// it was before.
func TestMistakes(t *testing.T) {
	for name, tc := range map[string]struct {
		links map[string]*link
		addr  string
		err   string
	}{
		"somebody's bridge": {map[string]*link{"nodelocaldns": {kind: kindBridge}}, "", "is no dummy interface, but bridge"},
		"hardware":          {map[string]*link{"nodelocaldns": {}}, "", "but hardware"},
		"address elsewhere": {map[string]*link{"eth0": {}}, "eth0", "address 10.0.0.1 is on interface 'eth0' already"},
		"IPVS":              {map[string]*link{"kube-ipvs0": {kind: kindDummy}}, "kube-ipvs0", "in IPVS mode"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			f.links = tc.links
			if tc.addr != "" {
				f.addrs[netip.MustParseAddr("10.0.0.1")] = tc.addr
			}
			before := f.state()
			if _, err := open(f, some("10.0.0.1")); err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got error %v, want one with %q", err, tc.err)
			}
			expect(t, f, before)
			if len(f.members["nodelocaldns"]) > 0 {
				t.Error("the lease is still held")
			}
		})
	}
}

// TestFailures checks that what may get better by itself does not stop the
// server, is counted, and is tried again.
func TestFailures(t *testing.T) {
	for method, step := range map[string]string{
		"link": stepInterface, "addLink": stepInterface, "up": stepInterface, "addresses": stepAddress, "addAddress": stepAddress,
		"table": stepRules, "setTable": stepRules, "join": stepLease, "lock": stepLease, "rank": stepLease,
	} {
		t.Run(method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.deny[method] = errors.New("denied")
				count := testutil.ToFloat64(setupErrors.WithLabelValues(step))
				k := mustOpen(t, f, some("10.0.0.1", "fd00::a"))
				if testutil.ToFloat64(setupErrors.WithLabelValues(step)) == count {
					t.Errorf("no error counted at step %s", step)
				}
				if ready := testutil.ToFloat64(readyGauge) == 1; ready != (step == stepLease) {
					t.Errorf("ready: %v", ready)
				}
				f.mu.Lock()
				delete(f.deny, method)
				f.mu.Unlock()
				time.Sleep(time.Minute)
				synctest.Wait()
				expect(t, f, kept)
				if testutil.ToFloat64(readyGauge) != 1 {
					t.Error("not ready after everything is right again")
				}
				k.close()
				// Who can't know that it is the last one leaves everything.
				want := ""
				if method == "join" {
					want = kept
				}
				expect(t, f, want)
			})
		})
	}
	for _, method := range []string{"delTable", "delLink"} {
		f := newFake()
		k := mustOpen(t, f, some("10.0.0.1"))
		f.deny[method] = errors.New("denied")
		count := testutil.ToFloat64(setupErrors.WithLabelValues(stepTeardown))
		k.close()
		if testutil.ToFloat64(setupErrors.WithLabelValues(stepTeardown)) != count+1 {
			t.Errorf("%s: not counted", method)
		}
	}
}
