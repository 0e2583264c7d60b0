package nodelocal

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

func addrs(s ...string) (all []netip.Addr) {
	for _, s := range s {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

var dns53 = []port{{"udp", 53}, {"tcp", 53}}

// some is a setting to start from.
func some(ips ...string) *setting {
	return &setting{
		config: config{iface: "nodelocaldns", addrs: addrs(ips...), notrack: true, sync: time.Minute},
		dns:    dns53,
	}
}

func TestRules(t *testing.T) {
	for name, tc := range map[string]struct {
		set  *setting
		want []string // chain and text
	}{
		"IPv4": {some("169.254.20.10"), []string{
			"prerouting ip daddr 169.254.20.10 udp dport 53 notrack",
			"output ip saddr 169.254.20.10 udp sport 53 notrack",
			"output ip daddr 169.254.20.10 udp dport 53 notrack",
			"prerouting ip daddr 169.254.20.10 tcp dport 53 notrack",
			"output ip saddr 169.254.20.10 tcp sport 53 notrack",
			"output ip daddr 169.254.20.10 tcp dport 53 notrack",
		}},
		"IPv6, DNS over TLS": {
			&setting{config: config{addrs: addrs("fd00::a"), notrack: true}, dns: []port{{"tcp", 853}}}, []string{
				"prerouting ip6 daddr fd00::a tcp dport 853 notrack",
				"output ip6 saddr fd00::a tcp sport 853 notrack",
				"output ip6 daddr fd00::a tcp dport 853 notrack",
			}},
		"health": {
			&setting{config: config{addrs: addrs("10.96.0.10"), notrack: true}, health: []port{{"tcp", 8080}}}, []string{
				"output ip daddr 10.96.0.10 tcp dport 8080 notrack",
				"output ip saddr 10.96.0.10 tcp sport 8080 notrack",
			}},
		"notrack off": {&setting{config: config{addrs: addrs("10.96.0.10")}, dns: dns53, health: []port{{"tcp", 8080}}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, r := range rules(tc.set) {
				got = append(got, r.chain+" "+r.String())
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got\n%q, want\n%q", got, tc.want)
			}
		})
	}
	two := some("169.254.20.10", "10.96.0.10")
	two.health = []port{{"tcp", 8080}, {"tcp", 8081}}
	if n := len(rules(two)); n != 2*(6+4) {
		t.Errorf("%d rules for two addresses and two health ports", n)
	}
}

func TestTable(t *testing.T) {
	all := rules(some("169.254.20.10"))
	same := func(a, b table) bool { return a.equal(b) && b.equal(a) }
	if !same(tableOf(all), tableOf(all)) || !same(tableOf(nil), nil) {
		t.Error("a table differs from itself")
	}
	dormant := table{}
	for name, other := range map[string]table{
		"one less":      tableOf(all[:5]),
		"another order": tableOf(append(slices.Clone(all[1:]), all[0], all[3])),
		"none":          nil,
		"dormant":       dormant,
		"one more chain": func() table {
			o := tableOf(all)
			o["input"] = nil
			return o
		}(),
	} {
		if same(tableOf(all), other) {
			t.Errorf("%s: not seen", name)
		}
	}
	if same(nil, dormant) {
		t.Error("a dormant table is taken for none")
	}
}
