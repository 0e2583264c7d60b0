package nodelocal

import (
	"testing"
	"testing/synctest"
	"time"
)

func newPlan(t *testing.T, settings ...*setting) *plan {
	t.Helper()
	p := new(plan)
	for _, s := range settings {
		if err := p.add(s.config, s.dns); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func on(iface string, s *setting) *setting {
	s.iface = iface
	return s
}

// TestManager goes through what caddy does with servers, in its order.
func TestManager(t *testing.T) {
	a := func() *setting { return on("a", some("10.0.0.1")) }
	b := func() *setting { return on("b", some("10.0.0.2")) }
	more := func() *setting { return on("a", some("10.0.0.1", "10.0.0.3")) }
	fewer := func() *setting {
		s := on("a", some("10.0.0.3"))
		s.notrack = false
		return s
	}
	onlyA, both := "a 10.0.0.1, resolute_a 6", "a 10.0.0.1, b 10.0.0.2, resolute_a 6, resolute_b 6"

	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		m := &manager{host: f, keepers: map[string]*keeper{}}
		start := func(settings ...*setting) *plan {
			t.Helper()
			p := newPlan(t, settings...)
			if err := m.start(p); err != nil {
				t.Fatal(err)
			}
			return p
		}
		p := start(a())
		expect(t, f, onlyA)
		q := start(a()) // a reload that changes nothing
		f.take()
		m.retire(p)
		if got := f.take(); len(got) > 0 {
			t.Errorf("done by a reload without a change: %q", got)
		}
		p, q = q, start(a(), b())
		m.retire(p)
		expect(t, f, both)

		p, q = q, start(a())
		expect(t, f, both) // the old server still listens
		m.retire(p)
		expect(t, f, onlyA)

		p, q = q, start(more())
		m.retire(p)
		expect(t, f, "a 10.0.0.1 10.0.0.3, resolute_a 12")
		p, q = q, start(fewer())
		expect(t, f, "a 10.0.0.1 10.0.0.3")
		m.retire(p)
		expect(t, f, "a 10.0.0.3")
		p, q = q, start(a())
		m.retire(p)
		expect(t, f, onlyA)

		// A server that doesn't come up, after ours was put in place.
		start(more(), b())
		if err := m.restore(q); err != nil {
			t.Error(err)
		}
		expect(t, f, onlyA)

		// And one that ours keeps from coming up: b can't have a's address.
		f.links["b"] = &link{}
		bad := newPlan(t, more(), b())
		if err := m.start(bad); err == nil {
			t.Error("a mistake was not returned")
		}
		if err := m.restore(q); err != nil {
			t.Error(err)
		}
		expect(t, f, "a 10.0.0.1, b, resolute_a 6")

		// The new interval counts from the reload on.
		slow := a()
		slow.sync = time.Hour
		p, q = q, start(slow)
		m.retire(p)
		clear(f.tables)
		time.Sleep(59 * time.Minute)
		expect(t, f, "a 10.0.0.1, b")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		expect(t, f, "a 10.0.0.1, b, resolute_a 6")

		m.retire(q) // the directive is gone from the Corefile
		expect(t, f, "b")

		q = start(a())
		m.exit()
		expect(t, f, "b")
		m.start(q)
		m.exit()
		expect(t, f, "b")
	})
}

// TestDrain gives away what comes before the listeners end, and waits a moment.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		old := &manager{host: f, keepers: map[string]*keeper{}}
		next := &manager{host: f, keepers: map[string]*keeper{}}
		for _, m := range []*manager{old, next} {
			if err := m.start(newPlan(t, some("10.0.0.1", "fd00::a"))); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		old.exit()
		if took := time.Since(start); took != drainTime {
			t.Errorf("waited %s", took)
		}
		expect(t, f, kept)
		start = time.Now()
		next.exit()
		if took := time.Since(start); took != 0 {
			t.Errorf("waited %s for nobody", took)
		}
		expect(t, f, "")
	})
}
