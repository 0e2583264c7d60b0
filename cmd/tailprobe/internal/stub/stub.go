// Package stub looks names up as getaddrinfo of glibc and of musl do, packet by
// packet: the same questions in the same order, from the same sockets, repeated
// after the same time. It follows glibc 2.36 (resolv/res_query.c, res_send.c;
// little has changed there since 2.20) and musl 1.2.4 (src/network/lookup_name.c,
// res_msend.c). It reads no hosts file.
package stub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/resolvconf"

	"golang.org/x/net/dns/dnsmessage"
)

// Libc is the C library to behave like.
type Libc string

// The C libraries.
const (
	Glibc Libc = "glibc"
	Musl  Libc = "musl"
)

// Family is the address family to ask for.
type Family string

// The address families: AF_UNSPEC, AF_INET and AF_INET6 of getaddrinfo(3).
const (
	Any  Family = "any"
	IPv4 Family = "4"
	IPv6 Family = "6"
)

// Status is what getaddrinfo would return.
type Status string

// The statuses, with the number of netdb.h that glibc returns for them.
const (
	OK       Status = "ok"       // 0: at least one address
	NoName   Status = "noname"   // EAI_NONAME, -2: the name doesn't exist
	NoData   Status = "nodata"   // EAI_NODATA, -5: it exists without addresses
	TryAgain Status = "again"    // EAI_AGAIN, -3: no server gave an answer
	Fail     Status = "fail"     // EAI_FAIL, -4: a server refused, or the name is invalid
	Canceled Status = "canceled" // given up before the library would have
)

// Types says which of a pair of queries is meant.
type Types struct{ A, AAAA bool }

// add marks a type.
func (t *Types) add(q dnsmessage.Type) {
	t.A = t.A || q == dnsmessage.TypeA
	t.AAAA = t.AAAA || q == dnsmessage.TypeAAAA
}

// Reply is a reply that was accepted as one, whatever it said.
type Reply struct {
	Type       string // A or AAAA
	Rcode      string // as in NOERROR
	AA, RA, TC bool
	TCP        bool
	Discarded  bool // of the shape that glibc doesn't accept over UDP
}

// Result is one lookup.
type Result struct {
	Status    Status
	Addrs     []netip.Addr
	Questions int   // names asked for, the search list included
	SentUDP   int   // packets
	SentTCP   int   // queries
	Sockets   int   // sockets opened, each with a port of its own
	Timeouts  int   // times that an answer was waited for in vain
	Errors    int   // sockets that failed: connection refused, unreachable
	Lost      Types // queries that had no answer when their time was over
	Replies   []Reply
	Err       error // the last error of a socket
}

// Options is what a [Resolver] needs.
type Options struct {
	Libc    Libc
	Family  Family
	Config  resolvconf.Config
	Network Network    // nil: the machine's
	Rand    *rand.Rand // for IDs; not shared between resolvers

	// Rotation is shared by all resolvers of a process: where the next query
	// starts under the option rotate. Nil: a counter of the resolver's own.
	Rotation *atomic.Uint32

	// Keep makes the resolver remember what glibc's threads learn from a lost
	// reply, to send one query at a time, for later lookups.
	Keep bool
}

// Resolver is the state of one thread of a program. It isn't safe for
// concurrent use.
type Resolver struct {
	Options
	servers []netip.AddrPort

	// Learnt, as long as Keep says.
	single, reopen bool
}

// New returns a resolver.
func New(o Options) (*Resolver, error) {
	if o.Libc != Glibc && o.Libc != Musl {
		return nil, fmt.Errorf("libc %q: valid are %s and %s", o.Libc, Glibc, Musl)
	}
	if o.Family != Any && o.Family != IPv4 && o.Family != IPv6 {
		return nil, fmt.Errorf("family %q: valid are %s, %s and %s", o.Family, Any, IPv4, IPv6)
	}
	if o.Rand == nil {
		return nil, errors.New("no source of randomness")
	}
	if o.Network == nil {
		o.Network = System{}
	}
	if o.Rotation == nil {
		o.Rotation = new(atomic.Uint32)
	}
	if o.Libc == Glibc {
		o.Config = o.Config.Glibc()
	}
	r := &Resolver{Options: o, servers: o.Config.Nameservers}
	if len(r.servers) == 0 {
		// Both libraries ask this host then.
		r.servers = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), resolvconf.DNSPort)}
	}
	r.forget()
	return r, nil
}

// forget makes the state that of a new thread.
func (r *Resolver) forget() {
	r.reopen = r.Config.SingleRequestReopen
	r.single = r.Config.SingleRequest || r.reopen
}

// Lookup looks name up. It ends early, with status canceled, when ctx does.
func (r *Resolver) Lookup(ctx context.Context, name string) Result {
	if !r.Keep {
		r.forget()
	}
	l := &lookup{r: r, ctx: ctx, sockets: sockets{conns: make(map[int]closer)}}
	defer context.AfterFunc(ctx, l.sockets.abort)()
	defer l.sockets.closeAll()
	if r.Libc == Musl {
		l.Status = l.musl(name)
	} else {
		l.Status = l.glibc(name)
	}
	if ctx.Err() != nil && l.Status != OK {
		l.Status = Canceled
	}
	return l.Result
}

// lookup is a lookup under way.
type lookup struct {
	Result
	r       *Resolver
	ctx     context.Context
	sockets sockets
}

// queries builds the queries for a name, with different IDs.
func (l *lookup) queries(name string) ([]query, error) {
	l.Questions++
	types := []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA}
	glibc := l.r.Libc == Glibc
	switch {
	case l.r.Family == IPv4, glibc && l.r.Config.NoAAAA && l.r.Family == Any:
		types = types[:1]
	case l.r.Family == IPv6:
		types = types[1:]
	}
	var qs []query
	for _, t := range types {
		id := uint16(l.r.Rand.Uint32())
		if len(qs) == 1 && qs[0].id == id {
			id++
		}
		q, err := newQuery(id, name, t, glibc && l.r.Config.EDNS0, glibc && l.r.Config.TrustAD)
		if err != nil {
			return nil, err
		}
		qs = append(qs, q)
	}
	return qs, nil
}

// note records a reply.
func (l *lookup) note(q *query, m *message, tcp bool) {
	l.Replies = append(l.Replies, Reply{
		Type: typeName(q.qtype), Rcode: rcodeName(m.rcode),
		AA: m.aa, RA: m.ra, TC: m.tc, TCP: tcp, Discarded: m.discarded() && !tcp,
	})
}

// failed records the error of a socket.
func (l *lookup) failed(err error) {
	l.Errors++
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Addr != nil {
		// Without the local port, which is another one each time.
		err = fmt.Errorf("%s %s: %w", op.Net, op.Addr, op.Err)
	}
	l.Err = err
}

func typeName(t dnsmessage.Type) string {
	if t == dnsmessage.TypeAAAA {
		return "AAAA"
	}
	return "A"
}

// rcodeNames are those of the IANA registry that servers of stubs use.
var rcodeNames = map[dnsmessage.RCode]string{
	dnsmessage.RCodeSuccess: "NOERROR", dnsmessage.RCodeFormatError: "FORMERR", dnsmessage.RCodeServerFailure: "SERVFAIL",
	dnsmessage.RCodeNameError: "NXDOMAIN", dnsmessage.RCodeNotImplemented: "NOTIMP", dnsmessage.RCodeRefused: "REFUSED",
}

func rcodeName(r dnsmessage.RCode) string {
	if n := rcodeNames[r]; n != "" {
		return n
	}
	return fmt.Sprintf("RCODE%d", r)
}
