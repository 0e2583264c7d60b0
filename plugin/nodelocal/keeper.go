package nodelocal

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// keeper keeps an interface and its rules in place.
//
// Of several servers on one host, as during the update of a DaemonSet, only the
// one that has joined last changes anything, so that servers with different
// Corefiles don't undo each other's work; and only the one that leaves last
// removes anything. From looking to acting they hold a lock.
type keeper struct {
	host host

	mu    sync.Mutex
	set   *setting
	lease lease // nil if there could be none

	interval chan time.Duration // a new one for the loop
	stop     chan struct{}
	done     chan struct{}
}

// open puts a setting in place and keeps it there. It returns an error for a
// mistake only.
func open(h host, s *setting) (*keeper, error) {
	k := &keeper{host: h, set: s, interval: make(chan time.Duration), stop: make(chan struct{}), done: make(chan struct{})}
	if err := k.join(); err != nil {
		return nil, err
	}
	go k.loop(s.sync)
	return k, nil
}

func (k *keeper) join() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.lock()()
	l, err := k.host.join(k.set.iface)
	if err != nil {
		tell(&failure{step: stepLease, err: fmt.Errorf("interface '%s' will stay when the server ends: %w", k.set.iface, err)})
	} else {
		k.lease = l
	}
	if f := k.repair(true); f != nil {
		k.leave()
		return f
	}
	return nil
}

// update changes the setting to that of a new Corefile. What only the old one
// has stays until settle, because its server still listens there.
func (k *keeper) update(s *setting) error {
	if err := k.change(s); err != nil {
		return err
	}
	k.interval <- s.sync
	return nil
}

func (k *keeper) change(s *setting) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.lock()()
	before := k.set
	k.set = s
	if f := k.repair(false); f != nil {
		k.set = before
		return f
	}
	return nil
}

// settle puts right what isn't.
func (k *keeper) settle() {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.lock()()
	if f := k.repair(true); f != nil {
		tell(f)
	}
}

// loop settles at an interval.
func (k *keeper) loop(every time.Duration) {
	defer close(k.done)
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-k.stop:
			return
		case every := <-k.interval:
			ticker.Reset(every)
		case <-ticker.C:
			k.settle()
		}
	}
}

// close ends the keeping, and removes everything unless another server uses it
// or the directive says otherwise.
func (k *keeper) close() {
	close(k.stop)
	<-k.done
	k.mu.Lock()
	defer k.mu.Unlock()
	defer k.lock()()
	k.leave()
}

// divert lets the other servers on this host, if there are any, have what comes
// to the addresses from now on. It reports whether there are.
func (k *keeper) divert() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, alone := k.rank(); alone || k.lease == nil {
		return false
	}
	diverted := false
	for _, a := range k.set.addrs {
		for _, p := range k.set.dns {
			ok, err := k.host.divert(a, p)
			if err != nil {
				log.Warningf("Queries may be lost while another server takes over: %v", err)
			}
			diverted = diverted || ok
		}
	}
	return diverted
}

// lock takes the lock of the interface, as far as it can be had: better two
// servers at the same time than none.
func (k *keeper) lock() (unlock func()) {
	unlock, err := k.host.lock(k.set.iface)
	if err != nil {
		tell(&failure{step: stepLease, err: err})
		return func() {}
	}
	return unlock
}

// rank is that of the lease, and what is safe where it can't be known.
func (k *keeper) rank() (newest, alone bool) {
	if k.lease == nil {
		return true, false
	}
	newest, alone, err := k.lease.rank()
	if err != nil {
		tell(&failure{step: stepLease, err: err})
		return true, false
	}
	return newest, alone
}

// repair puts in place what the setting asks for, and removes addresses that it
// doesn't if prune is set and no other server can be listening on them. What
// failed is told and left to the next time; only a mistake is returned.
func (k *keeper) repair(prune bool) *failure {
	newest, alone := k.rank()
	if !newest {
		return nil
	}
	ok := true
	if f := k.repairInterface(prune && alone); f != nil {
		setReady(k.set.iface, false)
		if f.mistake {
			return f
		}
		tell(f)
		ok = false
	}
	if err := k.repairRules(); err != nil {
		tell(&failure{step: stepRules, err: fmt.Errorf("DNS to interface '%s' is not kept out of connection tracking: %w", k.set.iface, err)})
		ok = false
	}
	setReady(k.set.iface, ok)
	return nil
}

// repairInterface is the half of repair that addresses need.
func (k *keeper) repairInterface(prune bool) *failure {
	name := k.set.iface
	l, found, err := k.host.link(name)
	if err != nil {
		return failed(stepInterface, "interface '%s' can't be looked at: %w", name, err)
	}
	if found && !l.usable() {
		kind := l.kind
		if kind == "" {
			kind = "hardware"
		}
		return mistaken(stepInterface, "interface '%s' exists and is no dummy interface, but %s: choose another name", name, kind)
	}
	there, err := k.host.addresses()
	if err != nil {
		return failed(stepAddress, "addresses can't be looked at: %w", err)
	}
	var missing []netip.Addr
	for _, a := range k.set.addrs {
		i := slices.IndexFunc(there, func(t address) bool { return t.addr == a })
		switch {
		case i < 0:
			missing = append(missing, a)
		case there[i].link != name:
			return mistaken(stepAddress, "address %s is on interface '%s' already%s", a, there[i].link, ipvsHint(there[i].link))
		}
	}

	var done []string
	defer func() {
		if len(done) > 0 {
			log.Infof("Put in place: %s", strings.Join(done, ", "))
		}
	}()
	if !found {
		kind, err := k.addLink(name)
		if err != nil {
			return failed(stepInterface, "interface '%s' can't be made: %w", name, err)
		}
		done = append(done, fmt.Sprintf("interface %s (%s)", name, kind))
	}
	// First up: the kernel takes IPv6 addresses away from what goes down.
	if !found || !l.up {
		if err := k.host.up(name); err != nil {
			return failed(stepInterface, "interface '%s' can't be set up: %w", name, err)
		}
	}
	for _, a := range missing {
		if err := k.host.addAddress(name, a); err != nil {
			return failed(stepAddress, "address %s can't be added to interface '%s': %w", a, name, err)
		}
		done = append(done, "address "+a.String())
	}
	if !prune {
		return nil
	}
	for _, t := range there {
		if t.link != name || slices.Contains(k.set.addrs, t.addr) || t.addr.IsLinkLocalUnicast() && t.addr.Is6() {
			continue
		}
		// Nobody listens there any more: a former kube-dns ClusterIP would be a
		// black hole for the pods of this node.
		if err := k.host.delAddress(name, t.addr); err != nil {
			return failed(stepAddress, "address %s can't be taken from interface '%s': %w", t.addr, name, err)
		}
		done = append(done, "no address "+t.addr.String()+" any more")
	}
	return nil
}

// addLink makes the interface and returns its kind.
func (k *keeper) addLink(name string) (string, error) {
	err := k.host.addLink(name, kindDummy)
	if err != errNoKind {
		return kindDummy, err
	}
	return kindBridge, k.host.addLink(name, kindBridge)
}

// repairRules is the other half.
func (k *keeper) repairRules() error {
	name := tableName(k.set.iface)
	there, err := k.host.table(name)
	if err != nil {
		return err
	}
	all := rules(k.set)
	switch want := tableOf(all); {
	case there.equal(want):
		return nil
	case want == nil:
		return k.host.delTable(name)
	}
	if err := k.host.setTable(name, all); err != nil {
		return err
	}
	log.Infof("Put in place: %d rules in nftables table inet %s", len(all), name)
	return nil
}

// leave ends the lease and, if it was the last one, what was put in place.
func (k *keeper) leave() {
	forgetReady(k.set.iface)
	_, alone := k.rank()
	if k.lease != nil {
		k.lease.leave()
	}
	name := k.set.iface
	switch {
	case k.set.skipTeardown:
		log.Infof("Interface '%s' stays: skip_teardown", name)
		return
	case !alone:
		log.Infof("Interface '%s' stays: another server uses it", name)
		return
	}
	// The rules first: while the interface is there without them, DNS works.
	if err := k.host.delTable(tableName(name)); err != nil {
		tell(failed(stepTeardown, "nftables table inet %s stays: %w", tableName(name), err))
	}
	l, found, err := k.host.link(name)
	if err == nil && found && l.usable() {
		err = k.host.delLink(name)
	}
	if err != nil {
		tell(failed(stepTeardown, "interface '%s' stays: %w", name, err))
	}
}

// ipvsHint says what to do about an address that kube-proxy has.
func ipvsHint(link string) string {
	if link == "kube-ipvs0" {
		return ": in IPVS mode, kube-proxy has all Service addresses; use an address of its own and set the pods' clusterDNS to it"
	}
	return ": use it for one interface only"
}
