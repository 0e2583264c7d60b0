// Package test has the tests of the whole binary.
package test

import (
	"fmt"
	"testing"

	"github.com/resolute-dns/resolute/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// resolute returns the server under test.
func resolute(t *testing.T) string {
	t.Helper()
	b, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// stock returns the CoreDNS that go.mod pins.
func stock(t *testing.T) string {
	t.Helper()
	b, err := harness.Stock()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
