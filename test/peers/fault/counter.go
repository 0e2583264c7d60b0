package fault

import (
	"sync/atomic"
	"time"
)

const (
	step  = 100 * time.Millisecond
	steps = int(30 * time.Minute / step)
)

// Counter counts events over time, for up to half an hour, in steps of 100 ms.
type Counter struct {
	epoch time.Time
	n     [steps]atomic.Int32
	total atomic.Int64
}

func newCounter() *Counter { return &Counter{epoch: time.Now()} }

func (c *Counter) add(now time.Time) {
	c.total.Add(1)
	if i := int(now.Sub(c.epoch) / step); i < steps {
		c.n[i].Add(1)
	}
}

// Total returns how many events there were.
func (c *Counter) Total() int64 { return c.total.Load() }

// Between returns how many events there were from from to to, both rounded down
// to a step.
func (c *Counter) Between(from, to time.Time) int64 {
	var sum int64
	for i := max(0, int(from.Sub(c.epoch)/step)); i < min(steps, int(to.Sub(c.epoch)/step)); i++ {
		sum += int64(c.n[i].Load())
	}
	return sum
}

// ports is a set of port numbers that is cheap to add to.
type ports [1 << 16 / 64]atomic.Uint64

// add returns true for a port that is new.
func (p *ports) add(port uint16) bool {
	bit := uint64(1) << (port % 64)
	return p[port/64].Or(bit)&bit == 0
}
