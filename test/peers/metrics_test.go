package peers_test

import (
	"bufio"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// poll is the time between two looks at the gauges, and so how late a change can
// be seen.
const poll = 100 * time.Millisecond

// scraper reads the metrics of a server.
type scraper struct {
	url    string
	client *http.Client
}

func newScraper(t testing.TB, addr string) *scraper {
	transport := &http.Transport{MaxIdleConnsPerHost: 1}
	t.Cleanup(transport.CloseIdleConnections)
	return &scraper{url: "http://" + addr + "/metrics", client: &http.Client{Transport: transport, Timeout: patience}}
}

// scrape returns all series, by name and labels, or nil while the server does not
// answer.
func (s *scraper) scrape() map[string]float64 {
	resp, err := s.client.Get(s.url)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	series := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			series[line[:i]] = v
		}
	}
	if lines.Err() != nil {
		return nil
	}
	return series
}

// sum returns the sum over all series of a name.
func (s *scraper) sum(name string) (sum float64) {
	for k, v := range s.scrape() {
		if k == name || strings.HasPrefix(k, name+"{") {
			sum += v
		}
	}
	return sum
}

// gauges follows coredns_failover_upstream_up.
type gauges struct {
	mu      sync.Mutex
	changes map[string][]change
}

// change is a new value of a gauge; the first is the first value that was seen.
type change struct {
	at time.Time
	up bool
}

// watchGauges follows the gauges until the test ends.
func watchGauges(t testing.TB, s *scraper) *gauges {
	g := &gauges{changes: map[string][]change{}}
	done := make(chan struct{})
	var ended sync.WaitGroup
	ended.Go(func() {
		ticker := time.NewTicker(poll)
		defer ticker.Stop()
		for {
			g.look(s)
			select {
			case <-done:
				return
			case <-ticker.C:
			}
		}
	})
	t.Cleanup(func() {
		close(done)
		ended.Wait()
	})
	return g
}

func (g *gauges) look(s *scraper) {
	series := s.scrape()
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	for k, v := range series {
		to, ok := strings.CutPrefix(k, `coredns_failover_upstream_up{to="`)
		if !ok {
			continue
		}
		to, _, _ = strings.Cut(to, `"`)
		to = to[strings.LastIndexByte(to, '/')+1:] // tls://address
		past := g.changes[to]
		if up := v == 1; len(past) == 0 || past[len(past)-1].up != up {
			g.changes[to] = append(past, change{now, up})
		}
	}
}

// up returns the last value that was seen; without any, false.
func (g *gauges) up(to string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	past := g.changes[to]
	return len(past) > 0 && past[len(past)-1].up
}

// turned returns when the gauge was first seen to have the value up at from or
// later, and false if it was not.
func (g *gauges) turned(to string, up bool, from time.Time) (time.Time, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := false // whether it had the value before from
	for _, c := range g.changes[to] {
		if c.at.Before(from) {
			before = c.up == up
			continue
		}
		if before {
			return from, true
		}
		if c.up == up {
			return c.at, true
		}
	}
	return from, before
}
