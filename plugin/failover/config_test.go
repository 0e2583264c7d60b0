package failover

import (
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/pkg/transport"

	"github.com/resolute-dns/resolute/plugin/failover/internal/pool"
	"github.com/resolute-dns/resolute/plugin/failover/internal/target"
	"github.com/resolute-dns/resolute/plugin/failover/internal/wire"

	"github.com/miekg/dns"
)

// TestOptions checks what each option changes in the defaults.
func TestOptions(t *testing.T) {
	for block, set := range map[string]func(*config){
		"":                       func(*config) {},
		"except B.example 10/8":  func(c *config) { c.except = []string{"b.example.", "10/8."} },
		"except a\nexcept b c":   func(c *config) { c.except = []string{"a.", "b.", "c."} },
		"force_tcp":              func(c *config) { c.forceTCP = true },
		"prefer_udp":             func(c *config) { c.preferUDP = true },
		"expire 20s\nmax_age 1m": func(c *config) { c.expire, c.maxAge = 20*time.Second, time.Minute },
		"expire 20s max_age 1m":  func(c *config) { c.expire, c.maxAge = 20*time.Second, time.Minute },
		"doh_method GET":         func(c *config) { c.dohMethod = "GET" },
		"tls_servername a.b":     func(c *config) { c.tlsServerName = "a.b" },
		"policy sequential":      func(c *config) { c.policy = pool.Sequential },
		"policy round_robin":     func(c *config) { c.policy = pool.RoundRobin },
		"max_fails 0":            func(c *config) { c.neverEject, c.probe.off = true, true },
		"max_fails 0\nprobe a.b": func(c *config) { c.neverEject, c.probe.name = true, "a.b." },
		"max_fails 2":            func(*config) {},
		"max_concurrent 7":       func(c *config) { c.maxConcurrent = 7 },
		"next nxdomain NOERROR":  func(c *config) { c.nextRcodes = []int{3, 0} },
		"next_on_nodata":         func(c *config) { c.nextOnNodata = true },
		"failover nxdomain":      func(c *config) { c.failoverRcodes = []int{3} },
		"source_address 127.0.0.9": func(c *config) {
			c.sourceAddress = net.ParseIP("127.0.0.9")
		},
		"resolver 127.0.0.1 [::1]:54": func(c *config) { c.resolver = []string{"127.0.0.1", "[::1]:54"} },
		"health_check 0.5s":           func(*config) {},
		"health_check 0.5s no_rec domain Example.org": func(c *config) {
			c.probe.name, c.probe.rd = "example.org.", false
		},
		"probe Example.org": func(c *config) { c.probe.name = "example.org." },
		"probe example.org a\nhealth_check 0.5s no_rec domain x": func(c *config) {
			c.probe = probeConfig{name: "example.org.", qtype: dns.TypeA}
		},
		"probe off":      func(c *config) { c.probe.off, c.probe.qtype = true, 0 },
		"probe off. SOA": func(c *config) { c.probe.name, c.probe.qtype = "off.", dns.TypeSOA },
		"hedge auto":     func(*config) {},
		"hedge off":      func(c *config) { c.hedge = pool.HedgeOff },
		"hedge 50ms":     func(c *config) { c.hedge, c.hedgeDelay = pool.HedgeFixed, 50*time.Millisecond },
		"hedge 50ms\nhedge auto\nfailfast_all_unhealthy_upstreams": func(*config) {},
		"budget 0":      func(c *config) { c.budget = 0 },
		"budget 100":    func(c *config) { c.budget = 100 },
		"deadline 30s":  func(c *config) { c.deadline = 30 * time.Second },
		"deadline 0.1s": func(c *config) { c.deadline = 100 * time.Millisecond },
	} {
		cs, err := testParse("failover Example.net 192.0.2.1 {\n" + block + "\n}")
		if err != nil {
			t.Errorf("%s: %v", block, err)
			continue
		}
		got := *cs[0]
		if len(got.warnings) > 0 {
			t.Errorf("%s: warnings %q", block, got.warnings)
		}
		want := *newConfig()
		want.from = "example.net."
		want.targets = []target.Target{{Transport: transport.DNS, Addr: "192.0.2.1:53"}}
		set(&want)
		got.to, got.expansion, got.tls, got.tlsByName, want.tls = nil, nil, nil, nil, nil
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", block, got, want)
		}
	}
}

func TestPoolConfig(t *testing.T) {
	cs, err := testParse("failover . 192.0.2.1 {\npolicy sequential\nhedge 20ms\nbudget 25\ndeadline 2s\nmax_fails 0\n}")
	if err != nil {
		t.Fatal(err)
	}
	got := cs[0].poolConfig(func() uint64 { return 4 })
	if got.Rand() != 4 {
		t.Error("another source of random numbers")
	}
	got.Rand = nil
	want := pool.Config{Policy: pool.Sequential, Hedge: pool.HedgeFixed, HedgeDelay: 20 * time.Millisecond, Budget: 25,
		Deadline: 2 * time.Second, NeverEject: true}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestWireOptions(t *testing.T) {
	cs, err := testParse(`failover . 192.0.2.1 tls://192.0.2.2%a.example tls://192.0.2.3%A.example quic://192.0.2.4%b.example
		failover . tls://192.0.2.1 https://192.0.2.2%a.example 192.0.2.3 {
			tls_servername c.example
			force_tcp
			expire 0s
			max_age 1m
			max_idle_conns 4
			doh_method GET
			source_address 127.0.0.9
		}
		failover . https://192.0.2.1%a.example https://192.0.2.2`)
	if err != nil {
		t.Fatal(err)
	}
	options := func(i, j int) wire.Options { return cs[i].wireOptions(cs[i].targets[j], wire.Hooks{}) }

	plain := wire.Options{Transport: "dns", Addr: "192.0.2.1:53", Expire: 10 * time.Second, DoHMethod: "POST", ProxyName: "failover"}
	if got := options(0, 0); !reflect.DeepEqual(got, plain) {
		t.Errorf("plain: %+v", got)
	}
	a1, a2, b := options(0, 1), options(0, 2), options(0, 3)
	if a1.TLS.ServerName != "a.example" || a1.TLS != a2.TLS || b.TLS.ServerName != "b.example" {
		t.Errorf("server names %q %q %q, one configuration per name: %t", a1.TLS.ServerName, a2.TLS.ServerName, b.TLS.ServerName, a1.TLS == a2.TLS)
	}
	if a1.TLS.ClientSessionCache == nil || a1.TLS.ClientSessionCache == b.TLS.ClientSessionCache {
		t.Error("TLS sessions are not kept per server name")
	}

	dot, doh, tcp := options(1, 0), options(1, 1), options(1, 2)
	if dot.TLS.ServerName != "c.example" || doh.TLS.ServerName != "c.example" || doh.DoHHost != "c.example" || dot.TLS.ClientSessionCache == nil {
		t.Errorf("tls_servername: %+v %+v", dot, doh)
	}
	if dot.ForceTCP || doh.ForceTCP || !tcp.ForceTCP {
		t.Error("force_tcp is for plain DNS, and for all of it")
	}
	if doh.DoHMethod != "GET" || doh.MaxIdleConns != 4 || doh.Expire != minExpire || doh.MaxAge != time.Minute || doh.Source.String() != "127.0.0.9" {
		t.Errorf("https: %+v", doh)
	}
	if named, bare := options(2, 0), options(2, 1); named.DoHHost != "a.example" || bare.DoHHost != "" || bare.TLS.ServerName != "" {
		t.Errorf("https: %+v %+v", named, bare)
	}
	for i := range cs {
		for j := range cs[i].targets {
			u, err := wire.New(options(i, j))
			if err != nil {
				t.Errorf("%v: %v", cs[i].targets[j], err)
				continue
			}
			u.Close()
		}
	}
}

func TestProbe(t *testing.T) {
	packed, err := probeConfig{name: "example.org.", qtype: dns.TypeSOA}.pack()
	m := new(dns.Msg)
	if err != nil || m.Unpack(packed) != nil {
		t.Fatal(err)
	}
	if q := m.Question[0]; q.Name != "example.org." || q.Qtype != dns.TypeSOA || m.RecursionDesired {
		t.Errorf("got %v", m)
	}
	if packed, err := (probeConfig{name: ".", off: true}).pack(); packed != nil || err != nil {
		t.Errorf("off: %v, %v", packed, err)
	}
}
