package test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// cluster is a node with two pods, and the cluster's DNS on another machine,
// behind two Services: kube-dns, which the pods know, and one that node-local
// caches use. kube-proxy is a rule for DNAT.
type cluster struct {
	node, dns *machine
	pods      []*machine // the first asks the node-local address, the second the ClusterIP
}

const upstreamIP = "10.96.0.11"

// nodeLocalClusterBlocks is what a node runs.
const nodeLocalClusterBlocks = `cluster.local:53 {
	nodelocal 169.254.20.10 10.96.0.10 fd00:10::a
	bind 169.254.20.10 10.96.0.10 fd00:10::a
	errors
	prometheus 169.254.20.10:9253
	health 169.254.20.10:8080 {
		lameduck LAMEDUCK
	}
	failover . 10.96.0.11 {
		force_tcp
	}
}
`

func newCluster(t *testing.T) *cluster {
	t.Helper()
	resolv := func(server string) map[string]string {
		return map[string]string{"nsswitch.conf": "hosts: dns\n", "resolv.conf": "nameserver " + server + "\noptions timeout:1 attempts:3\n"}
	}
	c := &cluster{
		node: newMachine(t, resolv("10.1.2.2")), dns: newMachine(t, nil),
		pods: []*machine{newMachine(t, resolv(nodeLocalIP)), newMachine(t, resolv(clusterIP))},
	}
	for i, m := range append(slices.Clone(c.pods), c.dns) {
		m.sh(fmt.Sprintf(`ip link add name eth0 type veth peer name v%[1]d netns %[2]d
			ip link set eth0 up; ip addr add 10.1.%[1]d.2/24 dev eth0; ip addr add fd00:1:%[1]d::2/64 dev eth0 nodad`, i, c.node.pid))
		c.node.sh(fmt.Sprintf(`ip link set v%[1]d up; ip addr add 10.1.%[1]d.1/24 dev v%[1]d; ip addr add fd00:1:%[1]d::1/64 dev v%[1]d nodad`, i))
		m.sh(fmt.Sprintf(`ip route add default via 10.1.%[1]d.1; ip -6 route add default via fd00:1:%[1]d::1`, i))
	}
	c.node.sh(`echo 1 >/proc/sys/net/ipv4/ip_forward
		ip route add default via 10.1.2.2 # the machine that the Services lead to is the way out, too
		nft -f - <<'EOF'
table ip kube-proxy {
	chain services {
		ip daddr { 10.96.0.10, 10.96.0.11 } meta l4proto { udp, tcp } th dport 53 dnat to 10.1.2.2
	}
	chain prerouting {
		type nat hook prerouting priority -100
		jump services
	}
	chain output {
		type nat hook output priority -100
		jump services
	}
}
EOF`)
	c.dns.Start(t, resolute(t), `.:53 {
	errors
	template IN A {
		answer "{{ .Name }} 30 IN A 192.0.2.2"
	}
	template IN AAAA {
		answer "{{ .Name }} 30 IN AAAA 2001:db8::2"
	}
}
`)
	return c
}

// nodeLocalCorefile is nodeLocalClusterBlocks with a time for lameduck.
func nodeLocalCorefile(lameduck time.Duration) string {
	return strings.ReplaceAll(nodeLocalClusterBlocks, "LAMEDUCK", lameduck.String())
}

// lookUp looks up n names with a pod's C library and returns how long each took.
func (m *machine) lookUp(program, prefix string, n int) (took []time.Duration) {
	m.t.Helper()
	for i := range n {
		start := time.Now()
		if out := m.run(program, fmt.Sprintf("%s%d.default.svc.cluster.local.", prefix, i), "0"); !regexp.MustCompile(` 0 (192\.0\.2\.2|2001:db8::2)\n`).MatchString(out) {
			m.t.Errorf("no address: %s", out)
		}
		took = append(took, time.Since(start).Round(time.Millisecond))
	}
	return took
}

// tailprobe builds cmd/tailprobe.
func tailprobe(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "tailprobe")
	cmd := exec.Command("go", "build", "-C", filepath.Join("..", "cmd", "tailprobe"), "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// probe lets tailprobe look up n names, as glibc does, and reports whether all of
// them had their answer within half a second.
func (m *machine) probe(program string, n int) (fast bool, report string) {
	m.t.Helper()
	cmd := m.Command(program, "default.svc.cluster.local.", "-random", "-libc", "glibc", "-c", "4", "-n", fmt.Sprint(n), "-d", "1m", "-limit", "500ms", "-fail-errors", "0%")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return true, string(out)
	case errors.As(err, &exit) && exit.ExitCode() == 1: // a threshold was crossed
		return false, string(out)
	}
	m.t.Fatalf("tailprobe: %v\n%s", err, out)
	return false, ""
}

// tracked returns the connections of the pods' DNS that the node has followed.
func (c *cluster) tracked() (entries []string) {
	c.node.t.Helper()
	for line := range strings.Lines(c.node.run("conntrack", "-L")) {
		if strings.Contains(line, "dport=53 ") && regexp.MustCompile(` src=10\.1\.[01]\.2 `).MatchString(line) {
			entries = append(entries, line)
		}
	}
	return entries
}

// conntrackRace makes the node drop the second packet of a UDP flow of DNS that it
// forwards, if it comes within 20 ms of the first: what two packets that
// connection tracking sees at the same time came to before kernel 5.0.
const conntrackRace = `table ip race {
	set known { type ipv4_addr . inet_service; flags dynamic,timeout; timeout 1m; size 65535; }
	set fresh { type ipv4_addr . inet_service; flags dynamic,timeout; timeout 20ms; size 65535; }
	chain forward {
		type filter hook forward priority 0
		udp dport 53 ip saddr . udp sport @fresh counter drop
		udp dport 53 ip saddr . udp sport @known accept
		udp dport 53 add @fresh { ip saddr . udp sport } add @known { ip saddr . udp sport }
	}
}
`

// TestNodeLocalPods compares a node without and with a node-local cache: what
// the pods wait for where connection tracking loses one of the two packets of a
// lookup, and what is in its table.
func TestNodeLocalPods(t *testing.T) {
	program, probe := getaddrinfo(t), tailprobe(t)
	if _, err := exec.LookPath("conntrack"); err != nil {
		t.Skip("SKIPPED: this test looks at connection tracking and needs conntrack")
	}
	c := newCluster(t)
	if out, err := c.node.Command("conntrack", "-L").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: this kernel's connection tracking can't be looked at: %v %s", err, out)
	}

	cmd := c.node.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(conntrackRace)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	took := c.pods[1].lookUp(program, "without", 2)
	t.Logf("without node-local, the ClusterIP: %v", took)
	if slices.Min(took) < 900*time.Millisecond {
		t.Errorf("the race is not there: the lookups were to take the resolver's timeout of 1 s, took %v", took)
	}
	fast, report := c.pods[1].probe(probe, 8)
	t.Logf("tailprobe without node-local:\n%s", report)
	if fast {
		t.Error("tailprobe does not see the race")
	}
	if len(c.tracked()) == 0 {
		t.Errorf("nothing is tracked without node-local:\n%s", c.node.run("conntrack", "-L"))
	}
	c.node.run("conntrack", "-F")

	s := c.node.Start(t, resolute(t), nodeLocalCorefile(0))
	for i, pod := range c.pods {
		took := pod.lookUp(program, fmt.Sprintf("with%d", i), 10)
		t.Logf("with node-local, %s: %v", []string{nodeLocalIP, clusterIP}[i], took)
		if slices.Max(took) > 500*time.Millisecond {
			t.Errorf("a lookup took %s", slices.Max(took))
		}
		fast, report := pod.probe(probe, 200)
		t.Logf("tailprobe with node-local:\n%s", report)
		if !fast {
			t.Error("tailprobe still sees slow lookups")
		}
		pod.resolves("a.default.svc.cluster.local.", nodeLocalIP, clusterIP, nodeLocal6)
	}
	c.node.resolves("a.default.svc.cluster.local.", nodeLocalIP, clusterIP, nodeLocal6) // a pod in the host's network
	if entries := c.tracked(); len(entries) > 0 {
		t.Errorf("the pods' DNS is tracked:\n%s", strings.Join(entries, ""))
	}
	if all := c.node.run("conntrack", "-L"); strings.Contains(all, "dst="+nodeLocalIP+" ") {
		t.Errorf("the host's own is tracked:\n%s", all)
	}

	// At the end, the ClusterIP is the Service again.
	s.Stop(t)
	c.node.run("nft", "delete", "table", "ip", "race")
	c.pods[1].lookUp(program, "after", 1)
}

// TestNodeLocalUpdate replaces the server of a node by another one, as a
// DaemonSet does with maxSurge: the new one starts, then the old one is told to
// end. The pods ask all the while, and none of their queries is lost.
func TestNodeLocalUpdate(t *testing.T) {
	c := newCluster(t)
	old := c.node.Start(t, resolute(t), nodeLocalCorefile(100*time.Millisecond))

	var asked, failed atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i, addr := range []string{nodeLocalIP, clusterIP, nodeLocalIP, clusterIP} {
		network := []string{"udp", "udp", "udp", "tcp"}[i]
		done := c.pods[i%2].enter(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				asked.Add(1)
				if err := askOnce(network, addr, fmt.Sprintf("n%d.default.svc.cluster.local.", asked.Load()%100)); err != nil {
					failed.Add(1)
					t.Logf("%s over %s: %v", addr, network, err)
				}
			}
		})
		wg.Go(func() { <-done })
	}
	more := func() {
		t.Helper()
		n := asked.Load()
		until(t, "the load goes on", 30*time.Second, func() bool { return asked.Load() > n+200 })
	}
	more()
	for range 3 {
		next := c.node.Start(t, resolute(t), nodeLocalCorefile(100*time.Millisecond))
		more() // both
		old.Signal(syscall.SIGTERM)
		old.Wait(t)
		more() // the new one alone
		if !strings.Contains(old.Log(), "stays: another server uses it") {
			t.Errorf("the old server has not left the interface to the new one:\n%s", old.Log())
		}
		old = next
	}
	close(stop)
	wg.Wait()
	t.Logf("%d queries, %d failed", asked.Load(), failed.Load())
	if failed.Load() > 0 {
		t.Errorf("%d of %d queries failed", failed.Load(), asked.Load())
	}
	old.Stop(t)
	if !c.node.clean() {
		t.Errorf("left after the last one:\n%s", c.node.run("ip", "addr"))
	}
}
