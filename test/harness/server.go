// Package harness starts the built server for tests of the whole binary.
package harness

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a server may take to start or to end. It is only ever
// used up when a test fails.
const patience = 30 * time.Second

// Binary returns the path of the server under test: what RESOLUTE_BINARY names
// (`make test` sets it, so that it is built once), or else one that is built for
// this test process.
var Binary = sync.OnceValues(func() (string, error) {
	if b := os.Getenv("RESOLUTE_BINARY"); b != "" {
		return b, nil
	}
	return build("github.com/resolute-dns/resolute/build", "resolute")
})

// Stock returns the path of the CoreDNS that go.mod pins, built with the same
// flags.
var Stock = sync.OnceValues(func() (string, error) {
	return build("github.com/coredns/coredns", "stock")
})

func build(pkg, name string) (string, error) {
	dir, err := os.MkdirTemp("", "resolute-test-")
	if err != nil {
		return "", err
	}
	buildDirs = append(buildDirs, dir)
	out := filepath.Join(dir, name)
	cmd := exec.Command("go", "build", "-tags=grpcnotrace", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, msg)
	}
	return out, nil
}

var buildDirs []string

// Main runs the tests of a package and removes what they built. It is to be
// called from TestMain.
func Main(m *testing.M) {
	code := m.Run()
	for _, dir := range buildDirs {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// Server is a running server.
type Server struct {
	Corefile string // the path of its Corefile

	cmd  *exec.Cmd
	log  *output
	done chan struct{} // closed when the process has ended
	err  error         // how it ended; to be read once done is closed
}

// Start starts binary with the Corefile and waits until it listens. The test
// fails if it doesn't. It is stopped when the test ends.
func Start(t testing.TB, binary, corefile string, args ...string) *Server {
	t.Helper()
	return run(t, exec.Command, binary, corefile, args).ready(t)
}

// Run is Start without the waiting.
func Run(t testing.TB, binary, corefile string, args ...string) *Server {
	t.Helper()
	return run(t, exec.Command, binary, corefile, args)
}

func (s *Server) ready(t testing.TB) *Server {
	t.Helper()
	select {
	case <-s.log.started:
	case <-s.done:
		t.Fatalf("server ended: %v\n%s", s.err, s.log)
	case <-time.After(patience):
		t.Fatalf("server did not start:\n%s", s.log)
	}
	return s
}

// run starts binary by the command that is made of it: in a namespace or here.
func run(t testing.TB, command func(string, ...string) *exec.Cmd, binary, corefile string, args []string) *Server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "Corefile")
	if err := os.WriteFile(file, []byte(corefile), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &Server{
		Corefile: file,

		cmd:  command(binary, append([]string{"-conf", file}, args...)...),
		log:  &output{started: make(chan struct{})},
		done: make(chan struct{}),
	}
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.Dir = t.TempDir()
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(func() { s.Stop(t) })
	return s
}

// Stop asks the server to end and waits for it.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(patience):
		s.cmd.Process.Kill()
		<-s.done
		t.Errorf("server did not end on SIGTERM:\n%s", s.log)
	}
}

// Wait waits for the server to end by itself and returns its exit code.
func (s *Server) Wait(t *testing.T) int {
	t.Helper()
	select {
	case <-s.done:
	case <-time.After(patience):
		t.Fatalf("server did not end:\n%s", s.log)
	}
	return s.cmd.ProcessState.ExitCode()
}

// Signal sends sig to the server.
func (s *Server) Signal(sig syscall.Signal) error { return s.cmd.Process.Signal(sig) }

// PID returns the process ID of the server.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Log returns what the server has printed so far.
func (s *Server) Log() string { return s.log.String() }

// WaitLog waits until the server has printed text, as often as it takes.
func (s *Server) WaitLog(t *testing.T, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for !strings.Contains(s.Log(), text) {
		select {
		case <-ctx.Done():
			t.Fatalf("no %q in the log:\n%s", text, s.Log())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// output collects what a process prints. CoreDNS prints its version when it
// listens on everything.
type output struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	started chan struct{}
	once    sync.Once
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(p)
	if bytes.Contains(o.buf.Bytes(), []byte("\nCoreDNS-")) {
		o.once.Do(func() { close(o.started) })
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
