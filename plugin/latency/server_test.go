package latency

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/dns64"
	_ "github.com/coredns/coredns/plugin/erratic"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/metadata"
	_ "github.com/coredns/coredns/plugin/template"
	_ "github.com/coredns/coredns/plugin/tls"
	_ "github.com/coredns/coredns/plugin/trace"
	_ "github.com/coredns/coredns/plugin/view"

	"github.com/resolute-dns/resolute/plugin/internal/trail"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// The directives in these tests stand where plugin.cfg puts them, and there are
// three more: one in front of latency that tells when a query is over, and
// stand-ins for two that answer.
func init() {
	ds := dnsserver.Directives
	ds = slices.Insert(slices.Clone(ds), slices.Index(ds, "prometheus")+1, "over", pluginName)
	ds = slices.Insert(ds, slices.Index(ds, "forward"), "failover")
	if err := dnsserver.SetDirectives(ds); err != nil {
		panic(err)
	}
	dnsserver.Quiet = true
	plugin.Register("over", func(c *caddy.Controller) error {
		dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler { return over{next} })
		return nil
	})
	standIn := func(name string, serve plugin.HandlerFunc) {
		plugin.Register(name, func(c *caddy.Controller) error {
			if c.Next() && c.NextArg() { // it is not to start
				c.OnStartup(func() error { return errors.New(c.Val()) })
			}
			dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler { return named{serve, name} })
			return nil
		})
	}
	standIn("kubernetes", func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		return 0, w.WriteMsg(address(r))
	})
	standIn("failover", func(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		rec := trail.From(ctx)
		rec.AddAttempt(trail.Attempt{Upstream: "192.0.2.1:53", Kind: "first", Result: "timeout", Rcode: -1})
		if strings.HasPrefix(r.Question[0].Name, "dead") {
			return dns.RcodeServerFailure, nil
		}
		rec.AddAttempt(trail.Attempt{Upstream: "192.0.2.2:53", Kind: "retry", Result: "win"})
		return 0, w.WriteMsg(address(r))
	})
}

// over sends on ended when a client's query has gone through all plugins behind.
type over struct{ next plugin.Handler }

var ended = make(chan struct{}, 1000)

func (o over) Name() string { return "over" }

func (o over) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if ctx.Value(queryKey{}) == nil {
		defer func() { ended <- struct{}{} }()
	}
	return plugin.NextOrFailure(o.Name(), o.next, ctx, w, r)
}

type named struct {
	plugin.HandlerFunc
	name string
}

func (n named) Name() string { return n.name }

// address is an answer with an address that lives for a second.
func address(r *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(r)
	m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(192, 0, 2, 1).To4()}}
	return m
}

// start starts a CoreDNS with the Corefile. The client's queries, one after
// another, are to be sent with [instance.ask].
func start(t *testing.T, corefile string) *instance {
	t.Helper()
	i, err := caddy.Start(caddy.CaddyfileInput{Contents: []byte(corefile), Filepath: "Corefile", ServerTypeName: "dns"})
	if err != nil {
		t.Fatal(err)
	}
	in := &instance{i}
	t.Cleanup(func() {
		in.ShutdownCallbacks()
		in.Stop()
	})
	return in
}

type instance struct{ *caddy.Instance }

// addr returns where the server on this IP address listens; by UDP and TCP, or by
// TCP only for transports that have no UDP.
func (i *instance) addr(t *testing.T, ip string) (udp, tcp string) {
	t.Helper()
	for _, s := range i.Servers() {
		for addr, to := range map[net.Addr]*string{s.LocalAddr(): &udp, s.Addr(): &tcp} {
			if addr != nil && strings.HasPrefix(addr.String(), ip+":") {
				*to = addr.String()
			}
		}
	}
	if udp == "" && tcp == "" {
		t.Fatalf("nothing listens on %s", ip)
	}
	return udp, tcp
}

// ask asks the server on this IP address and returns when the query has gone
// through its plugins.
func (i *instance) ask(t *testing.T, ip, name string, qtype uint16) *dns.Msg {
	t.Helper()
	addr, _ := i.addr(t, ip)
	m, err := dns.Exchange(new(dns.Msg).SetQuestion(name, qtype), addr)
	if err != nil {
		t.Fatal(err)
	}
	<-ended
	return m
}

// send asks without waiting for an answer.
func (i *instance) send(t *testing.T, ip, name string, qtype uint16) {
	t.Helper()
	addr, _ := i.addr(t, ip)
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := new(dns.Msg).SetQuestion(name, qtype).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	<-ended
}

// series returns the samples of a metric with these labels: values by the labels
// that are not given, or the number of observations where it has such.
func series(t *testing.T, name string, match prometheus.Labels) map[string]float64 {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	metrics:
		for _, m := range f.GetMetric() {
			var rest []string
			for _, l := range m.GetLabel() {
				want, ok := match[l.GetName()]
				if ok && want != l.GetValue() {
					continue metrics
				}
				if !ok {
					rest = append(rest, l.GetValue())
				}
			}
			k := strings.Join(rest, " ")
			switch {
			case m.GetHistogram() != nil:
				values[k] = float64(m.GetHistogram().GetSampleCount())
			case m.GetSummary() != nil:
				values[k] = float64(m.GetSummary().GetSampleCount())
			case m.GetCounter() != nil:
				values[k] = m.GetCounter().GetValue()
			default:
				values[k] = m.GetGauge().GetValue()
			}
		}
	}
	return values
}

const durationName = "coredns_latency_request_duration_seconds"

// sources returns how many queries to the server were counted for each source.
func sources(t *testing.T, server string) map[string]float64 {
	t.Helper()
	counts := series(t, durationName, prometheus.Labels{"server": server, "zone": "."})
	maps.DeleteFunc(counts, func(_ string, n float64) bool { return n == 0 })
	return counts
}

// upstream starts a name server. Names that begin with no do not exist, those that
// begin with fail are SERVFAIL.
func upstream(t *testing.T) (addr string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	s := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := address(r)
		switch name := r.Question[0].Name; {
		case strings.HasPrefix(name, "fail"):
			m = new(dns.Msg).SetRcode(r, dns.RcodeServerFailure)
		case strings.HasPrefix(name, "no"):
			m = new(dns.Msg).SetRcode(r, dns.RcodeNameError)
			fallthrough
		case r.Question[0].Qtype == dns.TypeAAAA:
			m.Answer = nil
			m.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "example.org.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 30}, Ns: "ns.example.org.", Mbox: "admin.example.org.", Serial: 1, Refresh: 60, Retry: 60, Expire: 60, Minttl: 30}}
		}
		w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ActivateAndServe()
	}()
	<-started
	t.Cleanup(func() {
		s.Shutdown()
		<-done
	})
	return pc.LocalAddr().String()
}

// deadUpstream is an address where nobody answers: the port is closed.
func deadUpstream(t *testing.T) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	return pc.LocalAddr().String()
}

// corefileOf makes a Corefile of server blocks, each on an address of its own, and
// returns those and their labels.
func corefileOf(bodies []string) (corefile string, ips, labels []string) {
	var b strings.Builder
	for i, body := range bodies {
		ip := fmt.Sprintf("127.0.9.%d", i+1)
		fmt.Fprintf(&b, ".:0 {\nbind %s\nover\nlatency\n%s\n}\n", ip, body)
		ips = append(ips, ip)
		labels = append(labels, "dns://"+ip+":0")
	}
	return b.String(), ips, labels
}
