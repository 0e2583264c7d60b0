// Package preflight is `coredns -check`: it reads a Corefile as a start would,
// asks every upstream of every forward and failover in it, and says what it
// found, before the first client does. docs/preflight.md is its manual.
//
// Nothing is started. The setup functions of the directives run, because they
// are what knows whether a Corefile is right; what they hand over to be called
// at start-up is not called. So there is no listener, no pidfile and no
// connection but those to the upstreams that are asked, and to the resolver
// where an upstream is given by its name.
package preflight

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/coredns/caddy"
)

// These bound a check: it takes no longer than their sum, and as a rule as long
// as the slowest upstream.
const (
	// readLimit is how long the Corefile may take to be set up. That includes
	// zone files and the lookup of upstreams' names, and is far more than a
	// start that works needs.
	readLimit = 5 * time.Second
	// lookupLimit is for looking up, once more, the names of upstreams.
	lookupLimit = 2 * time.Second
)

// Options say what to check.
type Options struct {
	// Input is the Corefile.
	Input caddy.Input
	// Names are host names to ask for, fully qualified. Each upstream that would
	// be asked for one by a server that runs is asked for its A record.
	Names []string
	// Ignore has codes of findings that do not count, or [All].
	Ignore []string
}

// Check checks a Corefile. It is to be called once in a process: setup
// functions register things for good.
func Check(ctx context.Context, o Options) *Report {
	r := &Report{Version: ReportVersion, Corefile: o.Input.Path()}
	c, notes, errs := readWithin(o.Input, readLimit)
	r.Notes = notes
	if len(errs) > 0 {
		r.Errors = errs
		r.conclude(o.Ignore)
		return r
	}

	lookup, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	r.Notes = append(r.Notes, c.resolve(lookup)...)
	c.findOwn(localAddrs())
	c.assignNames(o.Names)
	askAll(ctx, c)

	for _, f := range c.forwards() {
		for _, u := range f.upstreams {
			r.Upstreams = append(r.Upstreams, u.report(f))
		}
	}
	r.Findings = append(statusFindings(r.Upstreams), traps(c)...)
	r.Notes = append(r.Notes, unaskedNotes(c, o.Names)...)
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	r.conclude(o.Ignore)
	return r
}

// askAll asks all upstreams at the same time.
func askAll(ctx context.Context, c *corefile) {
	var wg sync.WaitGroup
	for _, f := range c.forwards() {
		for _, u := range f.upstreams {
			if u.toBeAsked() {
				wg.Go(func() { u.ask(ctx, f) })
			}
		}
	}
	wg.Wait()
}

// readWithin is read with a time limit. Setup functions cannot be stopped: one
// that takes longer is left behind, and ends with the process.
func readWithin(in caddy.Input, limit time.Duration) (*corefile, []Note, []Error) {
	type result struct {
		c     *corefile
		notes []Note
		errs  []Error
	}
	var at progress
	done := make(chan result, 1)
	go func() {
		c, notes, errs := read(in, &at)
		done <- result{c, notes, errs}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.c, r.notes, r.errs
	case <-timer.C:
		directive, place := at.get()
		return nil, nil, []Error{{Place: place, Directive: directive,
			Message: "its setup has not ended after " + limit.String() + ": does it wait for something that is not there, like the resolver that is to look up the name of an upstream?"}}
	}
}

// progress tells which directive is being set up.
type progress struct {
	mu        sync.Mutex
	directive string
	place     Place
}

func (p *progress) set(directive string, place Place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.directive, p.place = directive, place
}

func (p *progress) get() (string, Place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.directive, p.place
}

// addrPort returns the address of an upstream without the zone of a link-local
// address, which does not matter to whom it belongs.
func addrPort(s string) (netip.AddrPort, bool) {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port()), true
}
