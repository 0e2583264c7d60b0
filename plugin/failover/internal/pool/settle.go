package pool

import "time"

// fail ends q with SERVFAIL.
func (p *Pool) fail(q *Query, why Failure, s *Step) {
	q.running = false
	s.Done, s.Fail = true, why
}

// giveUp ends q with the best bad answer, or with SERVFAIL if there is none.
func (p *Pool) giveUp(q *Query, why Failure, s *Step) {
	for i := range q.n {
		if p.release(q, i) {
			s.Cancel |= 1 << i
		}
	}
	q.live = 0
	if q.soft >= 0 {
		q.running = false
		s.Done, s.Deliver, s.Soft = true, q.soft, true
		return
	}
	p.fail(q, why, s)
}

// release ends a live attempt that had all the time there is: unlike one that is cancelled, it stays unanswered.
func (p *Pool) release(q *Query, i int) bool {
	a := &q.attempts[i]
	if a.state != live {
		return false
	}
	a.state = over
	if u := p.get(a.up); u != nil {
		u.inflight--
	}
	return true
}

// smooth follows the time of client queries: in a few queries up, so that what slows all down is known before anyone is
// blamed for it, and slowly down.
func smooth(took, sample time.Duration) time.Duration {
	switch {
	case took == 0:
		return sample
	case sample > took:
		return took + (sample-took)/4
	}
	return took - (took-sample)/16
}

// deliver ends q with the good answer of attempt w and settles what the others did.
func (p *Pool) deliver(q *Query, w int, now time.Duration, s *Step) {
	win := &q.attempts[w]
	q.running, q.live = false, 0
	s.Done, s.Deliver = true, w
	p.hedge.add(now-q.start, now)
	p.took = smooth(p.took, now-q.start)
	if q.n > 1 {
		for i := range q.n {
			a := &q.attempts[i]
			if i == w {
				continue
			}
			switch u := p.get(a.up); {
			case a.state == live && a.up != win.up && a.sent <= win.sent && u != nil && p.watch(q, i, now):
				a.state = over
				s.Watch |= 1 << i
			case a.state == live:
				p.cancel(q, i)
				s.Cancel |= 1 << i
			case u == nil || a.up == win.up:
			case a.state == badRcode:
				p.lose(u, lossRcode, q.key, a.sent, now)
			case a.state == failedErr:
				p.lose(u, lossError, q.key, a.sent, now)
			}
		}
	}
}
