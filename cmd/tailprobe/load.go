package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/doctor"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/load"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/report"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/stub"

	"github.com/urfave/cli/v3"
	"golang.org/x/term"
)

// maxShown is how many lookups over the limit are shown one by one.
const maxShown = 20

// job is a load test that was understood.
type job struct {
	plan       load.Plan
	targets    []load.Target
	thresholds report.Thresholds
	slowFrom   time.Duration
	json       bool
	svg        string
}

// load is the command without a name.
func (a *app) load(ctx context.Context, c *cli.Command) error {
	if c.NArg() == 0 && !c.IsSet("f") {
		return cli.ShowRootCommandHelp(c)
	}
	j, err := a.job(c)
	if err != nil {
		return err
	}
	r, stats, err := a.carryOut(ctx, j)
	if err != nil {
		return err
	}
	if j.svg != "" {
		if err := draw(j.svg, r, stats); err != nil {
			return err
		}
	}
	if j.json {
		err = r.JSON(a.out)
	} else {
		err = r.Text(a.out)
	}
	if err == nil && !r.Passed {
		return errFailed
	}
	return err
}

// job reads the flags.
func (a *app) job(c *cli.Command) (*job, error) {
	j := &job{json: c.Bool("json"), svg: c.String("svg"), slowFrom: c.Duration("slow")}
	names := c.Args().Slice()
	for _, n := range names {
		if err := load.CheckName(n); err != nil {
			return nil, err
		}
	}
	if file := c.String("f"); file != "" {
		more, err := a.namesFrom(file)
		if err != nil {
			return nil, fmt.Errorf("-f %s: %w", file, err)
		}
		names = append(names, more...)
	}
	libc, err := chooseLibc(c.String("libc"))
	if err != nil {
		return nil, err
	}
	family := stub.Family(c.String("family"))
	if family != stub.Any && family != stub.IPv4 && family != stub.IPv6 {
		return nil, fmt.Errorf("-family %q: valid is any, 4 or 6", family)
	}
	seed := c.Uint64("seed")
	if seed == 0 {
		seed = rand.Uint64() >> 11 // exact in the floating-point numbers of JSON
	}
	j.plan = load.Plan{
		Names: names, Random: c.Bool("random"), Libc: libc, Family: family, Keep: c.Bool("keep-state"),
		Workers: c.Int("c"), For: c.Duration("d"), Count: c.Int("n"), Rate: c.Float("rate"), GiveUp: c.Duration("give-up"), Seed: seed,
	}
	if err := j.plan.Check(); err != nil {
		return nil, err
	}
	if j.targets, err = targets(c, libc); err != nil {
		return nil, err
	}
	return j, j.setThresholds(c)
}

// setThresholds reads what must not happen.
func (j *job) setThresholds(c *cli.Command) error {
	j.thresholds = report.Thresholds{Limit: c.Duration("limit"), Failed: -1}
	if j.thresholds.Limit < 0 {
		return fmt.Errorf("-limit %v: valid is 0 (off) or a time, as in 5s", j.thresholds.Limit)
	}
	if j.slowFrom <= 0 {
		return fmt.Errorf("-slow %v: valid is a time above 0, as in 1s", j.slowFrom)
	}
	for _, text := range c.StringSlice("fail-over") {
		t, err := report.ParseThreshold(text)
		if err != nil {
			return fmt.Errorf("-fail-over %w", err)
		}
		j.thresholds.Over = append(j.thresholds.Over, t)
	}
	if text := c.String("fail-errors"); text != "" {
		share, err := report.ParsePercent(text)
		if err != nil {
			return fmt.Errorf("-fail-errors %w", err)
		}
		j.thresholds.Failed = share
	}
	return nil
}

// namesFrom reads a file of names.
func (a *app) namesFrom(file string) ([]string, error) {
	var r io.Reader = a.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	names, err := load.ReadNames(r)
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("it has no names")
	}
	return names, err
}

// chooseLibc reads the flag of that name.
func chooseLibc(text string) (stub.Libc, error) {
	switch libc := stub.Libc(text); libc {
	case stub.Glibc, stub.Musl:
		return libc, nil
	case "auto":
		if doctor.FindLibc("/").Kind == string(stub.Musl) {
			return stub.Musl, nil
		}
		return stub.Glibc, nil
	}
	return "", fmt.Errorf("-libc %q: valid is glibc, musl or auto", text)
}

// targets reads which name servers to ask.
func targets(c *cli.Command, libc stub.Libc) ([]load.Target, error) {
	config, err := resolvConf(c, libc)
	if err != nil {
		return nil, err
	}
	servers := c.StringSlice("server")
	if len(servers) == 0 {
		return []load.Target{{Name: "resolv.conf", Config: config}}, nil
	}
	var all []load.Target
	for _, text := range servers {
		t := load.Target{Name: text, Config: config}
		if t.Config.Nameservers, err = parseServers(text); err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// carryOut does the lookups. A signal ends it, with a report of what there is.
func (a *app) carryOut(ctx context.Context, j *job) (*report.Report, []*report.Stats, error) {
	colors := os.Getenv("NO_COLOR") == "" // no-color.org
	terminal := false
	if f, ok := a.err.(*os.File); ok {
		terminal = term.IsTerminal(int(f.Fd()))
	}
	var shown sync.Mutex
	left := maxShown
	var stats []*report.Stats
	var collectors []load.Collector
	for _, t := range j.targets {
		o := report.StatsOptions{Limit: j.thresholds.Limit, SlowFrom: j.slowFrom}
		for _, e := range j.thresholds.Over {
			o.Edges = append(o.Edges, e.Over)
		}
		o.OnSlow = func(s load.Sample) {
			shown.Lock()
			defer shown.Unlock()
			if left--; left >= 0 {
				fmt.Fprintln(a.err, clearLine(terminal)+describe(t.Name, s))
			} else if left == -1 {
				fmt.Fprintln(a.err, clearLine(terminal)+"further lookups over the limit aren't shown")
			}
		}
		s := report.NewStats(t, o)
		stats, collectors = append(stats, s), append(collectors, s)
	}

	live, stop := context.WithCancel(context.Background())
	var display sync.WaitGroup
	display.Go(func() { report.Live(live, a.err, terminal, colors, j.plan.For, stats) })
	start := time.Now()
	err := j.plan.Run(ctx, j.targets, collectors)
	elapsed := time.Since(start)
	stop()
	display.Wait()
	if err != nil {
		return nil, nil, err
	}

	p := &j.plan
	r := &report.Report{
		Schema: report.SchemaVersion, Version: version, Started: start.UTC().Round(time.Millisecond),
		Duration: milliseconds(elapsed), Ended: report.Complete, Libc: string(p.Libc), Family: string(p.Family),
		Workers: p.Workers, Rate: p.Rate, Names: len(p.Names), Random: p.Random, Seed: p.Seed,
		Limit: milliseconds(j.thresholds.Limit), SlowFrom: milliseconds(j.slowFrom), Failures: j.thresholds.Check(stats),
	}
	if ctx.Err() != nil {
		r.Ended = report.Interrupted
	}
	r.Passed = len(r.Failures) == 0
	for _, s := range stats {
		r.Targets = append(r.Targets, s.Target(elapsed))
	}
	return r, stats, nil
}

// describe tells about one lookup over the limit.
func describe(target string, s load.Sample) string {
	lost := "nothing"
	switch l := s.Result.Lost; {
	case l.A && l.AAAA:
		lost = "A and AAAA"
	case l.A:
		lost = "A"
	case l.AAAA:
		lost = "AAAA"
	}
	text := fmt.Sprintf("%s %s: %s after %.3f s; lost: %s; asked %d names with %d packets, %d waits in vain",
		s.Start.UTC().Format("15:04:05.000"), s.Name, s.Result.Status, s.Took.Seconds(), lost,
		s.Result.Questions, s.Result.SentUDP+s.Result.SentTCP, s.Result.Timeouts)
	if s.Result.Err != nil {
		text += "; " + s.Result.Err.Error()
	}
	return text + " [" + target + "]"
}

// clearLine makes room where the live line is.
func clearLine(terminal bool) string {
	if terminal {
		return "\r\x1b[K"
	}
	return ""
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// draw writes the picture.
func draw(file string, r *report.Report, stats []*report.Stats) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("-svg: %w", err)
	}
	var names []string
	for _, t := range r.Targets {
		names = append(names, t.Name)
	}
	err = report.SVG(f, fmt.Sprintf("%s getaddrinfo: %s", r.Libc, strings.Join(names, ", ")), stats)
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return fmt.Errorf("-svg %s: %w", file, err)
	}
	return nil
}
