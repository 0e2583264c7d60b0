package doctor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/resolvconf"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/stub"
)

// Server is what a name server was like.
type Server struct {
	Address   string   `json:"address"`
	Asked     string   `json:"asked"`      // the name
	Tries     int      `json:"tries"`      // lookups of A and AAAA over UDP
	Answered  int      `json:"answered"`   // in how many there was any reply
	Lossy     int      `json:"lossy"`      // in how many one of the pair was lost
	Fastest   float64  `json:"fastest_ms"` // complete lookup
	Slowest   float64  `json:"slowest_ms"`
	Rcodes    []string `json:"rcodes"` // seen, sorted
	AA        bool     `json:"aa"`     // in any reply
	RA        bool     `json:"ra"`     // in any reply
	Discarded int      `json:"discarded"`
	TCP       bool     `json:"tcp"`   // answers over TCP
	Error     string   `json:"error"` // the last of a socket; empty: none
}

// slowAnswer is from when on a lookup of a name that is in every cache of the
// cluster is slow: a healthy server takes a few milliseconds.
const slowAnswer = 200 * time.Millisecond

// probeServers asks each name server, all at the same time.
func (x *examination) probeServers(ctx context.Context) error {
	servers := x.servers()
	x.Nameservers = make([]Server, len(servers))
	var all sync.WaitGroup
	for i, s := range servers {
		rng := rand.New(rand.NewPCG(x.o.Rand.Uint64(), uint64(i)))
		all.Go(func() { x.Nameservers[i] = x.probe(ctx, s, rng) })
	}
	all.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", ctx.Err())
	}
	for i := range x.Nameservers {
		x.judge(&x.Nameservers[i])
	}
	return nil
}

// question returns the name to ask for: in a cluster, one that its DNS has.
func (x *examination) question() string {
	if x.o.Name != "" {
		return x.o.Name
	}
	for _, d := range x.config.Search {
		if rest, ok := strings.CutPrefix(d, "svc."); ok {
			return "kubernetes.default.svc." + rest
		}
	}
	return "."
}

// probe asks one server as a library would, without its repetitions.
func (x *examination) probe(ctx context.Context, addr netip.AddrPort, rng *rand.Rand) Server {
	s := Server{Address: addr.String(), Asked: x.question(), Tries: x.o.Tries, Rcodes: []string{}}
	if addr.Port() == resolvconf.DNSPort {
		s.Address = addr.Addr().String()
	}
	config := resolvconf.Default()
	config.Nameservers = []netip.AddrPort{addr}
	config.Attempts = 1
	lookup := func(tcp bool) (stub.Result, time.Duration) {
		c := config
		c.UseVC = tcp
		r, err := stub.New(stub.Options{Libc: stub.Glibc, Family: stub.Any, Config: c, Network: x.o.Network, Rand: rng})
		if err != nil {
			return stub.Result{Err: err}, 0
		}
		try, cancel := context.WithTimeout(ctx, x.o.Timeout)
		defer cancel()
		start := time.Now()
		res := r.Lookup(try, strings.TrimSuffix(s.Asked, ".")+".")
		return res, time.Since(start)
	}
	for range x.o.Tries {
		res, took := lookup(false)
		if ctx.Err() != nil {
			return s
		}
		if res.Err != nil {
			s.Error = res.Err.Error()
		}
		if len(res.Replies) > 0 {
			s.Answered++
		}
		if types := replyTypes(res.Replies); len(types) == 1 {
			s.Lossy++
		} else if len(types) == 2 {
			if t := float64(took) / float64(time.Millisecond); s.Fastest == 0 || t < s.Fastest {
				s.Fastest = t
			}
			s.Slowest = max(s.Slowest, float64(took)/float64(time.Millisecond))
		}
		for _, r := range res.Replies {
			s.AA, s.RA = s.AA || r.AA, s.RA || r.RA
			if r.Discarded {
				s.Discarded++
			}
			if !slices.Contains(s.Rcodes, r.Rcode) {
				s.Rcodes = append(s.Rcodes, r.Rcode)
			}
		}
	}
	slices.Sort(s.Rcodes)
	res, _ := lookup(true)
	s.TCP = len(res.Replies) > 0
	return s
}

// replyTypes returns which of A and AAAA were answered.
func replyTypes(replies []stub.Reply) (types []string) {
	for _, r := range replies {
		if !slices.Contains(types, r.Type) {
			types = append(types, r.Type)
		}
	}
	return types
}

// judge finds what is wrong with a server.
func (x *examination) judge(s *Server) {
	wait := max(x.config.Timeout, 1)
	only := func(rcode string) bool { return len(s.Rcodes) == 1 && s.Rcodes[0] == rcode }
	switch {
	case s.Answered == 0:
		evidence := fmt.Sprintf("no answer to %d lookups of %s within %v each", s.Tries, s.Asked, x.o.Timeout)
		if s.Error != "" {
			evidence += ": " + s.Error
		}
		if s.TCP {
			evidence += "; it answers over TCP, so that something drops its UDP"
		}
		x.find("nameserver-dead", Problem, s.Address, evidence,
			fmt.Sprintf("glibc waits %d s for it before it asks the next, in each lookup that begins with it; if it is the only one, lookups fail.", wait),
			"Remove the address if it is a mistake; otherwise look at the server, its Service's endpoints and NetworkPolicies.")
		return
	case only("REFUSED"):
		x.find("nameserver-refuses", Problem, s.Address, "every reply is REFUSED",
			"glibc asks the next server, musl waits for its timeout; this one is no help to this pod.",
			"Allow this client in the server's acl, or remove the address.")
	case only("SERVFAIL"):
		x.find("nameserver-servfail", Problem, s.Address, "every reply for "+s.Asked+" is SERVFAIL",
			"The server can't reach those that know the name.", "Look at the server's upstreams; ask for another name with -name.")
	case s.Discarded > 0:
		x.find("nameserver-lame", Problem, s.Address,
			fmt.Sprintf("%d replies for %s are NOERROR without an answer, with AA=0, RA=0 and nothing additional", s.Discarded, s.Asked),
			"glibc throws such a reply away and asks the next server. If both of A and AAAA are like that it returns \"try again\", and skips the rest of "+
				"the search list; before 2.20 one of them is enough to fail.",
			"Have the server set RA or AA: Resolute's aa plugin, or header { response set ra }; or remove the server if it doesn't resolve for clients.")
	case !s.RA && !s.AA:
		x.find("nameserver-no-recursion", Problem, s.Address, "its replies have neither AA nor RA set",
			"It doesn't offer to resolve names for clients. Its empty answers are thrown away by glibc.",
			"Use a resolver in its place, or have it set RA: Resolute's aa plugin, or header { response set ra }.")
	}
	if s.Answered < s.Tries || s.Lossy > 0 {
		x.find("nameserver-lossy", Problem, s.Address,
			fmt.Sprintf("of %d lookups, %d had no reply and %d only one of the two", s.Tries, s.Tries-s.Answered, s.Lossy),
			fmt.Sprintf("Packets get lost on the way: each costs a lookup %d s.", wait),
			"Measure it with tailprobe NAME -c 200 -d 30s; look at the counters above on the node.")
	}
	if s.Slowest > float64(slowAnswer)/float64(time.Millisecond) {
		x.find("nameserver-slow", Problem, s.Address, fmt.Sprintf("a lookup of %s took %.0f ms", s.Asked, s.Slowest),
			"A healthy cluster DNS takes a few milliseconds.", "Look at the server's CPU limits and upstreams; measure with tailprobe.")
	}
	if !s.TCP {
		x.find("nameserver-no-tcp", Problem, s.Address, "no answer over TCP",
			"Answers that don't fit into a UDP packet can't be had, and use-vc fails (RFC 7766).",
			"Open port 53 over TCP: in NetworkPolicies, in the Service, in the server.")
	}
}
