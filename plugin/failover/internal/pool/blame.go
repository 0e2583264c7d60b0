package pool

import "time"

// Grace is how long a silent loser of a race is watched after the winner has answered. An answer within it is only slow
// and not lost: without it an upstream that is 150 ms slower than the others would be ejected again and again.
const Grace = 300 * time.Millisecond

// lossKind is how an attempt was lost.
type lossKind uint8

const (
	lossSilent lossKind = iota
	lossRcode
	lossError
	lossKinds
)

// windowSpan is over how many seconds outcomes are counted.
const windowSpan = 10

// window counts outcomes of the last windowSpan seconds in buckets of one. Counts in buckets, and not a decaying
// average, because a burst of losses must weigh the same whatever came before it.
type window struct {
	sec      int64
	total    [windowSpan]uint32
	losses   [windowSpan][lossKinds]uint32
	outcomes int
	lost     int
}

func (w *window) roll(now time.Duration) {
	sec := int64(now / time.Second)
	if sec <= w.sec {
		return
	}
	if w.outcomes == 0 || sec-w.sec >= windowSpan {
		*w = window{sec: sec}
		return
	}
	for w.sec < sec {
		w.sec++
		i := w.sec % windowSpan
		w.outcomes -= int(w.total[i])
		w.total[i] = 0
		for k := range w.losses[i] {
			w.lost -= int(w.losses[i][k])
			w.losses[i][k] = 0
		}
	}
}

func (w *window) addGood(now time.Duration) {
	w.roll(now)
	w.total[w.sec%windowSpan]++
	w.outcomes++
}

func (w *window) addLoss(k lossKind, now time.Duration) {
	w.addGood(now)
	w.losses[w.sec%windowSpan][k]++
	w.lost++
}

func (w *window) byKind() LossCounts {
	var n [lossKinds]int
	for i := range w.losses {
		for k, c := range w.losses[i] {
			n[k] += int(c)
		}
	}
	return LossCounts{Silent: n[lossSilent], Rcode: n[lossRcode], Error: n[lossError]}
}

// lostKey remembers a question that was lost.
type lostKey struct {
	key uint64
	at  time.Duration
}

// lostBefore reports whether the question was lost by u within the window already, and remembers it. One name that an
// upstream refuses or drops, asked again and again, is a bad name and not a bad upstream.
func (u *upstream) lostBefore(key uint64, now time.Duration) bool {
	if key == 0 {
		return false
	}
	oldest := 0
	for i := range u.lostKeys {
		k := &u.lostKeys[i]
		if k.key == key && now-k.at < windowSpan*time.Second {
			return true
		}
		if k.key == 0 || k.at < u.lostKeys[oldest].at {
			oldest = i
		}
	}
	u.lostKeys[oldest] = lostKey{key, now}
	return false
}

// lose counts a loss of u: another upstream has answered well what u was asked at sent. It is one of a run only if u has
// answered nothing well since: verdicts come late, and packets lost among many that were answered are not a dead upstream.
func (p *Pool) lose(u *upstream, k lossKind, key uint64, sent, now time.Duration) {
	if u.lostBefore(key, now) {
		return
	}
	u.window.addLoss(k, now)
	if sent >= u.goodAt {
		u.run++
	}
	if u.up {
		p.weigh(u, now)
	}
}

// heard notes a reply of any kind, and that the upstream is there.
func (p *Pool) heard(u *upstream, now time.Duration) {
	u.heardAt, u.unheard, u.silentSent, u.silentMissed = now, 0, 0, 0
	if !u.known {
		u.known = true
		p.relist()
	}
	if p.out {
		p.restore(u, ReasonFirst, now)
	}
}

// good notes a good answer to a client's question or a replay that was asked at sent.
func (p *Pool) good(u *upstream, sent, now time.Duration) {
	u.goodAt, u.goodSent = now, max(u.goodSent, sent)
	u.run, u.doubts = 0, 0
	u.window.addGood(now)
}

// forget takes back that an attempt is unanswered, because nobody listens any more.
func (u *upstream) forget(sent time.Duration) {
	if u.unheard > 0 && sent >= u.firstUnheard {
		u.unheard--
	}
}

// judgement is a silent loser whose Grace is running.
type judgement struct {
	id   uint64
	key  uint64
	up   Ref
	open bool
	sent time.Duration
	due  time.Duration
}

// openJudgements bounds how many losers are watched at a time: enough for 10 % of 30 000 qps. More than that are let
// go without a verdict, which loses evidence where there is plenty.
const openJudgements = 1024

// judgements is a queue; Grace is constant, so the order of arrival is the order of verdicts.
type judgements struct {
	ring    []judgement
	head, n int
}

func (j *judgements) at(i int) *judgement { return &j.ring[(j.head+i)%openJudgements] }

// watch opens a judgement about attempt i of q; false if there is no room.
func (p *Pool) watch(q *Query, i int, now time.Duration) bool {
	j := &p.open
	if j.n == openJudgements {
		return false
	}
	if j.ring == nil {
		j.ring = make([]judgement, openJudgements)
	}
	a := &q.attempts[i]
	*j.at(j.n) = judgement{id: q.seq<<3 | uint64(i), key: q.key, up: a.up, open: true, sent: a.sent, due: now + Grace}
	j.n++
	if j.n == 1 {
		p.heldUntil = now + Grace
	}
	return true
}

// judge passes the verdicts that are due.
func (p *Pool) judge(now time.Duration) {
	if now < p.frozen {
		p.heldUntil = p.frozen
		return
	}
	j := &p.open
	for j.n > 0 {
		g := j.at(0)
		if g.open && now < g.due {
			p.heldUntil = g.due
			return
		}
		open, u := g.open, p.get(g.up)
		key, sent := g.key, g.sent
		j.head = (j.head + 1) % openJudgements
		j.n--
		if open && u != nil {
			u.inflight--
			p.lose(u, lossSilent, key, sent, now)
		}
	}
}

// late takes a report about an attempt whose query has ended.
func (p *Pool) late(a Attempt, o Outcome, now time.Duration) {
	u := p.get(a.Upstream)
	if u == nil {
		return
	}
	var g *judgement
	for i := range p.open.n {
		if e := p.open.at(i); e.id == a.ID {
			g = e
			break
		}
	}
	if g == nil || !g.open { // after the verdict, or never judged: a sign of life and a round trip, no more
		if o.heard() {
			p.heard(u, now)
		}
		if o == Good {
			u.observe(now-a.sent, now)
		}
		return
	}
	switch o {
	case Good:
		p.heard(u, now)
		u.observe(now-g.sent, now)
		p.good(u, g.sent, now)
	case Bad:
		p.heard(u, now)
		p.lose(u, lossRcode, g.key, g.sent, now)
	case Malformed:
		p.heard(u, now)
		p.lose(u, lossError, g.key, g.sent, now)
	case Replaced, Cancelled:
		u.forget(g.sent)
	default:
		p.lose(u, lossError, g.key, g.sent, now)
	}
	g.open = false
	u.inflight--
}
