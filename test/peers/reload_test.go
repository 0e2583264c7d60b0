package peers_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/resolute-dns/resolute/test/peers/fault"
	"github.com/resolute-dns/resolute/test/peers/load"
)

// TestReload reloads the server under load while one upstream is dead: no query
// is lost, and nobody has to find out again that the upstream is.
func TestReload(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes ten seconds")
	}
	t.Parallel()
	for _, directive := range sides(t) {
		t.Run(directive, func(t *testing.T) {
			t.Parallel()
			s := startSide(t, directive, upstreams(t, 3), corefile{})
			dead := s.upstreams[0]
			if directive == ours {
				dead.Set(t, fault.Dead) // with stock, queries would be slow before and after
			}
			w := watch(t)
			l := load.Start(t, load.Config{Server: s.addr, QPS: 200})
			if directive == ours && !await(patience, func() bool { return s.gauges.sawDown(dead.Addr) }) {
				t.Fatal("the dead upstream is never ejected")
			}
			pace(500 * time.Millisecond)
			reloaded := time.Now()
			if err := s.srv.Signal(syscall.SIGUSR1); err != nil {
				t.Fatal(err)
			}
			s.srv.WaitLog(t, "Reloading complete")
			pace(3 * time.Second) // of the new server
			end := time.Now()
			result := l.Stop(t, w)
			if result.Failed() > 0 {
				t.Errorf("%d of %d queries failed, the first of %+v", result.Failed(), len(result), result.Where((*load.Query).Failed)[0])
			}
			if directive == stock {
				return
			}
			if at, up := s.gauges.turned(dead.Addr, true, reloaded); up {
				t.Errorf("%v after the reload the dead upstream was in use", at.Sub(reloaded))
			}
			after := result.Between(reloaded, end)
			t.Logf("after the reload: p50 %v, p99 %v, max %v", after.Percentile(.5), after.Percentile(.99), after.Percentile(1))
			if n := after.Slower(500 * time.Millisecond); n > 0 {
				t.Errorf("%d of %d queries after the reload took over 500 ms", n, len(after))
			}
			// Proofs are asked a few times a second at most, clients far more often.
			if got := dead.Received.Between(reloaded, end); got > int64(len(after)/10) {
				t.Errorf("the dead upstream got %d of %d queries after the reload", got, len(after))
			}
		})
	}
}

// sawDown reports whether the last value that was seen is 0.
func (g *gauges) sawDown(to string) bool {
	_, known := g.turned(to, false, time.Time{})
	return known && !g.up(to)
}

// TestShutdown ends the server while queries wait for their answers: all of them
// are answered first.
func TestShutdown(t *testing.T) {
	t.Parallel()
	for _, directive := range sides(t) {
		t.Run(directive, func(t *testing.T) {
			t.Parallel()
			const queries = 200
			u := fault.New(t, fault.Slow(700*time.Millisecond)) // longer than it takes to send them
			s := startSide(t, directive, []*fault.Upstream{u}, corefile{})
			w := watch(t)
			l := load.Start(t, load.Config{Server: s.addr, QPS: 500})
			await(patience, func() bool { return l.Count() >= queries })
			l.Halt()
			// What is still in the buffer of the socket, the server does not have.
			if !await(patience, func() bool { return int(u.Received.Total()-u.Probes.Total()) >= l.Count() }) {
				t.Fatalf("%d queries were sent, the upstream got %d", l.Count(), u.Received.Total())
			}
			waited := l.Count() - l.Answers()
			if err := s.srv.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			result := l.Stop(t, w)
			s.srv.Wait(t)
			t.Logf("%s: %d of %d queries waited for their answer at the signal, %d failed", directive, waited, len(result), result.Failed())
			if waited < queries/4 {
				t.Errorf("only %d queries waited for their answer at the signal", waited)
			}
			if directive == ours && result.Failed() > 0 {
				t.Errorf("%d of %d queries failed: %+v", result.Failed(), len(result), result.Where((*load.Query).Failed)[0])
			}
		})
	}
}
