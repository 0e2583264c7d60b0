// Package doctor looks at what decides about the lookups of a pod, and says what
// is wrong, what that means and what to do.
package doctor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/load"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/resolvconf"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/stub"
)

// SchemaVersion is raised when a field of [Diagnosis] is removed or changes its
// meaning. New fields and new findings don't raise it.
const SchemaVersion = 1

// Severity orders findings.
type Severity string

// The severities. Only problems make the exit code 1.
const (
	Problem Severity = "problem" // costs lookups time, or makes them fail
	Note    Severity = "note"    // good to know; harmless by itself
)

// Finding is something that was found.
type Finding struct {
	ID       string   `json:"id"`       // as in the README
	Severity Severity `json:"severity"` // problem or note
	Subject  string   `json:"subject"`  // the file or name server
	Evidence string   `json:"evidence"` // what was seen
	Means    string   `json:"means"`    // what it leads to
	Do       string   `json:"do"`       // what to do about it
}

// Diagnosis is everything that was looked at, and with its tags the JSON that
// doctor -json prints.
type Diagnosis struct {
	Schema      int       `json:"schema"`
	Version     string    `json:"version"`
	Libc        Libc      `json:"libc"`
	Search      []string  `json:"search"`
	Ndots       int       `json:"ndots"`
	Options     []string  `json:"options"`
	Nameservers []Server  `json:"nameservers"`
	Counters    []Counter `json:"counters"`
	Findings    []Finding `json:"findings"`
	Problems    int       `json:"problems"` // findings that aren't notes
}

// Options says where to look.
type Options struct {
	Version string
	Root    string              // in place of /
	Servers []netip.AddrPort    // in place of those of resolv.conf
	Name    string              // to ask the servers for; empty: one that exists in every cluster, or the root
	Tries   int                 // lookups of each server
	Timeout time.Duration       // of each try
	Wait    time.Duration       // at least, between the two readings of the counters
	Getenv  func(string) string // nil: no environment
	Network stub.Network        // nil: the machine's
	Rand    *rand.Rand
}

// Check returns an error that names what doesn't make sense.
func (o Options) Check() error {
	switch {
	case o.Tries < 1 || o.Tries > 100:
		return fmt.Errorf("-tries %d: valid is 1 to 100", o.Tries)
	case o.Timeout <= 0:
		return fmt.Errorf("-timeout %v: valid is a time above 0, as in 1s", o.Timeout)
	case o.Wait < 0:
		return fmt.Errorf("-wait %v: valid is a time of 0 or above, as in 2s", o.Wait)
	}
	if o.Name != "" {
		if err := load.CheckName(o.Name); err != nil {
			return fmt.Errorf("-name: %w", err)
		}
	}
	if info, err := os.Stat(o.Root); err != nil {
		return fmt.Errorf("-root: %w", err)
	} else if !info.IsDir() {
		return fmt.Errorf("-root %s: valid is a directory", o.Root)
	}
	return nil
}

// examination is a diagnosis under way.
type examination struct {
	o Options
	Diagnosis
	config resolvconf.Config
}

// Examine looks at everything.
func Examine(ctx context.Context, o Options) (Diagnosis, error) {
	if err := o.Check(); err != nil {
		return Diagnosis{}, err
	}
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	x := &examination{o: o, Diagnosis: Diagnosis{
		Schema: SchemaVersion, Version: o.Version,
		Nameservers: []Server{}, Counters: []Counter{}, Findings: []Finding{},
	}}
	before := x.readCounters()
	start := time.Now()
	x.findLibc()
	x.resolvConf()
	x.nsswitch()
	if err := x.probeServers(ctx); err != nil {
		return x.Diagnosis, err
	}
	if err := pause(ctx, x.o.Wait-time.Since(start)); err != nil {
		return x.Diagnosis, err
	}
	x.compareCounters(before, x.readCounters())
	for _, f := range x.Findings {
		if f.Severity == Problem {
			x.Problems++
		}
	}
	return x.Diagnosis, nil
}

// find adds a finding.
func (x *examination) find(id string, severity Severity, subject, evidence, means, do string) {
	x.Findings = append(x.Findings, Finding{ID: id, Severity: severity, Subject: subject, Evidence: evidence, Means: means, Do: do})
}

// read returns the text of a file below the root.
func (x *examination) read(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(x.o.Root, name))
	return string(b), err
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("interrupted: %w", ctx.Err())
	}
}
