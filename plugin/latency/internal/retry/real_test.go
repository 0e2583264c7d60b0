package retry_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resolute-dns/resolute/plugin/latency/internal/retry"
	"github.com/resolute-dns/resolute/test/harness"

	"github.com/miekg/dns"
)

// name is what all clients look up: 8 bytes on the wire, so that the type of a
// query is where [typeIs] looks for it.
const name = "a.test."

// typeIs matches the type in a message about name: behind a UDP header (8), a
// DNS header (12) and the name (8), in bits.
const typeIs = "@th,224,16"

// This program is also what runs in the namespace: the server, and the Go client.
func TestMain(m *testing.M) {
	switch os.Getenv("RETRY_TEST") {
	case "server":
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	case "client":
		from := time.Now()
		if _, err := (&net.Resolver{PreferGo: true}).LookupIPAddr(context.Background(), name); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		fmt.Printf("%.1f\n", float64(time.Since(from))/1e6)
		return
	}
	harness.Main(m)
}

// serve is a DNS server with the table. It prints what the table says, and at
// the end of its input what is still held back.
func serve() error {
	slow, err := time.ParseDuration(os.Getenv("RETRY_TEST_SLOW")) // the first answer of each type
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:53")
	if err != nil {
		return err
	}
	go (&dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		w.WriteMsg(answer(q))
	})}).ActivateAndServe()

	tab := retry.New(retry.Config{Entries: 1024})
	var mu sync.Mutex // of the output
	say := func(v retry.Verdict, wait time.Duration) bool {
		mu.Lock()
		defer mu.Unlock()
		if v != (retry.Verdict{}) {
			fmt.Println("verdict", v.Cause, v.Confidence)
		}
		if wait > 0 {
			fmt.Println("wait", wait.Milliseconds())
		}
		return v != (retry.Verdict{}) || wait > 0
	}
	go func() {
		seen := map[uint16]bool{}
		buf := make([]byte, dns.MaxMsgSize)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			now := time.Now()
			q := new(dns.Msg)
			if err != nil || q.Unpack(buf[:n]) != nil || len(q.Question) != 1 {
				continue
			}
			qtype := q.Question[0].Qtype
			v, ticket := tab.Query(from, q.Id, qtype, q.Question[0].Name, now)
			say(v, 0)
			send := func() {
				if b, err := answer(q).Pack(); err == nil {
					conn.WriteToUDPAddrPort(b, from)
				}
				say(tab.Answer(ticket, time.Now()))
			}
			if slow > 0 && !seen[qtype] {
				seen[qtype] = true
				time.AfterFunc(slow, send)
			} else {
				send()
			}
		}
	}()
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	for say(tab.Overdue(time.Now().Add(time.Minute))) {
	}
	return nil
}

func answer(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	hdr := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 5}
	switch hdr.Rrtype {
	case dns.TypeA:
		m.Answer = []dns.RR{&dns.A{Hdr: hdr, A: net.IPv4(192, 0, 2, 1)}}
	case dns.TypeAAAA:
		m.Answer = []dns.RR{&dns.AAAA{Hdr: hdr, AAAA: net.IP(netip.MustParseAddr("2001:db8::1").AsSlice())}}
	}
	return m
}

// A loss is what nft drops: the first packets that match.
var losses = map[string]string{
	"nothing":            "",
	"A request":          "udp dport 53 " + typeIs + " 1",
	"AAAA request":       "udp dport 53 " + typeIs + " 28",
	"AAAA request twice": "udp dport 53 " + typeIs + " 28",
	"A reply":            "udp sport 53 " + typeIs + " 1",
	"AAAA reply":         "udp sport 53 " + typeIs + " 28",
	"both requests":      "udp dport 53",
	"both replies":       "udp sport 53",
}

// TestRealClients has the resolver libraries of this machine lose packets, and
// compares what the table says with what happened to them.
func TestRealClients(t *testing.T) {
	for _, tool := range []string{"nft", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED: this test drops packets in a network namespace and needs %s", tool)
		}
	}
	clients := map[string][]string{
		"glibc": compile(t, "cc", "-pthread"),
		"musl":  compile(t, "musl-gcc", "-static"),
		"Go":    {self(t)},
		"Node":  node(t),
	}
	for _, tc := range []struct {
		client, options string
		loss            string
		slow            time.Duration
		want            string // the verdicts
		waits           bool
	}{
		{"glibc", "timeout:1", "nothing", 0, "", false},
		{"glibc", "timeout:1", "A request", 0, "lost_request certain", true},
		{"glibc", "timeout:1", "AAAA request", 0, "lost_request certain", true},
		{"glibc", "timeout:1", "AAAA request twice", 0, "unknown certain, lost_request certain", true},
		{"glibc", "timeout:1", "A reply", 0, "lost_reply certain", true},
		{"glibc", "timeout:1", "AAAA reply", 0, "lost_reply certain", true},
		{"glibc", "timeout:1", "both replies", 0, "lost_reply certain", true},
		{"glibc", "timeout:1", "both requests", 0, "", false},
		{"glibc", "timeout:1", "nothing", 1300 * time.Millisecond, "slow_upstream certain", true},
		{"glibc", "", "AAAA request", 0, "lost_request certain", true},
		{"glibc", "timeout:1 single-request", "AAAA request", 0, "lost_request high", true},
		{"glibc", "timeout:1 single-request-reopen", "AAAA request", 0, "", false},
		{"glibc", "timeout:1 use-vc", "AAAA request", 0, "", false},
		{"musl", "timeout:1", "nothing", 0, "", false},
		{"musl", "timeout:1", "A request", 0, "lost_request high", true},
		{"musl", "timeout:1", "AAAA request", 0, "lost_request high", true},
		{"musl", "timeout:1", "A reply", 0, "lost_reply certain", true},
		{"musl", "timeout:1", "both replies", 0, "lost_reply certain", true},
		{"musl", "timeout:1", "both requests", 0, "", false},
		{"musl", "timeout:1", "nothing", 650 * time.Millisecond, "slow_upstream certain", true},
		{"musl", "", "AAAA request", 0, "lost_request high", true},
		{"Go", "timeout:1", "nothing", 0, "", false},
		{"Go", "timeout:1", "A request", 0, "lost_request low", true},
		{"Go", "timeout:1", "AAAA request", 0, "lost_request low", true},
		{"Go", "timeout:1", "A reply", 0, "lost_reply low", true},
		{"Go", "timeout:1", "nothing", 1300 * time.Millisecond, "slow_upstream low", true},
		{"Node", "", "nothing", 0, "", false},
		{"Node", "", "AAAA request", 0, "lost_request low", true},
		{"Node", "", "A reply", 0, "lost_reply low", true},
		{"Node", "", "nothing", 3500 * time.Millisecond, "slow_upstream certain", true},
	} {
		t.Run(strings.ReplaceAll(fmt.Sprintf("%s %s/%s slow %v", tc.client, tc.options, tc.loss, tc.slow), " slow 0s", ""), func(t *testing.T) {
			t.Parallel()
			command := clients[tc.client]
			if command == nil {
				t.Skipf("SKIPPED: no %s on this machine", tc.client)
			}
			packets := 1
			if strings.Contains(tc.loss, "both") || strings.Contains(tc.loss, "twice") {
				packets = 2
			}
			if tc.client != "Go" && tc.client != "Node" {
				command = append(slices.Clone(command), "1")
			}
			// The rules for timers are about a machine that has time. Here are
			// other tests: a second and a third chance.
			for try := range 3 {
				r := look(t, command, tc.options, losses[tc.loss], packets, tc.slow)
				got := strings.Join(r.verdicts, ", ")
				ok := got == tc.want && (len(r.waits) == 1) == tc.waits
				for _, wait := range r.waits {
					ok = ok && wait > r.took*0.9 && wait < r.took*1.1
				}
				if losses[tc.loss] != "" && !strings.Contains(tc.options, "use-vc") {
					ok = ok && r.dropped == packets
				}
				if ok {
					return
				}
				t.Logf("got %q, want %q; waited %v, the client %v ms; %d dropped", got, tc.want, r.waits, r.took, r.dropped)
				if try == 2 {
					t.Fail()
				}
			}
		})
	}

	// The race: of many lookups of one name at the same time, some lose a twin.
	t.Run("glibc, 50 at once", func(t *testing.T) {
		t.Parallel()
		if clients["glibc"] == nil {
			t.Skip("SKIPPED: no glibc on this machine")
		}
		r := look(t, append(slices.Clone(clients["glibc"]), "50"), "timeout:2", losses["AAAA request"], 20, 0)
		lost := 0
		for _, v := range r.verdicts {
			if strings.HasPrefix(v, "lost_request") && !strings.HasSuffix(v, "low") {
				lost++
			}
		}
		if r.dropped != 20 || lost != r.dropped || len(r.waits) != lost {
			t.Errorf("%d dropped, %d found, %d waits: %q", r.dropped, lost, len(r.waits), r.verdicts)
		}
	})
}

type result struct {
	verdicts []string
	waits    []float64 // ms
	took     float64   // ms, measured by the client
	dropped  int
}

// look has the client look the name up, once, in a namespace of its own.
func look(t *testing.T, command []string, options, loss string, packets int, slow time.Duration) result {
	t.Helper()
	ns := harness.NewNamespace(t, map[string]string{
		"resolv.conf":   "nameserver 127.0.0.1\noptions " + options + "\n",
		"nsswitch.conf": "hosts: dns\n",
	})
	run := func(cmd *exec.Cmd) string {
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, &stderr)
		}
		return string(out)
	}
	if loss != "" {
		// On the way in, since a sender learns of what is dropped on the way out.
		run(ns.Command("nft", fmt.Sprintf("table inet t { chain c { type filter hook input priority 0; "+
			"%s limit rate 1/day burst %d packets counter drop; }; }", loss, packets)))
	}

	server := ns.Command(self(t))
	server.Env = append(os.Environ(), "RETRY_TEST=server", "RETRY_TEST_SLOW="+slow.String())
	server.Stderr = os.Stderr
	stdin, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer server.Wait()
	defer stdin.Close()
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatal("the server didn't start")
	}

	var r result
	client := ns.Command(command[0], command[1:]...)
	client.Env = append(os.Environ(), "RETRY_TEST=client")
	if r.took, err = strconv.ParseFloat(strings.TrimSpace(run(client)), 64); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	for lines.Scan() {
		what, rest, _ := strings.Cut(lines.Text(), " ")
		if what == "verdict" {
			r.verdicts = append(r.verdicts, rest)
		} else if wait, err := strconv.ParseFloat(rest, 64); err == nil {
			r.waits = append(r.waits, wait)
		}
	}
	if loss != "" {
		r.dropped = counted(t, run(ns.Command("nft", "-j", "list", "table", "inet", "t")))
	}
	return r
}

// counted returns the packets of the only counter in what nft lists.
func counted(t *testing.T, list string) int {
	t.Helper()
	var l struct {
		Nftables []struct {
			Rule struct {
				Expr []struct {
					Counter *struct{ Packets int }
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(list), &l); err != nil {
		t.Fatal(err)
	}
	for _, o := range l.Nftables {
		for _, e := range o.Rule.Expr {
			if e.Counter != nil {
				return e.Counter.Packets
			}
		}
	}
	t.Fatalf("no counter in %s", list)
	return 0
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// compile returns the command for the C program, nil if there is no compiler.
func compile(t *testing.T, cc string, flags ...string) []string {
	t.Helper()
	if _, err := exec.LookPath(cc); err != nil {
		return nil
	}
	program := filepath.Join(t.TempDir(), "lookup")
	if out, err := exec.Command(cc, append(flags, "-O1", "-o", program, "testdata/lookup.c")...).CombinedOutput(); err != nil {
		t.Logf("%s: %v\n%s", cc, err, out)
		return nil
	}
	return []string{program, name}
}

// node returns the command for Node if its c-ares is one that behaves like 1.34.
func node(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("node", "-p", "process.versions.ares").Output()
	if err != nil || !strings.HasPrefix(string(out), "1.34.") {
		return nil
	}
	script, err := filepath.Abs("testdata/lookup.js")
	if err != nil {
		t.Fatal(err)
	}
	return []string{"node", script, strings.TrimSuffix(name, ".")}
}
