package nodelocal

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// The chains that the rules are in, both at priority raw: before connection
// tracking sees a packet.
const (
	prerouting = "prerouting" // what comes in from pods
	output     = "output"     // what this host sends
)

// rule is a rule that keeps packets out of connection tracking.
type rule struct {
	chain  string
	addr   netip.Addr
	source bool // addr and port are the packet's source, else its destination
	port   port
}

// String returns the rule as the nft program shows it.
func (r rule) String() string {
	family, end, side := "ip", "daddr", "dport"
	if r.addr.Is6() {
		family = "ip6"
	}
	if r.source {
		end, side = "saddr", "sport"
	}
	return fmt.Sprintf("%s %s %s %s %s %d notrack", family, end, r.addr, r.port.proto, side, r.port.number)
}

// rules returns the rules that a setting stands for, in order. They are those of
// node-cache's raw table:
//
//   - queries that come in to an address (PREROUTING, destination),
//   - the answers to them (OUTPUT, source),
//   - queries of the host itself and of pods in its network (OUTPUT,
//     destination); what passes the loopback interface keeps its mark, so the
//     other side needs no rule,
//   - the last two for the health port, which the kubelet of this host asks.
//
// node-cache's rules to ACCEPT in the filter table have no counterpart here: a
// verdict of accept ends nothing but the chain that it is in (nft(8), VERDICT
// STATEMENT), so it can't open what another table closes.
func rules(s *setting) []rule {
	if !s.notrack {
		return nil
	}
	var all []rule
	for _, a := range s.addrs {
		for _, p := range s.dns {
			all = append(all,
				rule{chain: prerouting, addr: a, port: p},
				rule{chain: output, addr: a, port: p, source: true},
				rule{chain: output, addr: a, port: p})
		}
		for _, p := range s.health {
			all = append(all,
				rule{chain: output, addr: a, port: p},
				rule{chain: output, addr: a, port: p, source: true})
		}
	}
	return all
}

// table is what an nftables table has in it: the text of the rules by the names
// of the chains.
type table map[string][]string

// tableOf returns the table that rules make.
func tableOf(rules []rule) table {
	if len(rules) == 0 {
		return nil
	}
	t := table{prerouting: nil, output: nil}
	for _, r := range rules {
		t[r.chain] = append(t[r.chain], r.String())
	}
	return t
}

// tableName is the name of the table, of family inet, for the rules of an
// interface.
func tableName(iface string) string { return "resolute_" + iface }

// equal reports whether two tables have the same in them.
func (t table) equal(o table) bool {
	return (t == nil) == (o == nil) && maps.EqualFunc(t, o, slices.Equal[[]string])
}
