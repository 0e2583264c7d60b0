package nodelocal

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// fake is a host that is only a description of one. Several servers can be on
// it, as the members that have joined.
type fake struct {
	mu      sync.Mutex
	links   map[string]*link
	addrs   map[netip.Addr]string // the interface that has it
	tables  map[string]table
	members map[string][]int // by interface, in their order
	locked  map[string]bool

	noDummy bool
	deny    map[string]error // what a method returns in place of doing something
	changes []string         // what was done, in order
}

func newFake() *fake {
	return &fake{links: map[string]*link{}, addrs: map[netip.Addr]string{}, tables: map[string]table{}, members: map[string][]int{}, locked: map[string]bool{}, deny: map[string]error{}}
}

// do notes a change unless it is denied.
func (f *fake) do(method string, args ...any) error {
	if err := f.deny[method]; err != nil {
		return err
	}
	f.changes = append(f.changes, strings.TrimSpace(method+" "+fmt.Sprintln(args...)))
	return nil
}

// take returns the changes since the last time.
func (f *fake) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.changes
	f.changes = nil
	return c
}

// state returns what is there: interfaces with their addresses, and tables with
// the number of rules.
func (f *fake) state() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, name := range slices.Sorted(maps.Keys(f.links)) {
		s := name
		for _, a := range slices.SortedFunc(maps.Keys(f.addrs), netip.Addr.Compare) {
			if f.addrs[a] == name {
				s += " " + a.String()
			}
		}
		all = append(all, s)
	}
	for _, name := range slices.Sorted(maps.Keys(f.tables)) {
		n := 0
		for _, rules := range f.tables[name] {
			n += len(rules)
		}
		all = append(all, fmt.Sprintf("%s %d", name, n))
	}
	return strings.Join(all, ", ")
}

func (f *fake) link(name string) (link, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.links[name]
	if err := f.deny["link"]; err != nil || l == nil {
		return link{}, false, err
	}
	return *l, true, nil
}

func (f *fake) addresses() (all []address, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for a, l := range f.addrs {
		all = append(all, address{a, l})
	}
	slices.SortFunc(all, func(x, y address) int { return cmp.Or(x.addr.Compare(y.addr), cmp.Compare(x.link, y.link)) })
	return all, f.deny["addresses"]
}

func (f *fake) addLink(name, kind string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if kind == kindDummy && f.noDummy {
		return errNoKind
	}
	if err := f.do("addLink", name, kind); err != nil {
		return err
	}
	f.links[name] = &link{kind: kind, ours: true}
	return nil
}

func (f *fake) up(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.do("up", name); err != nil {
		return err
	}
	f.links[name].up = true
	return nil
}

func (f *fake) addAddress(name string, a netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.do("addAddress", a); err != nil {
		return err
	}
	f.addrs[a] = name
	return nil
}

func (f *fake) delAddress(_ string, a netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.do("delAddress", a); err != nil {
		return err
	}
	delete(f.addrs, a)
	return nil
}

func (f *fake) delLink(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.do("delLink", name); err != nil {
		return err
	}
	delete(f.links, name)
	maps.DeleteFunc(f.addrs, func(_ netip.Addr, l string) bool { return l == name })
	return nil
}

func (f *fake) table(name string) (table, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tables[name], f.deny["table"]
}

func (f *fake) setTable(name string, rules []rule) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.do("setTable", len(rules)); err != nil {
		return err
	}
	f.tables[name] = tableOf(rules)
	return nil
}

func (f *fake) delTable(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.do("delTable"); err != nil {
		return err
	}
	delete(f.tables, name)
	return nil
}

func (f *fake) divert(a netip.Addr, p port) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.do("divert", a, p.proto)
	return err == nil, err
}

func (f *fake) lock(name string) (func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.deny["lock"]; err != nil {
		return nil, err
	}
	if f.locked[name] {
		return nil, fmt.Errorf("locked twice")
	}
	f.locked[name] = true
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.locked[name] = false
	}, nil
}

func (f *fake) join(name string) (lease, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.deny["join"]; err != nil {
		return nil, err
	}
	n := 0
	for _, m := range f.members[name] {
		n = max(n, m+1)
	}
	f.members[name] = append(f.members[name], n)
	return &fakeLease{f, name, n}, nil
}

type fakeLease struct {
	f    *fake
	name string
	n    int
}

func (l *fakeLease) rank() (newest, alone bool, err error) {
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	all := l.f.members[l.name]
	return slices.Max(all) == l.n, len(all) == 1, l.f.deny["rank"]
}

func (l *fakeLease) leave() {
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	l.f.members[l.name] = slices.DeleteFunc(l.f.members[l.name], func(m int) bool { return m == l.n })
}
