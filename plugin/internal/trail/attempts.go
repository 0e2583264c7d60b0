package trail

import "time"

// Attempt is one question to one upstream on behalf of the record's client.
type Attempt struct {
	Upstream string        // address and port
	Kind     string        // first, hedge, retry
	Result   string        // win, late, rcode, timeout, error, cancelled
	Rcode    int           // of the reply, -1 without one
	Start    time.Time     // when it was sent
	Took     time.Duration // until its reply, its error, or its being given up
}

// maxAttempts bounds what a record keeps. No query makes more; a plugin that asks
// again and again for one answer would.
const maxAttempts = 16

// AddAttempt notes an attempt that has ended. What comes after [Record.Finish],
// from work in the background, is left out.
func (r *Record) AddAttempt(a Attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.finished && len(r.attempts) < maxAttempts {
		r.attempts = append(r.attempts, a)
	}
}

// Finish closes the record and returns its attempts in the order in which they
// ended.
func (r *Record) Finish() []Attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.finished = true
	return r.attempts
}
