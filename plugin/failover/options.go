package failover

import (
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	pkgtls "github.com/coredns/coredns/plugin/pkg/tls"

	"github.com/resolute-dns/resolute/plugin/failover/internal/pool"
	"github.com/resolute-dns/resolute/plugin/failover/internal/target"

	"github.com/miekg/dns"
)

// parser reads the block of one directive. Besides the config it keeps what was
// set and has no place in it.
type parser struct {
	*caddy.Controller
	config *config

	readTimeout time.Duration // 0: not set
	maxFails    uint64
	attempts    uint64 // max_connect_attempts
	attemptsSet bool
	interval    time.Duration // of health_check
	intervalSet bool

	checkDomain string      // of health_check, "" if not set
	noRecursion bool        // of health_check
	probe       probeConfig // of probe, with an empty name if not set
}

// options reads what follows the name of each option.
//
// Options of forward read as many arguments as there, and leave what follows to
// be taken for the next option: that is how forward refuses it, and how it takes
// `expire 20s max_age 1m` on one line.
var options = map[string]func(*parser) error{
	"except":               (*parser).except,
	"force_tcp":            func(p *parser) error { return p.flag(&p.config.forceTCP) },
	"prefer_udp":           func(p *parser) error { return p.flag(&p.config.preferUDP) },
	"next_on_nodata":       func(p *parser) error { return p.flag(&p.config.nextOnNodata) },
	"expire":               func(p *parser) error { return p.duration(&p.config.expire, 0) },
	"max_age":              func(p *parser) error { return p.duration(&p.config.maxAge, 0) },
	"read_timeout":         func(p *parser) error { return p.duration(&p.readTimeout, 1) },
	"max_idle_conns":       func(p *parser) error { return p.integer(&p.config.maxIdleConns) },
	"max_concurrent":       (*parser).maxConcurrent,
	"max_fails":            (*parser).fails,
	"max_connect_attempts": (*parser).connectAttempts,
	"health_check":         (*parser).healthCheck,
	"doh_method":           (*parser).dohMethod,
	"tls":                  (*parser).tls,
	"tls_servername":       (*parser).tlsServerName,
	"policy":               (*parser).policy,
	"failover":             func(p *parser) error { return p.rcodes(&p.config.failoverRcodes, false) },
	"next":                 func(p *parser) error { return p.rcodes(&p.config.nextRcodes, true) },
	"source_address":       (*parser).sourceAddress,
	"resolver":             (*parser).resolver,
	// With all upstreams down there is nobody to ask, so that this is always so.
	"failfast_all_unhealthy_upstreams": func(p *parser) error { return p.flag(new(bool)) },

	"hedge":    (*parser).hedge,
	"budget":   (*parser).budget,
	"deadline": (*parser).deadline,
	"probe":    (*parser).probeOption,
	"watch":    func(p *parser) error { return p.flag(&p.config.watch) },
}

func (p *parser) option() error {
	read, ok := options[p.Val()]
	if !ok {
		return p.Errf("unknown property '%s': valid are %s", p.Val(), strings.Join(slices.Sorted(maps.Keys(options)), ", "))
	}
	return read(p)
}

// value reads the one argument of an option.
func (p *parser) value(want string) (option, value string, err error) {
	option = p.Val()
	if !p.NextArg() {
		return option, "", p.Errf("'%s' needs a value: want %s", option, want)
	}
	return option, p.Val(), nil
}

// values reads one argument or more.
func (p *parser) values(want string) ([]string, error) {
	option := p.Val()
	args := p.RemainingArgs()
	if len(args) == 0 {
		return nil, p.Errf("'%s' needs a value: want %s", option, want)
	}
	return args, nil
}

// flag reads an option without arguments.
func (p *parser) flag(set *bool) error {
	option := p.Val()
	if p.NextArg() {
		return p.Errf("'%s' takes no value: '%s' is too much", option, p.Val())
	}
	*set = true
	return nil
}

// duration reads one that is at least least, which is 0 or 1 ns.
func (p *parser) duration(d *time.Duration, least time.Duration) error {
	option, value, err := p.value("a duration such as 10s or 500ms")
	if err != nil {
		return err
	}
	v, err := time.ParseDuration(value)
	switch {
	case err != nil:
		return p.Errf("%s: '%s' is not a duration: want one such as 10s or 500ms", option, value)
	case v < 0:
		return p.Errf("%s can't be negative: %s", option, value)
	case v < least:
		return p.Errf("%s must be positive: %s", option, value)
	}
	*d = v
	return nil
}

func (p *parser) integer(n *int) error {
	option, value, err := p.value("a number, 0 or more")
	if err != nil {
		return err
	}
	v, err := strconv.Atoi(value)
	switch {
	case err != nil:
		return p.Errf("%s: '%s' is invalid: want a number, 0 or more", option, value)
	case v < 0:
		return p.Errf("%s can't be negative: %d", option, v)
	}
	*n = v
	return nil
}

// uint32 reads a number of 32 bits.
func (p *parser) uint32() (uint64, error) {
	option, value, err := p.value("a number, 0 or more")
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return 0, p.Errf("%s: '%s' is invalid: want a number, 0 to 4294967295", option, value)
	}
	return v, nil
}

func (p *parser) except() error {
	args, err := p.values("the names to leave out")
	for _, arg := range args {
		zones := plugin.Host(arg).NormalizeExact()
		if len(zones) == 0 {
			// Left out without a word by forward.
			p.config.warn("except: '%s' is not a zone and has no effect", arg)
		}
		p.config.except = append(p.config.except, zones...)
	}
	return err
}

func (p *parser) maxConcurrent() error {
	var n int
	err := p.integer(&n)
	p.config.maxConcurrent = int64(n)
	return err
}

func (p *parser) fails() (err error) {
	p.maxFails, err = p.uint32()
	p.config.neverEject = err == nil && p.maxFails == 0
	return err
}

func (p *parser) connectAttempts() (err error) {
	p.attempts, err = p.uint32()
	p.attemptsSet = true
	return err
}

func (p *parser) healthCheck() error {
	if err := p.duration(&p.interval, 0); err != nil {
		return err
	}
	p.intervalSet = true
	p.checkDomain = "."
	for p.NextArg() {
		switch p.Val() {
		case "no_rec":
			p.noRecursion = true
		case "domain":
			_, name, err := p.value("a domain name")
			if err != nil {
				return err
			}
			if _, ok := dns.IsDomainName(name); !ok {
				return p.Errf("health_check: invalid domain name '%s'", name)
			}
			p.checkDomain = plugin.Name(name).Normalize()
		default:
			return p.Errf("health_check: unknown option '%s': valid are no_rec and domain FQDN", p.Val())
		}
	}
	return nil
}

func (p *parser) dohMethod() error {
	const want = http.MethodPost + " or " + http.MethodGet
	option, value, err := p.value(want)
	if err == nil && value != http.MethodPost && value != http.MethodGet {
		err = p.Errf("%s: '%s' is not a method: want %s", option, value, want)
	}
	p.config.dohMethod = value
	return err
}

func (p *parser) tls() error {
	args := p.RemainingArgs()
	if len(args) > 3 {
		return p.Errf("tls: '%s' is too much: want nothing, CA, CERT KEY or CERT KEY CA", args[3])
	}
	root := dnsserver.GetConfig(p.Controller).Root
	for i, arg := range args {
		if !filepath.IsAbs(arg) && root != "" {
			args[i] = filepath.Join(root, arg)
		}
	}
	cfg, err := pkgtls.NewTLSConfigFromArgs(args...)
	if err != nil {
		return p.Errf("tls %s: %v", strings.Join(args, " "), err)
	}
	p.config.tls = cfg
	return nil
}

func (p *parser) tlsServerName() error {
	option, value, err := p.value("the name in the servers' certificates")
	if err != nil {
		return err
	}
	if value != "" {
		if err := target.CheckServerName(value); err != nil {
			return p.Errf("%s: %v", option, err)
		}
	}
	p.config.tlsServerName = value
	return nil
}

func (p *parser) policy() error {
	const want = "random, round_robin or sequential"
	_, value, err := p.value(want)
	if err != nil {
		return err
	}
	policies := map[string]pool.Policy{"random": pool.Random, "round_robin": pool.RoundRobin, "sequential": pool.Sequential}
	policy, ok := policies[value]
	if !ok {
		return p.Errf("unknown policy '%s': want %s", value, want)
	}
	p.config.policy = policy
	return nil
}

// rcodes adds to list. NOERROR is a rcode for next, but never a failure.
func (p *parser) rcodes(list *[]int, noerror bool) error {
	option := p.Val()
	args, err := p.values("rcodes such as NXDOMAIN")
	for _, arg := range args {
		rcode, ok := dns.StringToRcode[strings.ToUpper(arg)]
		if !ok {
			return p.Errf("%s: '%s' is not a valid rcode: want names such as SERVFAIL, REFUSED or NXDOMAIN", option, arg)
		}
		if rcode == dns.RcodeSuccess && !noerror {
			return p.Errf("%s: NOERROR cannot be used, it is no failure", option)
		}
		*list = append(*list, rcode)
	}
	return err
}

func (p *parser) sourceAddress() error {
	option, value, err := p.value("an IP address of this machine")
	if err != nil {
		return err
	}
	if p.config.sourceAddress = net.ParseIP(value); p.config.sourceAddress == nil {
		return p.Errf("%s: invalid IP address '%s'", option, value)
	}
	return nil
}

func (p *parser) resolver() error {
	args, err := p.values("IP addresses, with or without a port")
	for _, arg := range args {
		host := arg
		if h, _, err := net.SplitHostPort(arg); err == nil {
			host = h
		}
		if net.ParseIP(host) == nil {
			return p.Errf("resolver must be an IP address or IP:port, not '%s'", arg)
		}
	}
	p.config.resolver = args
	return err
}
