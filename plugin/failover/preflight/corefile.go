package preflight

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/core/dnsserver"
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
