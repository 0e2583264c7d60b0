package wire

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// FuzzMatch feeds a query and a reply to what looks at them before, and after,
// they are matched.
func FuzzMatch(f *testing.F) {
	q := pack(f, "Example.org.")
	f.Add(q, answerTo(q))
	f.Add(q, q)
	f.Add(q[:20], answerTo(q)[:20])
	f.Add([]byte{}, []byte{})
	for _, tc := range hostile {
		for _, r := range tc.replies(q) {
			f.Add(q, r)
		}
	}
	for _, tc := range accepted[:len(accepted)-1] {
		f.Add(q, tc.reply(q))
	}
	f.Fuzz(func(t *testing.T, query, reply []byte) {
		end := questionEnd(query)
		if end == 0 {
			return
		}
		if end < headerLen+5 || end > len(query) || end > headerLen+maxNameLen+4 {
			t.Fatalf("question ends at %d of %d", end, len(query))
		}
		if _, ok := checkHeader(reply); !ok {
			return
		}
		question := query[headerLen:end]
		if !matchQuestion(reply, question) {
			return
		}
		if len(reply) > 65535 {
			return
		}
		a := &Attempt{reply: newBuffer(len(reply))}
		copy(a.reply.b, reply)
		defer a.Release()
		if a.Truncated() && len(question) == 0 {
			t.Fatal("never")
		}
		m, err := a.Unpack()
		if err != nil {
			if Class(err) != ReasonMalformed {
				t.Fatal(err)
			}
			return
		}
		if len(m.Question) == 0 {
			return
		}
		var asked dns.Msg
		if asked.Unpack(append(bytes.Clone(query[:4]), append([]byte{0, 1, 0, 0, 0, 0, 0, 0}, question...)...)) != nil {
			return
		}
		// What matches on the wire matches as CoreDNS compares it.
		if got, want := m.Question[0], asked.Question[0]; dns.CanonicalName(got.Name) != dns.CanonicalName(want.Name) ||
			got.Qtype != want.Qtype || got.Qclass != want.Qclass {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

// FuzzStream lets a peer say anything on a connection with two queries. Both
// end, and nothing else happens.
func FuzzStream(f *testing.F) {
	q := pack(f, "example.org.")
	f.Add([]byte{}, false)
	f.Add([]byte{0}, true)
	f.Add([]byte{0, 0}, false)
	f.Add([]byte{0xff, 0xff, 1, 2, 3}, true)
	f.Add(frame(answerTo(q)), true)
	f.Add(append(frame(answerTo(q)), frame(answerTo(q))...), false)
	f.Add(frame(answerTo(q))[:30], true)
	f.Add(bytes.Repeat([]byte{0}, 400), false)
	f.Fuzz(func(t *testing.T, said []byte, fixID bool) {
		opts := Options{Addr: "127.0.0.1:53", ForceTCP: true}
		up, err := New(opts)
		if err != nil {
			t.Fatal(err)
		}
		up.stream.up.opts.dial = pipeTo(func(c net.Conn) {
			query, err := readQuery(c)
			if err != nil {
				return
			}
			go io.Copy(io.Discard, c)
			out := bytes.Clone(said)
			if fixID && len(out) >= 4 {
				copy(out[2:4], query[:2])
			}
			c.Write(out)
		})
		defer up.Close()
		done := make(chan *Attempt, 2)
		for range 2 {
			up.Send(&Attempt{Query: q, Done: done})
		}
		for range 2 {
			select {
			case a := <-done:
				if a.Err == nil {
					a.Unpack()
					a.Release()
				}
			case <-time.After(patience):
				t.Fatal("nothing was delivered")
			}
		}
	})
}
