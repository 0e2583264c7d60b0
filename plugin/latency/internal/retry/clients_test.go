package retry

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// scripts has what a server sees of each client in each loss, from measured.md
// section 3.2. A line is a query: when it comes (T is the client's timer), type,
// ID, source port, and after how many ms it is answered if not after 1 (- for
// never).
//
// The verdicts are given as cause and confidence, the waiting times as multiples
// of T.
var scripts = []struct {
	client, loss string
	timers       []int // T in ms
	packets      string
	want         string
	waits        []float64
}{
	{"glibc", "none", glibcTimers, `
		0 A 11 1000
		0 AAAA 9012 1000`, "", nil},
	{"glibc", "AAAA request", glibcTimers, `
		0 A 11 1000
		1T A 11 1000
		1T+2 AAAA 9012 1000`, "lost_request certain", []float64{1}},
	{"glibc", "A request", glibcTimers, `
		0 AAAA 9012 1000
		1T A 11 1000
		1T+2 AAAA 9012 1000`, "lost_request certain", []float64{1}},
	{"glibc", "A reply", glibcTimers, `
		0 A 11 1000
		0 AAAA 9012 1000
		1T A 11 1000
		1T+2 AAAA 9012 1000`, "lost_reply certain", []float64{1}},
	{"glibc", "both replies", glibcTimers, `
		0 A 11 1000
		0 AAAA 9012 1000
		1T A 11 1000
		1T AAAA 9012 1000`, "lost_reply certain", []float64{1}},
	{"glibc", "both requests", glibcTimers, `
		1T A 11 1000
		1T AAAA 9012 1000`, "", nil},
	{"glibc", "slow upstream", glibcTimers, `
		0 A 11 1000 1.2T
		0 AAAA 9012 1000 1.2T
		1T A 11 1000 1.2T
		1T AAAA 9012 1000 1.2T`, "slow_upstream certain", []float64{1.2}},
	{"glibc", "slow upstream for AAAA", glibcTimers, `
		0 A 11 1000
		0 AAAA 9012 1000 1.2T
		1T A 11 1000
		1T+2 AAAA 9012 1000 1.2T`, "slow_upstream certain", []float64{1.2}},
	{"glibc", "answer on the way", glibcTimers, `
		0 A 11 1000 0.99T
		0 AAAA 9012 1000
		1T A 11 1000
		1T+2 AAAA 9012 1000`, "slow_upstream certain", []float64{1}},
	{"glibc", "AAAA request twice", []int{2000, 5000}, `
		0 A 11 1000
		1T A 11 1000
		2T A 11 1001
		2T+2 AAAA 9012 1002`, "unknown certain, lost_request certain", []float64{2}},
	{"glibc", "A reply twice", glibcTimers, `
		0 A 11 1000
		0 AAAA 9012 1000
		1T A 11 1000
		2T A 11 1001
		2T+2 AAAA 9012 1002`, "lost_reply certain, lost_reply certain", []float64{2}},
	{"glibc", "AAAA request, then A reply", []int{2000, 5000}, `
		0 A 11 1000
		1T A 11 1000
		1T+2 AAAA 9012 1000
		2T A 11 1001
		2T+2 AAAA 9012 1001`, "lost_request certain, lost_reply certain", []float64{1, 2}},
	{"glibc, A only", "reply", glibcTimers, `
		0 A 11 1000
		1T A 11 1000`, "unknown certain", []float64{1}},
	{"glibc, A only", "slow upstream", glibcTimers, `
		0 A 11 1000 1.5T
		1T A 11 1000 1.5T`, "slow_upstream certain", []float64{1.5}},
	{"glibc, refused", "none", glibcTimers, `
		0 A 11 1000
		0 AAAA 9012 1000
		10 A 11 1001
		10 AAAA 9012 1001`, "", nil},
	{"single-request", "AAAA request", glibcTimers, `
		0 A 11 1000
		1T A 11 1001
		1T+2 AAAA 9012 1002`, "lost_request high", []float64{1}},
	{"single-request", "A reply", glibcTimers, `
		0 A 11 1000
		1T A 11 1001
		1T+2 AAAA 9012 1001`, "lost_request high", []float64{1}}, // AAAA was never sent: looks the same
	{"single-request-reopen", "AAAA request", glibcTimers, `
		0 A 11 1000`, "", nil},
	{"use-vc", "none", glibcTimers, `
		0 A 11 1000
		2 AAAA 9012 1000`, "", nil},
	{"musl", "AAAA request", muslTimers, `
		0 A 11 1000
		1T AAAA 211 1000`, "lost_request high", []float64{1}},
	{"musl", "A request", muslTimers, `
		0 AAAA 211 1000
		1T A 11 1000`, "lost_request high", []float64{1}},
	{"musl", "AAAA request, ID wraps", muslTimers, `
		0 A 65500 1000
		1T AAAA 150 1000`, "lost_request high", []float64{1}},
	{"musl", "A reply", muslTimers, `
		0 A 11 1000
		0 AAAA 211 1000
		1T A 11 1000`, "lost_reply certain", []float64{1}},
	{"musl", "both replies", muslTimers, `
		0 A 11 1000
		0 AAAA 211 1000
		1T A 11 1000
		1T AAAA 211 1000`, "lost_reply certain", []float64{1}},
	{"musl", "slow upstream", muslTimers, `
		0 A 11 1000 1.5T
		0 AAAA 211 1000 1.5T
		1T A 11 1000 1.5T
		1T AAAA 211 1000 1.5T`, "slow_upstream certain", []float64{1.5}},
	{"c-ares 1.18", "AAAA request", []int{5000}, `
		0 A 11 1000
		1T AAAA 9000 1000`, "lost_request low", []float64{1}},
	{"c-ares 1.18", "AAAA reply", []int{5000}, `
		0 AAAA 9000 1000
		0 A 11 1000
		1T AAAA 9000 1000`, "lost_reply certain", []float64{1}},
	{"c-ares 1.18", "AAAA reply twice", []int{5000}, `
		0 AAAA 9000 1000
		0 A 11 1000
		1T AAAA 9000 1000
		3T AAAA 9000 1000`, "lost_reply certain, lost_reply certain", []float64{3}},
	{"c-ares 1.34", "AAAA request", []int{2000, 2400, 2999}, `
		0 A 11 1000
		1T AAAA 9000 1001`, "lost_request low", []float64{1}},
	{"c-ares 1.34", "AAAA reply", []int{2000, 2400, 2999}, `
		0 A 11 1000
		0 AAAA 9000 1000
		1T AAAA 9000 1001`, "lost_reply low", []float64{1}},
	{"c-ares 1.34", "both replies", []int{2000, 2400, 2999}, `
		0 A 11 1000
		0 AAAA 9000 1000
		1T A 11 1001
		1T AAAA 9000 1002`, "lost_reply certain", []float64{1}},
	{"c-ares 1.34", "slow upstream", []int{2000, 2400, 2999}, `
		0 A 11 1000 1.2T
		0 AAAA 9000 1000 1.2T
		1T A 11 1001 1.2T
		1T+90 AAAA 9000 1001 1.2T`, "slow_upstream certain", []float64{1.2}},
	{"c-ares 1.34, A only", "reply", []int{2000, 2400, 2999}, `
		0 A 11 1000
		1T A 11 1001`, "unknown low", []float64{1}},
	{"Go", "AAAA request", goTimers, `
		0 A 11 1000
		1T AAAA 7000 1002`, "lost_request low", []float64{1}},
	{"Go", "A request", goTimers, `
		0 AAAA 12 1001
		1T A 7000 1002`, "lost_request low", []float64{1}},
	{"Go", "A reply", goTimers, `
		0 A 11 1000
		0 AAAA 12 1001
		1T A 7000 1002`, "lost_reply low", []float64{1}},
	{"Go", "AAAA reply", goTimers, `
		0 A 11 1000
		0 AAAA 12 1001
		1T AAAA 7000 1002`, "lost_reply low", []float64{1}},
	{"Go", "slow upstream", goTimers, `
		0 A 11 1000 1.2T
		0 AAAA 12 1001 1.2T
		1T AAAA 7000 1002 0.2T
		1T A 7001 1003 0.2T`, "slow_upstream low", []float64{1.2}},
	{"Go", "none, every T", goTimers, `
		0 A 11 1000
		0 AAAA 12 1001
		1T AAAA 21 1002
		1T A 22 1003
		2T A 31 1004
		2T AAAA 32 1005`, "", nil},
	{"TXT", "reply", glibcTimers, `
		0 TXT 11 1000
		1T TXT 11 1000`, "unknown certain", []float64{1}},
	{"TXT and SRV", "none", glibcTimers, `
		0 TXT 11 1000
		1T SRV 11 1000`, "", nil},
	{"glibc every T", "none", glibcTimers, `
		0 A 11 1000
		0 AAAA 12 1000
		1T A 21 1001
		1T AAAA 22 1001
		2T A 21 1002
		2T AAAA 32 1002`, "", nil}, // one ID comes again by chance
	{"one ID and port for all", "none", glibcTimers, `
		0 A 11 1000
		1T A 11 1000
		2T A 11 1000
		3T A 11 1000
		4T A 11 1000
		5T A 11 1000
		6T A 11 1000
		7T A 11 1000`, strings.Repeat("unknown certain, ", 4) + "unknown certain", nil},
}

var (
	glibcTimers = []int{5000, 1000, 3000} // options timeout:
	muslTimers  = []int{2500, 500, 1500}  // half of it
	goTimers    = []int{5000, 1000}
)

// event is a packet that the server sees.
type event struct {
	at    int // ms
	query bool
	i     int // of the query
}

type packet struct {
	qtype    uint16
	id, port uint16
}

func parse(t *testing.T, script string, timer int) ([]packet, []event) {
	t.Helper()
	var packets []packet
	var events []event
	ms := func(s string) int {
		sum := 0.0
		for part := range strings.SplitSeq(s, "+") {
			num, isT := strings.CutSuffix(part, "T")
			f, err := strconv.ParseFloat(num, 64)
			if err != nil {
				t.Fatal(err)
			}
			if isT {
				f *= float64(timer)
			}
			sum += f
		}
		return int(sum)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(script), "\n") {
		f := strings.Fields(line)
		id, _ := strconv.Atoi(f[2])
		port, _ := strconv.Atoi(f[3])
		packets = append(packets, packet{dns.StringToType[f[1]], uint16(id), uint16(port)})
		at, after := ms(f[0]), 1
		if len(f) > 4 {
			if f[4] == "-" {
				after = -1
			} else {
				after = ms(f[4])
			}
		}
		events = append(events, event{at, true, len(packets) - 1})
		if after >= 0 {
			events = append(events, event{at + after, false, len(packets) - 1})
		}
	}
	slices.SortStableFunc(events, func(a, b event) int { return a.at - b.at })
	return packets, events
}

var client = netip.MustParseAddr("192.0.2.1")

// play lets the table see the packets and returns all that it says.
func play(tab *Table, start time.Time, packets []packet, events []event, name string) (verdicts []string, waits []time.Duration) {
	heard := func(v Verdict, wait time.Duration) bool {
		if v != (Verdict{}) {
			verdicts = append(verdicts, fmt.Sprintf("%s %s", v.Cause, v.Confidence))
		}
		if wait != 0 {
			waits = append(waits, wait)
		}
		return v != (Verdict{}) || wait != 0
	}
	tickets := make([]Ticket, len(packets))
	now := start
	for _, e := range events {
		now = start.Add(time.Duration(e.at) * time.Millisecond)
		if p := packets[e.i]; e.query {
			var v Verdict
			v, tickets[e.i] = tab.Query(netip.AddrPortFrom(client, p.port), p.id, p.qtype, name, now)
			heard(v, 0)
		} else {
			heard(tab.Answer(tickets[e.i], now))
		}
	}
	for heard(tab.Overdue(now.Add(time.Minute))) {
	}
	return verdicts, waits
}

func TestClients(t *testing.T) {
	for _, s := range scripts {
		for _, timer := range s.timers {
			t.Run(fmt.Sprintf("%s/%s/%d ms", s.client, s.loss, timer), func(t *testing.T) {
				packets, events := parse(t, s.packets, timer)
				epoch := time.Unix(0, 0)
				// The last one has its times wrap around in the middle.
				for _, start := range []time.Duration{0, time.Hour, (1<<32 - 400) * time.Millisecond} {
					tab := New(Config{Entries: 64, Now: func() time.Time { return epoch }})
					verdicts, waits := play(tab, epoch.Add(start), packets, events, "Name.Example.")
					if got := strings.Join(verdicts, ", "); got != s.want {
						t.Errorf("start at %v: got %q, want %q", start, got, s.want)
					}
					if s.waits == nil && s.want != "" {
						continue
					}
					ok := len(waits) == len(s.waits)
					for i := range min(len(waits), len(s.waits)) {
						want := s.waits[i] * float64(timer)
						got := float64(waits[i]) / 1e6
						ok = ok && got > want*0.9 && got < want*1.1
					}
					if !ok {
						t.Errorf("start at %v: waited %v, want %v times %d ms", start, waits, s.waits, timer)
					}
				}
			})
		}
	}
}

// TestBusyPort has the socket of the client used for another name, too.
func TestBusyPort(t *testing.T) {
	for _, s := range []struct{ packets, want string }{
		{ // musl's signature, but what a forwarder does: low
			"0 A 11 1000\n2500 AAAA 211 1000", "lost_request low"},
		{ // c-ares 1.18
			"0 A 11 1000\n0 AAAA 9000 1000\n5000 A 11 1000", "lost_reply low"},
		{ // both IDs again: certain
			"0 A 11 1000\n0 AAAA 9000 1000\n5000 A 11 1000\n5002 AAAA 9000 1000", "lost_reply certain"},
		{ // A again, AAAA for the first time
			"0 A 11 1000\n5000 A 11 1000\n5002 AAAA 9000 1000", "lost_request high"},
		{"0 AAAA 9000 1000\n5000 A 11 1000\n5002 AAAA 9000 1000", "lost_request high"},
		{ // still no answer
			"0 A 11 1000 -\n5000 A 11 1000", "slow_upstream high"},
		{ // a gap that is no client's
			"0 A 11 1000\n0 AAAA 9000 1000\n7000 A 11 1000", ""},
	} {
		tab := New(Config{Entries: 64, Now: func() time.Time { return time.Unix(0, 0) }})
		now := time.Unix(1000, 0)
		_, k := tab.Query(netip.AddrPortFrom(client, 1000), 1, dns.TypeA, "other.example.", now.Add(-time.Second))
		tab.Answer(k, now.Add(-time.Second))
		packets, events := parse(t, s.packets, 0)
		verdicts, _ := play(tab, now, packets, events, "name.example.")
		if got := strings.Join(verdicts, ", "); got != s.want {
			t.Errorf("%q: got %q, want %q", s.packets, got, s.want)
		}
	}
}

// TestHeldBack has what was held back returned by the answer to somebody else.
func TestHeldBack(t *testing.T) {
	epoch := time.Unix(0, 0)
	tab := New(Config{Entries: 64, Now: func() time.Time { return epoch }})
	ask := func(port, id uint16, name string, at time.Duration) (Verdict, Verdict, time.Duration) {
		q, k := tab.Query(netip.AddrPortFrom(client, port), id, dns.TypeA, name, epoch.Add(at))
		a, wait := tab.Answer(k, epoch.Add(at+time.Millisecond))
		return q, a, wait
	}
	ask(1000, 1, "a.", time.Second)
	if q, a, wait := ask(1000, 1, "a.", 6*time.Second); q != (Verdict{}) || a != (Verdict{}) || wait != 0 {
		t.Fatalf("too early: %v %v %v", q, a, wait)
	}
	if _, a, wait := ask(1001, 2, "b.", 6900*time.Millisecond); a != (Verdict{}) || wait != 0 {
		t.Fatalf("too early: %v %v", a, wait)
	}
	want := Verdict{Unknown, Certain}
	if q, a, wait := ask(1002, 3, "c.", 7100*time.Millisecond); q != (Verdict{}) || a != want || wait != 5001*time.Millisecond {
		t.Fatalf("got %v %v %v", q, a, wait)
	}
	if _, a, wait := ask(1003, 4, "d.", 9*time.Second); a != (Verdict{}) || wait != 0 {
		t.Fatalf("twice: %v %v", a, wait)
	}
}
