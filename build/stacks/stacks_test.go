package stacks

import (
	"runtime"
	"runtime/metrics"
	"testing"
)

// startingSize is the size of the stacks that new goroutines get.
func startingSize() uint64 {
	s := []metrics.Sample{{Name: "/gc/stack/starting-size:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

func TestGrow(t *testing.T) {
	before := startingSize()
	t.Setenv(Off, "1")
	Grow()
	if got := startingSize(); got != before {
		t.Fatalf("turned off, and the size went from %d to %d", before, got)
	}
	t.Setenv(Off, "")
	Grow()
	// It has to last: collections come and go.
	for range 3 {
		if got := startingSize(); got < parkedDepth {
			t.Errorf("a new stack has %d bytes, want %d at least", got, parkedDepth)
		}
		runtime.GC()
	}
}
