// Package wire is the sockets below the failover directive. It carries an
// already packed DNS query to one upstream over one transport and hands back
// the matching reply or an error, or nothing until the query is withdrawn. It
// makes no decisions: it knows no other upstream, no health and, apart from
// dialing and the life of its own sockets, no time-out.
//
// # Calling protocol
//
// An Upstream is made by New and ended by Close or Retire. One client query is
// any number of Attempts, each sent to one Upstream:
//
//	done := make(chan *wire.Attempt, maxAttempts) // room for every attempt of the query
//
//	a := &wire.Attempt{Query: packed, Proto: wire.UDP, Done: done}
//	up.Send(a)            // never blocks, packed is not needed after it returns
//	...
//	select {
//	case a := <-done:     // a reply or an error, once per Send
//		if a.Err != nil { ... wire.Class(a.Err) ... }
//		m, err := a.Unpack()
//		a.Release()
//	case <-hedgeTimer:    // ask somebody else too, a keeps waiting
//	case <-deadline:
//		a.Cancel()
//	}
//
// The rules:
//
//   - Send sets the attempt in flight. From then on it belongs to wire: no field
//     may be read, written or copied until it is received from Done, or Cancel
//     has returned true. Send has to have returned before either is relied on.
//   - Each Send is followed by exactly one delivery to Done, or by a Cancel that
//     returned true and no delivery. Send itself may deliver, when it fails at
//     once.
//   - Done needs a free place for every attempt that is in flight on it. Wire
//     does not wait for one: a delivery that finds the channel full is lost
//     and counted in Stats.Undelivered.
//   - Cancel returns true when it withdrew the attempt: nothing is or will be in
//     Done for it. It returns false when the delivery has already happened: the
//     attempt is in Done, or was received from it. There is no third case, and
//     wire keeps no reference to the attempt in either, so that it can be used
//     again at once.
//   - Cancel does not disturb the server or the socket. The message ID stays
//     reserved, so that an answer that comes late is not taken for the answer
//     to another query.
//   - To go on listening to a loser for a while, go on waiting and call Cancel
//     later; the packed query is not needed for it.
//   - A reply is matched by message ID and question, the name without regard to
//     case. What does not match is counted and the attempt goes on waiting.
//
// # Transports
//
// UDP is a small set of connected sockets, each shared by many queries (see
// udp.go). TCP and DoT are one connection, two for a short time, with the
// queries pipelined and the replies in any order (see stream.go). DoH and DoQ
// are CoreDNS's own, plugin/pkg/proxy (see proxied.go).
package wire
