package target

import (
	"context"
	"fmt"
	"strings"
)

// Expansion is what the TO arguments stand for at one moment.
type Expansion struct {
	// Targets are the upstreams in the order of the arguments, each once; at least
	// one.
	Targets []Target
	// Notes are sentences about what was accepted and yet is probably not meant.
	Notes []string

	entries   []entry
	resolvers []string
	src       source
}

// entry is one TO argument and what it stands for.
type entry struct {
	Spec
	good []Target
}

// Expand reads the files and looks the host names up, through resolvers (each an
// IP address or IP:port) or, if there are none, the system. It fails if a file
// can't be read or has only bad nameserver lines, a name has no address, there
// are more than MaxTOs arguments or nothing is left. A file without nameservers
// is left out as long as there is another upstream, as in forward.
func (s Specs) Expand(ctx context.Context, resolvers []string) (*Expansion, error) {
	return s.expandWith(ctx, system, resolvers)
}

func (s Specs) expandWith(ctx context.Context, src source, resolvers []string) (*Expansion, error) {
	x := &Expansion{entries: make([]entry, len(s)), resolvers: resolvers, src: src}
	var empty []string
	// Files first: they are fast, and only they decide how many arguments there are.
	for i, spec := range s {
		e := &x.entries[i]
		e.Spec = spec
		if spec.note != "" {
			x.Notes = append(x.Notes, spec.note)
		}
		switch spec.kind {
		case kindAddr:
			e.good = []Target{spec.addr}
		case kindFile:
			list, bad, err := readServers(src, spec.file)
			if err != nil {
				return nil, fmt.Errorf("'%s' can't be used: %w", spec.to, err)
			}
			for _, b := range bad {
				x.Notes = append(x.Notes, fmt.Sprintf("'nameserver %s' in %s is skipped: not an IP address", b, spec.file))
			}
			if len(list) == 0 {
				empty = append(empty, spec.file)
			}
			e.good = list
		}
	}
	if n := len(s) - len(empty); n > MaxTOs {
		return nil, fmt.Errorf("more than %d TOs configured: %d", MaxTOs, n)
	}
	for i := range x.entries {
		e := &x.entries[i]
		if e.kind != kindHost {
			continue
		}
		addrs, err := src.lookup(ctx, "ip", e.host, resolvers)
		if err != nil {
			return nil, fmt.Errorf("'%s' failed to resolve: %w", e.to, err)
		}
		e.good = e.targets(addrs)
	}
	x.Targets = x.list()
	if len(x.Targets) == 0 {
		return nil, fmt.Errorf("no upstream is left: no nameserver in %s", strings.Join(empty, ", "))
	}
	for _, f := range empty {
		x.Notes = append(x.Notes, fmt.Sprintf("%s has no nameserver and is left out", f))
	}
	return x, nil
}

// list returns the upstreams of all entries in order, each once.
func (x *Expansion) list() []Target {
	lists := make([][]Target, len(x.entries))
	for i := range x.entries {
		lists[i] = x.entries[i].good
	}
	return dedup(lists...)
}
