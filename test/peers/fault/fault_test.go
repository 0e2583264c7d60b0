package fault

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// patience is used up by failing tests only, silence by those that wait for
// nothing to come.
const (
	patience = 20 * time.Second
	silence  = 100 * time.Millisecond
)

func ask(network, addr, name string, qtype uint16, timeout time.Duration) (*dns.Msg, time.Duration, error) {
	c := dns.Client{Net: network, Timeout: timeout}
	return c.Exchange(new(dns.Msg).SetQuestion(name, qtype), addr)
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

func TestAnswers(t *testing.T) {
	u := New(t, Healthy)
	for _, network := range []string{"udp", "tcp"} {
		m, took, err := ask(network, u.Addr, "q258.example.org.", dns.TypeA, patience)
		if err != nil {
			t.Fatal(err)
		}
		if a, ok := m.Answer[0].(*dns.A); !ok || a.A.String() != "10.0.1.2" || !m.RecursionAvailable {
			t.Errorf("%s: got\n%v", network, m)
		}
		if took < rtt {
			t.Errorf("%s: answered after %v", network, took)
		}
		if m, _, err := ask(network, u.Addr, ".", dns.TypeNS, patience); err != nil || len(m.Answer) != 1 {
			t.Errorf("%s: probe: %v %v", network, m, err)
		}
		if m, _, err := ask(network, u.Addr, "q1.example.org.", dns.TypeAAAA, patience); err != nil || len(m.Answer) != 0 {
			t.Errorf("%s: AAAA: %v %v", network, m, err)
		}
	}
	if u.Received.Total() != 6 || u.Probes.Total() != 2 || u.Conns.Load() != 3 || u.Ports.Load() < 1 {
		t.Errorf("counted %d queries, %d probes, %d connections, %d ports", u.Received.Total(), u.Probes.Total(), u.Conns.Load(), u.Ports.Load())
	}
	if n := u.Received.Between(u.Received.epoch, time.Now().Add(time.Second)); n != 6 {
		t.Errorf("counted %d queries in all the time", n)
	}
}

func TestModes(t *testing.T) {
	u := New(t, Healthy)
	rcode := func(name string, want int) func() error {
		return func() error {
			m, _, err := ask("udp", u.Addr, name, dns.TypeA, patience)
			if err == nil && m.Rcode != want {
				err = errors.New("got " + dns.RcodeToString[m.Rcode])
			}
			return err
		}
	}
	silent := func(network, name string) func() error {
		return func() error {
			if _, _, err := ask(network, u.Addr, name, dns.TypeA, silence); !isTimeout(err) {
				return errors.New("not silent")
			}
			return nil
		}
	}
	refused := func(network string) func() error {
		return func() error {
			if _, _, err := ask(network, u.Addr, "q1.", dns.TypeA, patience); !errors.Is(err, syscall.ECONNREFUSED) {
				return err
			}
			return nil
		}
	}
	takes := func(name string, d time.Duration) func() error {
		return func() error {
			_, took, err := ask("udp", u.Addr, name, dns.TypeA, patience)
			if err == nil && took < d {
				err = errors.New("it was too fast")
			}
			return err
		}
	}
	for _, tc := range []struct {
		name  string
		mode  Mode
		check func() error
	}{
		{"dead", Dead, silent("udp", "q1.")},
		{"dead", Dead, silent("tcp", "q1.")},
		{"black hole", Blackhole, silent("udp", "q1.")},
		{"black hole", Blackhole, silent("tcp", "q1.")},
		{"healthy", Healthy, takes("q1.", rtt)},
		{"closed", Closed, refused("udp")},
		{"closed", Closed, refused("tcp")},
		{"healthy", Healthy, rcode("q1.", dns.RcodeSuccess)},
		{"hung name", Healthy, silent("udp", "hung1.")},
		{"slow name", Healthy, takes("slow1.", SlowNames)},
		{"slow", Slow(50 * time.Millisecond), takes("q1.", 50*time.Millisecond)},
		{"SERVFAIL", Servfail, rcode("q1.", dns.RcodeServerFailure)},
		{"REFUSED", Refused, rcode("q1.", dns.RcodeRefused)},
		{"only probes", OnlyProbes, silent("udp", "q1.")},
		{"flaps", Flaps(time.Hour), silent("udp", "q1.")},
		{"lame", Lame, func() error {
			m, _, err := ask("udp", u.Addr, "q1.", dns.TypeA, patience)
			if err == nil && (len(m.Answer) > 0 || len(m.Ns) != 1 || m.RecursionAvailable) {
				err = errors.New(m.String())
			}
			return err
		}},
		{"drops", Drops(.3), func() error {
			conn, err := net.Dial("udp", u.Addr)
			if err != nil {
				return err
			}
			defer conn.Close()
			msg, _ := new(dns.Msg).SetQuestion("q1.", dns.TypeA).Pack()
			got, buf := 0, make([]byte, 512)
			for range 10 { // as many at once as fit into the buffer of a socket
				for range 100 {
					conn.Write(msg)
				}
				for {
					conn.SetReadDeadline(time.Now().Add(silence))
					if _, err := conn.Read(buf); errors.Is(err, os.ErrDeadlineExceeded) {
						break
					} else if err != nil {
						return err
					}
					got++
				}
			}
			if got < 600 || got > 800 {
				t.Errorf("%d of 1000 were answered", got)
			}
			return nil
		}},
	} {
		u.Set(t, tc.mode)
		if err := tc.check(); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	u.Set(t, OnlyProbes)
	if _, _, err := ask("udp", u.Addr, ".", dns.TypeNS, patience); err != nil {
		t.Errorf("only probes: %v", err)
	}
}

func TestTLS(t *testing.T) {
	cert, ca := Certificate(t)
	u := NewTLS(t, Healthy, cert)
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	c := dns.Client{Net: "tcp-tls", Timeout: patience, TLSConfig: &tls.Config{RootCAs: pool, ServerName: ServerName}}
	if _, _, err := c.Exchange(new(dns.Msg).SetQuestion("q1.", dns.TypeA), u.Addr); err != nil {
		t.Error(err)
	}
}

func TestNumber(t *testing.T) {
	for label, want := range map[string]int{"q12": 12, "slow0": 0, "7": 7, "q": -1, "": -1, "q1x": -1} {
		n, ok := Number(label)
		if ok != (want >= 0) || ok && int(n) != want {
			t.Errorf("%q: got %d, %v", label, n, ok)
		}
	}
}
