package pool

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

func BenchmarkHappyPath(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 3, 15} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ids := make([]string, n)
			for i := range ids {
				ids[i] = fmt.Sprint(i)
			}
			p := New(Config{Budget: 10, Rand: rng.Uint64}, ids, 0)
			for _, o := range p.Tick(0, nil) {
				p.ProbeResult(o.Upstream, o.ID, Good, ms)
			}
			var q Query
			now := time.Duration(0)
			b.ReportAllocs()
			for b.Loop() {
				now += 50 * time.Microsecond
				s := p.Begin(&q, uint64(now), now)
				p.Result(&q, s.Ask[0], Good, now+20*time.Microsecond)
			}
		})
	}
}

func BenchmarkTick(b *testing.B) {
	p := New(Config{Budget: 10}, []string{"a", "b", "c"}, 0)
	for _, o := range p.Tick(0, nil) {
		p.ProbeResult(o.Upstream, o.ID, Good, ms)
	}
	now := time.Duration(0)
	var buf []Probe
	b.ReportAllocs()
	for b.Loop() {
		now += tickEvery
		buf = p.Tick(now, buf[:0])
	}
}
