package race

import (
	"bytes"
	"context"
	"errors"
	"hash/maphash"

	"github.com/miekg/dns"
)

// Queries that are on their way at the same time and are the same message but
// for the ID and the case of the name are asked once: the first one leads, the
// others follow. A cache that has lost a popular name asks for it a thousand
// times at once.

// followers wait for the answer to somebody else's query.
type followers struct {
	done chan struct{} // closed when m and err are set
	m    *dns.Msg
	err  error
}

// join makes the caller a follower. The lock is held.
func (x *exchange) join() *followers {
	if x.followers == nil {
		x.followers = &followers{done: make(chan struct{})}
	}
	return x.followers
}

// sameWay reports whether q would be asked over the same transport.
func (x *exchange) sameWay(q *Query) bool {
	return x.client.Proto == q.Proto && x.client.RetryTCP == q.RetryTCP
}

// end hands the answer to the followers.
func (f *followers) end(m *dns.Msg, err error) {
	if m != nil {
		m = m.Copy() // the leader goes on to change its own
	}
	f.m, f.err = m, err
	close(f.done)
}

// wait waits for the answer. The follower is to ask by itself if the leader's
// client has gone.
func (f *followers) wait(ctx context.Context) (m *dns.Msg, retry bool, err error) {
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	if f.err != nil {
		gone := errors.Is(f.err, context.Canceled) || errors.Is(f.err, context.DeadlineExceeded)
		return nil, gone && ctx.Err() == nil, f.err
	}
	return f.m.Copy(), false, nil
}

// The layout of a message (RFC 1035 section 4.1).
const (
	headerLen   = 12
	afterName   = 4   // type and class
	maxNameWire = 255 // RFC 1035 section 2.3.4
)

var seed = maphash.MakeSeed()

// hashQuestion returns a hash of the question, without regard to the case of the
// name, and the offset of its end. It reports false for what is not a query with
// one question.
func hashQuestion(packed []byte) (key uint64, end int, ok bool) {
	if len(packed) < headerLen || packed[4] != 0 || packed[5] != 1 {
		return 0, 0, false
	}
	end = headerLen
	for {
		if end >= len(packed) {
			return 0, 0, false
		}
		n := int(packed[end])
		end += 1 + n
		if n == 0 {
			break
		}
		if n > 63 || end-headerLen > maxNameWire { // compressed, or too long
			return 0, 0, false
		}
	}
	end += afterName
	if end > len(packed) {
		return 0, 0, false
	}
	var lower [maxNameWire + 1 + afterName]byte
	n := copy(lower[:], packed[headerLen:end])
	// The lengths of labels are below the letters, so all of it can be lowered.
	for i := range n - afterName {
		lower[i] = toLower(lower[i])
	}
	return maphash.Bytes(seed, lower[:n]), end, true
}

// hash returns a hash of all that makes q what it is, given that of its question
// and where that ends.
func (q *Query) hash(key uint64, question int) uint64 {
	h := key
	for _, v := range []uint64{
		uint64(q.Packed[2])<<8 | uint64(q.Packed[3]), // opcode and flags
		maphash.Bytes(seed, q.Packed[question:]),
		uint64(q.Proto),
	} {
		h = h*1099511628211 ^ v // FNV
	}
	return h
}

// sameQuery reports whether two packed queries are the same but for ID and case
// of the name. The question of b ends at question.
func sameQuery(a, b []byte, question int) bool {
	if len(a) != len(b) || !bytes.Equal(a[2:headerLen], b[2:headerLen]) || !bytes.Equal(a[question-afterName:], b[question-afterName:]) {
		return false
	}
	for i := headerLen; i < question-afterName; i++ {
		if toLower(a[i]) != toLower(b[i]) {
			return false
		}
	}
	return true
}

func toLower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
