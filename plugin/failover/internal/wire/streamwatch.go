package wire

import "time"

// tick does what is due by now, and sets the timer for the next time.
func (c *streamConn) tick() {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if c.state == connDead || c.state == connDialing {
		return
	}
	now := time.Now()
	c.timerAt = now.Add(time.Hour) // it has just run out
	if d := c.due(now); c.state != connDead {
		c.wakeIn(max(d, time.Millisecond), now)
	}
}

// wakeIn sees to it that tick runs after d or earlier. The timer is not put off,
// or a steady flow of queries would put off everything that is due. m.mu is
// held.
func (c *streamConn) wakeIn(d time.Duration, now time.Time) {
	if at := now.Add(d); at.Before(c.timerAt) {
		c.timerAt = at
		c.timer.Reset(d)
	}
}

// due does what is due by now and returns the time until more will be. m.mu is
// held.
func (c *streamConn) due(now time.Time) time.Duration {
	o := &c.m.up.opts
	next := time.Hour
	if c.state == connDraining {
		if next = c.drainEnd.Sub(now); next <= 0 {
			c.end(ErrReplaced, now)
			return 0
		}
	} else if o.MaxAge > 0 {
		left := c.born.Add(o.MaxAge).Sub(now)
		if left <= 0 {
			c.drain(now)
			return drainTime
		}
		next = left
	}
	if since := c.silentSince(); !since.IsZero() {
		quiet := now.Sub(since)
		switch limit := c.m.silence(); {
		case !c.condemned.IsZero():
			left := c.condemned.Add(condemnGrace).Sub(now)
			if left <= 0 {
				c.m.alarms = 0
				c.end(ErrReplaced, now)
				return 0
			}
			return left
		case c.suspect:
			if quiet >= giveUpAfter {
				c.end(ErrReplaced, now)
				return 0
			}
			next = min(next, giveUpAfter-quiet)
		case quiet >= limit:
			c.m.suspicion(c, now)
			next = min(next, giveUpAfter-quiet)
		default:
			next = min(next, limit-quiet)
		}
	}
	if c.live == 0 && c.state == connOpen {
		left := c.lastSent.Add(o.Expire).Sub(now)
		if left <= 0 {
			c.polite = true
			c.end(ErrReplaced, now)
			return 0
		}
		next = min(next, left)
	} else {
		next = min(next, o.Expire)
	}
	return next
}

// silentSince returns since when the connection owes an answer: since the first
// query after its last byte, whether withdrawn or not, else since that byte if
// somebody waits; the zero time if it owes nothing. m.mu is held.
func (c *streamConn) silentSince() time.Time {
	heard := c.heardAt()
	switch {
	case !c.unheard.IsZero() && c.unheard.After(heard):
		return c.unheard
	case c.live > 0:
		return heard
	}
	return time.Time{}
}

// drain stops new queries from coming. m.mu is held.
func (c *streamConn) drain(now time.Time) {
	c.state = connDraining
	c.drainEnd = now.Add(drainTime)
	if c.live == 0 {
		c.polite = true
		c.end(ErrReplaced, now)
	}
}

// spoke is called when a message was read. A suspect that speaks was suspected
// wrongly. m.mu is held.
func (c *streamConn) spoke() {
	c.unheard = time.Time{}
	if c.suspect {
		c.suspect = false
		c.condemned = time.Time{}
		c.m.alarms++
	} else if c.replies > 0 && c.replies%1024 == 0 {
		c.m.alarms = max(c.m.alarms-1, 0)
	}
}

// canary returns the query that tells best whether the connection is broken:
// the oldest of those sent after it last spoke, because what has been overtaken
// by others is probably just slow; else the oldest. m.mu is held.
func (c *streamConn) canary() *Attempt {
	heard := c.heardAt()
	var best *Attempt
	var at time.Time
	for _, a := range c.table {
		if a == nil || a.places[1].c != nil || a.places[0].c != c || !mayAskTwice(a.frame) {
			continue
		}
		t := a.places[0].at
		if best == nil || better(t, at, heard) {
			best, at = a, t
		}
	}
	return best
}

// better says whether a query sent at t makes a better canary than one sent at
// u.
func better(t, u, heard time.Time) bool {
	if after := t.After(heard); after != u.After(heard) {
		return after
	}
	return t.Before(u)
}
