package failover

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/transport"

	"github.com/resolute-dns/resolute/plugin/failover/internal/pool"
	"github.com/resolute-dns/resolute/plugin/failover/internal/target"

	"github.com/miekg/dns"
)

// expandTimeout bounds the look-ups of host names at the start. It is what glibc
// and Go take at most with a default resolv.conf: 5 s, three servers, twice.
const expandTimeout = 30 * time.Second

// parse reads all failover directives of a server block.
func parse(c *caddy.Controller) ([]*config, error) {
	var configs []*config
	for c.Next() {
		cfg, err := parseDirective(c)
		if err != nil {
			return nil, err
		}
		configs = append(configs, cfg)
	}
	return configs, nil
}

func parseDirective(c *caddy.Controller) (*config, error) {
	cfg := newConfig()
	var from string
	if !c.Args(&from) {
		return nil, c.Errf("FROM and TO are missing: want 'failover FROM TO...', such as 'failover . 192.0.2.1 192.0.2.2'")
	}
	zones := plugin.Host(from).NormalizeExact()
	if len(zones) == 0 {
		return nil, c.Errf("unable to normalize FROM '%s': want a zone such as . or example.org", from)
	}
	cfg.from = zones[0]
	if len(zones) > 1 {
		cfg.warn("'%s' is more than one zone, only %s is forwarded: use a prefix length that is a multiple of 8 (4 for IPv6)", from, cfg.from)
	}
	to := c.RemainingArgs()
	if len(to) == 0 {
		return nil, c.Errf("no upstream after '%s': want an IP address, a file such as /etc/resolv.conf or a host name", from)
	}

	p := &parser{Controller: c, config: cfg}
	for c.NextBlock() {
		if err := p.option(); err != nil {
			return nil, err
		}
	}
	if cfg.maxAge > 0 && cfg.maxAge < cfg.expire {
		return nil, fmt.Errorf("max_age %s must not be less than expire %s", cfg.maxAge, cfg.expire)
	}
	if cfg.hedge == pool.HedgeFixed && cfg.hedgeDelay >= cfg.deadline {
		return nil, fmt.Errorf("hedge %s must be less than deadline %s: for no hedge at all use 'hedge off'", cfg.hedgeDelay, cfg.deadline)
	}
	p.settleProbe()

	if err := cfg.expand(to); err != nil {
		return nil, err
	}
	cfg.completeTLS()
	p.warnUnused()
	return cfg, nil
}

// expand fills in to, targets and expansion.
func (cfg *config) expand(to []string) (err error) {
	if cfg.to, err = target.Parse(to); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), expandTimeout)
	defer cancel()
	if cfg.expansion, err = cfg.to.Expand(ctx, cfg.resolver); err != nil {
		return err
	}
	cfg.targets = cfg.expansion.Targets
	for _, t := range cfg.targets {
		if t.ServerName == "" || cfg.tlsServerName == "" {
			continue
		}
		if t.Transport == transport.HTTPS {
			// Not an error with forward, which knows no server name per https://
			// upstream.
			cfg.warn("'%s' of %s://%s is not used: tls_servername '%s' goes before it", t.ServerName, t.Transport, t.Addr, cfg.tlsServerName)
			continue
		}
		return fmt.Errorf("both tls_servername '%s' and '%%%s' of %s://%s name the server: only one may be set",
			cfg.tlsServerName, t.ServerName, t.Transport, t.Addr)
	}
	return nil
}

func (cfg *config) warn(format string, args ...any) {
	cfg.warnings = append(cfg.warnings, fmt.Sprintf(format, args...))
}

// warnUnused adds warnings about what was set and has no effect, or not the one
// that was probably meant.
func (p *parser) warnUnused() {
	cfg := p.config
	if p.readTimeout != 0 && p.readTimeout != 2*time.Second {
		cfg.warn("read_timeout %s is not used: an upstream may answer until the deadline of %s, others are asked meanwhile", p.readTimeout, cfg.deadline)
	}
	if p.maxFails > 0 && p.maxFails != 2 {
		cfg.warn("max_fails %d is not used: upstreams are compared with each other to tell who is down; only 0 has a meaning, never", p.maxFails)
	}
	if p.attemptsSet && p.attempts != 2*uint64(len(cfg.targets)) {
		cfg.warn("max_connect_attempts %d is not used: extra attempts are limited by budget (%d %%), the query by deadline (%s)", p.attempts, cfg.budget, cfg.deadline)
	}
	if p.interval != 500*time.Millisecond && p.intervalSet {
		cfg.warn("health_check interval %s is not used: how often an upstream is probed follows from its state", p.interval)
	}
	if cfg.expire < minExpire {
		cfg.warn("expire %s is taken for %s: a socket has to live until its first query", cfg.expire, minExpire)
	}
	https := 0
	for _, t := range cfg.targets {
		if t.Transport == transport.HTTPS {
			https++
		}
	}
	if cfg.maxIdleConns > 0 && https < len(cfg.targets) {
		cfg.warn("max_idle_conns %d is used for https:// alone: other upstreams share a few sockets among all queries", cfg.maxIdleConns)
	}
	if cfg.watch && !cfg.to.Watchable() {
		cfg.warn("watch has nothing to watch: TO has neither a file nor a host name")
	}
	if cfg.sourceAddress != nil {
		var other []string
		for _, t := range cfg.targets {
			if ap, err := netip.ParseAddrPort(t.Addr); err == nil && ap.Addr().Is4() != (cfg.sourceAddress.To4() != nil) {
				other = append(other, t.String())
			}
		}
		if len(other) > 0 {
			cfg.warn("source_address %s can't be used to reach %s: not the same IP family", cfg.sourceAddress, strings.Join(other, ", "))
		}
	}
	cfg.warnings = append(cfg.warnings, cfg.expansion.Notes...)
}

func (p *parser) hedge() error {
	const want = "auto, off or a delay such as 50ms"
	args, err := p.values(want)
	if err != nil {
		return err
	}
	if len(args) > 1 {
		return p.Errf("hedge: '%s' is too much: want %s", args[1], want)
	}
	p.config.hedgeDelay = 0
	switch args[0] {
	case "auto":
		p.config.hedge = pool.HedgeAuto
	case "off":
		p.config.hedge = pool.HedgeOff
	default:
		d, err := time.ParseDuration(args[0])
		if err != nil || d < minHedge {
			return p.Errf("hedge: '%s' is not valid: want %s, at least %s and less than the deadline", args[0], want, minHedge)
		}
		p.config.hedge, p.config.hedgeDelay = pool.HedgeFixed, d
	}
	return nil
}

func (p *parser) budget() error {
	const want = "extra queries per 100 client queries, 0 to 100"
	args, err := p.values(want)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || len(args) > 1 || n < 0 || n > 100 {
		return p.Errf("budget: '%s' is not valid: want %s", strings.Join(args, " "), want)
	}
	p.config.budget = n
	return nil
}

func (p *parser) deadline() error {
	args, err := p.values("a duration such as 4s")
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(args[0])
	if err != nil || len(args) > 1 || d < minDeadline || d > maxDeadline {
		return p.Errf("deadline: '%s' is not valid: want a duration from %s to %s", strings.Join(args, " "), minDeadline, maxDeadline)
	}
	p.config.deadline = d
	return nil
}

// noProbeTypes are not asked for: an upstream refuses most of them, or has to.
var noProbeTypes = []uint16{
	dns.TypeNone, dns.TypeOPT, dns.TypeTKEY, dns.TypeTSIG, dns.TypeIXFR, dns.TypeAXFR, dns.TypeMAILB, dns.TypeMAILA,
	dns.TypeANY, dns.TypeReserved,
}

func (p *parser) probeOption() error {
	const want = "NAME [TYPE] or off"
	args, err := p.values(want)
	if err != nil {
		return err
	}
	if len(args) > 2 {
		return p.Errf("probe: '%s' is too much: want %s", args[2], want)
	}
	if args[0] == "off" {
		if len(args) > 1 {
			return p.Errf("probe off takes no type, and a name is 'off.': '%s' is too much", args[1])
		}
		p.probe = probeConfig{name: ".", off: true}
		return nil
	}
	if _, ok := dns.IsDomainName(args[0]); !ok {
		return p.Errf("probe: '%s' is not a domain name: want %s", args[0], want)
	}
	p.probe = probeConfig{name: plugin.Name(args[0]).Normalize(), qtype: dns.TypeNS}
	if len(args) > 1 {
		qtype, ok := dns.StringToType[strings.ToUpper(args[1])]
		if !ok || slices.Contains(noProbeTypes, qtype) {
			return p.Errf("probe: '%s' is not a type to ask for: want one such as A, AAAA, NS or SOA", args[1])
		}
		p.probe.qtype = qtype
	}
	return nil
}

// settleProbe fills in the probe once all options are known, whose order in the
// block does not matter.
func (p *parser) settleProbe() {
	probe := &p.config.probe
	probe.rd = !p.noRecursion
	switch {
	case p.probe.name != "":
		probe.name, probe.qtype, probe.off = p.probe.name, p.probe.qtype, p.probe.off
	case p.config.neverEject:
		probe.off = true // max_fails 0: no health checks either, as in forward
	case p.checkDomain != "":
		probe.name = p.checkDomain
	}
}
