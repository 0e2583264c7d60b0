package report

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// How often the live line and the plain lines are written.
const (
	liveEvery  = 200 * time.Millisecond
	plainEvery = 10 * time.Second
)

// Live shows how a run goes on: on a terminal a line that is rewritten, else a
// line now and then. It returns when ctx ends.
func Live(ctx context.Context, w io.Writer, terminal, colors bool, length time.Duration, stats []*Stats) {
	every := plainEvery
	if terminal {
		every = liveEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	start := time.Now()
	var bar *progressbar.ProgressBar
	if terminal {
		bar = progressbar.NewOptions64(length.Milliseconds(),
			progressbar.OptionSetWriter(w), progressbar.OptionSetWidth(20), progressbar.OptionEnableColorCodes(colors),
			progressbar.OptionSetPredictTime(false), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(liveEvery/2))
		defer bar.Finish()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			text, bad := line(stats)
			elapsed := time.Since(start)
			if bar == nil {
				fmt.Fprintf(w, "%3.0f s: %s\n", elapsed.Seconds(), text)
				continue
			}
			if bad && colors {
				text = "[red]" + text + "[reset]"
			}
			bar.Describe(text)
			// Below the end, at which the bar would be finished.
			_ = bar.Set64(min(elapsed.Milliseconds(), length.Milliseconds()-1))
		}
	}
}

// line sums up all targets, and says if something went wrong.
func line(stats []*Stats) (text string, bad bool) {
	var lookups, over, fails int64
	var longest time.Duration
	for _, s := range stats {
		n, o, f, l := s.Progress()
		lookups, over, fails, longest = lookups+n, over+o, fails+f, max(longest, l)
	}
	return fmt.Sprintf("%d lookups, %d over the limit, %d failed, longest %s", lookups, over, fails,
		longest.Round(time.Millisecond)), over+fails > 0
}
