// Package peers_test compares *failover* with the *forward* of CoreDNS on real
// sockets: the same binary with two Corefiles, side by side at the same moment,
// each with upstreams of its own that break in the same way.
//
// It asserts counts, ratios and the bounds that failover promises, never how fast
// the machine is. Time in which the test process itself was not run is taken off
// what queries took, and what misses a bound of time is measured once more.
//
// PEERS_LONG=1 runs the full durations at 20, 100, 600 and 1000 queries a second,
// PEERS_SOAK=10m the soak test for ten minutes.
package peers_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/resolute-dns/resolute/test/harness"
)

const (
	stock = "forward"
	ours  = "failover"
)

var long = os.Getenv("PEERS_LONG") != ""

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests wait for their schedules, not for a processor.
	parallel := "4"
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "test.parallel" {
			parallel = f.Value.String()
		}
	})
	flag.Set("test.parallel", parallel)
	harness.Main(m)
}

func binary(t testing.TB) string {
	t.Helper()
	b, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var hasFailover = sync.OnceValues(func() (bool, error) {
	b, err := harness.Binary()
	if err != nil {
		return false, err
	}
	plugins, err := exec.Command(b, "-plugins").CombinedOutput()
	if err != nil {
		return false, fmt.Errorf("%s -plugins: %w\n%s", b, err, plugins)
	}
	return regexp.MustCompile(`(?m)\bfailover$`).Match(plugins), nil
})

// sides returns the directives to be compared.
func sides(t testing.TB) []string {
	t.Helper()
	has, err := hasFailover()
	if err != nil {
		t.Fatal(err)
	}
	if has {
		return []string{stock, ours}
	}
	conf, err := os.ReadFile("../../plugin.cfg")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(conf), "\nfailover:") {
		t.Fatal("the binary is older than plugin.cfg: it has no failover")
	}
	t.Log("SKIPPED: our side, because the binary has no failover")
	return []string{stock}
}
