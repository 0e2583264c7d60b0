package race

import (
	"slices"
	"time"

	"github.com/resolute-dns/resolute/plugin/failover/internal/pool"
	"github.com/resolute-dns/resolute/plugin/failover/internal/wire"
)

// Kind is why an attempt is made, as a word for a metric label.
type Kind string

// The kinds of attempts.
const (
	First Kind = "first" // what every query starts with
	Hedge Kind = "hedge" // the ones before are silent
	Retry Kind = "retry" // the one before ended badly
	Probe Kind = "probe" // on nobody's behalf
)

var kinds = map[pool.Kind]Kind{pool.First: First, pool.Hedge: Hedge, pool.Retry: Retry}

// Result is how an attempt ended, as a word for a metric label.
type Result string

// The results of attempts.
const (
	Win       Result = "win"       // its reply went to the client
	Good      Result = "good"      // a good reply to a probe
	Late      Result = "late"      // a good reply after another one had won
	Rcode     Result = "rcode"     // a reply with a bad rcode
	Timeout   Result = "timeout"   // silent to the end
	Error     Result = "error"     // no reply, with a reason
	Cancelled Result = "cancelled" // given up, or ended by us; it says nothing
)

// Attempt is one attempt that has ended.
type Attempt struct {
	Upstream *Upstream
	Kind     Kind
	Result   Result
	Rcode    int           // of the reply, -1 without one
	Err      error         // why there is none, nil if it was just silent
	Started  time.Time     // when it was sent
	Took     time.Duration // until its reply, its error or its being given up
	Wire     *wire.Attempt // with the addresses and, while this is looked at, the reply
}

// outcome translates the end of a wire attempt for the pool. The rcode is that
// of the header, -1 without a reply.
func (g *Group) outcome(a *wire.Attempt) (o pool.Outcome, rcode int) {
	if a.Err == nil {
		rcode := a.Rcode()
		if g.bad[rcode] {
			return pool.Bad, rcode
		}
		return pool.Good, rcode
	}
	switch wire.Class(a.Err) {
	case wire.ReasonTimeout:
		return pool.Timeout, -1
	case wire.ReasonMalformed:
		return pool.Malformed, -1
	case wire.ReasonClosed, wire.ReasonReplaced, wire.ReasonLocal, wire.ReasonQuery:
		// The connection was closed under it, or it is our own doing.
		return pool.Replaced, -1
	}
	return pool.Error, -1
}

// isBad reports whether to try elsewhere on rcode.
func (g *Group) isBad(rcode int) bool {
	if rcode >= 0 && rcode < len(g.bad) {
		return g.bad[rcode]
	}
	return slices.Contains(g.badMore, rcode)
}

// result translates an outcome into a word, for an attempt that did not win.
func result(o pool.Outcome) Result {
	switch o {
	case pool.Good:
		return Late
	case pool.Bad:
		return Rcode
	case pool.Timeout:
		return Timeout
	case pool.Replaced, pool.Cancelled:
		return Cancelled
	}
	return Error
}
