package fault

import (
	"time"

	"github.com/miekg/dns"
)

// Mode is how an upstream behaves. The zero value is a healthy one.
type Mode struct {
	Drop       float64       // share of the queries that get no answer, 0 to 1
	Delay      time.Duration // added to the time an answer takes
	Rcode      int           // answer everything with this instead of NOERROR
	Lame       bool          // answer with a referral to the root, without AA and RA
	OnlyProbes bool          // answer only `. NS`, the usual probe
	Flap       time.Duration // silent for so long, then well for as long, and again

	closed    bool
	blackhole bool
}

// What an upstream can suffer from.
var (
	Healthy    = Mode{}
	Dead       = Mode{Drop: 1}
	OnlyProbes = Mode{OnlyProbes: true}
	Servfail   = Mode{Rcode: dns.RcodeServerFailure}
	Refused    = Mode{Rcode: dns.RcodeRefused}
	Lame       = Mode{Lame: true}

	// Closed has nothing bound to the port: ICMP tells UDP clients so, a reset
	// TCP clients.
	Closed = Mode{closed: true}

	// Blackhole is a host that is gone: UDP is silent, and so is TCP, from the
	// first SYN on.
	Blackhole = Mode{Drop: 1, blackhole: true}
)

// Drops loses a share of the queries.
func Drops(share float64) Mode { return Mode{Drop: share} }

// Slow takes d longer for each answer.
func Slow(d time.Duration) Mode { return Mode{Delay: d} }

// Flaps is silent for d, then well for d, and so on.
func Flaps(d time.Duration) Mode { return Mode{Flap: d} }
