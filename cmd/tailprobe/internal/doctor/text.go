package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// JSON writes the diagnosis as one indented object.
func (d *Diagnosis) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(d)
}

// width is where the text is wrapped.
const width = 80

// Text writes the diagnosis for people, problems first.
func (d *Diagnosis) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "C library     %s %s\n", d.Libc, d.Libc.File)
	fmt.Fprintf(&b, "resolv.conf   ndots:%d, search: %s, options: %s\n", d.Ndots, list(d.Search), list(d.Options))
	for _, s := range d.Nameservers {
		fmt.Fprintf(&b, "name server   %s: %d of %d answered", s.Address, s.Answered, s.Tries)
		if s.Answered > 0 {
			fmt.Fprintf(&b, ", %.1f to %.1f ms, %s, AA %s, RA %s, TCP %s",
				s.Fastest, s.Slowest, list(s.Rcodes), yes(s.AA), yes(s.RA), yes(s.TCP))
		}
		b.WriteByte('\n')
	}
	for _, c := range d.Counters {
		fmt.Fprintf(&b, "counter       %s %d, then %d\n", c.Name, c.Before, c.After)
	}
	for _, severity := range []Severity{Problem, Note} {
		for _, f := range d.Findings {
			if f.Severity != severity {
				continue
			}
			fmt.Fprintf(&b, "\n%s: %s (%s)\n", strings.ToUpper(string(f.Severity)), f.Subject, f.ID)
			wrap(&b, "  seen:  ", f.Evidence)
			wrap(&b, "  means: ", f.Means)
			wrap(&b, "  do:    ", f.Do)
		}
	}
	notes := len(d.Findings) - d.Problems
	fmt.Fprintf(&b, "\n%d problems, %d notes\n", d.Problems, notes)
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap writes text behind a label, with its lines below each other.
func wrap(b *strings.Builder, label, text string) {
	b.WriteString(label)
	column := len(label)
	for i, word := range strings.Fields(text) {
		if i > 0 && column+1+len(word) > width {
			b.WriteString("\n" + strings.Repeat(" ", len(label)))
			column = len(label)
		} else if i > 0 {
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	b.WriteByte('\n')
}

func list(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, " ")
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
