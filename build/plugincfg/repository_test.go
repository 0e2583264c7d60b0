package plugincfg

// These tests look at the plugin.cfg of this repository and at what was
// generated from it.

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"
)

const (
	file = "../../plugin.cfg"
	ours = "github.com/resolute-dns/resolute/"
)

func entries(t *testing.T) []Entry {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	e, err := Parse(f, file)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestGeneratedFilesAreCurrent(t *testing.T) {
	for name, render := range map[string]func([]Entry) ([]byte, error){
		"../zplugin.go":     Imports,
		"../zdirectives.go": Directives,
	} {
		want, err := render(entries(t))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: run make generate", name)
		}
	}
}

// TestStockOrder is one half of the proof that the build is a drop-in: without
// our lines, the directives and their order are those of the CoreDNS in go.mod.
func TestStockOrder(t *testing.T) {
	var stock []string
	for _, e := range entries(t) {
		if !strings.HasPrefix(e.Package, ours) {
			stock = append(stock, e.Name)
		}
	}
	if !slices.Equal(stock, dnsserver.Directives) {
		t.Errorf("plugin.cfg without our plugins:\n%v\nstock CoreDNS:\n%v", stock, dnsserver.Directives)
	}
}

// TestOurPlaces checks where our directives stand, and the reason for it.
func TestOurPlaces(t *testing.T) {
	var names []string
	found := map[string]bool{}
	for _, e := range entries(t) {
		names = append(names, e.Name)
		if strings.HasPrefix(e.Package, ours) {
			found[e.Name] = true
		}
	}
	for name, after := range map[string]string{
		// Above local, dns64 and cache, whose answers need the bit, and below log,
		// which shows the final flags.
		"aa": "dnstap",
		// Its addresses have to be there when bind listens on them.
		"nodelocal": "bufsize",
		// In front of all that takes time, and behind the plugins that drop queries
		// on purpose.
		"latency": "prometheus",
		// It takes the place of forward, which follows it.
		"failover": "loop",
	} {
		if i := slices.Index(names, name); i < 1 || names[i-1] != after {
			t.Errorf("%s does not stand right behind %s", name, after)
		}
		delete(found, name)
	}
	for name := range found {
		t.Errorf("%s has no designed place in this test", name)
	}
}
