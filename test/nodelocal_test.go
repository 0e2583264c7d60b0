package test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/resolute-dns/resolute/test/harness"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// The addresses of the tests: those that node-cache has by custom, and one more
// for IPv6.
const (
	nodeLocalIP = "169.254.20.10"
	clusterIP   = "10.96.0.10"
	nodeLocal6  = "fd00:10::a"
)

// nodeLocalBlock is a server with nodelocal, whose options are between the verbs.
const nodeLocalBlock = `.:53 {
	nodelocal 169.254.20.10 fd00:10::a {
		sync 1s
		%s
	}
	bind 169.254.20.10 fd00:10::a
	errors
	prometheus 169.254.20.10:9253
	template IN A {
		answer "{{ .Name }} 30 IN A 192.0.2.2"
	}
}
`

// machine is a host of its own: a namespace, and a process in it by which the
// others find it.
type machine struct {
	*harness.Namespace
	t   *testing.T
	pid int
}

// newMachine makes a host. The test is skipped, and says so, where that can't be
// done.
func newMachine(t *testing.T, etc map[string]string) *machine {
	t.Helper()
	m := &machine{Namespace: harness.NewNamespace(t, etc), t: t}
	for _, tool := range []string{"nft", "ip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: this test looks at what is in a namespace and needs %s", tool)
		}
	}
	if out, err := m.Command("nft", "list", "ruleset").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: this kernel has no nftables: %v %s", err, out)
	}
	anchor := m.Command("sh", "-c", "echo ready; exec cat")
	stdin, err := anchor.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := anchor.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := anchor.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		anchor.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("no process in the namespace: %v", err)
	}
	m.pid = anchor.Process.Pid
	return m
}

// run runs a command on the host and returns what it prints.
func (m *machine) run(name string, args ...string) string {
	m.t.Helper()
	out, err := m.Command(name, args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// sh runs a script on the host.
func (m *machine) sh(script string) string {
	m.t.Helper()
	return m.run("sh", "-ec", script)
}

// enter runs f in a goroutine whose sockets are the host's.
func (m *machine) enter(f func()) (done chan struct{}) {
	done = make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.pid))
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		if err != nil {
			m.t.Errorf("no way into the namespace: %v", err)
			return
		}
		f()
	}()
	return done
}

// askOnce asks a server for the address of a name, once.
func askOnce(network, server, name string) error {
	c := dns.Client{Net: network, Timeout: 2 * time.Second}
	r, _, err := c.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), net.JoinHostPort(server, "53"))
	if err == nil && (r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1) {
		err = fmt.Errorf("no address: %v", r)
	}
	return err
}

// resolves fails the test unless all servers have an address for a name, over
// UDP and TCP.
func (m *machine) resolves(name string, servers ...string) {
	m.t.Helper()
	<-m.enter(func() {
		for _, server := range servers {
			for _, network := range []string{"udp", "tcp"} {
				if err := askOnce(network, server, name); err != nil {
					m.t.Errorf("%s from %s over %s: %v", name, server, network, err)
				}
			}
		}
	})
}

// until polls until ok, and fails the test when it takes longer than limit.
func until(t *testing.T, what string, limit time.Duration, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s", what, limit)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return time.Since(start)
}

// inPlace tells what is there of an interface, its addresses and its rules.
func (m *machine) inPlace() (addrs []string, rules int) {
	out, _ := m.Command("ip", "-o", "addr", "show", "dev", "nodelocaldns").Output()
	for line := range strings.Lines(string(out)) {
		if a := strings.Fields(line)[3]; !strings.HasPrefix(a, "fe80:") {
			addrs = append(addrs, a)
		}
	}
	slices.Sort(addrs)
	out, _ = m.Command("nft", "list", "table", "inet", "resolute_nodelocaldns").Output()
	return addrs, strings.Count(string(out), " notrack comment ")
}

func (m *machine) complete() bool {
	addrs, rules := m.inPlace()
	return slices.Equal(addrs, []string{nodeLocalIP + "/32", nodeLocal6 + "/128"}) && rules == 12
}

func (m *machine) clean() bool {
	addrs, rules := m.inPlace()
	return len(addrs) == 0 && rules == 0 && m.Command("ip", "link", "show", "nodelocaldns").Run() != nil
}

// TestNodeLocalLife follows a server from start to end: its interface and rules
// come, come back, stay and go when they should.
func TestNodeLocalLife(t *testing.T) {
	m := newMachine(t, nil)
	m.sh("nft add table inet foreign; nft add chain inet foreign c; nft add rule inet foreign c accept; ip link add other type bridge")
	foreign := m.run("nft", "list", "table", "inet", "foreign")

	// What it takes this machine to start a server at all is not counted.
	binary := resolute(t)
	start := time.Now()
	m.Start(t, binary, ".:5300 {\nwhoami\n}\n").Stop(t)
	bare := time.Since(start)
	start = time.Now()
	s := m.Start(t, binary, fmt.Sprintf(nodeLocalBlock, ""))
	took := time.Since(start)
	t.Logf("listens after %s; without nodelocal, starts and ends within %s", took, bare)
	if !m.complete() || took > bare+time.Second {
		t.Errorf("not in place when the server listens, or later than a second after its start:\n%s", s.Log())
	}
	m.resolves("a.example.", nodeLocalIP, nodeLocal6)

	// Each of them by itself, and all together.
	for _, script := range []string{
		"ip addr del 169.254.20.10/32 dev nodelocaldns",
		"ip addr del fd00:10::a/128 dev nodelocaldns",
		"nft delete table inet resolute_nodelocaldns",
		"nft flush chain inet resolute_nodelocaldns output",
		"ip link del nodelocaldns; nft delete table inet resolute_nodelocaldns",
	} {
		m.sh(script)
		// A second of sync, and the rest for a busy machine.
		took := until(t, "back after "+script, 5*time.Second, m.complete)
		t.Logf("back %s after %s", took.Round(time.Millisecond), script)
	}
	m.resolves("a.example.", nodeLocalIP, nodeLocal6)

	// A reload touches nothing, not even for a moment: same interface, same rules,
	// same counters.
	link := m.run("ip", "-o", "link", "show", "nodelocaldns") // begins with its number
	handles := m.run("nft", "-a", "list", "chain", "inet", "resolute_nodelocaldns", "prerouting")
	for range 2 {
		n := strings.Count(s.Log(), "Reloading complete")
		s.Signal(syscall.SIGUSR1)
		until(t, "reloaded", 30*time.Second, func() bool { return strings.Count(s.Log(), "Reloading complete") > n })
		m.resolves("a.example.", nodeLocalIP, nodeLocal6)
	}
	if now := m.run("ip", "-o", "link", "show", "nodelocaldns"); now != link {
		t.Errorf("the interface was made anew by a reload:\n%s%s", link, now)
	}
	if now := m.run("nft", "-a", "list", "chain", "inet", "resolute_nodelocaldns", "prerouting"); ruleHandles(now) != ruleHandles(handles) {
		t.Errorf("the rules were made anew by a reload:\n%s\n%s", handles, now)
	}

	s.Stop(t)
	if !m.clean() {
		t.Errorf("left after the end:\n%s%s", m.run("ip", "addr"), m.run("nft", "list", "ruleset"))
	}
	if now := m.run("nft", "list", "table", "inet", "foreign"); now != foreign {
		t.Errorf("foreign rules were changed:\n%s", now)
	}
	m.run("ip", "link", "show", "other")
}

// ruleHandles returns the handles of rules, which change when they are replaced.
func ruleHandles(listing string) (handles string) {
	for line := range strings.Lines(listing) {
		if _, h, ok := strings.Cut(line, "# handle "); ok {
			handles += h
		}
	}
	return handles
}

// TestNodeLocalReload changes the directive by a reload, breaks it, and takes it
// out.
func TestNodeLocalReload(t *testing.T) {
	m := newMachine(t, nil)
	s := m.Start(t, resolute(t), fmt.Sprintf(nodeLocalBlock, ""))
	reload := func(corefile, log string) {
		t.Helper()
		n := strings.Count(s.Log(), log)
		if err := os.WriteFile(s.Corefile, []byte(corefile), 0o644); err != nil {
			t.Fatal(err)
		}
		s.Signal(syscall.SIGUSR1)
		until(t, log, 30*time.Second, func() bool { return strings.Count(s.Log(), log) > n })
	}
	more := strings.ReplaceAll(fmt.Sprintf(nodeLocalBlock, ""), nodeLocalIP+" ", nodeLocalIP+" "+clusterIP+" ")
	reload(more, "Reloading complete")
	m.resolves("a.example.", nodeLocalIP, clusterIP, nodeLocal6)

	// The new server would listen on an address that can't be had, so the old one
	// goes on and so does what it needs.
	m.sh("ip link add other type bridge; ip addr add 10.96.0.11/32 dev other")
	reload(strings.ReplaceAll(more, clusterIP, "10.96.0.11"), "Restart failed")
	m.resolves("a.example.", nodeLocalIP, clusterIP, nodeLocal6)

	// The same, but it fails after ours was put in place.
	reload(strings.ReplaceAll(strings.ReplaceAll(more, clusterIP, "10.96.0.12"), "errors", "errors\nbind 192.0.2.99"), "Restart failed: Listen")
	m.resolves("a.example.", nodeLocalIP, clusterIP, nodeLocal6)
	if addrs, _ := m.inPlace(); slices.Contains(addrs, "10.96.0.12/32") {
		t.Errorf("addresses of a server that did not come up: %v", addrs)
	}

	reload(fmt.Sprintf(nodeLocalBlock, "notrack off"), "Reloading complete")
	m.resolves("a.example.", nodeLocalIP, nodeLocal6)
	if addrs, rules := m.inPlace(); len(addrs) != 2 || rules != 0 {
		t.Errorf("with fewer addresses and without notrack: %v and %d rules", addrs, rules)
	}

	reload(".:53 {\nbind 127.0.0.1\nwhoami\n}\n", "Reloading complete")
	until(t, "all is gone with the directive", 2*time.Second, m.clean)
}

// TestNodeLocalLeftovers starts over what a crash, or node-cache, has left.
func TestNodeLocalLeftovers(t *testing.T) {
	m := newMachine(t, nil)
	corefile := fmt.Sprintf(nodeLocalBlock, "")
	s := m.Start(t, resolute(t), corefile)
	s.Signal(syscall.SIGKILL)
	s.Wait(t)
	if !m.complete() {
		t.Fatal("a crash leaves everything")
	}
	// And more than that, from another Corefile.
	m.sh("ip addr add 10.96.0.10/32 dev nodelocaldns; nft add rule inet resolute_nodelocaldns output udp dport 5353 notrack")
	s = m.Start(t, resolute(t), corefile)
	until(t, "only what is wanted", time.Second, m.complete)
	m.resolves("a.example.", nodeLocalIP, nodeLocal6)
	s.Stop(t)
	if !m.clean() {
		t.Errorf("left after the end:\n%s", m.run("ip", "addr"))
	}

	if m.Command("ip", "link", "add", "nodelocaldns", "type", "dummy").Run() != nil {
		t.Log("SKIPPED: this kernel has no dummy interfaces, so the leftovers of node-cache are not tried")
		return
	}
	m.sh("ip addr add 169.254.20.10/32 dev nodelocaldns")
	s = m.Start(t, resolute(t), corefile)
	until(t, "node-cache's interface is taken over", time.Second, m.complete)
	s.Stop(t)
	if !m.clean() {
		t.Errorf("left after the end:\n%s", m.run("ip", "addr"))
	}
}

func TestNodeLocalSkipTeardown(t *testing.T) {
	m := newMachine(t, nil)
	s := m.Start(t, resolute(t), fmt.Sprintf(nodeLocalBlock, "skip_teardown"))
	s.Stop(t)
	if !m.complete() {
		t.Errorf("not kept:\n%s%s", m.run("ip", "addr"), m.run("nft", "list", "ruleset"))
	}
}

// TestNodeLocalTwoBlocks shares the directive between server blocks.
func TestNodeLocalTwoBlocks(t *testing.T) {
	m := newMachine(t, nil)
	block := fmt.Sprintf(nodeLocalBlock, "")
	other := strings.Replace(block, ".:53", "cluster.local:53", 1)
	s := m.Start(t, resolute(t), block+other)
	m.resolves("a.example.", nodeLocalIP, nodeLocal6)
	if !m.complete() || strings.Count(s.Log(), "Put in place: interface") != 1 {
		t.Errorf("not once:\n%s", s.Log())
	}
	if err := os.WriteFile(s.Corefile, []byte(block), 0o644); err != nil {
		t.Fatal(err)
	}
	s.Signal(syscall.SIGUSR1)
	s.WaitLog(t, "Reloading complete")
	m.resolves("a.example.", nodeLocalIP, nodeLocal6)
	s.Stop(t)
	if !m.clean() {
		t.Errorf("left after the end:\n%s", m.run("ip", "addr"))
	}
}
