package peers_test

import (
	"testing"

	"github.com/resolute-dns/resolute/test/peers/fault"
	"github.com/resolute-dns/resolute/test/peers/load"
)

// What failover uses for one upstream, however many queries wait for it.
const (
	maxPorts = 64
	maxConns = 2
)

// TestSockets has a thousand queries wait for one upstream, and counts there over
// how many UDP ports or connections they came. Each is an entry in a conntrack
// table and, behind SNAT, a port of the node.
func TestSockets(t *testing.T) {
	const (
		queries = 1000
		waiting = queries * 9 / 10 // at once, so that the test shows something
	)
	cert, ca := fault.Certificate(t)
	for _, tc := range []struct {
		name   string
		conf   corefile
		used   func(u *fault.Upstream) int64
		most   int64
		stocks int64 // what stock uses at least
	}{
		{"UDP", corefile{}, func(u *fault.Upstream) int64 { return u.Ports.Load() }, maxPorts, queries / 2},
		{"TCP", corefile{options: "force_tcp"}, func(u *fault.Upstream) int64 { return u.Conns.Load() }, maxConns, queries / 2},
		// Stock has not made a thousand TLS connections by the time the first
		// answers come, and uses some again.
		{"DoT", corefile{tls: true, options: "tls " + ca + "\ntls_servername " + fault.ServerName}, func(u *fault.Upstream) int64 { return u.Conns.Load() }, maxConns, queries / 10},
	} {
		for _, directive := range sides(t) {
			t.Run(tc.name+"/"+directive, func(t *testing.T) {
				u := fault.NewTLS(t, fault.Healthy, cert)
				if !tc.conf.tls {
					u = fault.New(t, fault.Healthy)
				}
				s := startSide(t, directive, []*fault.Upstream{u}, tc.conf)
				w := watch(t)
				l := load.Start(t, load.Config{Server: s.addr, QPS: 2000, Kind: func(int) string { return "slow" }})
				if !await(patience, func() bool { return l.Count() >= queries }) {
					t.Fatalf("only %d queries were sent", l.Count())
				}
				result := l.Stop(t, w)
				t.Logf("%s: %d queries, %d waited at once over %d sockets; %d failed, the slowest took %v",
					directive, len(result), u.InFlight(), tc.used(u), result.Failed(), result.Percentile(1))
				if directive == stock {
					if used := tc.used(u); used < tc.stocks {
						t.Errorf("stock used only %d sockets: is this test of any use?", used)
					}
					return
				}
				if u.InFlight() < waiting {
					t.Errorf("only %d queries waited at once", u.InFlight())
				}
				if used := tc.used(u); used > tc.most {
					t.Errorf("used %d sockets, more than %d", used, tc.most)
				}
				if result.Failed() > 0 {
					t.Errorf("%d of %d queries failed", result.Failed(), len(result))
				}
			})
		}
	}
}
