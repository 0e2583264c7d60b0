package wire

import (
	"sync"
	"sync/atomic"
)

// The sizes of pooled buffers. Nearly all queries and most replies fit the
// first, replies within the usual EDNS sizes (1232, 4096) the second, anything
// a length prefix can announce (RFC 1035 section 4.2.2) the third.
var bufferSizes = [...]int{512 + framePrefix, 4096 + framePrefix, 65535 + framePrefix}

// framePrefix is the room for the two length bytes of a stream.
const framePrefix = 2

// buffer is a pooled piece of memory with a count of its users.
type buffer struct {
	b     []byte
	refs  atomic.Int32
	class int
}

var bufferPools [len(bufferSizes)]sync.Pool

// newBuffer returns a buffer with len(b) == n and one user. It panics for n
// over 65537, which no caller can ask for.
func newBuffer(n int) *buffer {
	class := 0
	for n > bufferSizes[class] {
		class++
	}
	buf, _ := bufferPools[class].Get().(*buffer)
	if buf == nil {
		buf = &buffer{b: make([]byte, bufferSizes[class]), class: class}
	}
	buf.b = buf.b[:n]
	buf.refs.Store(1)
	return buf
}

// newFrame returns the query as it travels on a stream: its length, then the
// message. UDP sends it without the first two bytes.
func newFrame(query []byte) *buffer {
	buf := newBuffer(framePrefix + len(query))
	buf.b[0], buf.b[1] = byte(len(query)>>8), byte(len(query))
	copy(buf.b[framePrefix:], query)
	return buf
}

// msg returns the message in a frame.
func (b *buffer) msg() []byte { return b.b[framePrefix:] }

// setID puts the message ID into a frame.
func (b *buffer) setID(id uint16) { b.b[2], b.b[3] = byte(id>>8), byte(id) }

// hold adds a user.
func (b *buffer) hold() { b.refs.Add(1) }

// release takes a user away; the last one returns the buffer to the pool.
func (b *buffer) release() {
	if b.refs.Add(-1) == 0 {
		b.b = b.b[:cap(b.b)]
		bufferPools[b.class].Put(b)
	}
}
