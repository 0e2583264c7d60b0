package peers_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/resolute-dns/resolute/test/harness"
	"github.com/resolute-dns/resolute/test/peers/fault"
	"github.com/resolute-dns/resolute/test/peers/load"
)

// side is one of the two that are compared: a server and its upstreams.
type side struct {
	directive string
	upstreams []*fault.Upstream
	srv       *harness.Server
	addr      string
	metrics   *scraper
	gauges    *gauges // of failover only: forward has no such gauge
	started   time.Time
}

// corefile is what differs between the servers of the tests.
type corefile struct {
	plugins string // before the directive
	tls     bool   // ask the upstreams over TLS
	options string // of the directive
}

// startSide starts a server that asks the upstreams by way of the directive.
func startSide(t *testing.T, directive string, upstreams []*fault.Upstream, conf corefile) *side {
	t.Helper()
	s := &side{directive: directive, upstreams: upstreams, addr: fault.FreeAddr(t)}
	host, port, _ := net.SplitHostPort(s.addr)
	metrics := fault.FreeAddr(t)
	var to strings.Builder
	for _, u := range upstreams {
		if conf.tls {
			to.WriteString(" tls://" + u.Addr)
		} else {
			to.WriteString(" " + u.Addr)
		}
	}
	text := fmt.Sprintf(".:%s {\nbind %s\nprometheus %s\n%s\n%s .%s {\n%s\n}\n}\n", port, host, metrics, conf.plugins, directive, &to, conf.options)
	s.started = time.Now()
	s.srv = harness.Start(t, binary(t), text)
	s.metrics = newScraper(t, metrics)
	if directive == ours {
		s.gauges = watchGauges(t, s.metrics)
	}
	return s
}

// upstreams starts n upstreams.
func upstreams(t *testing.T, n int) []*fault.Upstream {
	t.Helper()
	all := make([]*fault.Upstream, n)
	for i := range all {
		all[i] = fault.New(t, fault.Healthy)
	}
	return all
}

func set(t *testing.T, upstreams []*fault.Upstream, m fault.Mode) {
	t.Helper()
	for _, u := range upstreams {
		u.Set(t, m)
	}
}

// received returns how many queries the upstreams got from from to to.
func (s *side) received(from, to time.Time) (n int64) {
	for _, u := range s.upstreams {
		n += u.Received.Between(from, to)
	}
	return n
}

// up reports whether all the upstreams are in use, as the gauge has it.
func (s *side) up() bool {
	for _, u := range s.upstreams {
		if !s.gauges.up(u.Addr) {
			return false
		}
	}
	return true
}

// down reports whether none of the upstreams is in use.
func (s *side) down() bool {
	for _, u := range s.upstreams {
		if s.gauges.up(u.Addr) {
			return false
		}
	}
	return true
}

// starved returns how long the threads of the server were ready to run and not
// run, until now.
func (s *side) starved() (sum time.Duration) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", s.srv.PID()))
	for _, f := range files {
		stat, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		if fields := strings.Fields(string(stat)); len(fields) == 3 {
			ns, _ := strconv.ParseInt(fields[1], 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum
}

// watch returns a running watch that ends with the test.
func watch(t *testing.T) *load.Watch {
	w := load.NewWatch()
	t.Cleanup(w.Stop)
	return w
}

// await waits until ok returns true, or the time is over.
func await(limit time.Duration, ok func() bool) bool {
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if ok() {
			return true
		}
		if time.Since(start) > limit {
			return false
		}
	}
}

// patience is how long anything may take that has no bound of its own.
const patience = 30 * time.Second
