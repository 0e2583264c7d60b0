// Package load asks a DNS server at a constant rate for names that it has never
// been asked for, as many clients that know nothing of each other would: however
// late the answers are, the next query is sent on time. Each query is sent once.
package load

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resolute-dns/resolute/test/peers/fault"

	"github.com/miekg/dns"
)

// Deadline is how long a query may take. It is lost afterwards: a stub resolver
// of today has sent another one after five seconds.
const Deadline = 6 * time.Second

// sockets is over how many UDP sockets the queries are spread.
const sockets = 4

// Config is the load to be made.
type Config struct {
	Server string // address and port
	QPS    int

	// Kind returns what the name of query number n starts with: letters only.
	// Without it, all names start with `q`.
	Kind func(n int) string
}

// Load is a running load.
type Load struct {
	conf  Config
	start time.Time
	zone  string // makes the names unique
	conns []net.Conn

	halt    chan struct{}
	halted  sync.Once
	sender  sync.WaitGroup
	readers sync.WaitGroup

	mu       sync.Mutex
	queries  []Query
	open     int // sent and not answered
	answered chan struct{}
	err      error
}

// Query is one query and what became of it.
type Query struct {
	Sent  time.Time // when it was to be sent
	Kind  string
	Rcode int
	Took  time.Duration // from Sent until the answer was there; 0 if it is lost
	Wrong bool          // NOERROR, and not with the one address that the name has
}

// Lost reports whether there was no answer within [Deadline].
func (q *Query) Lost() bool { return q.Took == 0 }

// Failed reports whether a client has no use for what it got.
func (q *Query) Failed() bool { return q.Lost() || q.Rcode != dns.RcodeSuccess || q.Wrong }

// Start starts a load. It ends with the test, if not before.
func Start(t testing.TB, conf Config) *Load {
	t.Helper()
	if conf.Kind == nil {
		conf.Kind = func(int) string { return "q" }
	}
	l := &Load{
		conf:     conf,
		zone:     fmt.Sprintf(".%x.test.", rand.Uint64()),
		halt:     make(chan struct{}),
		answered: make(chan struct{}, 1),
	}
	for range sockets {
		conn, err := net.Dial("udp4", conf.Server)
		if err != nil {
			t.Fatal(err)
		}
		conn.(*net.UDPConn).SetReadBuffer(4 << 20)
		l.conns = append(l.conns, conn)
		l.readers.Go(func() { l.read(conn) })
	}
	var once atomic.Bool
	stop := func() {
		if once.CompareAndSwap(false, true) {
			l.Halt()
			for _, conn := range l.conns {
				conn.Close()
			}
			l.readers.Wait()
		}
	}
	t.Cleanup(stop)
	l.start = time.Now()
	l.sender.Go(l.send)
	return l
}

// send sends the queries on time, and those that it is late with at once.
func (l *Load) send() {
	interval := time.Second / time.Duration(l.conf.QPS)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := 0; ; n++ {
		at := l.start.Add(time.Duration(n) * interval)
		if wait := time.Until(at); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-l.halt:
				return
			}
		} else {
			select {
			case <-l.halt:
				return
			default:
			}
		}
		kind := l.conf.Kind(n)
		m := new(dns.Msg).SetQuestion(fmt.Sprintf("%s%d%s", kind, n, l.zone), dns.TypeA)
		m.Id = uint16(n)
		msg, err := m.Pack()
		l.mu.Lock()
		l.err = err
		l.queries = append(l.queries, Query{Sent: at, Kind: kind})
		l.open++
		l.mu.Unlock()
		l.conns[n%len(l.conns)].Write(msg) // if it fails, the query is lost
	}
}

func (l *Load) read(conn net.Conn) {
	buf := make([]byte, 64<<10)
	var m dns.Msg
	for {
		n, err := conn.Read(buf)
		if opErr, ok := err.(*net.OpError); ok && opErr.Err == net.ErrClosed {
			return
		}
		if err != nil {
			continue // the server does not listen
		}
		now := time.Now()
		if err := m.Unpack(buf[:n]); err == nil && m.Response && len(m.Question) == 1 {
			l.got(&m, now)
		}
	}
}

func (l *Load) got(m *dns.Msg, now time.Time) {
	labels := dns.SplitDomainName(m.Question[0].Name)
	if len(labels) == 0 {
		return
	}
	n, ok := fault.Number(labels[0])

	l.mu.Lock()
	defer l.mu.Unlock()
	if !ok || int(n) >= len(l.queries) || m.Id != uint16(n) {
		return
	}
	q := &l.queries[n]
	if took := now.Sub(q.Sent); q.Took == 0 && took <= Deadline {
		q.Took, q.Rcode = took, m.Rcode
		q.Wrong = m.Rcode == dns.RcodeSuccess && !isAddress(m.Answer, n)
		if l.open--; l.open == 0 {
			select {
			case l.answered <- struct{}{}:
			default:
			}
		}
	}
}

func isAddress(answer []dns.RR, n uint32) bool {
	if len(answer) != 1 {
		return false
	}
	a, ok := answer[0].(*dns.A)
	return ok && a.A.String() == fault.AddressOf(n).String()
}

// Halt ends the sending. Answers are still waited for.
func (l *Load) Halt() {
	l.halted.Do(func() { close(l.halt) })
	l.sender.Wait()
}

// Count returns how many queries were sent so far.
func (l *Load) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queries)
}

// Answers returns how many queries were answered so far.
func (l *Load) Answers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queries) - l.open
}

// Stop ends the sending, waits for the answers, at most until the last query is
// lost, and returns what there was. Time in which w has seen the process stalled
// is taken off what the queries took.
func (l *Load) Stop(t testing.TB, w *Watch) Result {
	t.Helper()
	l.Halt()
	deadline := time.NewTimer(Deadline)
	defer deadline.Stop()
wait:
	for {
		l.mu.Lock()
		open := l.open
		l.mu.Unlock()
		if open == 0 {
			break
		}
		select {
		case <-l.answered:
		case <-deadline.C:
			break wait
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		t.Fatal(l.err)
	}
	r := make(Result, len(l.queries))
	copy(r, l.queries)
	for i := range r {
		if q := &r[i]; !q.Lost() {
			q.Took = max(q.Took-w.Lost(q.Sent, q.Sent.Add(q.Took)), 1)
		}
	}
	return r
}
