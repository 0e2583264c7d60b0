package preflight

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	pkgtls "github.com/coredns/coredns/plugin/pkg/tls"
	"github.com/coredns/coredns/plugin/pkg/transport"

	"github.com/resolute-dns/resolute/plugin/failover/internal/target"

	"github.com/miekg/dns"
)

const serverType = "dns"

// Place is where something is in the Corefile.
type Place struct {
	// File is the path of the Corefile, or of a file imported by it.
	File string `json:"file,omitempty"`
	// Line starts at 1, 0 is unknown.
	Line int `json:"line,omitempty"`
}

// String returns FILE:LINE, as far as known.
func (p Place) String() string {
	if p.Line == 0 {
		return p.File
	}
	return p.File + ":" + strconv.Itoa(p.Line)
}

// corefile is what a Corefile has in it that matters to a check.
type corefile struct {
	blocks []*block
}

// block is a server block.
type block struct {
	zones    []string // of the keys, normalized
	listens  []listener
	forwards []*forward // in the order in which they get a query
	cache    *cacheConf // nil without
}

// listener is an address that a server block listens on.
type listener struct {
	transport, host, port string // host "" is every address

	zone  string // what the block serves there
	block *block
}

// forward is one forward or failover directive.
type forward struct {
	Place

	directive  string
	from       string
	to         []string
	except     []string
	resolvers  []string
	forceTCP   bool
	source     net.IP
	dohMethod  string
	tls        *tls.Config
	serverName string // tls_servername

	question  string // the zone to ask upstreams about
	upstreams []*upstream
	twice     []duplicate
}

// duplicate is an upstream that is in a list more than once.
type duplicate struct{ addr, first, again string }

// cacheConf is what the cache directive says about failures.
type cacheConf struct {
	Place

	servfail time.Duration
	stale    bool
}

// forwards returns the directives of all blocks.
func (c *corefile) forwards() []*forward {
	var fs []*forward
	for _, b := range c.blocks {
		fs = append(fs, b.forwards...)
	}
	return fs
}

// callsOut are directives whose setup function talks to the service that they
// are for, or to the one that issues certificates, and waits for it or leaves a
// goroutine behind that does.
func callsOut(dir string, tokens []caddyfile.Token) bool {
	switch dir {
	case "azure", "clouddns", "etcd", "route53":
		return true
	case "tls":
		// Without files it is ACME.
		d := caddyfile.NewDispenserTokens("", tokens)
		for d.Next() {
			if len(d.RemainingArgs()) == 0 {
				return true
			}
			for d.NextBlock() {
				d.RemainingArgs()
			}
		}
	}
	return false
}

// outsideCluster is in the error of client-go (rest.ErrNotInCluster) when
// nothing tells where the Kubernetes API is.
const outsideCluster = "unable to load in-cluster configuration"

// read sets up the Corefile as caddy does for a start, and returns what is in
// it, or the errors that would keep the server from starting.
//
// It does what caddy's executeDirectives does, with the same calls, because that
// runs everything or nothing: there is no way to leave out what only works in a
// cluster, to hear of more than the first error, or to know where the reading
// had come to.
func read(in caddy.Input, at *progress) (c *corefile, notes []Note, errs []Error) {
	defer func() {
		if p := recover(); p != nil {
			dir, place := at.get()
			c, errs = nil, append(errs, Error{Place: place, Directive: dir, Message: fmt.Sprintf("panic while it was read: %v", p)})
		}
	}()

	path := in.Path()
	at.set("", Place{File: path})
	sblocks, err := caddyfile.Parse(path, bytes.NewReader(in.Body()), dnsserver.Directives)
	if err == nil && len(sblocks) == 0 {
		// So does caddy: an empty Corefile is CoreDNS's default one.
		in = caddy.DefaultInput(serverType)
		sblocks, err = caddyfile.Parse(in.Path(), bytes.NewReader(in.Body()), dnsserver.Directives)
	}
	if err != nil {
		return nil, nil, []Error{locate(err, "", Place{File: path})}
	}

	base := caddy.NewTestController(serverType, "")
	sblocks, err = base.Context().InspectServerBlocks(path, sblocks)
	if err != nil {
		return nil, nil, []Error{locate(err, "", Place{File: path})}
	}
	controller := func(i, j int, tokens []caddyfile.Token) *caddy.Controller {
		c := *base
		c.Dispenser = caddyfile.NewDispenserTokens(path, tokens)
		c.OncePerServerBlock = func(f func() error) error { return f() }
		c.ServerBlockIndex, c.ServerBlockKeyIndex = i, j
		c.ServerBlockKeys = sblocks[i].Keys
		c.Key = sblocks[i].Keys[j]
		return &c
	}

	for _, dir := range dnsserver.Directives {
		for i, sb := range sblocks {
			tokens, ok := sb.Tokens[dir]
			if !ok {
				continue
			}
			place := placeOf(path, tokens[0])
			at.set(dir, place)
			if callsOut(dir, tokens) {
				notes = append(notes, Note{Place: place, Message: dir + " is not checked: setting it up talks to the service it is for"})
				continue
			}
			setup, err := caddy.DirectiveAction(serverType, dir)
			if err != nil {
				errs = append(errs, locate(err, dir, place))
				continue
			}
			c := controller(i, 0, tokens)
			err = setup(c)
			switch {
			case err == nil:
			case dir == "kubernetes" && strings.Contains(err.Error(), outsideCluster):
				notes = append(notes, Note{Place: place, Message: "kubernetes is not checked outside a cluster: its options are right, the API server is not known here"})
			default:
				if c.Line() > 0 {
					place = Place{c.File(), c.Line()}
				}
				e := locate(err, dir, place)
				e.Token = c.Val()
				errs = append(errs, e)
			}
		}
	}
	at.set("", Place{File: path})

	c = new(corefile)
	for i, sb := range sblocks {
		cfg := dnsserver.GetConfig(controller(i, 0, nil))
		b := &block{}
		for j := range sb.Keys {
			key := dnsserver.GetConfig(controller(i, j, nil))
			b.zones = append(b.zones, key.Zone)
			for _, host := range cfg.ListenHosts {
				b.listens = append(b.listens, listener{transport: key.Transport, host: host, port: key.Port, zone: key.Zone, block: b})
			}
		}
		for _, dir := range []string{"failover", "forward"} { // failover stands before forward
			fs, err := forwards(dir, path, cfg.Root, sb.Tokens[dir])
			if err != nil && len(errs) == 0 {
				errs = append(errs, *err)
			}
			b.forwards = append(b.forwards, fs...)
		}
		for _, f := range b.forwards {
			f.question = zoneToAsk(b.zones, f.from)
		}
		b.cache = cacheOf(path, sb.Tokens["cache"])
		if place, ok := answersCached(path, sb.Tokens["aa"]); ok && b.cache == nil {
			// aa says so itself, but only at start-up.
			errs = append(errs, Error{Place: place, Directive: "aa", Token: "cached",
				Message: "plugin/aa: 'answers cached' needs the cache plugin in the same server block"})
		}
		c.blocks = append(c.blocks, b)
	}
	if len(errs) == 0 {
		// Last, as in a start: what is wrong between server blocks.
		if _, err := base.Context().MakeServers(); err != nil {
			errs = append(errs, locate(err, "", Place{File: path}))
		}
	}
	if len(errs) > 0 {
		return nil, notes, errs
	}
	return c, notes, nil
}

func placeOf(path string, t caddyfile.Token) Place {
	if t.File != "" {
		path = t.File
	}
	return Place{File: path, Line: t.Line}
}

// located matches the place that caddy puts into its messages, and the words that
// follow.
var located = regexp.MustCompile(`:(\d+) - (?:Error during parsing|Syntax error): `)

// locate makes an Error of an error. Where its text names a place in a Corefile,
// that is the one. The text of a directive's error may quote anything, so there
// the file has to be the right one.
func locate(err error, directive string, place Place) Error {
	text := err.Error()
	e := Error{Place: place, Directive: directive, Message: text}
	m := located.FindStringSubmatchIndex(text)
	if m == nil {
		return e
	}
	line, err := strconv.Atoi(text[m[2]:m[3]])
	before, file := "", text[:m[0]]
	if directive != "" {
		before = strings.TrimSuffix(file, place.File)
		if before == file {
			return e
		}
		file = place.File
	}
	if err == nil {
		e.Place = Place{File: file, Line: line}
		e.Message = before + text[m[1]:]
	}
	return e
}

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

// resolve turns what the directives forward to into upstreams. The setup
// functions have done so before, and dropped what is there twice without a word.
// What fails now and did not then becomes an upstream that is not asked.
func (c *corefile) resolve(ctx context.Context) []Note {
	var notes []Note
	for _, f := range c.forwards() {
		first := map[target.Target]string{}
		for _, to := range f.to {
			targets, more, err := f.expand(ctx, to)
			for _, n := range more {
				notes = append(notes, Note{Place: f.Place, Message: n})
			}
			if err != nil {
				f.upstreams = append(f.upstreams, &upstream{to: to, target: target.Target{Addr: to}, unusable: err})
				continue
			}
			for _, t := range targets {
				if other, ok := first[t]; ok {
					f.twice = append(f.twice, duplicate{t.Addr, other, to})
					continue
				}
				first[t] = to
				f.upstreams = append(f.upstreams, &upstream{to: to, target: t})
			}
		}
	}
	return notes
}

// expand returns the targets of one TO, doubles included.
func (f *forward) expand(ctx context.Context, to string) (targets []target.Target, notes []string, err error) {
	args, ok := nameservers(to)
	if !ok {
		args = []string{to}
	}
	for _, arg := range args {
		if f.directive == "forward" {
			// Of a link-local address in a file, forward drops the interface.
			if host, _, found := strings.Cut(arg, "%"); ok && found {
				arg = host
			}
		}
		specs, err := target.Parse([]string{arg})
		if err != nil {
			return nil, notes, err
		}
		x, err := specs.Expand(ctx, f.resolvers)
		if err != nil {
			return nil, notes, err
		}
		targets = append(targets, x.Targets...)
		notes = append(notes, x.Notes...)
	}
	return targets, notes, nil
}

// nameservers returns the addresses in a file in the form of resolv.conf, one
// by one: as a list they would lose their doubles. It returns false for what is
// no such file.
func nameservers(file string) ([]string, bool) {
	if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() || net.ParseIP(file) != nil {
		return nil, false
	}
	cfg, err := dns.ClientConfigFromFile(file)
	if err != nil {
		return nil, false
	}
	return cfg.Servers, true
}

// matches says whether f takes queries for name.
func (f *forward) matches(name string) bool {
	if !dns.IsSubDomain(f.from, name) {
		return false
	}
	if strings.EqualFold(f.from, name) {
		return true
	}
	for _, e := range f.except {
		if dns.IsSubDomain(e, name) {
			return false
		}
	}
	return true
}

// forwardOf returns the directive of the block that gets queries for name, nil
// if none does.
func (b *block) forwardOf(name string) *forward {
	for _, f := range b.forwards {
		if f.matches(name) {
			return f
		}
	}
	return nil
}

// tlsFor returns the TLS configuration for a target.
func (f *forward) tlsFor(t target.Target) *tls.Config {
	cfg := f.tls.Clone()
	switch {
	case f.serverName != "":
		cfg.ServerName = f.serverName
	case f.directive == "forward" && t.Transport == transport.HTTPS:
		// forward has the names of single upstreams for tls and quic only.
	case t.ServerName != "":
		cfg.ServerName = t.ServerName
	}
	return cfg
}
