package nodelocal

import (
	"errors"
	"net/netip"
)

// host is what the plugin needs of the machine: thin, so that everything that
// can be decided is decided above it. Its methods do one thing each and know of
// no order.
type host interface {
	// link returns an interface; ok is false if there is none of that name.
	link(name string) (l link, ok bool, err error)
	// addresses returns the addresses of all interfaces.
	addresses() ([]address, error)
	// addLink makes an interface of a kind, with the mark that it is ours.
	// It returns errNoKind if the kernel doesn't know that kind.
	addLink(name, kind string) error
	// up sets an interface up.
	up(name string) error
	// addAddress gives an address to an interface, delAddress takes it away.
	addAddress(name string, a netip.Addr) error
	delAddress(name string, a netip.Addr) error
	// delLink removes an interface. That there is none is no error.
	delLink(name string) error

	// table returns what is in a table, nil if there is none of that name.
	table(name string) (table, error)
	// setTable makes a table of rules, in place of what has its name. There is no
	// moment without rules.
	setTable(name string, rules []rule) error
	// delTable removes a table. That there is none is no error.
	delTable(name string) error

	// divert lets other servers that listen on an address and port have what
	// arrives from now on. It reports whether there are any.
	divert(a netip.Addr, p port) (bool, error)

	// lock keeps other servers on this host from changing anything about an
	// interface, until the returned function is called.
	lock(name string) (unlock func(), err error)
	// join makes this server one that uses the interface, the newest of all.
	// To be called under lock.
	join(name string) (lease, error)
}

// lease says that a server uses an interface. It ends with the process at the
// latest, however that ends.
type lease interface {
	// rank tells, of all servers that use the interface now, whether this one is
	// the newest and whether it is the only one.
	rank() (newest, alone bool, err error)
	// leave ends the lease.
	leave()
}

// link is an interface.
type link struct {
	kind string // what the kernel calls it: dummy, bridge, veth ...; empty for hardware
	ours bool   // has the mark
	up   bool
}

// The kinds of interface that hold the addresses. A bridge without ports is as
// good, and is what there is on kernels that are built without dummies, as those
// of small virtual machines sometimes are.
const (
	kindDummy  = "dummy"
	kindBridge = "bridge"
)

// usable reports whether the interface is one that we could have made. Any
// dummy is: node-cache's has the same name. A bridge may be somebody's network.
func (l link) usable() bool { return l.kind == kindDummy || l.kind == kindBridge && l.ours }

// address is an address of an interface.
type address struct {
	addr netip.Addr
	link string
}

// errNoKind is returned by host.addLink for a kind that the kernel lacks.
var errNoKind = errors.New("this kernel has no such kind of interface")
