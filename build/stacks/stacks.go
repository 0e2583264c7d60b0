// Package stacks makes new goroutines start with a stack that is large enough to
// serve a query.
//
// Each query is served on a goroutine of its own, and the chain of plugins needs
// more stack than a new goroutine has: it grows from 2 to 16 KB in three steps, and
// each copies the stack. That is a quarter of the CPU time of a cached answer.
//
// The runtime gives new goroutines the average that it found in use at the last
// garbage collection (since Go 1.19). In a DNS server most goroutines that a
// collection sees are idle ones with small stacks. So some are parked here that
// are as deep as one that serves a query, and the average is what the queries
// need. The effect can be read from /gc/stack/starting-size:bytes of
// runtime/metrics.
package stacks

import (
	"os"
	"runtime"
)

const (
	// parked is enough to outweigh the idle goroutines of a server with some tens
	// of listeners and upstreams. At 32 KB each they cost 4 MB.
	parked = 128
	// parkedDepth is what a query needs at its deepest, in front of an upstream:
	// the runtime rounds up to the next power of two.
	parkedDepth = 12 << 10
)

// Off is the environment variable that turns this off when it is
// not empty, for where 4 MB count.
const Off = "RESOLUTE_NO_STACKS"

// Grow parks the goroutines. They stay for the life of the process, which
// is what makes the average last.
func Grow() {
	if os.Getenv(Off) != "" {
		return
	}
	deep := make(chan struct{}, parked)
	for range parked {
		go park(deep, parkedDepth)
	}
	for range parked {
		<-deep
	}
	runtime.GC() // the average is taken here
}

// park uses depth bytes of stack and blocks.
//
//go:noinline
func park(deep chan<- struct{}, depth int) byte {
	var frame [512]byte
	if depth > 0 {
		frame[depth%len(frame)] = park(deep, depth-len(frame)-64)
		return frame[0]
	}
	deep <- struct{}{}
	select {}
}
