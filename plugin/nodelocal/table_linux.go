package nodelocal

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// hooks are where the chains are called from.
var hooks = map[string]*nftables.ChainHook{
	prerouting: nftables.ChainHookPrerouting,
	output:     nftables.ChainHookOutput,
}

// table implements host. A rule is known by its comment, which is its text: nft
// has no way to edit a rule and leave its comment, and what the kernel gives
// back of the rule itself differs in form from kernel to kernel.
func (linux) table(name string) (table, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, explain(err)
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, explain(err)
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, explain(err)
	}
	var t table
	for _, have := range tables {
		if have.Name == name {
			t = table{}
			// The kernel gives flags in network byte order, and the package takes them
			// for the machine's (google/nftables 0.3.0, tableFromMsg).
			if (have.Flags|bits.ReverseBytes32(have.Flags))&unix.NFT_TABLE_F_DORMANT != 0 {
				return t, nil // there, but as good as empty
			}
		}
	}
	for _, chain := range chains {
		if chain.Table.Name != name || t == nil {
			continue
		}
		key := chain.Name
		if !atRaw(chain) {
			key += " in the wrong place"
		}
		t[key] = nil
		rules, err := c.GetRules(chain.Table, chain)
		if err != nil {
			return nil, explain(err)
		}
		for _, r := range rules {
			t[key] = append(t[key], comment(r.UserData))
		}
	}
	return t, nil
}

// atRaw reports whether a chain is called where its name says.
func atRaw(c *nftables.Chain) bool {
	hook := hooks[c.Name]
	return hook != nil && c.Type == nftables.ChainTypeFilter && c.Hooknum != nil && *c.Hooknum == *hook &&
		c.Priority != nil && *c.Priority == *nftables.ChainPriorityRaw
}

// setTable implements host. The kernel takes all of it or nothing.
func (linux) setTable(name string, rules []rule) error {
	c, err := nftables.New()
	if err != nil {
		return explain(err)
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: name}
	// To delete what is not there is an error, to add what is there is none.
	c.AddTable(t)
	c.DelTable(t)
	c.AddTable(t)
	chains := map[string]*nftables.Chain{}
	for _, name := range []string{prerouting, output} {
		accept := nftables.ChainPolicyAccept
		chains[name] = c.AddChain(&nftables.Chain{
			Table: t, Name: name, Type: nftables.ChainTypeFilter,
			Hooknum: hooks[name], Priority: nftables.ChainPriorityRaw, Policy: &accept,
		})
	}
	for _, r := range rules {
		c.AddRule(&nftables.Rule{
			Table: t, Chain: chains[r.chain], Exprs: expressions(r),
			UserData: userdata.AppendString(nil, userdata.TypeComment, r.String()),
		})
	}
	return ownerHint(c.Flush())
}

// delTable implements host.
func (linux) delTable(name string) error {
	c, err := nftables.New()
	if err != nil {
		return explain(err)
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: name}
	c.AddTable(t)
	c.DelTable(t)
	return ownerHint(c.Flush())
}

// ownerHint is explain for a change: it comes after a look, which needs the same
// capability.
func ownerHint(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: the table belongs to another process (flags owner), or the capability NET_ADMIN is missing", err)
	}
	return err
}

// expressions returns a rule as the kernel wants it: loads into register 1, each
// with a comparison, and what to do if none has failed.
func expressions(r rule) []expr.Any {
	family, addrOffset, addrLen := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4) // RFC 791: source, destination
	if r.addr.Is6() {
		family, addrOffset, addrLen = unix.NFPROTO_IPV6, 8, 16 // RFC 8200
	}
	portOffset := uint32(0) // RFC 768, RFC 9293: source, destination
	if !r.source {
		addrOffset += addrLen
		portOffset += 2
	}
	proto := byte(unix.IPPROTO_UDP)
	if r.port.proto == "tcp" {
		proto = unix.IPPROTO_TCP
	}
	is := func(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, is([]byte{family}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: addrOffset, Len: addrLen}, is(r.addr.AsSlice()),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, is([]byte{proto}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: portOffset, Len: 2}, is(binaryutil.BigEndian.PutUint16(r.port.number)),
		&expr.Counter{}, // `nft list ruleset` shows whether the rule is ever met
		&expr.Notrack{},
	}
}

// comment returns the comment in a rule's user data: types, lengths and values
// (libnftnl, include/libnftnl/udata.h), written by whoever has made the rule.
func comment(data []byte) string {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		value := data[2 : 2+int(data[1])]
		if data[0] == byte(userdata.TypeComment) && len(value) > 0 {
			return string(value[:len(value)-1]) // a NUL at the end
		}
		data = data[2+len(value):]
	}
	return ""
}
