package nodelocal

import (
	"sync"
	"time"

	"github.com/coredns/caddy"
)

// manager has the keepers of this process and changes them as caddy starts,
// replaces and ends servers.
type manager struct {
	host host

	mu      sync.Mutex
	current *plan // of the newest server; nil before the first and after the last
	keepers map[string]*keeper
	exited  bool
}

var active = &manager{host: newHost(), keepers: map[string]*keeper{}}

func init() {
	// Later than all shutdown callbacks: the last of them, that of health, goes on
	// serving for the lameduck time.
	caddy.OnProcessExit = append(caddy.OnProcessExit, active.exit)
}

// start puts in place what a plan asks for. It is called before the listeners
// of its server are bound. Should it fail, everything is as it was.
func (m *manager) start(p *plan) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.exited {
		return nil
	}
	var opened, updated []*keeper
	for _, s := range p.settings {
		k := m.keepers[s.iface]
		if k != nil {
			if err := k.update(s); err != nil {
				m.undo(opened, updated)
				return err
			}
			updated = append(updated, k)
			continue
		}
		k, err := open(m.host, s)
		if err != nil {
			m.undo(opened, updated)
			return err
		}
		m.keepers[s.iface] = k
		opened = append(opened, k)
	}
	m.current = p
	return nil
}

// undo takes back what a start has done before it failed.
func (m *manager) undo(opened, updated []*keeper) {
	for _, k := range opened {
		k.close()
		delete(m.keepers, k.set.iface)
	}
	for _, k := range updated {
		if s := m.current.find(k.set.iface); s != nil {
			if err := k.update(s); err != nil {
				log.Warning(err)
			}
		}
	}
}

// retire ends what no plan but p has asked for: its server has been replaced and
// doesn't listen any more.
func (m *manager) retire(p *plan) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current == p {
		m.current = nil // the new Corefile has no such directive
	}
	m.trim()
}

// restore goes back to plan p: the server that was to replace its own has not
// come up.
func (m *manager) restore(p *plan) error {
	if err := m.start(p); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trim()
	return nil
}

// trim removes what the current plan doesn't have.
func (m *manager) trim() {
	for name, k := range m.keepers {
		if m.current.find(name) != nil {
			k.settle()
			continue
		}
		k.close()
		delete(m.keepers, name)
	}
}

// drainTime is what it takes to read the queues after nothing is added to them,
// to finish handshakes of TCP that were under way, and to read the query that
// follows on one. Pods of the same node are less than a millisecond away.
const drainTime = 200 * time.Millisecond

// exit ends everything, with the process.
func (m *manager) exit() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.exited, m.current = true, nil
	diverted := false
	for _, k := range m.keepers {
		diverted = k.divert() || diverted
	}
	if diverted {
		log.Infof("Another server takes over: finishing what has come here")
		time.Sleep(drainTime)
	}
	m.trim()
}
