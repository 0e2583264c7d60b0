package harness

import (
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// Upstream is a name server that answers as a test wants it to, over UDP and TCP
// on the same port of 127.0.0.1.
type Upstream struct {
	Addr    string
	Queries atomic.Int64 // received so far
}

// Serve starts an upstream that gives the answer of handle to each query; for
// nil it is silent. It ends with the test.
func Serve(t *testing.T, handle func(q *dns.Msg) *dns.Msg) *Upstream {
	t.Helper()
	l, p, err := listen(0)
	for range 100 {
		if err == nil {
			break
		}
		l, p, err = listen(0) // the port was free for one of the two only
	}
	if err != nil {
		t.Fatal(err)
	}
	u := &Upstream{Addr: l.Addr().String()}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		u.Queries.Add(1)
		if m := handle(q); m != nil {
			w.WriteMsg(m)
		}
	})
	for _, s := range []*dns.Server{{Listener: l, Handler: h}, {PacketConn: p, Handler: h}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return u
}

// Ask sends q to addr and returns the answer; network is udp or tcp.
func Ask(t *testing.T, network, addr string, q *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: patience, UDPSize: dns.MaxMsgSize}
	m, _, err := c.Exchange(q, addr)
	if err != nil {
		t.Fatalf("%s over %s: %v", q.Question[0].String(), network, err)
	}
	return m
}
