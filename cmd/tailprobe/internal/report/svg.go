package report

import (
	"fmt"
	"image/color"
	"io"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The size of the picture.
const (
	svgWidth  = 24 * vg.Centimeter
	svgHeight = 14 * vg.Centimeter
)

// SVG draws the latency of all targets over the percentile, both on logarithmic
// axes: every step to the right is one more nine.
func SVG(w io.Writer, title string, stats []*Stats) error {
	c := vgsvg.New(svgWidth, svgHeight)
	p, err := picture(title, stats)
	if err != nil {
		return err
	}
	p.Draw(draw.New(c))
	_, err = c.WriteTo(w)
	return err
}

// picture makes the plot.
func picture(title string, stats []*Stats) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text = "percentile of lookups"
	p.Y.Label.Text = "latency, from the intended start"
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())

	low, high, nines := math.Inf(1), math.Inf(-1), 1.0
	for i, s := range stats {
		points, n := s.curve()
		if len(points) == 0 {
			continue
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, fmt.Errorf("drawing %s: %w", s.Name(), err)
		}
		line.LineStyle = draw.LineStyle{Width: vg.Points(1.5), Color: lineColor(i), Dashes: plotutil.Dashes(i)}
		p.Add(line)
		p.Legend.Add(fmt.Sprintf("%s (%d lookups)", s.Name(), n), line)
		low = math.Min(low, points[0].Y)
		high = math.Max(high, points[len(points)-1].Y)
		nines = math.Max(nines, points[len(points)-1].X)
	}
	p.X.Min, p.X.Max = 0, math.Ceil(nines)
	p.X.Tick.Marker = plot.ConstantTicks(percentTicks(p.X.Max))
	if low > high {
		low, high = 0, 0 // nothing to draw
	}
	// Not below 10 us, so that the interesting part isn't squeezed.
	p.Y.Min = math.Floor(math.Max(low, -2))
	p.Y.Max = math.Max(math.Ceil(high), p.Y.Min+1)
	p.Y.Tick.Marker = plot.ConstantTicks(timeTicks(p.Y.Min, p.Y.Max))
	return p, nil
}

// curve returns the points of a target: X is the number of nines, Y the decimal
// logarithm of milliseconds.
func (s *Stats) curve() (plotter.XYs, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var points plotter.XYs
	if s.t.Lookups == 0 {
		return nil, 0
	}
	total, below := float64(s.hist.TotalCount()), int64(0)
	for _, b := range s.hist.Distribution() {
		if b.Count == 0 {
			continue
		}
		y := math.Log10(math.Max(float64(b.To), lowest) / 1000)
		// The slowest lookup of n stands at 1-1/n: further right nothing is known.
		at := func(n int64) float64 { return -math.Log10(math.Max(1-float64(n)/total, 1/total)) }
		points = append(points, plotter.XY{X: at(below), Y: y})
		below += b.Count
		points = append(points, plotter.XY{X: at(below), Y: y})
	}
	return points, s.t.Lookups
}

// percentTicks labels 0, 90, 99, 99.9 ...
func percentTicks(nines float64) []plot.Tick {
	ticks := []plot.Tick{{Value: 0, Label: "0%"}, {Value: -math.Log10(0.5), Label: "50%"}}
	for n := 1.0; n <= nines; n++ {
		ticks = append(ticks, plot.Tick{Value: n, Label: fmt.Sprintf("%.*f%%", int(math.Max(n-2, 0)), 100-math.Pow(10, 2-n))})
	}
	return ticks
}

// timeTicks labels the decades of milliseconds.
func timeTicks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for e := low; e <= high; e++ {
		label := fmt.Sprintf("%g ms", math.Pow(10, e))
		if e >= 3 {
			label = fmt.Sprintf("%g s", math.Pow(10, e-3))
		}
		ticks = append(ticks, plot.Tick{Value: e, Label: label})
		for m := 2.0; m < 10 && e < high; m++ {
			ticks = append(ticks, plot.Tick{Value: e + math.Log10(m)})
		}
	}
	return ticks
}

// lineColor keeps to colours that can be told apart by everybody; the dashes
// differ too.
func lineColor(i int) color.Color {
	colors := []color.Color{
		color.RGBA{R: 0, G: 114, B: 178, A: 255}, color.RGBA{R: 213, G: 94, B: 0, A: 255},
		color.RGBA{R: 0, G: 158, B: 115, A: 255}, color.RGBA{R: 204, G: 121, B: 167, A: 255}, color.Black,
	}
	return colors[i%len(colors)]
}
