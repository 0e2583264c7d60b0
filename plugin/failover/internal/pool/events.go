package pool

import (
	"fmt"
	"time"
)

// EventKind is what changed.
type EventKind uint8

const (
	// Ejected: an upstream is out of service.
	Ejected EventKind = iota
	// Restored: an upstream is back in service.
	Restored
	// NeverAnswered: an upstream has not answered anything since it was added.
	NeverAnswered
	// AllOut: the last upstream went out of service. The caller fails all waiting queries (see Pool.Timer).
	AllOut
	// BackIn: the first upstream is back after AllOut.
	BackIn
)

// Reason is the rule behind an event, as a lower-case word fit for a metric label.
type Reason string

// Reasons of Ejected and Restored events.
const (
	ReasonRun     Reason = "run"     // several losses in a row
	ReasonShare   Reason = "share"   // a large share of outcomes lost
	ReasonSilence Reason = "silence" // no reply to anything, probes included
	ReasonAbsent  Reason = "absent"  // no reply since start, while others reply
	ReasonProved  Reason = "proved"  // answered all replays
	ReasonFirst   Reason = "first"   // first answer when all were out
	ReasonNeeded  Reason = "needed"  // the others were removed from the set
)

// Event is a change of state with the evidence for it. One event is one log line.
type Event struct {
	Kind     EventKind
	Upstream Ref    // zero for AllOut
	ID       string // of the upstream, empty for AllOut
	Reason   Reason
	At       time.Duration

	Run       int           // losses in a row
	LossKinds LossCounts    // what those in the window were
	Lost      int           // losses in the window of 10 s
	Outcomes  int           // good answers and losses in the window
	Silent    time.Duration // since the last reply, or since it was added
	Unheard   int           // client attempts without a reply since then
	Hold      time.Duration // how long it is left alone, for Ejected
	Replays   int           // replays answered, for Restored
	Out       time.Duration // how long it was out, for Restored and BackIn
	Up        int           // upstreams in service after the change
	Of        int           // upstreams configured
}

// LossCounts counts losses of the last 10 s by kind.
type LossCounts struct{ Silent, Rcode, Error int }

// String is the log line.
func (e Event) String() string {
	ms := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	switch e.Kind {
	case Ejected:
		why := ""
		switch e.Reason {
		case ReasonRun:
			why = fmt.Sprintf("%d losses in a row, no good answer for %s", e.Run, ms(e.Silent))
		case ReasonShare:
			why = fmt.Sprintf("lost %d of %d in 10s", e.Lost, e.Outcomes)
		case ReasonSilence:
			why = fmt.Sprintf("silent for %s, %d queries and the probes unanswered", ms(e.Silent), e.Unheard)
		case ReasonAbsent:
			why = fmt.Sprintf("no reply to any probe in %s since it was added, others reply", ms(e.Silent))
		}
		if k := e.LossKinds; e.Reason == ReasonRun || e.Reason == ReasonShare {
			why += fmt.Sprintf(" (%d silent, %d bad rcode, %d error)", k.Silent, k.Rcode, k.Error)
		}
		return fmt.Sprintf("upstream %s ejected: %s; tried again in %s, %d of %d up", e.ID, why, ms(e.Hold), e.Up, e.Of)
	case Restored:
		why := fmt.Sprintf("answered %d replays", e.Replays)
		switch e.Reason {
		case ReasonFirst:
			why = "first to answer when all were out"
		case ReasonNeeded:
			why = "no other upstream is left in the configuration"
		}
		return fmt.Sprintf("upstream %s restored: %s, out for %s, %d of %d up", e.ID, why, ms(e.Out), e.Up, e.Of)
	case NeverAnswered:
		return fmt.Sprintf("upstream %s has not answered since start (%s): is it in the configuration by mistake?", e.ID, ms(e.Silent))
	case AllOut:
		return fmt.Sprintf("all %d upstreams are out: queries fail at once until one answers", e.Of)
	case BackIn:
		return fmt.Sprintf("upstreams are back after %s, %d of %d up", ms(e.Out), e.Up, e.Of)
	}
	return "unknown event"
}

// maxEvents bounds the queue for a caller that never collects.
const maxEvents = 256

func (p *Pool) emit(e Event) {
	if len(p.events) >= maxEvents {
		copy(p.events, p.events[1:])
		p.events = p.events[:maxEvents-1]
	}
	e.Of = len(p.order)
	for _, u := range p.order {
		if u.up {
			e.Up++
		}
	}
	p.events = append(p.events, e)
}

// HasEvents reports whether Events would return something. Any method may cause events, so the caller looks after
// every call (it is one comparison).
func (p *Pool) HasEvents() bool { return len(p.events) > 0 }

// Events appends the events since the last call to dst, oldest first, and forgets them.
func (p *Pool) Events(dst []Event) []Event {
	dst = append(dst, p.events...)
	p.events = p.events[:0]
	return dst
}
