package nodelocal

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// inNamespace runs f where `host_linux.go` can do what it wants: in a network
// namespace of its own, on one thread.
func inNamespace(t *testing.T, f func(h host)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: this test makes a network namespace and needs root")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("SKIPPED: no network namespace can be made: %v", err)
			return
		}
		f(newHost())
	}()
	<-done
}

func TestRealInterface(t *testing.T) {
	inNamespace(t, func(h host) {
		if _, found, err := h.link("nodelocaldns"); found || err != nil {
			t.Errorf("found %v, %v in an empty namespace", found, err)
		}
		if err := h.delLink("nodelocaldns"); err != nil {
			t.Errorf("to remove what isn't there: %v", err)
		}
		if err := h.addLink("nodelocaldns", "nonsense"); !errors.Is(err, errNoKind) {
			t.Errorf("a kind of interface that no kernel has: %v", err)
		}
		k := &keeper{host: h, set: some("169.254.20.10", "fd00::a")}
		kind, err := k.addLink("nodelocaldns")
		if err != nil {
			t.Errorf("no interface: %v", err)
			return
		}
		if err := h.up("nodelocaldns"); err != nil {
			t.Error(err)
		}
		l, found, err := h.link("nodelocaldns")
		if want := (link{kind: kind, ours: true, up: true}); l != want || !found || err != nil {
			t.Errorf("got %+v, %v, %v, want %+v", l, found, err, want)
		}
		for range 2 { // again is no error
			for _, a := range k.set.addrs {
				if err := h.addAddress("nodelocaldns", a); err != nil {
					t.Error(err)
				}
			}
		}
		all, err := h.addresses()
		if err != nil {
			t.Error(err)
		}
		for _, a := range k.set.addrs {
			if !slices.Contains(all, address{a, "nodelocaldns"}) {
				t.Errorf("no %s in %v", a, all)
			}
			// Usable at once: nothing waits for duplicate address detection.
			c, err := net.ListenPacket("udp", netip.AddrPortFrom(a, 53).String())
			if err != nil {
				t.Error(err)
				continue
			}
			c.Close()
			if err := h.delAddress("nodelocaldns", a); err != nil {
				t.Error(err)
			}
		}
		if all, _ := h.addresses(); slices.Contains(all, address{k.set.addrs[0], "nodelocaldns"}) {
			t.Errorf("still there: %v", all)
		}
		if err := h.delLink("nodelocaldns"); err != nil {
			t.Error(err)
		}
	})
}

func TestRealRules(t *testing.T) {
	inNamespace(t, func(h host) {
		const name = "resolute_test"
		if got, err := h.table(name); got != nil || err != nil {
			t.Errorf("a table in an empty namespace: %v, %v", got, err)
		}
		if err := h.delTable(name); err != nil {
			t.Errorf("to remove what isn't there: %v", err)
		}
		s := some("169.254.20.10", "fd00::a")
		s.health = []port{{"tcp", 8080}}
		all := rules(s)
		for range 2 {
			if err := h.setTable(name, all); err != nil {
				t.Errorf("no rules: %v", err)
				return
			}
			if got, err := h.table(name); !got.equal(tableOf(all)) || err != nil {
				t.Errorf("got %v, %v", got, err)
			}
		}
		if nft, err := exec.LookPath("nft"); err != nil {
			t.Log("SKIPPED: there is no nft to say what the rules mean")
		} else {
			out, _ := exec.Command(nft, "list", "table", "inet", name).CombinedOutput()
			for _, r := range all {
				// nft says the same in its own words, from the rule, as we do in the comment.
				text, _ := strings.CutSuffix(r.String(), " notrack")
				if want := text + " counter packets 0 bytes 0 notrack comment"; !strings.Contains(string(out), want) {
					t.Errorf("nft knows of no %q in\n%s", want, out)
				}
			}
		}

		if exec.Command("nft", "add", "table", "inet", name, "{ flags dormant; }").Run() == nil {
			if got, err := h.table(name); got.equal(tableOf(all)) || err != nil {
				t.Errorf("a dormant table is taken for ours: %v, %v", got, err)
			}
			if err := h.setTable(name, all); err != nil {
				t.Error(err)
			}
		}

		// What else may be in a table of this name is not taken for ours.
		c, err := nftables.New()
		if err != nil {
			t.Error(err)
			return
		}
		table := &nftables.Table{Family: nftables.TableFamilyINet, Name: name}
		for _, change := range []func(){
			func() { c.AddChain(&nftables.Chain{Table: table, Name: "input"}) },
			func() { c.FlushChain(&nftables.Chain{Table: table, Name: output}) },
			func() {
				c.AddRule(&nftables.Rule{Table: table, Chain: &nftables.Chain{Table: table, Name: output}, UserData: []byte{0, 200, 'x'}})
			},
			func() {
				c.DelTable(table)
				c.AddTable(table)
				for _, chain := range []string{prerouting, output} {
					c.AddChain(&nftables.Chain{Table: table, Name: chain, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
				}
			},
		} {
			change()
			if err := c.Flush(); err != nil {
				t.Error(err)
			}
			if got, err := h.table(name); got.equal(tableOf(all)) || err != nil {
				t.Errorf("taken for ours: %v, %v", got, err)
			}
			if err := h.setTable(name, all); err != nil {
				t.Error(err)
			}
		}
		if err := h.delTable(name); err != nil {
			t.Error(err)
		}
		if got, _ := h.table(name); got != nil {
			t.Errorf("still there: %v", got)
		}
	})
}

func TestRealLease(t *testing.T) {
	inNamespace(t, func(h host) {
		first, err := h.join("a")
		if err != nil {
			t.Error(err)
			return
		}
		expect := func(name string, l lease, newest, alone bool) {
			n, a, err := l.rank()
			if n != newest || a != alone || err != nil {
				t.Errorf("%s: newest %v, alone %v, %v", name, n, a, err)
			}
		}
		expect("first", first, true, true)
		second, err := h.join("a")
		if err != nil {
			t.Error(err)
			return
		}
		other, err := h.join("a-b")
		if err != nil {
			t.Error(err)
			return
		}
		expect("other interface", other, true, true)
		expect("first of two", first, false, false)
		expect("second of two", second, true, false)
		first.leave()
		expect("second, left alone", second, true, true)
		third, err := h.join("a")
		if err != nil {
			t.Error(err)
			return
		}
		third.leave()
		expect("second, again", second, true, true)

		unlock, err := h.lock("a")
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := h.lock("a"); err == nil {
			t.Error("locked twice")
		}
		unlock()
		if unlock, err = h.lock("a"); err != nil {
			t.Errorf("not unlocked: %v", err)
			return
		}
		unlock()
	})
}

// TestListeners tells this process's sockets from those of another one.
func TestListeners(t *testing.T) {
	shared := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return err
	}}
	shared.SetMultipathTCP(false)
	for _, a := range addrs("127.0.0.1", "::1") {
		tcp, err := shared.Listen(context.Background(), "tcp", netip.AddrPortFrom(a, 0).String())
		if err != nil {
			t.Skipf("SKIPPED: no listener on %s: %v", a, err)
		}
		defer tcp.Close()
		udp, err := shared.ListenPacket(context.Background(), "udp", tcp.Addr().String())
		if err != nil {
			t.Skipf("SKIPPED: the port of %s is free for TCP only: %v", tcp.Addr(), err)
		}
		defer udp.Close()
		number := uint16(tcp.Addr().(*net.TCPAddr).Port)
		for _, proto := range []string{"tcp", "udp"} {
			own, others, err := listeners(a, port{proto, number})
			if len(own) != 1 || others != 0 || err != nil {
				t.Errorf("%s over %s: %v and %d others, %v", a, proto, own, others, err)
			}
			if diverted, err := newHost().divert(a, port{proto, number}); diverted || err != nil {
				t.Errorf("%s over %s: given to nobody: %v, %v", a, proto, diverted, err)
			}
		}
	}
}
