// Package report counts what lookups were like, and tells it as text, as JSON
// and as a picture.
package report

import "time"

// SchemaVersion is raised when a field of [Report] is removed or changes its
// meaning. New fields don't raise it.
const SchemaVersion = 1

// Report is the outcome of a run, and with its tags the JSON that -json prints.
// All times are in milliseconds unless a name says otherwise, all shares in
// percent of the lookups.
type Report struct {
	Schema   int       `json:"schema"`       // SchemaVersion
	Version  string    `json:"version"`      // of tailprobe
	Started  time.Time `json:"started"`      // RFC 3339
	Duration float64   `json:"duration_ms"`  // until the last lookup ended
	Ended    string    `json:"ended"`        // "complete", or "interrupted" by a signal
	Libc     string    `json:"libc"`         // which C library was emulated
	Family   string    `json:"family"`       // any, 4 or 6
	Workers  int       `json:"workers"`      // of each target
	Rate     float64   `json:"rate"`         // intended lookups a second of each target; 0: closed loop
	Names    int       `json:"names"`        // how many different names
	Random   bool      `json:"random"`       // whether each had a random label before it
	Seed     uint64    `json:"seed"`         // makes a run repeatable
	Limit    float64   `json:"limit_ms"`     // -limit
	SlowFrom float64   `json:"slow_from_ms"` // from when on a lookup counts as slow
	Targets  []Target  `json:"targets"`      // one for each -server
	Passed   bool      `json:"passed"`       // no threshold was crossed
	Failures []string  `json:"failures"`     // the thresholds that were
}

// Target is what one set of name servers was like.
type Target struct {
	Name        string   `json:"name"`
	Nameservers []string `json:"nameservers"`
	Search      []string `json:"search"`
	Options     Options  `json:"options"`

	Lookups   int64            `json:"lookups"`    // ended, or never started
	Unstarted int64            `json:"unstarted"`  // due, but no worker was free
	PerSecond float64          `json:"per_second"` // lookups ended
	Status    map[string]int64 `json:"status"`     // by what getaddrinfo would have returned

	Latency Latency `json:"latency"`
	Over    []Over  `json:"over"` // 1, 2, 4, 5 and 10 s, and -limit
	Slow    Slow    `json:"slow"`
	Lost    Lost    `json:"lost"`

	Questions int64            `json:"questions"` // names asked for, the search list included
	SentUDP   int64            `json:"sent_udp"`  // packets
	SentTCP   int64            `json:"sent_tcp"`  // queries
	Sockets   int64            `json:"sockets"`   // opened, each a source port and a conntrack entry
	Timeouts  int64            `json:"timeouts"`  // times that a wait for an answer ended without
	Errors    map[string]int64 `json:"errors"`    // of sockets, by text
	Replies   int64            `json:"replies"`
	Rcodes    map[string]int64 `json:"rcodes"` // of replies
	Flags     Flags            `json:"flags"`  // of replies
}

// Options are the resolver's options.
type Options struct {
	Ndots     int      `json:"ndots"`
	Timeout   int      `json:"timeout_s"`
	Attempts  int      `json:"attempts"`
	AsWritten []string `json:"as_written"` // all, as resolv.conf and -options have them
}

// Latency is how long lookups took, from their intended start.
type Latency struct {
	Min  float64 `json:"min_ms"`
	Mean float64 `json:"mean_ms"`
	P50  float64 `json:"p50_ms"`
	P90  float64 `json:"p90_ms"`
	P99  float64 `json:"p99_ms"`
	P999 float64 `json:"p99_9_ms"`
	Max  float64 `json:"max_ms"`
}

// Over counts lookups that took longer.
type Over struct {
	Than  float64 `json:"than_ms"`
	Count int64   `json:"count"`
	Share float64 `json:"share_percent"`
}

// Slow tells the slow lookups apart by what they had lost. A query is lost when
// no answer came in the time that the library waits for it, wherever it, or its
// answer, was dropped.
type Slow struct {
	Count   int64 `json:"count"`
	A       int64 `json:"lost_a"`
	AAAA    int64 `json:"lost_aaaa"`
	Both    int64 `json:"lost_both"`
	Nothing int64 `json:"lost_nothing"` // the answers were slow, or there were many names to ask
}

// Lost counts lookups that lost something, slow or not.
type Lost struct {
	A    int64 `json:"a"`
	AAAA int64 `json:"aaaa"`
	Both int64 `json:"both"`
}

// Flags counts replies by their header.
type Flags struct {
	AA        int64 `json:"aa"`
	RA        int64 `json:"ra"`
	TC        int64 `json:"tc"`
	Discarded int64 `json:"discarded"` // NOERROR, no answer, AA=0, RA=0, no additional record: glibc throws it away

	// OldGlibc counts lookups in which one of a pair of answers was good and the
	// other of that shape: glibc before 2.20 fails then.
	OldGlibc int64 `json:"old_glibc_rejects"`
}
