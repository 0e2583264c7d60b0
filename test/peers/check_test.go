package peers_test

import (
	"fmt"
	"time"
)

// problem is a promise that was not kept.
type problem struct {
	text  string
	timed bool // it may be the machine that was late
}

type problems []problem

func (p *problems) add(ok bool, format string, args ...any) {
	if !ok {
		*p = append(*p, problem{text: fmt.Sprintf(format, args...)})
	}
}

func (p *problems) late(ok bool, format string, args ...any) {
	if !ok {
		*p = append(*p, problem{text: fmt.Sprintf(format, args...), timed: true})
	}
}

// allTimed reports whether the machine may be to blame for everything.
func (p problems) allTimed() bool {
	for _, one := range p {
		if !one.timed {
			return false
		}
	}
	return true
}

const (
	// noWait is what no client waits for an answer that can be had at once.
	noWait = time.Second

	// deadline is when a client gets SERVFAIL if there is no answer, see the
	// directive's option of that name. The slack is for the timer and the way.
	deadline      = 4 * time.Second
	deadlineSlack = 200 * time.Millisecond
)

// check returns what failover promised and did not keep. healthy is the p99.9 of
// the same run without a fault.
func check(o *outcome, healthy time.Duration) (p problems) {
	o.checkQueries(&p, healthy)
	o.checkLoad(&p)
	o.checkGauges(&p)
	return p
}

func (o *outcome) checkQueries(p *problems, healthy time.Duration) {
	usual := o.load.Kind("q")
	p.add(usual.Failed() == 0, "%d of %d queries failed", usual.Failed(), len(usual))
	p.late(usual.Slower(noWait) == 0, "%d queries took %v or more, the slowest %v", usual.Slower(noWait), noWait, usual.Percentile(1))

	bound := max(2*healthy, healthy+50*time.Millisecond)
	tail := o.during().Kind("q").Percentile(.999)
	p.late(o.row.untimed || tail <= bound, "p99.9 is %v, more than %v: without the fault it is %v", tail, bound, healthy)

	slow := o.load.Kind("slow")
	p.add(slow.Failed() == 0, "%d of %d slow names failed", slow.Failed(), len(slow))

	// Names without an answer: SERVFAIL, in time.
	for _, q := range o.load.Kind("hung") {
		if q.Lost() || q.Rcode != servfail {
			p.add(false, "a name that hangs got %d after %v, not SERVFAIL", q.Rcode, q.Took)
			break
		}
	}
	hung := o.load.Kind("hung").Percentile(1)
	p.late(hung <= deadline+deadlineSlack, "a name that hangs took %v", hung)
}

func (o *outcome) checkLoad(p *problems) {
	if o.row.bad <= 1 && o.row.kind == nil {
		_, worst := o.amplification()
		p.add(worst < 1.25, "the upstreams got %.2f times the queries of the clients in 10 s", worst)
	}
	steady, until := o.start.Add(time.Second), o.onset
	if o.row.bad == 0 {
		until = o.heal
	}
	if queries := len(o.load.Between(steady, until)); queries >= 100 && o.row.kind == nil {
		ratio := o.ratio(steady, until)
		p.add(ratio < 1.10, "the upstreams got %.2f times the queries of the clients without any fault", ratio)
	}
}

func (o *outcome) checkGauges(p *problems) {
	detected, ejected := o.detected()
	recovered, back := o.recovered()
	if o.row.stays {
		p.add(o.ejections == 0, "%v ejections", o.ejections)
	}
	for i, u := range o.upstreams {
		_, down := o.gauges.turned(u.Addr, false, time.Time{})
		p.add(!down || i < o.row.bad && !o.row.stays, "%s was ejected without a fault of its own", u.Addr)
	}
	if o.row.ejected > 0 && o.qps >= 100 {
		p.late(ejected && detected <= o.row.ejected+poll, "it took %v, more than %v, to eject what is bad (done: %v)", detected, o.row.ejected, ejected)
	}
	if o.row.atStart {
		p.late(o.named > 0 && o.named <= 2*time.Second+poll, "the log named the dead upstream after %v", o.named)
		p.add(ejected, "the gauge of the dead upstream is not 0")
	}
	if ejected && (o.row.ejected > 0 || o.row.atStart) {
		for _, u := range o.upstreams[:o.row.bad] {
			at, up := o.gauges.turned(u.Addr, true, o.onset.Add(detected+poll))
			p.add(!up || !at.Before(o.heal), "%s came back before its fault ended", u.Addr)
		}
	}
	if o.row.heals {
		p.late(back && recovered <= healTime+poll, "it took %v until all were in use again (done: %v)", recovered, back)
	}
}
