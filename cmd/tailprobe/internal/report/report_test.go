package report

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/load"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/resolvconf"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/stub"
)

// sample returns a lookup that took d.
func sample(d time.Duration, status stub.Status, lost stub.Types, replies ...stub.Reply) load.Sample {
	return load.Sample{Name: "a.example", Took: d, Result: stub.Result{Status: status, Lost: lost, Replies: replies, Questions: 2, SentUDP: 4, Sockets: 1}}
}

func newStats(limit time.Duration, onSlow func(load.Sample), over ...time.Duration) *Stats {
	return NewStats(load.Target{Name: "t", Config: resolvconf.Default()}, StatsOptions{Limit: limit, SlowFrom: time.Second, Edges: over, OnSlow: onSlow})
}

func TestStats(t *testing.T) {
	var shown []time.Duration
	s := newStats(3*time.Second, func(p load.Sample) { shown = append(shown, p.Took) })
	good := stub.Reply{Type: "A", Rcode: "NOERROR", RA: true}
	lame := stub.Reply{Type: "AAAA", Rcode: "NOERROR", Discarded: true}
	for range 996 {
		s.Add(sample(time.Millisecond, stub.OK, stub.Types{}, good, good))
	}
	s.Add(sample(5*time.Second+time.Millisecond, stub.OK, stub.Types{A: true}, good, lame))
	s.Add(sample(5*time.Second, stub.OK, stub.Types{AAAA: true}))
	s.Add(sample(10*time.Second+time.Millisecond, stub.TryAgain, stub.Types{A: true, AAAA: true}))
	s.Add(sample(1500*time.Millisecond, stub.NoName, stub.Types{}))
	s.Unstarted(time.Hour)

	got := s.Target(10 * time.Second)
	if got.Lookups != 1001 || got.Unstarted != 1 || got.PerSecond != 100 || got.Questions != 2000 || got.SentUDP != 4000 || got.Sockets != 1000 {
		t.Errorf("%+v", got)
	}
	if got.Slow != (Slow{Count: 5, A: 1, AAAA: 1, Both: 1, Nothing: 2}) || got.Lost != (Lost{A: 1, AAAA: 1, Both: 1}) {
		t.Errorf("slow %+v, lost %+v", got.Slow, got.Lost)
	}
	var over []int64
	for _, o := range got.Over {
		over = append(over, o.Count)
	}
	// 1, 2, 3 (the limit), 4, 5 and 10 s.
	if !slices.Equal(over, []int64{5, 4, 4, 4, 3, 2}) {
		t.Errorf("over %v: %+v", over, got.Over)
	}
	if got.Latency.P50 != 1 || got.Latency.P90 != 1 || got.Latency.Max < 599_000 || got.Latency.Max > 601_000 {
		t.Errorf("latency %+v", got.Latency)
	}
	if got.Flags != (Flags{RA: 1993, Discarded: 1, OldGlibc: 1}) || got.Rcodes["NOERROR"] != 1994 {
		t.Errorf("flags %+v, rcodes %v", got.Flags, got.Rcodes)
	}
	if got.Status["ok"] != 998 || got.Status["again"] != 1 || got.Status["noname"] != 1 {
		t.Errorf("status %v", got.Status)
	}
	if len(shown) != 3 {
		t.Errorf("shown %v", shown)
	}
}

func TestErrorsAreBounded(t *testing.T) {
	s := newStats(time.Second, nil)
	for i := range 100 {
		p := sample(0, stub.TryAgain, stub.Types{})
		p.Result.Err = errors.New(strings.Repeat("x", i))
		s.Add(p)
	}
	if e := s.Target(time.Second).Errors; len(e) != maxErrors+1 || e["other"] != 100-maxErrors {
		t.Errorf("%d errors, %d others", len(e), e["other"])
	}
}

func TestThresholds(t *testing.T) {
	s := newStats(time.Second, nil, 100*time.Millisecond)
	for range 99 {
		s.Add(sample(time.Millisecond, stub.OK, stub.Types{}))
	}
	s.Add(sample(200*time.Millisecond, stub.Fail, stub.Types{}))
	tests := map[string]struct {
		h    Thresholds
		want string
	}{
		"nothing":       {Thresholds{Failed: -1}, ""},
		"limit holds":   {Thresholds{Failed: -1, Limit: time.Second}, ""},
		"limit crossed": {Thresholds{Failed: -1, Limit: 100 * time.Millisecond}, "1 of 100 lookups took longer than 100ms (-limit)"},
		"share holds":   {Thresholds{Failed: -1, Over: []Threshold{{100 * time.Millisecond, 1}}}, ""},
		"share crossed": {Thresholds{Failed: -1, Over: []Threshold{{100 * time.Millisecond, 0.5}}}, "1% of lookups took longer than 100ms, at most 0.5% may (-fail-over)"},
		"errors hold":   {Thresholds{Failed: 1}, ""},
		"errors":        {Thresholds{Failed: 0}, "1% of lookups failed, at most 0% may (-fail-errors)"},
	}
	for name, tc := range tests {
		got := strings.Join(tc.h.Check([]*Stats{s}), "; ")
		if want := strings.TrimSuffix("t: "+tc.want, "t: "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	none, all := newStats(0, nil), newStats(0, nil)
	all.Add(sample(0, stub.TryAgain, stub.Types{}))
	if got := (Thresholds{Failed: -1}).Check([]*Stats{none, all}); len(got) != 2 {
		t.Errorf("nothing and only failures: %q", got)
	}
}

func TestParseThreshold(t *testing.T) {
	if got, err := ParseThreshold("1s=0.1%"); err != nil || got != (Threshold{time.Second, 0.1}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := ParsePercent("3"); err != nil || got != 3 {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "1s", "1=1%", "0s=1%", "-1s=1%", "1s=x", "1s=101%", "1s=-1%", "1s=NaN"} {
		if _, err := ParseThreshold(bad); err == nil || !strings.Contains(err.Error(), "valid is") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// full returns a report of two targets.
func full() (*Report, []*Stats) {
	a, b := newStats(5*time.Second, nil), newStats(5*time.Second, nil)
	for i := range 1000 {
		a.Add(sample(time.Duration(i)*time.Microsecond, stub.OK, stub.Types{}, stub.Reply{Type: "A", Rcode: "NOERROR", RA: true}))
	}
	a.Add(sample(5001*time.Millisecond, stub.OK, stub.Types{AAAA: true}))
	b.Add(sample(time.Millisecond, stub.NoName, stub.Types{}, stub.Reply{Type: "A", Rcode: "NXDOMAIN", RA: true}))
	r := &Report{Schema: SchemaVersion, Libc: "glibc", Family: "any", Workers: 2, Ended: Complete, Limit: 5000, SlowFrom: 1000, Duration: 1000,
		Targets: []Target{a.Target(time.Second), b.Target(time.Second)}, Failures: []string{"t: 1 of 1001 lookups took longer than 5s (-limit)"}}
	return r, []*Stats{a, b}
}

func TestText(t *testing.T) {
	r, _ := full()
	var b strings.Builder
	if err := r.Text(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"glibc getaddrinfo, family any, 2 workers, 1.0 s\n", "p99.9", "over 5 s", "slow (1 s): lost AAAA", "NXDOMAIN", "FAILED\n", "-limit"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
	if strings.Contains(b.String(), "never started") || strings.Contains(b.String(), "with TC") {
		t.Errorf("rows of zeros in\n%s", &b)
	}
}

// TestJSONHasNoNull keeps the types of fields as documented: lists and maps are
// there even if they are empty.
func TestJSONHasNoNull(t *testing.T) {
	s := newStats(0, nil)
	r := &Report{Targets: []Target{s.Target(0)}, Failures: []string{}}
	var b bytes.Buffer
	if err := r.JSON(&b); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b.Bytes(), []byte("null")) {
		t.Errorf("null in %s", &b)
	}
	d := json.NewDecoder(&b)
	d.DisallowUnknownFields()
	if err := d.Decode(new(Report)); err != nil {
		t.Error(err)
	}
}

// TestSchemaIsDocumented compares the fields of Report with the table in the
// README, in both directions.
func TestSchemaIsDocumented(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(readme), "## JSON of the load test")
	section, _, ok2 := strings.Cut(section, "\n## ")
	if !ok || !ok2 {
		t.Fatal("the section isn't there")
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\|").FindAllStringSubmatch(section, -1) {
		documented = append(documented, m[1]+" "+strings.TrimSpace(m[2]))
	}
	var fields []string
	Fields(reflect.TypeFor[Report](), "", &fields)
	for _, f := range fields {
		if !slices.Contains(documented, f) {
			t.Errorf("%q isn't in the README", f)
		}
	}
	for _, d := range documented {
		if !slices.Contains(fields, d) {
			t.Errorf("the README has %q, the report hasn't", d)
		}
	}
}

// Fields lists the JSON paths below a type with their kinds.
func Fields(t reflect.Type, prefix string, into *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		path := prefix + f.Tag.Get("json")
		switch kind := f.Type; {
		case kind == reflect.TypeFor[time.Time]():
			*into = append(*into, path+" time")
		case kind.Kind() == reflect.Struct:
			Fields(kind, path+".", into)
		case kind.Kind() == reflect.Slice && kind.Elem().Kind() == reflect.Struct:
			Fields(kind.Elem(), path+"[].", into)
		case kind.Kind() == reflect.Slice:
			*into = append(*into, path+" list of strings")
		case kind.Kind() == reflect.Map:
			*into = append(*into, path+" map to counts")
		case kind.Kind() == reflect.String:
			*into = append(*into, path+" string")
		case kind.Kind() == reflect.Bool:
			*into = append(*into, path+" bool")
		case kind.Kind() == reflect.Float64:
			*into = append(*into, path+" number")
		default:
			*into = append(*into, path+" integer")
		}
	}
}

func TestSVG(t *testing.T) {
	_, stats := full()
	for _, s := range [][]*Stats{stats, {newStats(0, nil)}, nil} {
		var b bytes.Buffer
		if err := SVG(&b, "title", s); err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(bytes.NewReader(b.Bytes()))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%v in\n%s", err, &b)
			}
		}
	}
	var b bytes.Buffer
	if err := SVG(&b, "title", stats); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{">title<", ">99.9%<", ">1 s<", ">t (1001 lookups)<"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in the picture", want)
		}
	}
}

// TestLive has a line every ten seconds where there is no terminal, and a bar
// without colours where they aren't wanted.
func TestLive(t *testing.T) {
	for name, tc := range map[string]struct {
		terminal, colors bool
		want             string
		escape           bool
	}{
		"plain":    {false, true, " 10 s: 1 lookups, 0 over the limit, 1 failed, longest 2ms\n 20 s: ", false},
		"no color": {true, false, "1 failed", false},
		"terminal": {true, true, "\x1b[31m", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStats(time.Second, nil)
				s.Add(sample(2*time.Millisecond, stub.Fail, stub.Types{}))
				var b strings.Builder
				ctx, cancel := contextWithTimeout(t, 25*time.Second)
				defer cancel()
				Live(ctx, &b, tc.terminal, tc.colors, 30*time.Second, []*Stats{s})
				if got := b.String(); !strings.Contains(got, tc.want) || strings.Contains(got, "\x1b[31m") != tc.escape {
					t.Errorf("got %q, want %q", got, tc.want)
				}
			})
		})
	}
}

func contextWithTimeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}
