package wire

import (
	"fmt"
	"net"
	"time"

	"github.com/miekg/dns"
)

// Leg tells the sockets of one upstream apart. 0 is no socket.
type Leg int

// Attempt is one query to one upstream. The zero value with the first group of
// fields set is ready for Send. It may be part of a larger struct and may be
// used again after it was delivered or withdrawn; see the package comment for
// when its fields may be touched. It must not be copied while in flight.
type Attempt struct {
	// Query is the packed message. Only the two bytes of the message ID are
	// replaced on the way, in a copy: signatures of TSIG survive that, because
	// they cover the original ID in their own record (RFC 8945 section 4.2).
	// Query itself is never written to, is shared freely between attempts, and
	// is not read after Send has returned.
	Query []byte
	// Proto is what to send over. After the delivery it is what was really
	// used: only transport.DNS has a choice.
	Proto Proto
	// Avoid is the leg not to use if there is another, 0 for none. A second
	// attempt at the same upstream should avoid the Leg of the first: the path
	// of one socket (an ECMP branch, a conntrack entry) may be broken alone.
	Avoid Leg
	// Done receives the attempt, once. See the package comment about its size.
	Done chan<- *Attempt
	// User is for the caller, wire does not look at it.
	User any

	// Err is why there is no reply, nil when there is one. See Class.
	Err error
	// SentAt is when Send was called, WroteAt when the query was handed to the
	// kernel (later than SentAt by the time it took to connect; zero when it
	// never was or that is not known, as for HTTPS and QUIC), DoneAt when the
	// reply was read or the attempt failed.
	SentAt, WroteAt, DoneAt time.Time

	up     *Upstream
	owner  owner
	reply  *buffer  // the reply without framing, or
	msg    *dns.Msg // the reply of transports that unpack by themselves
	local  net.Addr
	remote net.Addr
	leg    Leg

	// Below: guarded by the owner's mutex.

	waiting bool
	frame   *buffer // the query as sent, kept for its question
	qend    int     // end of the question in the message
	id      uint16  // UDP
	places  [maxStreams]place
	resent  bool
}

// owner is what holds an attempt in flight.
type owner interface {
	cancel(*Attempt) bool
}

// Cancel withdraws the attempt. It returns true if nothing has been and
// nothing will be delivered, and false if the attempt has been delivered: it
// is in Done or was received from it, and Release may have to be called. It
// does not block, and must not be called while Send is running.
func (a *Attempt) Cancel() bool {
	if a.owner == nil {
		return false
	}
	return a.owner.cancel(a)
}

// question returns the question section of the query in flight.
func (a *Attempt) question() []byte { return a.frame.msg()[headerLen:a.qend] }

// finish ends the attempt with a reply or an error and delivers it. The owner's
// mutex is held, which is what makes Cancel exact. Once delivered the attempt
// is the caller's: nothing may be touched after.
func (a *Attempt) finish(reply *buffer, err error, now time.Time) {
	a.detach()
	a.reply, a.Err, a.DoneAt = reply, err, now
	a.deliver()
}

func (a *Attempt) deliver() {
	up := a.up
	select {
	case a.Done <- a:
	default:
		up.undelivered.Add(1)
	}
	up.left()
}

// detach lets go of what was only needed in flight. The owner's mutex is held.
func (a *Attempt) detach() {
	a.waiting = false
	if a.frame != nil {
		a.frame.release()
		a.frame = nil
	}
}

// Raw returns the reply as it arrived, with the message ID that was used on
// the way, or nil when there is none. It is valid until Release. The replies of
// HTTPS and QUIC are packed again for it.
func (a *Attempt) Raw() []byte {
	switch {
	case a.reply != nil:
		return a.reply.b
	case a.msg != nil:
		b, err := a.msg.Pack()
		if err != nil {
			return nil
		}
		return b
	}
	return nil
}

// Truncated says whether the reply has the TC bit. Whether to ask again with
// RetryTCP is the caller's choice.
func (a *Attempt) Truncated() bool {
	if a.reply != nil {
		return a.reply.b[2]&flagTC != 0
	}
	return a.msg != nil && a.msg.Truncated
}

// Rcode returns the response code in the header of the reply (the lower four
// bits, without the extension of EDNS), -1 when there is no reply. It costs
// nothing, so that a bad rcode can be judged without unpacking.
func (a *Attempt) Rcode() int {
	switch {
	case a.reply != nil:
		return int(a.reply.b[3] & rcodeMask)
	case a.msg != nil:
		return a.msg.Rcode & rcodeMask
	}
	return -1
}

// Unpack returns the reply as a message of its own, which stays valid after
// Release; another call returns another message. Its ID is the one used on the
// way, not that of Query. A reply that does not unpack is an ErrMalformed,
// except that one with TC set is cut down to header and question: what a
// server truncates in the middle of a record has served its purpose.
//
// The question section is the one asked for, perhaps in another case, or empty
// with rcode FORMERR, NOTIMP or REFUSED.
func (a *Attempt) Unpack() (*dns.Msg, error) {
	if a.msg != nil {
		return a.msg.Copy(), nil
	}
	if a.reply == nil {
		if a.Err != nil {
			return nil, a.Err
		}
		return nil, ErrMalformed
	}
	m := new(dns.Msg)
	if err := m.Unpack(a.reply.b); err != nil {
		if !m.Truncated || len(m.Question) != 1 {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		m.Answer, m.Ns, m.Extra = nil, nil, nil
	}
	return m, nil
}

// Release gives the memory of the reply back. Raw is invalid after it. It may
// be called at any time between the delivery and the next Send, which includes
// it, more than once, or never at the price of garbage.
func (a *Attempt) Release() {
	if a.reply != nil {
		a.reply.release()
		a.reply = nil
	}
	a.msg = nil
}

// RetryTCP sends the attempt again to the same upstream over TCP, after it was
// delivered with a truncated reply. It is Release and Send with Proto TCP: Query
// has to be valid still, Done has to have room, SentAt starts anew.
func (a *Attempt) RetryTCP() {
	a.Proto = TCP
	a.up.Send(a)
}

// Local returns the address the query was sent from, nil if it never was.
func (a *Attempt) Local() net.Addr { return a.local }

// Remote returns the address the query was sent to, nil if it never was.
func (a *Attempt) Remote() net.Addr { return a.remote }

// Leg returns the socket that was used, for the Avoid of another attempt; 0
// when none was, or the transport has no legs. It may be called in flight too,
// by the goroutine that called Send.
func (a *Attempt) Leg() Leg { return a.leg }

// RTT returns the time from WroteAt, or SentAt where that is not known, to
// DoneAt.
func (a *Attempt) RTT() time.Duration {
	if a.WroteAt.IsZero() {
		return a.DoneAt.Sub(a.SentAt)
	}
	return a.DoneAt.Sub(a.WroteAt)
}
