package pool

import "time"

// ProbeTimeout is how long the caller listens for the reply to a probe. The pool passes its verdicts earlier; a late
// reply is still a sign of life.
const ProbeTimeout = 2 * time.Second

const (
	// Start probes find a dead entry before a client does: startProbes of them, startGap apart, each unanswered for
	// startLimit, are done before a second has passed. startSlow is the pace after that.
	startProbes = 3
	startGap    = 200 * time.Millisecond
	startLimit  = 500 * time.Millisecond
	startSlow   = time.Second

	// Confirming probes follow a loss when no good answer came since, or come just before it. Where traffic is low they find out in a second
	// what client queries would take a minute to show, and where it is high they are never needed. confirmFast of
	// them come confirmGap apart, then the gap doubles up to confirmMax; confirmRest after one that was answered well.
	// Without a loss, the first comes when clients have waited for confirmAfter and what is usual.
	confirmAfter = 150 * time.Millisecond
	confirmGap   = 100 * time.Millisecond
	confirmFast  = 3
	confirmMax   = 5 * time.Second
	confirmRest  = time.Second

	// A probe is missed when it is silent this long, plus what is usual at present: when all are slow nobody is
	// blamed. A proof has a longer limit, because one miss means to start over, which a
	// name that takes half a second must not cause.
	confirmLimit = Grace
	proveLimit   = 700 * time.Millisecond

	// An upstream in service without a good answer for refreshAfter is asked a replay, so that one that got slow and is
	// not used is noticed when it gets well, and a standby that died before it is needed. The cost is one probe for
	// refreshEvery client queries at most, or one in refreshMax if there are fewer.
	refreshAfter = 5 * time.Second
	refreshEvery = 50
	refreshMax   = 60 * time.Second

	// allOutGap is the pace of probes to each upstream when none is in service.
	allOutGap = 200 * time.Millisecond
	// coldShare: then, every so manieth probe is the cold one, lest all replays be of names that are dead by now.
	coldShare = 5

	// proveOpen bounds unanswered replays of a proof; the first one is waited for alone.
	proveOpen = 8

	// probeRing is how many probes of one upstream are remembered; at the paces above fewer are open at a time.
	probeRing = 16
	// retryProbe is when a probe that could not be made is ordered again.
	retryProbe = 500 * time.Millisecond
)

// purpose of a probe.
type purpose uint8

const (
	startProbe purpose = iota
	confirmProbe
	refreshProbe
	silenceProbe
	proveProbe
	allOutProbe
)

type probe struct {
	id      uint32
	open    bool // no verdict yet
	purpose purpose
	sent    time.Duration
	limit   time.Duration
	outrun  time.Duration // when another upstream, asked later, was seen to have answered; 0: not yet
}

// compared reports whether a miss is a loss by comparison.
func (b *probe) compared() bool { return b.purpose == confirmProbe || b.purpose == refreshProbe }

// Probe is an order to ask an upstream something on nobody's behalf.
type Probe struct {
	Upstream Ref
	ID       uint32 // for ProbeResult
	// Replay asks for a recent real question that another upstream, or this one, answered well (RFC 1035 question
	// only, rotating over several names). If there is none the configured cold probe is sent. Without Replay it is
	// the cold probe. If neither can be sent the caller reports Cancelled.
	Replay bool
}

// drop forgets open probes for a purpose.
func (u *upstream) drop(what purpose) {
	for i := range u.probes {
		if u.probes[i].purpose == what {
			u.probes[i].open = false
		}
	}
}

// waiting counts open probes for a purpose.
func (u *upstream) waiting(what purpose) int {
	n := 0
	for i := range u.probes {
		if u.probes[i].open && u.probes[i].purpose == what {
			n++
		}
	}
	return n
}

func (u *upstream) order(what purpose, replay bool, limit, now time.Duration, dst []Probe) []Probe {
	u.probeSeq++
	u.probes[u.probeSeq%probeRing] = probe{id: u.probeSeq, open: true, purpose: what, sent: now, limit: limit}
	return append(dst, Probe{Upstream: u.ref, ID: u.probeSeq, Replay: replay})
}

// Tick appends the probes to send now to dst, and passes verdicts that are due. The owner calls it when NextTick says
// so, and after New, Set and Inherit at once. The pool is cheap to tick: some hundred nanoseconds.
func (p *Pool) Tick(now time.Duration, dst []Probe) []Probe {
	now = p.advance(now)
	p.budget.roll(now)
	for _, u := range p.order {
		p.expire(u, now)
		if !u.known {
			p.absent(u, now)
		}
		if u.up {
			p.weigh(u, now)
		}
	}
	busy := p.budget.sum > 0 || p.open.n > 0
	for _, u := range p.order {
		switch {
		case p.out:
			if now >= u.nextProbe {
				dst = u.order(allOutProbe, (u.probeSeq+1)%coldShare != 0, ProbeTimeout, now, dst)
				u.nextProbe = now + allOutGap
			}
		case !u.up:
			dst = p.prove(u, now, dst)
		default:
			dst = p.check(u, now, dst)
		}
		busy = busy || !u.up || !u.known
	}
	p.tickAt = now + tickIdle
	if busy {
		p.tickAt = now + tickEvery
	}
	return dst
}

// NextTick is when Tick wants to be called: 50 ms after the last one, 1 s if nothing goes on. It changes only in Tick,
// New, Set and Inherit. An owner that calls Tick later than this is taken for a stalled process.
func (p *Pool) NextTick() time.Duration { return p.tickAt }

// check orders probes for an upstream in service.
func (p *Pool) check(u *upstream, now time.Duration, dst []Probe) []Probe {
	if p.silence(u, now) {
		u.silentSent++
		u.nextSilent = now + silenceGap
		if u.unheard < silenceRun {
			u.nextSilent = now + singleGap
		}
		dst = u.order(silenceProbe, true, silenceLimit, now, dst)
	}
	if !u.up {
		return dst
	}
	if !u.known {
		if now >= u.nextProbe {
			// The first asks what every resolver knows. By the time of the others clients may have asked something
			// better: there are upstreams that drop the cold probe and answer real questions.
			dst = u.order(startProbe, u.startSent > 0, startLimit, now, dst)
			u.startSent++
			u.nextProbe = now + startGap
			if u.startSent >= startProbes {
				u.nextProbe = now + startSlow
			}
		}
		return dst
	}
	if len(p.order) < 2 {
		return dst // nothing to compare with and nothing to choose
	}
	if now >= u.nextConfirm && p.doubtful(u, now) && u.waiting(confirmProbe) < 2 {
		if u.run == 0 {
			p.budget.spend()
		}
		gap := confirmGap
		if u.doubts >= confirmFast {
			gap = min(confirmGap<<min(u.doubts-confirmFast+1, 16), confirmMax)
		}
		u.doubts++
		u.nextConfirm = now + gap
		dst = u.order(confirmProbe, true, min(confirmLimit+p.usual(u), ProbeTimeout), now, dst)
	}
	asked := p.budget.total - u.asked
	if asked > 0 && u.quiet(u.goodAt, now) >= refreshAfter && now-u.refreshed >= refreshAfter &&
		(asked >= refreshEvery || now-u.refreshed >= refreshMax) {
		u.refreshed, u.asked = now, p.budget.total
		dst = u.order(refreshProbe, true, min(confirmLimit+p.usual(u), ProbeTimeout), now, dst)
	}
	if u.level > 0 && now-u.since >= cleanMinute {
		u.level--
		u.since += cleanMinute
	}
	return dst
}

// doubtful reports whether a probe would help to judge u: it has lost, or clients wait for it and others answered them.
func (p *Pool) doubtful(u *upstream, now time.Duration) bool {
	if p.cfg.NeverEject || !p.anotherReady(u) {
		return false
	}
	if u.run > 0 {
		return true
	}
	// Without a loss it is a guess, and is paid for.
	return u.unheard > 0 && now-u.firstUnheard >= confirmAfter+p.usual(u) && p.budget.may(true, now) &&
		p.othersGood(u, u.firstUnheard)
}

// prove orders the next replay for an upstream that is out.
func (p *Pool) prove(u *upstream, now time.Duration, dst []Probe) []Probe {
	waiting := u.waiting(proveProbe)
	if now < u.nextProbe || u.sent >= u.need || waiting >= proveOpen || (waiting > 0 && u.proved == 0) {
		return dst
	}
	u.sent++
	if u.nextProbe += u.pace; u.nextProbe <= now {
		u.nextProbe = now + u.pace
	}
	return u.order(proveProbe, true, min(max(proveLimit, Grace+2*p.usual(u)), ProbeTimeout), now, dst)
}

// usual is how long an answer takes that is not slow for u alone: the smoothed RTT of the best other upstream in service,
// or the smoothed time of client queries if that is more. Replays are in many a cache, so RTT alone is too short a
// measure where names are slow.
func (p *Pool) usual(u *upstream) time.Duration {
	best := maxNow
	for _, o := range p.ready {
		if o != u && o.srttAt != never {
			best = min(best, o.srtt)
		}
	}
	if best == maxNow {
		best = 0
	}
	return max(best, p.took)
}

// othersGood reports whether an upstream other than u has answered well what it was asked at or after t.
func (p *Pool) othersGood(u *upstream, t time.Duration) bool {
	for _, o := range p.ready {
		if o != u && o.goodSent >= t {
			return true
		}
	}
	return false
}

// expire passes verdicts on probes that are silent past their limit.
func (p *Pool) expire(u *upstream, now time.Duration) {
	if now < p.frozen {
		return
	}
	for i := range u.probes {
		b := &u.probes[i]
		if !b.open {
			continue
		}
		if b.outrun == 0 && b.compared() && p.othersGood(u, b.sent) {
			b.outrun = now
		}
		if now-b.sent >= b.limit {
			p.miss(u, b, now)
		}
	}
}

// miss is the verdict on a probe without an answer.
func (p *Pool) miss(u *upstream, b *probe, now time.Duration) {
	switch b.purpose {
	case confirmProbe, refreshProbe:
		// A loss by the same rule as for a query: somebody asked later has answered, Grace ago. Otherwise wait for that.
		if b.outrun > 0 && now-b.outrun >= Grace {
			b.open = false
			p.lose(u, lossSilent, 0, b.sent, now)
		} else if now-b.sent >= ProbeTimeout {
			b.open = false
		}
		return
	case startProbe:
		u.startMissed++
	case silenceProbe:
		u.silentMissed++
	case proveProbe:
		b.open = false
		p.hold(u, now)
	}
	b.open = false
}

// ProbeResult reports how probe id of an upstream ended. Each probe is reported once, or never.
func (p *Pool) ProbeResult(r Ref, id uint32, o Outcome, now time.Duration) {
	now = p.advance(now)
	u := p.get(r)
	if u == nil {
		return
	}
	b := &u.probes[id%probeRing]
	if b.id != id || id == 0 {
		return
	}
	open, sent := b.open, b.sent
	if o.heard() {
		p.heard(u, now)
	}
	if !open {
		return
	}
	switch o {
	case Good:
		b.open = false
		p.answered(u, b.purpose, now-sent, now)
	case Bad, Malformed:
		switch b.purpose {
		case proveProbe:
			p.miss(u, b, now)
		case confirmProbe, refreshProbe:
			b.open = false
			p.lose(u, lossRcode, 0, b.sent, now)
		default: // it is there, which was the question
			b.open = false
		}
	case Replaced, Cancelled:
		b.open = false
		p.unsent(u, b.purpose, now)
	default:
		// An error may be ours. Where others are the measure, the verdict waits for the limit and for them.
		if !b.compared() {
			p.miss(u, b, now)
		}
	}
}

// answered takes a good reply to a probe.
func (p *Pool) answered(u *upstream, what purpose, rtt, now time.Duration) {
	switch what {
	case startProbe:
		if u.srttAt == never {
			u.observe(rtt, now)
		}
		u.goodAt = now
	case confirmProbe:
		u.nextConfirm = now + confirmRest
		u.observe(rtt, now)
		p.good(u, now-rtt, now)
	case refreshProbe:
		u.observe(rtt, now)
		p.good(u, now-rtt, now)
	case allOutProbe:
		if u.need == 1 && !u.up { // another one was first
			u.proved, u.goodAt = 1, now
			p.restore(u, ReasonProved, now)
		}
	case proveProbe:
		u.observe(rtt, now)
		if u.proved++; u.proved >= u.need && !u.up {
			u.goodAt = now
			p.restore(u, ReasonProved, now)
		}
	}
}

// unsent takes back a probe that was not made.
func (p *Pool) unsent(u *upstream, what purpose, now time.Duration) {
	switch what {
	case startProbe:
		u.startSent--
		u.nextProbe = now + retryProbe
	case silenceProbe:
		u.silentSent--
		u.nextSilent = now + retryProbe
	case proveProbe:
		u.sent--
		u.nextProbe = max(u.nextProbe, now+u.pace)
		if u.proved == 0 {
			u.nextProbe = now + retryProbe
		}
	}
}
