package preflight

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// ReportVersion is the version of the JSON form of a [Report]. It is raised when
// a field is removed or changes its meaning, not when one is added.
const ReportVersion = 1

// Result is how a check ended.
type Result string

// The results, and the exit codes that go with them.
const (
	// OK is that nothing was found, or nothing that counts: 0.
	OK Result = "ok"
	// Findings is that something was found that counts: 1.
	Findings Result = "findings"
	// Failed is that the server would not start: 2.
	Failed Result = "error"
)

// ExitCode returns the exit code for the result.
func (r Result) ExitCode() int {
	switch r {
	case OK:
		return 0
	case Findings:
		return 1
	}
	return 2
}

// Report is what came out of a check.
type Report struct {
	// Version is ReportVersion.
	Version int `json:"version"`
	// Corefile is the path that was read.
	Corefile string `json:"corefile"`
	// Result is the summary; ExitCode is the exit code of the process.
	Result   Result `json:"result"`
	ExitCode int    `json:"exit_code"`
	// Errors are why the server would not start. When there are any, no upstream
	// was asked.
	Errors []Error `json:"errors"`
	// Upstreams are all upstreams of all directives, in the order of the Corefile.
	Upstreams []Upstream `json:"upstreams"`
	// Findings are what is wrong.
	Findings []Finding `json:"findings"`
	// Notes are what else there is to know; they do not count.
	Notes []Note `json:"notes"`
}

// Error is something that keeps the server from starting.
type Error struct {
	Place

	// Directive and Token are where the reading stopped, as far as known.
	Directive string `json:"directive,omitempty"`
	Token     string `json:"token,omitempty"`
	Message   string `json:"message"`
}

// Finding is something that lets the server start and will hurt.
type Finding struct {
	Place

	// Code is a Status other than Answers and Own, or the code of a trap.
	Code string `json:"code"`
	// Upstream is the address it is about, if it is about one.
	Upstream string `json:"upstream,omitempty"`
	Message  string `json:"message"`
	// Ignored is that the finding does not count, by -check-ignore.
	Ignored bool `json:"ignored,omitempty"`
}

// Note is a remark.
type Note struct {
	Place

	Message string `json:"message"`
}

// Upstream is an upstream of a directive and what became of asking it.
type Upstream struct {
	Place

	// Directive is "forward" or "failover", From its FROM, To the argument that
	// the upstream comes from: an address, a file or a host name.
	Directive string `json:"directive"`
	From      string `json:"from"`
	To        string `json:"to"`
	// Protocol is udp, tcp, tls, https or quic.
	Protocol string `json:"protocol"`
	// Address is the IP address and port.
	Address string `json:"address"`
	// ServerName is the name that its certificate has to be for, if one is
	// configured.
	ServerName string `json:"server_name,omitempty"`

	Answer

	// Names are the answers to the names of -check-name.
	Names []Answer `json:"names,omitempty"`
}

// Answer is what became of a question.
type Answer struct {
	// Question is the name and type asked for.
	Question string `json:"question,omitempty"`
	Status   Status `json:"status"`
	// RTTms is the time from sending the query to reading its answer, in
	// milliseconds. For https and quic it may include the making of the connection.
	RTTms float64 `json:"rtt_ms,omitempty"`
	// Tries is how many queries were sent.
	Tries int `json:"tries,omitempty"`
	// Rcode, AA and RA are those of the answer, missing without one.
	Rcode string `json:"rcode,omitempty"`
	AA    *bool  `json:"aa,omitempty"`
	RA    *bool  `json:"ra,omitempty"`
	// Detail is what it means, and the error if there was one.
	Detail string `json:"detail,omitempty"`
}

// meanings say what a status means, and where to look.
var meanings = map[Status]string{
	Slow:        "it takes more than half a second: it is overloaded, far away, or waits for something itself",
	Silent:      "no answer within 2 s: a wrong address, a server that is down, or a firewall on the way",
	Refuses:     "it does not want to answer this machine: is it meant for others, or for certain zones only?",
	Lame:        "it neither knows nor recurses (no answer, no AA, no RA): it is no resolver",
	ServFail:    "it has failed: its own upstreams, or its DNSSEC validation",
	NoSuchName:  "it says that the name does not exist",
	BadRcode:    "it does not answer a plain query",
	Closed:      "nothing listens on the port",
	HangsUp:     "it closes the connection without an answer",
	Unreachable: "there is no way to it from here",
	TLSError:    "the TLS handshake failed: a wrong server name, or a certificate from an authority that is not known here",
	Malformed:   "what it sends is no answer to the question",
	NotAsked:    "it could not be asked",
	Own:         "this server itself, which does not listen during a check: not asked",
}

// String is the message with the place, as an error is printed.
func (e Error) String() string {
	var b strings.Builder
	if s := e.Place.String(); s != "" {
		b.WriteString(s + ": ")
	}
	if e.Directive != "" && !strings.HasPrefix(e.Message, "plugin/"+e.Directive+":") {
		b.WriteString(e.Directive + ": ")
	}
	b.WriteString(e.Message)
	if e.Token != "" && !strings.Contains(e.Message, e.Token) {
		fmt.Fprintf(&b, " (at '%s')", e.Token)
	}
	return b.String()
}

func (a *answer) report() Answer {
	r := Answer{
		Question: a.question,
		Status:   a.status,
		RTTms:    float64(a.rtt.Round(time.Microsecond)) / float64(time.Millisecond),
		Tries:    a.tries,
		Rcode:    a.rcodeName(),
	}
	detail := []string{meanings[a.status], a.detail}
	if a.reply != nil {
		aa, ra := a.reply.Authoritative, a.reply.RecursionAvailable
		r.AA, r.RA = &aa, &ra
	}
	if a.status == BadRcode {
		detail = append(detail, a.rcodeName())
	}
	if a.neitherBit() {
		detail = append(detail, "its answers have neither AA nor RA: glibc throws such answers away when they are empty, see the aa plugin")
	}
	r.Detail = strings.Join(slices.DeleteFunc(detail, func(s string) bool { return s == "" }), "; ")
	return r
}

func (u *upstream) report(f *forward) Upstream {
	r := Upstream{
		Place:     f.Place,
		Directive: f.directive,
		From:      f.from,
		To:        u.to,
		Protocol:  u.protocol(f),
		Address:   u.target.Addr,
		Answer:    u.got.report(),
	}
	if r.Protocol == "tls" || r.Protocol == "https" || r.Protocol == "quic" {
		r.ServerName = f.tlsFor(u.target).ServerName
	}
	for i := range u.named {
		r.Names = append(r.Names, u.named[i].report())
	}
	return r
}

// statusFindings returns a finding for each upstream that does not answer well.
func statusFindings(us []Upstream) []Finding {
	var found []Finding
	for _, u := range us {
		for _, a := range append([]Answer{u.Answer}, u.Names...) {
			if a.Status == Answers || a.Status == Own {
				continue
			}
			message := fmt.Sprintf("%s (%s)", u.Address, u.Protocol)
			if a.Question != "" {
				message += ", asked for " + a.Question
			}
			found = append(found, Finding{Place: u.Place, Code: string(a.Status), Upstream: u.Address, Message: message + ": " + a.Detail})
		}
	}
	return found
}

// All stands for every code in [Options.Ignore].
const All = "all"

// Codes returns the codes that findings can have.
func Codes() []string {
	codes := []string{Loop, SingleUpstream, Duplicate, ServfailCached, NoServeStale}
	for s := range meanings {
		if s != Own {
			codes = append(codes, string(s))
		}
	}
	slices.Sort(codes)
	return codes
}

// conclude fills in what follows from the rest.
func (r *Report) conclude(ignore []string) {
	r.Result = OK
	for i := range r.Findings {
		f := &r.Findings[i]
		f.Ignored = slices.Contains(ignore, All) || slices.Contains(ignore, f.Code)
		if !f.Ignored {
			r.Result = Findings
		}
	}
	if len(r.Errors) > 0 {
		r.Result = Failed
	}
	r.ExitCode = r.Result.ExitCode()
}

// WriteJSON writes the report as one JSON object. Its lists are never null.
func (r *Report) WriteJSON(w io.Writer) error {
	out := *r
	if out.Errors == nil {
		out.Errors = []Error{}
	}
	if out.Upstreams == nil {
		out.Upstreams = []Upstream{}
	}
	if out.Findings == nil {
		out.Findings = []Finding{}
	}
	if out.Notes == nil {
		out.Notes = []Note{}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(out)
}

// WriteText writes the report for people: the upstreams by directive, one line
// each, then what else was found.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, e := range r.Errors {
		fmt.Fprintf(&b, "error  %s\n", e)
	}

	width := 0
	for _, u := range r.Upstreams {
		width = max(width, len(u.Address))
	}
	head := ""
	for _, u := range r.Upstreams {
		if h := fmt.Sprintf("%s: %s %s\n", u.Place, u.Directive, u.From); h != head {
			b.WriteString(h)
			head = h
		}
		line := fmt.Sprintf("  %-*s  %-5s  %s", width, u.Address, u.Protocol, u.Answer.text())
		if !u.verbatim() {
			line += "  [" + u.To + "]"
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
		for _, a := range u.Names {
			fmt.Fprintf(&b, "  %-*s  %-5s  %s\n", width, "", "", strings.TrimRight(a.text(), " "))
		}
	}

	counts, ignored := 0, 0
	for _, f := range r.Findings {
		if f.Ignored {
			ignored++
			continue
		}
		counts++
	}
	for _, f := range r.Findings {
		if f.isTrap() {
			mark := "trap "
			if f.Ignored {
				mark = "(trap)"
			}
			fmt.Fprintf(&b, "%s  %s: %s [%s]\n", mark, f.Place, f.Message, f.Code)
		}
	}
	for _, n := range r.Notes {
		if s := n.Place.String(); s != "" {
			fmt.Fprintf(&b, "note   %s: %s\n", s, n.Message)
		} else {
			fmt.Fprintf(&b, "note   %s\n", n.Message)
		}
	}

	switch r.Result {
	case Failed:
		fmt.Fprintf(&b, "%s: would not start\n", r.Corefile)
	default:
		fmt.Fprintf(&b, "%s: %s, %s", r.Corefile, count(len(r.Upstreams), "upstream"), count(counts, "finding"))
		if ignored > 0 {
			fmt.Fprintf(&b, ", %d ignored", ignored)
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// verbatim says whether the address is written in the Corefile, and not in a file
// or behind a name that stands there.
func (u *Upstream) verbatim() bool {
	to := u.To
	if _, after, ok := strings.Cut(to, "://"); ok {
		to = after
	}
	to = strings.TrimPrefix(to, "[")
	if i := strings.IndexAny(to, "%]"); i >= 0 {
		to = to[:i]
	}
	return strings.HasPrefix(strings.TrimPrefix(u.Address, "["), to)
}

// isTrap says whether the finding is about the Corefile and not the answer of an
// upstream, which has a line of its own.
func (f *Finding) isTrap() bool {
	return slices.Contains([]string{Loop, SingleUpstream, Duplicate, ServfailCached, NoServeStale}, f.Code)
}

// text returns status, time, question and meaning, in columns.
func (a Answer) text() string {
	rtt := ""
	if a.RTTms > 0 {
		rtt = fmt.Sprintf("%.1f ms", a.RTTms)
	}
	s := fmt.Sprintf("%-11s %10s  ", a.Status, rtt)
	if a.Question != "" {
		s += a.Question
		if a.Detail != "" {
			s += ": "
		}
	}
	return s + a.Detail
}

func count(n int, what string) string {
	switch n {
	case 0:
		return "no " + what + "s"
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
