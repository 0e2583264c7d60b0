package harness

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Namespace is a network and mount namespace of a test: a host of its own, whose
// only interface is the loopback and whose files below /etc may be others.
type Namespace struct{ pid int }

// NewNamespace makes a namespace in which the files of etc, by name, stand in
// the place of those in /etc. It ends with the test. The test is skipped where
// the means are missing.
func NewNamespace(t *testing.T, etc map[string]string) *Namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: this test makes a network namespace and needs root")
	}
	for _, tool := range []string{"unshare", "nsenter", "ip", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: this test makes a network namespace and needs %s", tool)
		}
	}

	script := "set -e; ip link set lo up\n"
	dir := t.TempDir()
	for name, content := range etc {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		script += "mount --bind '" + file + "' /etc/" + name + "\n"
	}
	// What holds the namespace ends when the test closes its standard input, or
	// is gone itself.
	script += "echo ready; exec cat\n"

	cmd := exec.Command("unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	if line, _ := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("no namespace: %s", &stderr)
	}
	return &Namespace{pid: cmd.Process.Pid}
}

// Command returns a command that runs in the namespace.
func (n *Namespace) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net", "--mount", "--target", strconv.Itoa(n.pid), "--", name}, args...)...)
}

// Start is [Start] in the namespace.
func (n *Namespace) Start(t *testing.T, binary, corefile string, args ...string) *Server {
	t.Helper()
	return run(t, n.Command, binary, corefile, args).ready(t)
}
