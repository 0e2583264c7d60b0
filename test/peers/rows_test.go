package peers_test

import (
	"fmt"
	"time"

	"github.com/resolute-dns/resolute/test/peers/fault"

	"github.com/miekg/dns"
)

// row is one fault, and what failover promises for it.
type row struct {
	name    string
	mode    fault.Mode
	bad     int                // how many of the three upstreams have it
	atStart bool               // before the server starts
	kind    func(n int) string // names of the queries, see load.Config
	options string             // of the directive

	ejected time.Duration // within so long at 100 qps or more, as the fault is plain
	heals   bool          // the fault ends, and the upstreams come back into use
	stays   bool          // no upstream is ejected

	untimed bool // the answers are slow whatever a server does
	many    bool // also at 600 qps when the test is not long

	// stock returns what is certain about forward and does not hold.
	stock func(o *outcome) string
}

// oneInTen gives every tenth name another beginning.
func oneInTen(kind string) func(int) string {
	return func(n int) string {
		if n%10 == 5 {
			return kind
		}
		return "q"
	}
}

var rows = []row{
	{name: "healthy", stays: true, many: true},
	{name: "dead from start", mode: fault.Dead, bad: 1, atStart: true, heals: true, many: true, stock: slow},
	{name: "dies", mode: fault.Dead, bad: 1, ejected: time.Second, heals: true, many: true, stock: slow},
	{name: "only probes", mode: fault.OnlyProbes, bad: 1, ejected: time.Second, heals: true, many: true, stock: slow},
	{name: "drops 30 %", mode: fault.Drops(.3), bad: 1, many: true},
	{name: "drops 10 %", mode: fault.Drops(.1), bad: 1},
	{name: "+800 ms", mode: fault.Slow(800 * time.Millisecond), bad: 1, ejected: time.Second},
	{name: "SERVFAIL", mode: fault.Servfail, bad: 1, ejected: time.Second, heals: true, many: true, stock: wrong},
	{name: "REFUSED", mode: fault.Refused, bad: 1, ejected: time.Second, heals: true, stock: wrong},
	{name: "port closed", mode: fault.Closed, bad: 1, ejected: time.Second, heals: true},
	{name: "flaps 3s/3s", mode: fault.Flaps(3 * time.Second), bad: 1},
	{name: "SYN black hole", mode: fault.Blackhole, bad: 1, options: "force_tcp", ejected: time.Second, heals: true},
	{name: "SYN black hole, from start", mode: fault.Blackhole, bad: 1, atStart: true, options: "force_tcp", stock: wrong},
	{name: "two of three die", mode: fault.Dead, bad: 2, ejected: time.Second},
	{name: "all slow", mode: fault.Slow(400 * time.Millisecond), bad: 3, stays: true, untimed: true},
	{name: "names that hang", kind: oneInTen("hung"), stays: true},
	{name: "names that take 1.2 s", kind: oneInTen("slow"), stays: true},
}

// timedOut is what a query of forward takes that was sent to a dead upstream, two
// seconds, with room for stalls of the machine, which are taken off it.
const timedOut = 1500 * time.Millisecond

// slow looks at the first four seconds only: forward notices, if at all, after six.
func slow(o *outcome) string {
	onset := o.load.Between(o.onset, o.onset.Add(4*time.Second))
	return atLeast(.15, "of the first 4 s waited for a dead upstream", onset.Slower(timedOut), len(onset))
}

func wrong(o *outcome) string {
	during := o.during()
	return atLeast(.15, "failed", during.Failed(), len(during))
}

func atLeast(share float64, what string, n, of int) string {
	if float64(n) < share*float64(of) {
		return fmt.Sprintf("%d of %d %s, expected at least %.0f %%", n, of, what, 100*share)
	}
	return ""
}

// servfail is what a client is to get when there is nothing better.
const servfail = dns.RcodeServerFailure
