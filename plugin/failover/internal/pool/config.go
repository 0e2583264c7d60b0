package pool

import "time"

// Policy says in which order upstreams are tried.
type Policy uint8

const (
	// Random takes two upstreams at random and uses the cheaper one. It is the default: it spreads load, leaves a
	// slow or lossy upstream alone, and, unlike "always the cheapest", does not send every instance to the same one.
	Random Policy = iota
	// Sequential takes the first upstream of the configured order that is up; extra attempts go to the next.
	Sequential
	// RoundRobin takes turns among the upstreams that are up.
	RoundRobin
)

// HedgeMode says when a second upstream is asked while the first is silent.
type HedgeMode uint8

const (
	// HedgeAuto follows the 97th percentile of the time answers take, within 10 ms to 200 ms.
	HedgeAuto HedgeMode = iota
	// HedgeFixed waits Config.HedgeDelay.
	HedgeFixed
	// HedgeOff asks a second upstream only under the free failover rule (see freeAfter) and after an error or a bad
	// rcode.
	HedgeOff
)

// Defaults and limits of Config.
const (
	// DefaultBudget is 10: enough for the 3 % of queries that run past the 97th percentile and for the onset of a
	// fault, little enough that a cluster of resolvers in trouble does not see its load doubled.
	DefaultBudget = 10
	// DefaultDeadline leaves the answer a second of the five after which glibc gives up and asks again.
	DefaultDeadline = 4 * time.Second

	minDeadline   = 100 * time.Millisecond // below this even a healthy upstream's recursion is cut off
	maxDeadline   = time.Hour              // nobody waits so long; keeps sums of times in range
	minHedgeFixed = time.Millisecond       // below the resolution of the timers that drive this package
)

// Config is what the operator may choose. The zero value of every field but Rand is usable.
type Config struct {
	// Policy is the order in which upstreams are tried (default Random).
	Policy Policy

	// Hedge and HedgeDelay say when a second upstream is asked (default HedgeAuto; HedgeDelay is used by HedgeFixed
	// only and is kept within 1 ms and Deadline).
	Hedge      HedgeMode
	HedgeDelay time.Duration

	// Budget is the number of extra upstream queries allowed per hundred client queries. 0 means none: no hedge, and a
	// bad rcode is passed on. Errors and the free failover rule cost nothing and work without a budget. Values are
	// limited to 0..100. The zero value is "none": use DefaultBudget (10) explicitly.
	Budget int

	// Deadline is the longest a client query may take, from Begin to the step that ends it (default 4 s; kept within
	// 100 ms and 1 h).
	Deadline time.Duration

	// NeverEject keeps every upstream in service whatever it does (max_fails 0). Cost and hedging still work around a
	// bad one; there are no ejections and there is no "all out".
	NeverEject bool

	// Rand returns 64 uniformly distributed random bits, such as math/rand/v2.Uint64. It is called with the caller's
	// lock held. A nil Rand is replaced by a fixed sequence, which is fit for tests only: instances that draw the same
	// numbers make the same choices at the same time.
	Rand func() uint64
}

// withDefaults returns c with every field in its range.
func (c Config) withDefaults() Config {
	if c.Policy > RoundRobin {
		c.Policy = Random
	}
	if c.Hedge > HedgeOff {
		c.Hedge = HedgeAuto
	}
	c.Budget = min(max(c.Budget, 0), 100)
	if c.Deadline <= 0 {
		c.Deadline = DefaultDeadline
	}
	c.Deadline = min(max(c.Deadline, minDeadline), maxDeadline)
	c.HedgeDelay = min(max(c.HedgeDelay, minHedgeFixed), c.Deadline)
	if c.Rand == nil {
		var state uint64
		c.Rand = func() uint64 { // splitmix64
			state += 0x9e3779b97f4a7c15
			z := state
			z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
			z = (z ^ z>>27) * 0x94d049bb133111eb
			return z ^ z>>31
		}
	}
	return c
}

// Outcome is how one attempt or one probe ended.
type Outcome uint8

const (
	// Good is an answer to give to the client: NOERROR, NXDOMAIN and every other rcode that is not Bad.
	Good Outcome = iota
	// Bad is a reply with a rcode on which to try elsewhere: SERVFAIL, REFUSED, NOTIMP, or as configured. The caller
	// keeps it until the query ends: it is delivered (Step.Soft) if nobody does better.
	Bad
	// Error is an attempt that ended without a reply: port closed, dial failed, connection refused.
	Error
	// Timeout is an attempt that the transport gave up by itself, such as a dial that took a second.
	Timeout
	// Malformed is a reply that matches the query but cannot be used.
	Malformed
	// Replaced is an attempt whose connection was closed under it for a reason that says nothing about this query
	// (idle close, connection replaced). It is asked again elsewhere and blamed on nobody.
	Replaced
	// Cancelled is an attempt or probe that was not made or was given up by the caller. It says nothing about the
	// upstream; a query that has no other attempt goes on elsewhere.
	Cancelled
)

// heard reports whether o shows that the upstream is there.
func (o Outcome) heard() bool { return o == Good || o == Bad || o == Malformed }

var outcomeNames = [...]string{"good", "rcode", "error", "timeout", "malformed", "replaced", "cancelled"}

// String returns a lower-case word fit for a metric label.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return "unknown"
}

// Kind is why an attempt is made.
type Kind uint8

const (
	// First is the attempt every query starts with.
	First Kind = iota
	// Hedge is an extra attempt because the earlier ones are silent.
	Hedge
	// Retry is an attempt in place of one that ended badly.
	Retry
)

var kindNames = [...]string{"first", "hedge", "retry"}

// String returns a lower-case word fit for a metric label.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}
