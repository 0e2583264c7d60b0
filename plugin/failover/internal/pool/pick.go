package pool

import "time"

const (
	// rttMemory is the time constant with which the smoothed RTT follows lower samples. The usual ten seconds make
	// one slow name weigh too long where recursion time, not the network, makes most of the RTT.
	rttMemory = 2 * time.Second
	// lossCost is what losing every query costs: as much as the tail of recursion, so that an upstream with some loss
	// still competes with one that is plainly slow.
	lossCost = 500 * time.Millisecond
	// lossPrior outcomes are taken as good before anything is known: one loss of one outcome is not a loss of all.
	lossPrior = 4
	// clearlyCheaper is by how much the second of a random pair has to be cheaper to be taken in place of the first.
	// Without it the upstream with the best estimate would get nearly everything, by fractions of a millisecond, and
	// a fault of the others would go unnoticed until they are needed. An idle one is clearly cheaper than one that
	// is asked something, whose cost is twice as high.
	clearlyCheaper = 1.5
	// baseCost keeps in flight a factor where the RTT is near zero, and makes differences count for little that are
	// below the least hedge delay, which no client feels: an upstream that had one slow answer would get no others.
	baseCost = 10 * time.Millisecond
)

// observe takes the round trip of a good answer: up half-way at once, because the in-flight factor already reacts to an
// upstream that hangs and one slow name must not make it an outcast; down with time, at the pace of rttMemory.
func (u *upstream) observe(rtt, now time.Duration) {
	rtt = max(rtt, 0)
	switch {
	case u.srttAt == never:
		u.srtt = rtt
	case rtt > u.srtt:
		u.srtt += (rtt - u.srtt) / 2
	default:
		dt := now - u.srttAt
		w := float64(dt+5*time.Millisecond) / float64(dt+5*time.Millisecond+rttMemory)
		u.srtt -= time.Duration(w * float64(u.srtt-rtt))
	}
	u.srttAt = now
}

// cost orders upstreams: expected time to an answer, times how many wait for one. An upstream that has said nothing since
// a query left takes at least as long as that: one that has just died is left alone before any verdict.
func (u *upstream) cost(now time.Duration) float64 {
	u.window.roll(now)
	c := float64(baseCost + u.srtt)
	if u.unheard > 0 {
		c = max(c, float64(now-u.firstUnheard))
	}
	if u.window.lost > 0 {
		c += float64(lossCost) * float64(u.window.lost) / float64(u.window.outcomes+lossPrior)
	}
	return c * float64(u.inflight+1)
}

// pickFirst returns the upstream a query starts with, nil if none is in service. Upstreams that never replied are used
// only while none has; then second is to be asked at the same time.
func (p *Pool) pickFirst(now time.Duration) (first, second *upstream) {
	list := p.ready
	if len(list) == 0 {
		list = p.cold
	}
	switch n := len(list); {
	case n == 0:
		return nil, nil
	case n == 1:
		return list[0], nil
	case p.cfg.Policy == Sequential:
		first, second = list[0], list[1]
	case p.cfg.Policy == RoundRobin:
		p.turn++
		i := int(p.turn % uint32(n))
		first, second = list[i], list[(i+1)%n]
	default:
		r := p.cfg.Rand()
		i := int(r & 0xffffffff * uint64(n) >> 32)
		j := int(r >> 32 * uint64(n-1) >> 32)
		if j >= i {
			j++
		}
		first, second = list[i], list[j]
		if second.cost(now)*clearlyCheaper < first.cost(now) {
			first, second = second, first
		}
	}
	if len(p.ready) > 0 {
		second = nil
	}
	return first, second
}

// pickNext returns the upstream for a further attempt of q: the best that q has not asked yet; failing that, one that
// has never replied; failing that, one that q is still waiting for (again is true: another socket may do better).
func (p *Pool) pickNext(q *Query, now time.Duration) (u *upstream, again bool) {
	if u = p.best(p.ready, q, now); u != nil {
		return u, false
	}
	if u = p.best(p.cold, q, now); u != nil {
		return u, false
	}
	for i := range q.n { // the one that was asked first has had the most time
		a := &q.attempts[i]
		if u = p.get(a.up); u != nil && u.up && (a.state == live || a.state == replaced) && !q.failed(a.up) {
			return u, true
		}
	}
	return nil, false
}

// best returns the first or the cheapest of list, by policy, that q has not asked.
func (p *Pool) best(list []*upstream, q *Query, now time.Duration) *upstream {
	var found *upstream
	least := 0.0
	offset := 0
	if p.cfg.Policy == RoundRobin {
		offset = int(p.turn)
	}
	for i := range list {
		u := list[(i+offset)%len(list)]
		if q.asked(u.ref) {
			continue
		}
		if p.cfg.Policy != Random {
			return u
		}
		if c := u.cost(now); found == nil || c < least {
			found, least = u, c
		}
	}
	return found
}
