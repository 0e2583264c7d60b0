package report

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
)

// JSON writes the report as one indented object.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// row is a line of the table, with a value for each target. It is left out when
// all its values are 0 and it says so.
type row struct {
	label string
	value func(*Target) string
	quiet bool
}

// Text writes the report for people: one column for each target.
func (r *Report) Text(w io.Writer) error {
	load := fmt.Sprintf("%d workers", r.Workers)
	if r.Rate > 0 {
		load = fmt.Sprintf("%s lookups/s by %d workers", number(r.Rate), r.Workers)
	}
	fmt.Fprintf(w, "\n%s getaddrinfo, family %s, %s, %.1f s", r.Libc, r.Family, load, r.Duration/1000)
	if r.Ended != Complete {
		fmt.Fprintf(w, ", %s", r.Ended)
	}
	fmt.Fprintln(w)

	rows := []row{
		{"lookups", func(t *Target) string { return count(t.Lookups) }, false},
		{"per second", func(t *Target) string { return number(t.PerSecond) }, false},
		{"never started", func(t *Target) string { return count(t.Unstarted) }, true},
	}
	for _, s := range keys(r.Targets, func(t *Target) map[string]int64 { return t.Status }) {
		rows = append(rows, row{statusText(s), func(t *Target) string { return of(t.Status[s], t.Lookups) }, true})
	}
	rows = append(rows,
		row{"p50", func(t *Target) string { return millis(t.Latency.P50) }, false},
		row{"p90", func(t *Target) string { return millis(t.Latency.P90) }, false},
		row{"p99", func(t *Target) string { return millis(t.Latency.P99) }, false},
		row{"p99.9", func(t *Target) string { return millis(t.Latency.P999) }, false},
		row{"max", func(t *Target) string { return millis(t.Latency.Max) }, false},
	)
	if len(r.Targets) > 0 {
		for i, o := range r.Targets[0].Over {
			rows = append(rows, row{"over " + number(o.Than/1000) + " s", func(t *Target) string { return of(t.Over[i].Count, t.Lookups) }, false})
		}
	}
	slow := "slow (" + number(r.SlowFrom/1000) + " s): "
	rows = append(rows,
		row{slow + "lost A", func(t *Target) string { return count(t.Slow.A) }, true},
		row{slow + "lost AAAA", func(t *Target) string { return count(t.Slow.AAAA) }, true},
		row{slow + "lost both", func(t *Target) string { return count(t.Slow.Both) }, true},
		row{slow + "lost nothing", func(t *Target) string { return count(t.Slow.Nothing) }, true},
		row{"questions per lookup", func(t *Target) string { return per(t.Questions, t.Lookups-t.Unstarted) }, false},
		row{"sockets per lookup", func(t *Target) string { return per(t.Sockets, t.Lookups-t.Unstarted) }, false},
		row{"waits in vain", func(t *Target) string { return count(t.Timeouts) }, true},
		row{"replies", func(t *Target) string { return count(t.Replies) }, false},
	)
	for _, s := range keys(r.Targets, func(t *Target) map[string]int64 { return t.Rcodes }) {
		rows = append(rows, row{"  " + s, func(t *Target) string { return of(t.Rcodes[s], t.Replies) }, true})
	}
	rows = append(rows,
		row{"  with AA", func(t *Target) string { return of(t.Flags.AA, t.Replies) }, false},
		row{"  with RA", func(t *Target) string { return of(t.Flags.RA, t.Replies) }, false},
		row{"  with TC", func(t *Target) string { return of(t.Flags.TC, t.Replies) }, true},
		row{"  glibc discards", func(t *Target) string { return of(t.Flags.Discarded, t.Replies) }, true},
		row{"glibc < 2.20 would fail", func(t *Target) string { return of(t.Flags.OldGlibc, t.Lookups) }, true},
	)

	labels := 0
	for _, row := range rows {
		labels = max(labels, len(row.label))
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(tw, "\t")
	for i := range r.Targets {
		fmt.Fprint(tw, r.Targets[i].Name, "\t")
	}
	fmt.Fprintln(tw)
	for _, row := range rows {
		values, zero := "", true
		for i := range r.Targets {
			v := row.value(&r.Targets[i])
			values += v + "\t"
			zero = zero && (v == "0" || v == "-")
		}
		if !zero || !row.quiet {
			fmt.Fprintf(tw, "%-*s\t%s\n", labels, row.label, values)
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for i := range r.Targets {
		t := &r.Targets[i]
		for _, e := range keys(r.Targets[i:i+1], func(t *Target) map[string]int64 { return t.Errors }) {
			fmt.Fprintf(w, "%s: %s times: %s\n", t.Name, count(t.Errors[e]), e)
		}
	}
	verdict := "passed"
	if !r.Passed {
		verdict = "FAILED"
	}
	for _, f := range r.Failures {
		fmt.Fprintln(w, f)
	}
	_, err := fmt.Fprintln(w, verdict)
	return err
}

// Complete is [Report.Ended] of a run that nobody interrupted.
const Complete = "complete"

// Interrupted is [Report.Ended] of a run that a signal ended.
const Interrupted = "interrupted"

// statusText explains a status.
func statusText(s string) string {
	switch s {
	case "ok":
		return "ok"
	case "noname":
		return "no such name"
	case "nodata":
		return "no address"
	case "again":
		return "try again (no good answer)"
	case "fail":
		return "failed"
	}
	return s + " (-give-up)"
}

// keys returns the keys of a map of all targets, sorted.
func keys(targets []Target, of func(*Target) map[string]int64) []string {
	seen := map[string]bool{}
	var all []string
	for i := range targets {
		for k := range of(&targets[i]) {
			if !seen[k] {
				seen[k] = true
				all = append(all, k)
			}
		}
	}
	sort.Strings(all)
	return all
}

func count(n int64) string { return strconv.FormatInt(n, 10) }

// number writes a number without needless zeros.
func number(f float64) string { return strconv.FormatFloat(round(f), 'f', -1, 64) }

func millis(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) + " ms" }

// of writes a count with its share.
func of(n, total int64) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s%%)", n, strings.TrimSuffix(strconv.FormatFloat(share(n, total), 'g', 3, 64), ".0"))
}

// per writes a mean.
func per(n, total int64) string {
	if total == 0 {
		return "-"
	}
	return number(float64(n) / float64(total))
}
