package peers_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// table collects the outcomes. Times are of the queries that were sent while the
// fault was there, without those for names that hang or are slow.
type table struct {
	mu    sync.Mutex
	lines []line
}

type line struct {
	row  int
	text string
}

// add adds an outcome. Lines are in the order of the rows; noted is what is said
// of the outcome after its numbers.
func (t *table) add(order int, o *outcome, noted string) {
	during := o.during()
	usual := during.Kind("q")
	ms := usual.Percentiles(.5, .99, .999, 1)
	overall, worst := o.amplification()
	ejections, detected, recovered := "-", "-", "-"
	if o.gauges != nil {
		ejections = fmt.Sprint(o.ejections)
		if d, ok := o.detected(); ok {
			detected = seconds(d)
		}
		if d, ok := o.recovered(); ok && o.row.heals {
			recovered = seconds(d)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, line{order, fmt.Sprintf("%s\t%d\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%.2f\t%.2f\t%s\t%s\t%s\t%v\t%.1f%%\t%s",
		o.row.name, o.qps, o.directive, len(during), usual.Failed(), millis(ms[0]), millis(ms[1]), millis(ms[2]), millis(ms[3]),
		overall, worst, ejections, detected, recovered,
		o.watch.Longest(o.start, o.end).Round(time.Millisecond), 100*o.starved, noted)})
}

func (t *table) print() {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.SortStableFunc(t.lines, func(a, b line) int { return a.row - b.row })
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "row\tqps\tside\tqueries\tfailed\tp50\tp99\tp99.9\tmax ms\tload\tin 10s\tejections\tdetected\tback\tstall\tstarved\t")
	for _, l := range t.lines {
		fmt.Fprintln(w, strings.TrimRight(l.text, "\t"))
	}
	w.Flush()
}

func millis(d time.Duration) string  { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }
func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }
