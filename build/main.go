// Command coredns is CoreDNS with Resolute's plugins built in. It takes the
// flags of CoreDNS and, for a Corefile without directives of ours, behaves as
// CoreDNS does.
package main

//go:generate go run ./generate ../plugin.cfg

import (
	"flag"
	"fmt"
	"os"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	"github.com/resolute-dns/resolute/build/stacks"
	"github.com/resolute-dns/resolute/plugin/failover/preflight"
)

// version is the release of Resolute, linked in by `make build`.
var version = "devel"

func main() {
	if err := dnsserver.SetDirectives(directives); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}

	check := preflight.Flags(flag.CommandLine)
	flag.Parse()
	switch given, err := check.Given(); {
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	case given:
		os.Exit(check.Run(os.Stdout, os.Stderr, flag.Args()))
	}

	// Run ends the process after it has printed CoreDNS's version, so ours goes
	// behind it by way of the part that is printed last. Tools read the first
	// line only, which stays that of CoreDNS.
	if f := flag.Lookup("version"); f != nil && f.Value.String() == "true" {
		coremain.GitCommit += "\nResolute-" + version
	}
	stacks.Grow()
	coremain.Run()
}
