package preflight

import (
	"crypto/tls"
	"net"
	"path/filepath"
	"slices"
	"time"

	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/plugin"
	pkgtls "github.com/coredns/coredns/plugin/pkg/tls"

	"github.com/miekg/dns"
)

// forwards returns the directives of one kind in a block. The setup function
// has found them to be right; so what is of no interest here is skipped.
func forwards(dir, path, root string, tokens []caddyfile.Token) ([]*forward, *Error) {
	var fs []*forward
	d := caddyfile.NewDispenserTokens(path, tokens)
	for d.Next() {
		f := &forward{Place: Place{d.File(), d.Line()}, directive: dir, tls: new(tls.Config)}
		if d.NextArg() {
			f.from = d.Val()
			if zones := plugin.Host(f.from).NormalizeExact(); len(zones) > 0 {
				f.from = zones[0]
			}
		}
		f.to = d.RemainingArgs()
		for d.NextBlock() {
			option, place := d.Val(), Place{d.File(), d.Line()}
			args := d.RemainingArgs()
			if option == "tls" {
				if err := f.setTLS(root, args); err != nil {
					return fs, &Error{Place: place, Directive: dir, Token: option, Message: err.Error()}
				}
				continue
			}
			f.set(option, args)
		}
		fs = append(fs, f)
	}
	return fs, nil
}

func (f *forward) set(option string, args []string) {
	arg := ""
	if len(args) > 0 {
		arg = args[0]
	}
	switch option {
	case "except":
		for _, a := range args {
			f.except = append(f.except, plugin.Host(a).NormalizeExact()...)
		}
	case "resolver":
		f.resolvers = args
	case "force_tcp":
		f.forceTCP = true
	case "source_address":
		f.source = net.ParseIP(arg)
	case "doh_method":
		f.dohMethod = arg
	case "tls_servername":
		f.serverName = arg
	}
}

func (f *forward) setTLS(root string, args []string) error {
	files := slices.Clone(args)
	for i := range files {
		if !filepath.IsAbs(files[i]) && root != "" {
			files[i] = filepath.Join(root, files[i])
		}
	}
	cfg, err := pkgtls.NewTLSConfigFromArgs(files...)
	if err != nil {
		return err
	}
	f.tls = cfg
	return nil
}

// defaultServfail is for how long cache keeps a SERVFAIL unless it is told
// otherwise (failttl in CoreDNS's plugin/cache).
const defaultServfail = 5 * time.Second

func cacheOf(path string, tokens []caddyfile.Token) *cacheConf {
	d := caddyfile.NewDispenserTokens(path, tokens)
	if !d.Next() {
		return nil
	}
	c := &cacheConf{Place: Place{d.File(), d.Line()}, servfail: defaultServfail}
	d.RemainingArgs()
	for d.NextBlock() {
		option := d.Val()
		args := d.RemainingArgs()
		switch option {
		case "servfail":
			if len(args) > 0 {
				if v, err := time.ParseDuration(args[0]); err == nil {
					c.servfail = v
				}
			}
		case "serve_stale":
			c.stale = true
			if len(args) > 0 {
				v, err := time.ParseDuration(args[0])
				c.stale = err != nil || v > 0
			}
		}
	}
	return c
}

// answersCached says whether there is an aa with `answers cached`, and where.
func answersCached(path string, tokens []caddyfile.Token) (Place, bool) {
	d := caddyfile.NewDispenserTokens(path, tokens)
	for d.Next() {
		d.RemainingArgs()
		for d.NextBlock() {
			option, place := d.Val(), Place{d.File(), d.Line()}
			if args := d.RemainingArgs(); option == "answers" && slices.Contains(args, "cached") {
				return place, true
			}
		}
	}
	return Place{}, false
}

// zoneToAsk returns the zone that the upstreams of a block with these zones and
// this FROM are there for. Asked for the root, a server that is there for one
// zone and does not recurse would be right to refuse.
func zoneToAsk(zones []string, from string) string {
	found := ""
	for _, z := range zones {
		switch {
		case dns.IsSubDomain(from, z):
			// The block serves no more than z.
		case dns.IsSubDomain(z, from):
			z = from
		default:
			continue
		}
		if found == "" || z == "." {
			found = z
		}
	}
	if found == "" {
		return from
	}
	return found
}
