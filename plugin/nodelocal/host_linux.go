package nodelocal

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linux is the host that this process runs on, or rather its network namespace.
type linux struct{}

func newHost() host { return linux{} }

// mark is the alias of our interfaces. `ip link` shows it.
const mark = "made by Resolute nodelocal"

// dumps is how often a list is asked for that changes while the kernel hands it
// out, as those of a busy node do.
const dumps = 5

// complete calls list until it isn't interrupted by a change.
func complete[T any](list func() ([]T, error)) (all []T, err error) {
	for range dumps {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// link implements host.
func (linux) link(name string) (link, bool, error) {
	l, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return link{}, false, nil
	}
	if err != nil {
		return link{}, false, explain(err)
	}
	kind := l.Type()
	if kind == "device" { // what the package calls an interface that the kernel gives no kind
		kind = ""
	}
	attrs := l.Attrs()
	return link{kind: kind, ours: attrs.Alias == mark, up: attrs.Flags&net.FlagUp != 0}, true, nil
}

// addresses implements host.
func (linux) addresses() ([]address, error) {
	links, err := complete(netlink.LinkList)
	if err != nil {
		return nil, explain(err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	addrs, err := complete(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, explain(err)
	}
	var all []address
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			all = append(all, address{addr: ip.Unmap(), link: names[a.LinkIndex]})
		}
	}
	return all, nil
}

// addLink implements host.
func (linux) addLink(name, kind string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	l := &netlink.GenericLink{LinkAttrs: attrs, LinkType: kind}
	err := netlink.LinkAdd(l)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return errNoKind
	}
	if err != nil {
		return explain(err)
	}
	// The kernel leaves out an alias that it is told along with the rest.
	if err := netlink.LinkSetAlias(l, mark); err != nil {
		return errors.Join(explain(err), explain(netlink.LinkDel(l)))
	}
	return nil
}

// up implements host.
func (linux) up(name string) error {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	return explain(err)
}

// hostAddr returns a as an address without a network, and with no search for
// others that have it: every node does.
func hostAddr(a netip.Addr) *netlink.Addr {
	return &netlink.Addr{
		IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())},
		Flags: unix.IFA_F_NODAD,
	}
}

// addAddress implements host.
func (linux) addAddress(name string, a netip.Addr) error {
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.AddrReplace(l, hostAddr(a))
	}
	if a.Is6() && errors.Is(err, unix.EACCES) {
		return fmt.Errorf("IPv6 is off on this host (net.ipv6.conf.all.disable_ipv6): %w", err)
	}
	return explain(err)
}

// delAddress implements host.
func (linux) delAddress(name string, a netip.Addr) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return explain(err)
	}
	// Whoever has put it there may have given it a network.
	addrs, err := complete(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
	for _, there := range addrs {
		if ip, ok := netip.AddrFromSlice(there.IP); ok && ip.Unmap() == a && err == nil {
			err = netlink.AddrDel(l, &there)
		}
	}
	return explain(err)
}

// delLink implements host.
func (linux) delLink(name string) error {
	l, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(l)
	}
	return explain(err)
}

// explain says what is missing where the kernel only says no.
func explain(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: this needs the capability NET_ADMIN (securityContext.capabilities.add)", err)
	}
	return err
}
