package test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fails starts a server on the host that is to end by itself, and returns what
// it prints.
func (m *machine) fails(corefile string) string {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "Corefile")
	if err := os.WriteFile(file, []byte(corefile), 0o644); err != nil {
		m.t.Fatal(err)
	}
	out, err := m.Command("timeout", "20", resolute(m.t), "-conf", file).CombinedOutput()
	if err == nil || strings.Contains(string(out), "CoreDNS-") {
		m.t.Errorf("the server has started:\n%s", out)
	}
	return string(out)
}

// TestNodeLocalMistakes checks that the server doesn't start on what only a
// person can put right, says what it is, and leaves the host as it was.
func TestNodeLocalMistakes(t *testing.T) {
	for name, tc := range map[string]struct{ host, options, want string }{
		"address elsewhere":      {"ip link add other type bridge; ip addr add 169.254.20.10/32 dev other", "", "address 169.254.20.10 is on interface 'other' already"},
		"address of IPVS":        {"ip link add kube-ipvs0 type bridge; ip addr add 169.254.20.10/32 dev kube-ipvs0", "", "in IPVS mode, kube-proxy has all Service addresses"},
		"IPv6 address elsewhere": {"ip link add other type bridge; ip addr add fd00:10::a/64 dev other", "", "address fd00:10::a is on interface 'other' already"},
		"somebody's bridge":      {"ip link add nodelocaldns type bridge", "", "interface 'nodelocaldns' exists and is no dummy interface, but bridge"},
		"somebody's cable":       {"ip link add name nodelocaldns type veth peer name end", "", "but veth"},
		"name too long":          {"", "interface sixteen-bytes-xx", "'sixteen-bytes-xx' is a name of 16 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, nil)
			m.sh(tc.host)
			before := m.run("ip", "-o", "addr") + m.run("nft", "list", "ruleset")
			if log := m.fails(fmt.Sprintf(nodeLocalBlock, tc.options)); !strings.Contains(log, tc.want) || !strings.Contains(log, "plugin/nodelocal") {
				t.Errorf("no %q in\n%s", tc.want, log)
			}
			if after := m.run("ip", "-o", "addr") + m.run("nft", "list", "ruleset"); after != before {
				t.Errorf("the host was changed:\n%s\n%s", before, after)
			}
		})
	}
	t.Run("check", func(t *testing.T) {
		m := newMachine(t, nil)
		file := filepath.Join(t.TempDir(), "Corefile")
		if err := os.WriteFile(file, []byte(fmt.Sprintf(nodeLocalBlock, "")), 0o644); err != nil {
			t.Fatal(err)
		}
		out, _ := m.Command(resolute(t), "-check", "-conf", file).CombinedOutput()
		if !m.clean() || strings.Contains(string(out), "Put in place") {
			t.Errorf("-check has touched the host:\n%s", out)
		}
	})
}

// TestNodeLocalWithoutNetAdmin takes the capability away. Where the addresses are
// there, because somebody else has made them, DNS is served; where they aren't,
// the log says why before the listener fails.
func TestNodeLocalWithoutNetAdmin(t *testing.T) {
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("SKIPPED: this test needs setpriv")
	}
	m := newMachine(t, nil)
	setpriv := func(binary string) string {
		script := filepath.Join(t.TempDir(), "without-net-admin")
		text := "#!/bin/sh\nexec setpriv --bounding-set=-net_admin --inh-caps=-net_admin " + binary + " \"$@\"\n"
		if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return script
	}
	binary := setpriv(resolute(t))
	corefile := fmt.Sprintf(nodeLocalBlock, "")

	file := filepath.Join(t.TempDir(), "Corefile")
	if err := os.WriteFile(file, []byte(corefile), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := m.Command(binary, "-conf", file).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "capability NET_ADMIN") {
		t.Errorf("ended with %v:\n%s", err, out)
	}

	m.sh("ip link add nodelocaldns type dummy || ip link add nodelocaldns alias 'made by Resolute nodelocal' type bridge; ip link set nodelocaldns alias 'made by Resolute nodelocal'; ip link set nodelocaldns up; ip addr add 169.254.20.10/32 dev nodelocaldns; ip addr add fd00:10::a/128 dev nodelocaldns nodad")
	s := m.Start(t, binary, corefile)
	m.resolves("a.example.", nodeLocalIP, nodeLocal6)
	m.metrics("coredns_nodelocal_ready 0", `coredns_nodelocal_setup_errors_total{step="rules"}`)
	if !strings.Contains(s.Log(), "capability NET_ADMIN") {
		t.Errorf("the log does not say what is missing:\n%s", s.Log())
	}
}

// metrics fails the test unless the metrics of the server on the host have all
// of the lines, or beginnings of lines with a value that is not 0.
func (m *machine) metrics(lines ...string) {
	m.t.Helper()
	var text []byte
	<-m.enter(func() {
		// Not net/http, which connects in goroutines of its own, on other threads.
		c, err := net.Dial("tcp", nodeLocalIP+":9253")
		if err != nil {
			m.t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprint(c, "GET /metrics HTTP/1.0\r\n\r\n")
		if text, err = io.ReadAll(c); err != nil {
			m.t.Error(err)
		}
	})
	for _, line := range lines {
		if !bytes.Contains(text, []byte("\n"+line)) || bytes.Contains(text, []byte("\n"+line+" 0\n")) {
			m.t.Errorf("no %s in the metrics", line)
		}
	}
}

// TestNodeLocalBrokenNftables has a table of our name that can't be changed by
// us, because another process owns it. The addresses are there and DNS is served.
func TestNodeLocalBrokenNftables(t *testing.T) {
	m := newMachine(t, nil)
	owner := m.Command("nft", "-i")
	stdin, err := owner.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		owner.Wait()
	})
	fmt.Fprintln(stdin, "add table inet resolute_nodelocaldns { flags owner; }")
	for range 100 {
		if m.Command("nft", "list", "table", "inet", "resolute_nodelocaldns").Run() == nil {
			break
		}
	}
	if m.Command("nft", "list", "table", "inet", "resolute_nodelocaldns").Run() != nil {
		t.Skip("SKIPPED: this kernel, or nft, has no tables with an owner")
	}
	s := m.Start(t, resolute(t), fmt.Sprintf(nodeLocalBlock, ""))
	m.resolves("a.example.", nodeLocalIP, nodeLocal6)
	m.metrics("coredns_nodelocal_ready 0", `coredns_nodelocal_setup_errors_total{step="rules"}`)
	if !strings.Contains(s.Log(), "is not kept out of connection tracking") {
		t.Errorf("the log does not say what is broken:\n%s", s.Log())
	}
	// It is put right without a restart.
	stdin.Close()
	owner.Wait()
	until(t, "everything is in place", 10*time.Second, m.complete)
	m.metrics("coredns_nodelocal_ready 1")
}
