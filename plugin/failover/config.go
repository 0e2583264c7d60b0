package failover

import (
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"github.com/coredns/coredns/plugin/pkg/transport"

	"github.com/resolute-dns/resolute/plugin/failover/internal/pool"
	"github.com/resolute-dns/resolute/plugin/failover/internal/target"
	"github.com/resolute-dns/resolute/plugin/failover/internal/wire"

	"github.com/miekg/dns"
)

// config is one failover directive as written in the Corefile.
type config struct {
	from   string   // normalised zone
	except []string // normalised zones

	to        target.Specs
	targets   []target.Target   // what TO stood for at the start; at least one
	expansion *target.Expansion // the same, for the Watcher
	resolver  []string          // IP or IP:port; empty: the system's
	watch     bool              // TO may change, see target.NewWatcher

	forceTCP, preferUDP bool
	expire              time.Duration // of idle sockets, default 10 s
	maxAge              time.Duration // of connections, 0: for ever
	maxIdleConns        int           // of https://, 0: no limit
	dohMethod           string        // POST or GET
	tls                 *tls.Config   // without a per-endpoint server name
	tlsServerName       string
	tlsByName           map[string]*tls.Config // with one
	sourceAddress       net.IP                 // nil: the system's choice

	policy     pool.Policy
	hedge      pool.HedgeMode
	hedgeDelay time.Duration // for pool.HedgeFixed; at least 1 ms, less than deadline
	budget     int           // extra upstream queries per 100 client queries, 0 to 100
	deadline   time.Duration // of a client query, minDeadline to maxDeadline
	neverEject bool          // max_fails 0

	failoverRcodes, nextRcodes []int
	nextOnNodata               bool
	maxConcurrent              int64 // 0: no limit

	probe probeConfig

	// warnings are sentences to be logged once at the start: options that can't be
	// honoured, and what is accepted and yet is probably not meant.
	warnings []string
}

// probeConfig is the question to ask an upstream when no real one is known yet.
type probeConfig struct {
	name  string // fully qualified
	qtype uint16
	rd    bool
	off   bool // ask none
}

// pack returns the probe as a message, nil if there is to be none.
func (p probeConfig) pack() ([]byte, error) {
	if p.off {
		return nil, nil
	}
	m := new(dns.Msg)
	m.SetQuestion(p.name, p.qtype)
	m.RecursionDesired = p.rd
	return m.Pack()
}

const (
	// A deadline outside of these is a mistake in the unit: even a healthy recursion
	// takes longer than the one, and no stub resolver waits as long as the other.
	minDeadline = 100 * time.Millisecond
	maxDeadline = 30 * time.Second
	// minHedge is what pool.Config allows.
	minHedge = time.Millisecond
	// minExpire is what wire.Options allows. It takes zero for the default, which is
	// not what `expire 0s` means.
	minExpire = 100 * time.Millisecond
)

// newConfig returns the defaults, which are those of forward where it has the
// option.
func newConfig() *config {
	return &config{
		expire:    wire.DefaultExpire,
		dohMethod: http.MethodPost,
		tls:       new(tls.Config),
		budget:    pool.DefaultBudget,
		deadline:  pool.DefaultDeadline,
		probe:     probeConfig{name: ".", qtype: dns.TypeNS, rd: true},
	}
}

// poolConfig returns what decides about the upstreams.
func (c *config) poolConfig(rand func() uint64) pool.Config {
	return pool.Config{
		Policy:     c.policy,
		Hedge:      c.hedge,
		HedgeDelay: c.hedgeDelay,
		Budget:     c.budget,
		Deadline:   c.deadline,
		NeverEject: c.neverEject,
		Rand:       rand,
	}
}

// wireOptions returns what package wire has to know to reach t.
func (c *config) wireOptions(t target.Target, hooks wire.Hooks) wire.Options {
	o := wire.Options{
		Transport:    t.Transport,
		Addr:         t.Addr,
		Source:       c.sourceAddress,
		Expire:       max(c.expire, minExpire),
		MaxAge:       c.maxAge,
		MaxIdleConns: c.maxIdleConns,
		ForceTCP:     c.forceTCP && t.Transport == transport.DNS,
		DoHMethod:    c.dohMethod,
		ProxyName:    "failover",
		Hooks:        hooks,
	}
	if t.Transport != transport.DNS {
		o.TLS = c.tlsFor(t)
		o.DoHHost = o.TLS.ServerName
	}
	return o
}

// tlsFor returns the TLS configuration for t. Upstreams with the same server name
// share one, and with it their TLS sessions, as in forward.
func (c *config) tlsFor(t target.Target) *tls.Config {
	if cfg := c.tlsByName[t.ServerName]; cfg != nil && c.tlsServerName == "" {
		return cfg
	}
	return c.tls
}

// completeTLS fills in tls and tlsByName once all options are known.
func (c *config) completeTLS() {
	// Zero is the default number of sessions, 64: the number of upstreams, which
	// forward has here, can grow under watch.
	if c.tlsServerName != "" {
		c.tls.ServerName = c.tlsServerName
	}
	c.tlsByName = make(map[string]*tls.Config)
	for _, name := range c.to.ServerNames() {
		cfg := c.tls.Clone()
		cfg.ServerName = name
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(0)
		c.tlsByName[name] = cfg
	}
	c.tls.ClientSessionCache = tls.NewLRUClientSessionCache(0)
}
