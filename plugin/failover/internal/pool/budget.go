package pool

import "time"

const (
	// budgetSpan is over how long client queries are remembered for the size of the bank: long enough to smooth
	// bursts, short enough that the bank of a busy hour is not spent in a quiet one.
	budgetSpan = 10 // seconds

	// The bank holds budgetSaved of what budgetSpan's queries have earned, plus a reserve. A flat reserve of 100, as
	// first designed, lets a pod with 20 qps send 1.6 times its load for ten seconds, so the reserve is a fortieth of
	// the queries: what is earned, saved and reserved stays below a quarter of any ten seconds' queries at the
	// default of 10 %, with room for probes and free failovers.
	budgetSaved        = 0.6
	budgetReserveShare = 0.025
	// budgetReserveMin lets a pod of one query a second get over a dead upstream: three losses and some.
	budgetReserveMin = 5
	// budgetReserveMax is reached at 400 qps.
	budgetReserveMax = 100
	// budgetReserveStart is the reserve in the first budgetSpan, when no traffic was counted yet and queries race until
	// one upstream has answered: a handshake of 50 ms at 1000 qps.
	budgetReserveStart = 50
)

// budget limits extra upstream queries to a share of client queries.
type budget struct {
	share   float64 // tokens earned per client query
	tokens  float64
	start   time.Duration
	denied  uint64
	sec     int64 // second the newest bucket stands for
	queries [budgetSpan]uint32
	sum     int
	total   uint64 // client queries ever
}

func newBudget(percent int, now time.Duration) budget {
	b := budget{share: float64(percent) / 100, start: now, sec: int64(now / time.Second)}
	b.tokens = b.capacity(now)
	return b
}

// roll moves the ring of one-second buckets to now.
func (b *budget) roll(now time.Duration) {
	sec := int64(now / time.Second)
	if sec <= b.sec {
		return
	}
	if sec-b.sec >= budgetSpan {
		clear(b.queries[:])
		b.sum, b.sec = 0, sec
		return
	}
	for b.sec < sec {
		b.sec++
		i := b.sec % budgetSpan
		b.sum -= int(b.queries[i])
		b.queries[i] = 0
	}
}

func (b *budget) capacity(now time.Duration) float64 {
	if b.share == 0 {
		return 0
	}
	reserve := min(max(float64(b.sum)*budgetReserveShare, budgetReserveMin), budgetReserveMax)
	if now-b.start < budgetSpan*time.Second {
		reserve = max(reserve, budgetReserveStart)
	}
	return reserve + b.share*budgetSaved*float64(b.sum)
}

// earn accounts for a client query.
func (b *budget) earn(now time.Duration) {
	b.roll(now)
	b.queries[b.sec%budgetSpan]++
	b.sum++
	b.total++
	b.tokens = min(b.tokens+b.share, b.capacity(now))
}

// may reports whether an extra attempt is allowed: a second one takes a token, a third one a half-full bank as well, so
// that third attempts stop long before they could take the second ones away.
func (b *budget) may(third bool, now time.Duration) bool {
	if b.tokens < 1 {
		return false
	}
	return !third || b.tokens >= b.capacity(now)/2
}

func (b *budget) spend() { b.tokens = max(b.tokens-1, 0) }
