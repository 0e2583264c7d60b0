package failover

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/coredns/caddy"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/dnstap"
	_ "github.com/coredns/coredns/plugin/forward"

	tap "github.com/dnstap/golang-dnstap"
	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"
)

// TestDnstap checks that each attempt is sent to dnstap, in the form in which
// forward sends its own.
func TestDnstap(t *testing.T) {
	messages := map[string][]*tap.Message{}
	to := upstream(t, address)
	bad := upstream(t, rcode(dns.RcodeRefused))
	for directive, tos := range map[string]string{
		"forward":  to,
		"failover": bad + " " + to + " {\npolicy sequential\nhedge off\nmax_fails 0\n}",
	} {
		sock := filepath.Join(t.TempDir(), "tap")
		input, err := tap.NewFrameStreamSockInputFromPath(sock)
		if err != nil {
			t.Fatal(err)
		}
		frames := make(chan []byte, 64)
		go input.ReadInto(frames)

		i, err := caddy.Start(caddy.CaddyfileInput{
			Contents:       []byte(fmt.Sprintf(".:0 {\nbind 127.0.0.1\ndnstap %s full\n%s . %s\n}", sock, directive, tos)),
			ServerTypeName: "dns",
		})
		if err != nil {
			t.Fatal(err)
		}
		addr := i.Servers()[0].LocalAddr().String()
		// Until the upstreams are known, two are asked: the first answers are let go.
		want := map[string]int{"forward": 2, "failover": 4}[directive]
		for deadline := time.Now().Add(30 * time.Second); len(messages[directive]) == 0; {
			if time.Now().After(deadline) {
				t.Fatalf("%s: no messages", directive)
			}
			if _, err := dns.Exchange(question("a.example.org.", dns.TypeA), addr); err != nil {
				t.Fatal(err)
			}
			messages[directive] = collect(t, frames, want)
		}
		i.ShutdownCallbacks()
		i.Stop()
	}

	reference := messages["forward"]
	if reference[0].GetType() != tap.Message_FORWARDER_QUERY || reference[1].GetType() != tap.Message_FORWARDER_RESPONSE {
		t.Fatalf("forward sends %v", reference)
	}
	seen := map[uint32]bool{}
	for i, m := range messages["failover"] {
		want := reference[i%2]
		if m.GetType() != want.GetType() || m.GetSocketFamily() != want.GetSocketFamily() || m.GetSocketProtocol() != want.GetSocketProtocol() {
			t.Errorf("message %d is %v, forward sends %v", i, m, want)
		}
		if (m.QueryMessage == nil) != (want.QueryMessage == nil) || (m.ResponseMessage == nil) != (want.ResponseMessage == nil) ||
			(m.ResponseTimeSec == nil) != (want.ResponseTimeSec == nil) || m.QueryTimeSec == nil || len(m.QueryAddress) == 0 || m.GetQueryPort() == 0 {
			t.Errorf("message %d has other fields than that of forward:\n%v\n%v", i, m, want)
		}
		seen[m.GetResponsePort()] = true
	}
	if len(seen) != 2 {
		t.Errorf("messages about %d upstreams, want both attempts", len(seen))
	}
}

// collect waits for n FORWARDER messages; for none, when the client's own came
// without enough of them.
func collect(t *testing.T, frames <-chan []byte, n int) []*tap.Message {
	t.Helper()
	var got []*tap.Message
	for {
		select {
		case b := <-frames:
			var d tap.Dnstap
			if err := proto.Unmarshal(b, &d); err != nil {
				t.Fatal(err)
			}
			switch d.GetMessage().GetType() {
			case tap.Message_FORWARDER_QUERY, tap.Message_FORWARDER_RESPONSE:
				got = append(got, d.GetMessage())
			case tap.Message_CLIENT_RESPONSE:
				if len(got) == n {
					return got
				}
				return nil
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("only %d messages", len(got))
		}
	}
}
