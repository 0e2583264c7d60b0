package pool

import "time"

const (
	// ejectRun losses in a row, with no good answer for ejectQuiet, eject. Three, because two are chance at 10 % loss;
	// the quiet time, because at 1000 qps three queries in a row are one burst of a millisecond.
	ejectRun   = 3
	ejectQuiet = Grace

	// An upstream that answers some queries is ejected when it lost ejectLost of at least ejectOutcomes, and at least
	// one in ejectShare, in the window. Below one in five, cost and hedging hide it better than an ejection, which
	// leaves fewer upstreams to choose from.
	ejectLost     = 5
	ejectOutcomes = 20
	ejectShare    = 5

	// Absolute silence needs no comparison, so its limits are long: an upstream that takes less than two seconds for
	// everything, as all do in an overload, is never taken for dead. silenceRun attempts without a reply, the first
	// one silenceFor ago, and silenceProbes probes, silenceGap apart, each unanswered for silenceLimit.
	//
	// Where clients ask one thing at a time, more probes take the place of all attempts but one, so that it is known
	// before the first client's deadline and not after three. They come later, because a single query is slow more
	// often than not, and closer together to make up for it.
	silenceRun    = 3
	silenceFor    = time.Second
	silenceAfter  = 500 * time.Millisecond
	silenceProbes = 2
	silenceGap    = 500 * time.Millisecond
	silenceLimit  = time.Second
	singleAfter   = 1500 * time.Millisecond
	singleGap     = 250 * time.Millisecond

	// neverAnsweredAfter leaves half a second of the two in which an operator is told about a dead entry.
	neverAnsweredAfter = 1500 * time.Millisecond

	// An upstream that was ejected is left alone for holdBase, doubled with each level, at most holdMax, less up to a
	// quarter at random so that instances do not come back together.
	//
	// holdMax is small because an upstream must be back within ten seconds of healing: it may heal just after a replay
	// was lost, so the time is the limit of that replay (0.7 s), the hold (4 s) and the proof (4 s). What keeps a
	// flapping upstream out is not the hold but the proof: from level provedSlow on the replays are paceSlow apart, so
	// that it has to be well for four seconds in a row. What keeps the load low is that nothing follows the first
	// replay until it is answered: a dead upstream gets one query in some four seconds.
	holdBase = time.Second
	holdMax  = 4 * time.Second

	proofReplays = 20
	paceFast     = 100 * time.Millisecond
	paceSlow     = 200 * time.Millisecond
	paceSlowFrom = 2 // level

	// maxLevel bounds how many clean minutes it takes to forget. Hold and pace do not change above level 2.
	maxLevel    = 4
	cleanMinute = time.Minute
)

// weigh ejects u if the comparisons are against it.
func (p *Pool) weigh(u *upstream, now time.Duration) {
	if u.run == 0 || p.cfg.NeverEject || !u.up || now < p.frozen || !p.anotherReady(u) {
		return
	}
	u.window.roll(now)
	w := &u.window
	switch {
	case u.run >= ejectRun && u.quiet(u.goodAt, now) >= ejectQuiet:
		p.eject(u, ReasonRun, now)
	case w.lost >= ejectLost && w.outcomes >= ejectOutcomes && w.lost*ejectShare >= w.outcomes:
		p.eject(u, ReasonShare, now)
	}
}

// quiet is the time since at, or since u was added if there was none.
func (u *upstream) quiet(at, now time.Duration) time.Duration { return now - max(at, u.added) }

// anotherReady reports whether an upstream other than u is in service and has replied: the last one stays.
func (p *Pool) anotherReady(u *upstream) bool {
	for _, o := range p.ready {
		if o != u {
			return true
		}
	}
	return false
}

// silence ejects u if it does not reply to anything. It may be the last one. It returns true when a probe is due that
// would tell.
func (p *Pool) silence(u *upstream, now time.Duration) bool {
	after := silenceAfter
	if u.unheard < silenceRun {
		after = singleAfter
	}
	if p.cfg.NeverEject || u.unheard == 0 || now-u.firstUnheard < after || now < p.frozen {
		return false
	}
	needed := silenceProbes + max(silenceRun-u.unheard, 0)
	if u.silentMissed >= needed && now-u.firstUnheard >= silenceFor {
		p.eject(u, ReasonSilence, now)
		return false
	}
	return u.silentSent < needed && now >= u.nextSilent
}

// absent ejects u if it has not replied to the start probes, by comparison with those that have. Without one that has,
// the limit is as long as for silence.
func (p *Pool) absent(u *upstream, now time.Duration) {
	waited := now - u.added
	if !u.warned && waited >= neverAnsweredAfter && (u.startMissed > 0 || u.unheard > 0) {
		u.warned = true
		p.emit(Event{Kind: NeverAnswered, Upstream: u.ref, ID: u.id, At: now, Silent: waited, Unheard: u.unheard})
	}
	if !u.up || p.cfg.NeverEject || u.startMissed < startProbes || now < p.frozen {
		return
	}
	for _, o := range p.ready {
		if o.heardAt >= u.added {
			p.eject(u, ReasonAbsent, now)
			return
		}
	}
	if waited >= silenceFor+silenceGap {
		p.eject(u, ReasonSilence, now)
	}
}

// silenced reports whether u is out because it said nothing.
func (u *upstream) silenced() bool {
	return !u.up && (u.reason == ReasonSilence || u.reason == ReasonAbsent)
}

// eject takes u out of service.
func (p *Pool) eject(u *upstream, why Reason, now time.Duration) {
	u.window.roll(now)
	u.up, u.since, u.reason = false, now, why
	hold := p.hold(u, now)
	p.relist()
	p.emit(Event{
		Kind: Ejected, Upstream: u.ref, ID: u.id, Reason: why, At: now,
		Run: u.run, LossKinds: u.window.byKind(), Lost: u.window.lost, Outcomes: u.window.outcomes,
		Silent: u.quiet(u.lastSign(why), now), Unheard: u.unheard, Hold: hold,
	})
	p.noteAllOut(now)
}

// lastSign is when u last did what it is ejected for not doing.
func (u *upstream) lastSign(why Reason) time.Duration {
	if why == ReasonRun || why == ReasonShare {
		return u.goodAt
	}
	return u.heardAt
}

// hold leaves u alone until its next proof, and raises the level.
func (p *Pool) hold(u *upstream, now time.Duration) time.Duration {
	d := min(holdBase<<u.level, holdMax)
	d -= time.Duration(float64(d/4) * float64(p.cfg.Rand()>>11) / (1 << 53))
	u.pace = paceFast
	if u.level >= paceSlowFrom {
		u.pace = paceSlow
	}
	u.level = min(u.level+1, maxLevel)
	u.need, u.sent, u.proved = proofReplays, 0, 0
	u.nextProbe = now + d
	u.drop(proveProbe)
	return d
}

// restore puts u back into service, with an empty window: what it did before is paid for.
func (p *Pool) restore(u *upstream, why Reason, now time.Duration) {
	if u.up {
		return
	}
	out := now - u.since
	u.up, u.since = true, now
	u.run, u.doubts, u.unheard, u.silentSent, u.silentMissed = 0, 0, 0, 0, 0
	u.window = window{}
	clear(u.lostKeys[:])
	u.refreshed, u.asked = now, p.budget.total
	u.drop(proveProbe)
	p.relist()
	p.emit(Event{Kind: Restored, Upstream: u.ref, ID: u.id, Reason: why, At: now, Replays: u.proved, Out: out})
	p.noteAllOut(now)
}

// noteAllOut notices that the last upstream went or the first came back.
func (p *Pool) noteAllOut(now time.Duration) {
	out := len(p.ready)+len(p.cold) == 0
	if out == p.out {
		return
	}
	p.out = out
	if out {
		p.outSince = now
		for _, u := range p.order {
			u.nextProbe = now
		}
		p.emit(Event{Kind: AllOut, At: now})
		return
	}
	// Those that were only silent went with the network and come back with it: one good replay will do.
	for _, u := range p.order {
		if u.silenced() {
			u.need, u.sent, u.proved, u.nextProbe = 1, 0, 0, now
		}
	}
	p.emit(Event{Kind: BackIn, At: now, Out: now - p.outSince})
}
