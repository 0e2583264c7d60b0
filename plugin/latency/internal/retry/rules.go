package retry

// The rules, in the words of measured.md section 3.2. X and Y are the twins, A
// and AAAA in any order; the gap is the time since X's last query.
//
//	R1   X comes again with its ID, 300 ms or more after the last time.
//	     Before X was answered, or just after           slow_upstream
//	     Y wasn't seen, and comes now                   lost_request
//	     Y was first seen after the last X              lost_request
//	     Y wasn't answered in time either               slow_upstream
//	     Y was answered                                 lost_reply
//	     Y wasn't seen and doesn't come                 unknown
//	     From the same port (glibc, musl, c-ares 1.18), or in a later round:
//	     certain; unless Y comes with a new ID, then both are a new lookup.
//	     From a new port (c-ares 1.34, glibc with single-request) or one with
//	     other lookups on it, and only after a gap that is some client's: certain
//	     if both twins come again with their IDs; else high if X wasn't answered,
//	     or the gap is one of whole seconds and Y comes for the first time right
//	     after X's answer; else low, for an ID alone comes again by chance once
//	     in 65536 lookups.
//	R2   Y comes for the first time, 300 ms or more after X's answer, from the
//	     same port: lost_request. High if the gap is one of musl's, the IDs are
//	     as near to each other as musl makes them, and nothing else came from
//	     the port. Else low (c-ares 1.18 with its random IDs) if the gap is some
//	     client's; a forwarder that keeps its socket does the same without any
//	     loss. X that comes again after it (glibc) makes it R1: certain.
//	R2b  The same from another port, the gap being some client's: lost_request,
//	     low (c-ares 1.34; Go). measured.md calls it medium, which the metric
//	     doesn't have.
//	R3   X comes with a new ID from a new port, the gap being one of whole
//	     seconds (Go): slow_upstream if X wasn't answered, lost_reply if it and Y
//	     were and Y doesn't come too. Low.
//
// No event: X again within 300 ms (the client didn't like the answer and asks
// once more); a new ID of a kind that was answered, without a twin (a poller);
// more than 5 rounds (a poller with one port and one ID). Types other than A and
// AAAA have no twin: R1 only.
//
// Not to be seen from a server: both requests lost, or that of a lookup of one
// type; single-request-reopen, where glibc gives up on a lost AAAA; clients over
// TCP; clients that come again after 12 s or later.
//
// A name that one address looks up several times a second is followed by port:
// R1 and R2 from the same port work, the rest doesn't. Its ports are soon used
// again, so then R1 needs a gap that is some client's, and of musl's only the
// default is high.

const (
	// minGap, in ms: no client's timer is shorter (musl with timeout:1 has
	// 500 ms), and no answer takes longer to make a client ask again at once.
	minGap = 300

	// maxRounds is more than clients do by default: glibc 2 attempts (each may
	// take 2 rounds), Go 2, musl 2, c-ares 4.
	maxRounds = 5

	// A timer is seen up to 10 ms early (the first packet was delayed more) and
	// 100 ms late (70 ms were measured under load).
	early, late = 10, 100

	// lateAnswer, in ms, is how long before a retry an answer was too late to
	// stop it: the way to the client, and the client's own slowness. At most a
	// quarter of the gap.
	lateAnswer = 300
)

// nearSecond reports whether the gap, in ms, is a timer of whole seconds: glibc
// and Go with timeout:1 to 5, of which 5 is the default; c-ares up to 1.18 with
// 5 and 10.
func nearSecond(gap uint32) bool {
	s := (gap + early) / 1000
	return (gap+early)%1000 <= early+late && (s >= 1 && s <= 5 || s == 10)
}

// nearMusl reports whether the gap is a timer of musl: timeout divided by
// attempts, by default 5 s / 2.
func nearMusl(gap uint32) bool {
	h := (gap + early) / 500
	return (gap+early)%500 <= early+late && h >= 1 && h <= 5
}

// nearCares reports whether the gap is a timer of c-ares 1.34, which waits for 2
// to 3 s at random.
func nearCares(gap uint32) bool { return gap >= 2000-early && gap <= 3000+late }

// near reports whether the gap is any client's timer.
func near(gap uint32) bool { return nearSecond(gap) || nearMusl(gap) || nearCares(gap) }

// adjacent reports whether the IDs are those of twins made by musl, which takes
// them from the nanoseconds of the clock, A before AAAA: about 200 apart, and 256
// more where their first bytes would be the same (since 1.2.4).
func adjacent(a, aaaa uint16) bool {
	d := aaaa - a
	return d >= 1 && d < 640
}

// take offers a query for its name to the lookup. It reports whether it is one
// of the lookup's own, and returns a verdict if that is clear.
func (l *lookup) take(q *query) (Verdict, bool) {
	k := q.kind
	if !l.has(k, own) {
		return l.firstSight(q)
	}
	if l.half[k].id == q.id {
		return l.repeat(q)
	}
	if l.held != 0 && l.n[k] < l.n[1-k] {
		// The other half looked like a retry, but both are asked for anew.
		l.cancel()
	}
	return Verdict{}, false
}

// repeat is R1.
func (l *lookup) repeat(q *query) (Verdict, bool) {
	x, y := q.kind, 1-q.kind
	gap := since(q.at, l.half[x].last)
	if gap < minGap {
		l.again(q)
		return Verdict{}, true
	}
	if gap >= memory {
		return Verdict{}, false
	}
	strong := l.is(sure) || q.port == l.port && !q.shared && (!q.hot || near(gap))
	waits := l.waits(x, q.at, gap)
	if !strong && !near(gap) {
		return Verdict{}, false // by chance
	}

	v := Verdict{Unknown, Certain}
	missed := l.has(y, own) && since(l.half[y].first, l.half[x].last) >= minGap &&
		int32(l.half[y].first-l.half[x].last) > 0
	switch {
	case waits:
		v.Cause = SlowUpstream
	case missed:
		v.Cause = LostRequest
	case l.has(y, own) && l.waits(y, q.at, gap):
		v.Cause = SlowUpstream
	case l.has(y, own):
		v.Cause = LostReply
	}
	if !strong {
		v.Confidence = Low
		if waits {
			v.Confidence = High
		}
	}

	before := l.round()
	l.n[x] = min(l.n[x]+1, maxRounds+1)
	l.again(q)
	if l.n[x] <= before {
		return l.confirm(strong), true
	}

	earlier := l.release() // of an earlier round, when nothing came in between
	l.state &^= done
	if strong {
		l.state |= sure
	}
	if l.n[x] > maxRounds {
		return earlier, true
	}
	clear := !q.address || strong && (v.Cause == SlowUpstream || v.Cause == LostRequest)
	if clear && earlier == (Verdict{}) {
		return v, true
	}
	// Held back: what the twin does now tells more.
	l.hold(v)
	if !l.has(y, own) && v.Cause == Unknown {
		l.state |= twinless
		if nearSecond(gap) && (q.port == l.port || !l.shared(q)) {
			l.state |= likely
		}
	}
	return earlier, true
}

// waits reports whether the client had no reason to be content with half k when
// it asked again after the gap: no answer, or one just now.
func (l *lookup) waits(k uint8, at, gap uint32) bool {
	if l.has(k, open) {
		return true
	}
	return l.has(k, replied) && since(at, l.half[k].answered) < min(lateAnswer, gap/4)
}

// shared reports whether the query's port or the lookup's is shared, or may be.
func (l *lookup) shared(q *query) bool {
	return q.shared || q.table.isShared(q, l.port)
}

// confirm is for the second half that comes again in a round. Either the verdict
// was returned for the first one, or it was held back for this.
func (l *lookup) confirm(strong bool) Verdict {
	v := l.release()
	if v == (Verdict{}) {
		return v
	}
	if v.Cause != LostRequest || strong {
		// Two IDs, or one and the port.
		v.Confidence = Certain
		l.state |= sure
	} else {
		v.Confidence = High
	}
	return v
}

// firstSight is for a query of the kind that the lookup lacks. It completes R1,
// and is R2.
func (l *lookup) firstSight(q *query) (Verdict, bool) {
	x, y := 1-q.kind, q.kind
	samePort := q.port == l.port
	answered := since(q.at, l.half[x].answered)

	if l.is(twinless) && l.held != 0 && (l.has(x, open) || answered <= settle) {
		// X came again, and here is what it was for.
		v := Verdict{LostRequest, Low}
		if l.is(sure) {
			v.Confidence = Certain
		} else if l.is(likely) && !l.has(x, open) && answered <= late {
			v.Confidence = High
		}
		l.release()
		l.join(q)
		l.n[y] = l.round()
		return v, true
	}
	if l.has(y, loose) && l.held != 0 && l.verdict().Cause != SlowUpstream {
		// X looked like a retry of its own (see follow), but Y comes too.
		l.cancel()
	}
	if !samePort {
		return Verdict{}, false
	}
	gap := since(q.at, l.half[x].last)
	if !l.answeredFor(x) || answered < minGap || gap < minGap {
		l.join(q) // the twin, as it should be
		return Verdict{}, true
	}
	if l.held != 0 {
		return Verdict{}, false
	}

	l.join(q)
	musl := !q.shared && nearMusl(gap) && adjacent(l.half[0].id, l.half[1].id) &&
		(!q.hot || gap >= 2500-early) // of a name that is asked for often, only the default timer
	if !musl && !near(gap) {
		return Verdict{}, true // R1 if X comes too
	}
	l.n[y] = l.round() + 1
	l.state &^= done
	if musl {
		return Verdict{LostRequest, High}, true
	}
	l.hold(Verdict{LostRequest, Low})
	return Verdict{}, true
}

// follow tells a new lookup what came before it from another port: a twin, or a
// lookup that it tries again. It is R2b and R3.
func (l *lookup) follow(old *lookup, q *query) {
	if !q.address || old.port == q.port {
		return
	}
	x, y := q.kind, 1-q.kind
	v := Verdict{Confidence: Low}
	var first uint32
	switch {
	case old.has(y, own) && since(q.at, old.half[y].last) < minGap:
		// Twins from two ports, as Go sends them. If they are tried again, that
		// is one event, which the first one is held for.
		l.link(y, old)
		return
	case !old.sees(x):
		if !near(since(q.at, old.half[y].last)) || !old.answeredFor(y) || since(q.at, old.half[y].answered) < minGap {
			return
		}
		v.Cause, first = LostRequest, old.half[y].first
	case !nearSecond(since(q.at, old.half[x].last)):
		return
	case old.waits(x, q.at, since(q.at, old.half[x].last)):
		v.Cause, first = SlowUpstream, old.half[x].first
	case old.sees(y):
		v.Cause, first = LostReply, old.half[x].first
	default:
		return
	}
	l.hold(v)
	l.n[x] = 1
	l.half[x].first = first
	if old.sees(y) {
		l.link(y, old)
	}
}
