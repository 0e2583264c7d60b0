package preflight

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/resolute-dns/resolute/plugin/failover/internal/target"
	"github.com/resolute-dns/resolute/plugin/failover/internal/wire"

	"github.com/miekg/dns"
)

func TestJudge(t *testing.T) {
	record, _ := dns.NewRR(". 60 IN NS a.root-servers.net.")
	for name, tc := range map[string]struct {
		change func(*dns.Msg)
		rtt    time.Duration
		want   Status
	}{
		"an answer":               {func(m *dns.Msg) { m.Answer, m.RecursionAvailable = []dns.RR{record}, true }, 0, Answers},
		"an answer without bits":  {func(m *dns.Msg) { m.Answer = []dns.RR{record} }, 0, Answers},
		"an empty answer":         {func(m *dns.Msg) { m.RecursionAvailable = true }, 0, Answers},
		"an authoritative one":    {func(m *dns.Msg) { m.Authoritative = true }, 0, Answers},
		"no such name":            {func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }, 0, Answers},
		"cut off":                 {func(m *dns.Msg) { m.Truncated = true }, 0, Answers},
		"neither knows nor asks":  {func(*dns.Msg) {}, 0, Lame},
		"a referral":              {func(m *dns.Msg) { m.Ns = []dns.RR{record} }, 0, Lame},
		"lame and slow":           {func(*dns.Msg) {}, time.Second, Lame},
		"slow":                    {func(m *dns.Msg) { m.RecursionAvailable = true }, slowAfter + 1, Slow},
		"not slow":                {func(m *dns.Msg) { m.RecursionAvailable = true }, slowAfter, Answers},
		"refused":                 {func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }, 0, Refuses},
		"failed":                  {func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }, 0, ServFail},
		"not implemented":         {func(m *dns.Msg) { m.Rcode = dns.RcodeNotImplemented }, 0, BadRcode},
		"an rcode nobody knows":   {func(m *dns.Msg) { m.Rcode = 14 }, 0, BadRcode},
		"format error, and slow":  {func(m *dns.Msg) { m.Rcode = dns.RcodeFormatError }, time.Second, BadRcode},
		"slow, and no such name":  {func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }, time.Second, Slow},
		"refused, authoritative.": {func(m *dns.Msg) { m.Rcode, m.Authoritative = dns.RcodeRefused, true }, 0, Refuses},
	} {
		m := new(dns.Msg).SetReply(new(dns.Msg).SetQuestion(".", dns.TypeNS))
		tc.change(m)
		if got := judge(m, tc.rtt); got.status != tc.want {
			t.Errorf("%s: got %s, want %s", name, got.status, tc.want)
		}
	}
}

func TestFailure(t *testing.T) {
	for err, want := range map[error]Status{
		wire.ErrTimeout:       Silent,
		syscall.ECONNREFUSED:  Closed,
		syscall.EHOSTUNREACH:  Unreachable,
		wire.ErrTLS:           TLSError,
		wire.ErrConnClosed:    HangsUp,
		wire.ErrMalformed:     Malformed,
		syscall.EADDRNOTAVAIL: NotAsked,
		errors.New("other"):   NotAsked,
	} {
		if got := failure(err, 1); got.status != want || got.detail == "" {
			t.Errorf("%v: got %s, want %s", err, got.status, want)
		}
	}
}

// sample is a report with one of everything.
func sample() *Report {
	at := Place{"Corefile", 4}
	f := &forward{Place: at, directive: "forward", from: "."}
	reply := new(dns.Msg).SetReply(new(dns.Msg).SetQuestion(".", dns.TypeNS))
	good := &upstream{to: "/etc/resolv.conf", target: target.Target{Transport: "dns", Addr: "192.0.2.1:53"},
		got:   answer{question: ". NS", status: Answers, rtt: 1234567 * time.Nanosecond, tries: 1, reply: reply},
		named: []answer{{question: "a.example. A", status: NoSuchName, rtt: time.Millisecond, tries: 1, reply: reply}}}
	silent := &upstream{to: "192.0.2.22", target: target.Target{Transport: "dns", Addr: "192.0.2.22:53"},
		got: answer{question: ". NS", status: Silent, tries: 3}}
	r := &Report{Version: ReportVersion, Corefile: "Corefile", Upstreams: []Upstream{good.report(f), silent.report(f)}}
	r.Findings = append(statusFindings(r.Upstreams), Finding{Place: Place{"Corefile", 9}, Code: NoServeStale, Message: "message"})
	r.Notes = []Note{{Place: at, Message: "with a place"}, {Message: "without"}}
	return r
}

func TestText(t *testing.T) {
	r := sample()
	r.conclude([]string{string(NoSuchName)})
	const want = `Corefile:4: forward .
  192.0.2.1:53   udp    answers         1.2 ms  . NS: its answers have neither AA nor RA: glibc throws such answers away when they are empty, see the aa plugin  [/etc/resolv.conf]
                        nxdomain        1.0 ms  a.example. A: it says that the name does not exist
  192.0.2.22:53  udp    silent                  . NS: no answer within 2 s: a wrong address, a server that is down, or a firewall on the way
trap   Corefile:9: message [no_serve_stale]
note   Corefile:4: with a place
note   without
Corefile: 2 upstreams, 2 findings, 1 ignored
`
	var b strings.Builder
	if err := r.WriteText(&b); err != nil || b.String() != want {
		t.Errorf("%v\ngot\n%s\nwant\n%s", err, &b, want)
	}
	if r.Result != Findings || r.ExitCode != 1 {
		t.Errorf("got %s, %d", r.Result, r.ExitCode)
	}
}

func TestConclude(t *testing.T) {
	for _, tc := range []struct {
		ignore string
		errors int
		want   int
	}{
		{"", 0, 1},
		{"silent", 0, 1},
		{"silent no_serve_stale nxdomain", 0, 0},
		{"all", 0, 0},
		{"all", 1, 2},
	} {
		r := sample()
		r.Errors = make([]Error, tc.errors)
		r.conclude(strings.Fields(tc.ignore))
		if r.ExitCode != tc.want {
			t.Errorf("ignoring %s, %d errors: got %d, want %d", tc.ignore, tc.errors, r.ExitCode, tc.want)
		}
	}
}

// TestJSON checks the names of fields, which are a promise.
func TestJSON(t *testing.T) {
	r := sample()
	r.Errors = []Error{{Place: Place{"Corefile", 1}, Directive: "forward", Token: "x", Message: "no"}}
	r.conclude([]string{All})
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	compact, _ := json.Marshal(got)
	const want = `{"corefile":"Corefile",` +
		`"errors":[{"directive":"forward","file":"Corefile","line":1,"message":"no","token":"x"}],"exit_code":2,` +
		`"findings":[{"code":"nxdomain","file":"Corefile","ignored":true,"line":4,"message":"192.0.2.1:53 (udp), asked for a.example. A: it says that the name does not exist","upstream":"192.0.2.1:53"},` +
		`{"code":"silent","file":"Corefile","ignored":true,"line":4,"message":"192.0.2.22:53 (udp), asked for . NS: no answer within 2 s: a wrong address, a server that is down, or a firewall on the way","upstream":"192.0.2.22:53"},` +
		`{"code":"no_serve_stale","file":"Corefile","ignored":true,"line":9,"message":"message"}],` +
		`"notes":[{"file":"Corefile","line":4,"message":"with a place"},{"message":"without"}],"result":"error",` +
		`"upstreams":[{"aa":false,"address":"192.0.2.1:53","detail":"its answers have neither AA nor RA: glibc throws such answers away when they are empty, see the aa plugin",` +
		`"directive":"forward","file":"Corefile","from":".","line":4,"names":[{"aa":false,"detail":"it says that the name does not exist","question":"a.example. A","ra":false,"rcode":"NOERROR","rtt_ms":1,"status":"nxdomain","tries":1}],` +
		`"protocol":"udp","question":". NS","ra":false,"rcode":"NOERROR","rtt_ms":1.235,"status":"answers","to":"/etc/resolv.conf","tries":1},` +
		`{"address":"192.0.2.22:53","detail":"no answer within 2 s: a wrong address, a server that is down, or a firewall on the way","directive":"forward","file":"Corefile","from":".","line":4,` +
		`"protocol":"udp","question":". NS","status":"silent","to":"192.0.2.22","tries":3}],"version":1}`
	if string(compact) != want {
		t.Errorf("got\n%s\nwant\n%s", compact, want)
	}

	b.Reset()
	if err := new(Report).WriteJSON(&b); err != nil || strings.Contains(b.String(), "null") {
		t.Errorf("%v: a list is null: %s", err, &b)
	}
}

func TestFlags(t *testing.T) {
	for _, tc := range []struct {
		args  string
		given bool
		err   string // of Given or of the options
	}{
		{"", false, ""},
		{"-check", true, ""},
		{"-check -json -check-name a.example,B.example -check-name a.example -check-ignore silent,all", true, ""},
		{"-json", false, "-json, -check-name and -check-ignore need -check"},
		{"-check-name a.example", false, "need -check"},
		{"-check -check-name a..b", true, "-check-name: 'a..b' is not a domain name"},
		{"-check -check-ignore silence", true, "-check-ignore: unknown code 'silence': valid are all, bad_rcode"},
		{"-check -check-ignore own", true, "unknown code 'own'"},
		{"-check more", true, "extra command line arguments: [more]"},
	} {
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		fs.SetOutput(io.Discard)
		c := Flags(fs)
		if err := fs.Parse(strings.Fields(tc.args)); err != nil {
			t.Fatal(err)
		}
		given, err := c.Given()
		var o Options
		if err == nil && given {
			o, err = c.options(fs.Args())
		}
		if given != tc.given || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: got %v, %v", tc.args, given, err)
		}
		if len(c.names) > 1 && strings.Join(o.Names, " ") != "a.example. b.example." {
			t.Errorf("%s: names are %q", tc.args, o.Names)
		}
	}
}
