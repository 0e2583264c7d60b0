package preflight

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/coredns/coredns/plugin/pkg/transport"

	"github.com/resolute-dns/resolute/plugin/failover/internal/target"
	"github.com/resolute-dns/resolute/plugin/failover/internal/wire"

	"github.com/miekg/dns"
)

const (
	// askLimit is how long an upstream has for an answer. It is forward's
	// read_timeout, after which a client's query would go to another upstream.
	askLimit = 2 * time.Second
	// askTries are how often it is asked within askLimit, so that one lost packet
	// makes no finding.
	askTries = 3
	askEvery = askLimit / askTries
	// slowAfter is beyond the RTT to any place on earth: what takes longer is
	// overloaded, or waits for something itself.
	slowAfter = 500 * time.Millisecond
)

// Status is what became of asking an upstream. Each but Answers and Own is also
// the code of a finding.
type Status string

// The statuses.
const (
	// Answers is a good answer, or one that says that there is nothing.
	Answers Status = "answers"
	// Slow is a good answer that took longer than 500 ms, twice.
	Slow Status = "slow"
	// Silent is no answer within 2 s, to three queries.
	Silent Status = "silent"
	// Refuses is rcode REFUSED.
	Refuses Status = "refuses"
	// Lame is NOERROR without an answer and without AA and RA: the server neither
	// knows nor recurses.
	Lame Status = "lame"
	// ServFail is rcode SERVFAIL.
	ServFail Status = "servfail"
	// NoSuchName is NXDOMAIN for a name given by -check-name.
	NoSuchName Status = "nxdomain"
	// BadRcode is any other rcode.
	BadRcode Status = "bad_rcode"
	// Closed is that nothing listens on the port: ICMP port unreachable, or RST
	// to a SYN.
	Closed Status = "closed"
	// HangsUp is that the connection is closed without an answer.
	HangsUp Status = "hangs_up"
	// Unreachable is no route, or an ICMP message that says so.
	Unreachable Status = "unreachable"
	// TLSError is a TLS handshake or a certificate that failed.
	TLSError Status = "tls_error"
	// Malformed is an answer that is no DNS message, or to another question.
	Malformed Status = "malformed"
	// NotAsked is a query that could not be sent: the reason is with this
	// machine or with the options.
	NotAsked Status = "not_asked"
	// Own is an address that this Corefile itself listens on. It is not asked:
	// nothing listens during a check.
	Own Status = "own"
)

// upstream is one server that a directive forwards to.
type upstream struct {
	to       string
	target   target.Target
	unusable error      // why there is no target
	own      []listener // those that answer there, when it is this server itself
	names    []string   // to ask for beside the zone

	got   answer
	named []answer // as names
}

// answer is what became of one question.
type answer struct {
	question string // as in `example.org. A`
	status   Status
	detail   string
	rtt      time.Duration
	tries    int
	reply    *dns.Msg // nil without
}

// toBeAsked says whether the upstream is to be asked. What there is to say of
// the others is said here.
func (u *upstream) toBeAsked() bool {
	switch {
	case u.unusable != nil:
		u.got = answer{status: NotAsked, detail: u.unusable.Error()}
	case u.own != nil:
		u.got = answer{status: Own}
	default:
		return true
	}
	return false
}

// wireOptions returns how the directive would talk to the upstream.
func (u *upstream) wireOptions(f *forward) wire.Options {
	cfg := f.tlsFor(u.target)
	host := cfg.ServerName
	if f.directive == "forward" {
		host = f.serverName
	}
	return wire.Options{
		Transport: u.target.Transport,
		Addr:      u.target.Addr,
		TLS:       cfg,
		Source:    f.source,
		ForceTCP:  f.forceTCP,
		DoHMethod: f.dohMethod,
		DoHHost:   host,
		ProxyName: f.directive,
	}
}

// protocol is what queries travel by: udp, tcp, tls, https or quic.
func (u *upstream) protocol(f *forward) string {
	switch {
	case u.target.Transport != transport.DNS:
		return u.target.Transport
	case f.forceTCP:
		return "tcp"
	}
	return "udp"
}

// zoneQuestion is what every server that is there for zone can answer, without
// asking many others: the root's name servers, as forward's health check does,
// or the zone's SOA.
func zoneQuestion(zone string) *dns.Msg {
	if zone == "." {
		return new(dns.Msg).SetQuestion(zone, dns.TypeNS)
	}
	return new(dns.Msg).SetQuestion(zone, dns.TypeSOA)
}

// ask asks the upstream everything, at once.
func (u *upstream) ask(ctx context.Context, f *forward) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	u.named = make([]answer, len(u.names))
	up, err := wire.New(u.wireOptions(f))
	if err != nil {
		u.got = answer{status: NotAsked, detail: err.Error()}
		return
	}
	defer up.Close()

	done := make(chan struct{})
	for i, name := range u.names {
		go func() {
			u.named[i] = askFor(ctx, up, new(dns.Msg).SetQuestion(name, dns.TypeA))
			done <- struct{}{}
		}()
	}
	u.got = askFor(ctx, up, zoneQuestion(f.question))
	for range u.names {
		<-done
	}
	for i := range u.named {
		if a := &u.named[i]; a.reply != nil && a.reply.Rcode == dns.RcodeNameError {
			a.status = NoSuchName
		}
	}
}

// askFor asks up until ctx is done.
func askFor(ctx context.Context, up *wire.Upstream, q *dns.Msg) answer {
	a := exchange(ctx, up, q, askTries)
	if a.status == Slow {
		// Once more: the first took the making of the connection, or had to be
		// looked up.
		if again := exchange(ctx, up, q, 1); again.reply != nil && again.rtt < a.rtt {
			again.tries += a.tries
			a = again
		}
	}
	a.question = q.Question[0].Name + " " + dns.TypeToString[q.Question[0].Qtype]
	return a
}

// exchange sends q up to tries times and returns the first answer.
func exchange(ctx context.Context, up *wire.Upstream, q *dns.Msg, tries int) answer {
	packed, err := q.Pack()
	if err != nil {
		return answer{status: NotAsked, detail: err.Error()}
	}
	attempts := make([]wire.Attempt, tries)
	done := make(chan *wire.Attempt, tries)
	sent, waiting := 0, 0
	defer func() {
		for i := range attempts[:sent] {
			attempts[i].Cancel()
		}
	}()

	send := time.NewTimer(0)
	defer send.Stop()
	var failed error
	for {
		select {
		case <-send.C:
			a := &attempts[sent]
			a.Query, a.Done = packed, done
			if sent > 0 {
				a.Avoid = attempts[sent-1].Leg()
			}
			sent++
			waiting++
			up.Send(a)
			if sent < tries {
				send.Reset(askEvery)
			}
		case a := <-done:
			waiting--
			if a.Err == nil {
				m, err := a.Unpack()
				rtt := a.RTT()
				a.Release()
				if err == nil {
					got := judge(m, rtt)
					got.tries = sent
					return got
				}
				a.Err = err
			}
			failed = a.Err
			// A certificate does not get better; all else may have been a moment.
			if waiting == 0 && sent == tries || wire.Class(failed) == wire.ReasonTLS {
				return failure(failed, sent)
			}
		case <-ctx.Done():
			if failed != nil {
				return failure(failed, sent)
			}
			got := answer{status: Silent, tries: sent}
			if n := ignored(up); n > 0 {
				got.detail = fmt.Sprintf("%d packets came that answer no question of ours", n)
			}
			return got
		}
	}
}

func ignored(up *wire.Upstream) (n uint64) {
	for _, i := range up.Stats().Ignored {
		n += i
	}
	return n
}

// judge says what an answer is worth.
func judge(m *dns.Msg, rtt time.Duration) answer {
	a := answer{status: Answers, rtt: rtt, reply: m}
	switch m.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
		switch {
		case m.Rcode == dns.RcodeSuccess && len(m.Answer) == 0 && !m.Authoritative && !m.RecursionAvailable && !m.Truncated:
			a.status = Lame
		case rtt > slowAfter:
			a.status = Slow
		}
	case dns.RcodeRefused:
		a.status = Refuses
	case dns.RcodeServerFailure:
		a.status = ServFail
	default:
		a.status = BadRcode
	}
	return a
}

// failure says what an error means.
func failure(err error, tries int) answer {
	a := answer{status: NotAsked, detail: err.Error(), tries: tries}
	switch wire.Class(err) {
	case wire.ReasonTimeout:
		a.status = Silent
	case wire.ReasonRefused:
		a.status = Closed
	case wire.ReasonUnreachable:
		a.status = Unreachable
	case wire.ReasonTLS:
		a.status = TLSError
	case wire.ReasonClosed, wire.ReasonReplaced:
		a.status = HangsUp
	case wire.ReasonMalformed:
		a.status = Malformed
	}
	return a
}

// rcodeName returns the name of the answer's rcode, "" without an answer.
func (a *answer) rcodeName() string {
	if a.reply == nil {
		return ""
	}
	if s, ok := dns.RcodeToString[a.reply.Rcode]; ok {
		return s
	}
	return fmt.Sprintf("RCODE%d", a.reply.Rcode)
}

// neitherBit says whether the answer is one without AA and RA, though good.
func (a *answer) neitherBit() bool {
	return slices.Contains([]Status{Answers, Slow}, a.status) && a.reply != nil && !a.reply.Authoritative && !a.reply.RecursionAvailable
}
