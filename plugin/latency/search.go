package latency

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// searchRule tells names that a resolver has made out of another one by appending
// a search domain. Nothing in a query says so, hence the rule goes by what the
// names of a cluster look like. It errs on the side of counting too few: see
// matches and the README.
type searchRule struct {
	// domains are the search domains of this machine, in lower case with a dot
	// at each end. Kubelet gives them to pods after those of the cluster.
	domains []string
}

// newSearchRule returns the rule with the search domains of a resolv.conf; none
// if it can't be read.
func newSearchRule(file string) *searchRule {
	s := &searchRule{}
	conf, err := dns.ClientConfigFromFile(file)
	if err != nil {
		return s
	}
	for _, d := range conf.Search {
		// The cluster's own, in a pod that has them, are known by their form.
		if d := dns.CanonicalName(d); d != "." && !isCluster(dns.SplitDomainName(d)) {
			s.domains = append(s.domains, "."+d)
		}
	}
	return s
}

// clusterDomain is what nearly all clusters are called, and what is assumed where
// the form of a name says nothing.
const clusterDomain = ".cluster.local."

func isCluster(labels []string) bool {
	return slices.Contains(labels, "svc") || slices.Equal(labels, []string{"cluster", "local"})
}

// matches reports whether a lookup of the name, which does not exist, looks like
// one of a search list. Resolvers use search lists for addresses only.
//
// With C for the domain of the cluster and NS for a namespace, the search list of
// a pod is NS.svc.C, svc.C, C, and the search domains of the node. What really
// exists is SERVICE.NS.svc.C, HOST.SERVICE.NS.svc.C, two labels more that begin
// with an underscore, names below pod.C, dns-version.C and ns.dns.C.
func (s *searchRule) matches(name string, qtype uint16) bool {
	if qtype != dns.TypeA && qtype != dns.TypeAAAA {
		return false
	}
	name = strings.ToLower(name)
	labels := dns.SplitDomainName(name)
	if len(labels) == 0 || strings.HasPrefix(labels[0], "_") {
		return false
	}
	// The full name of the cluster in the midst: nobody writes more behind it.
	if i := strings.Index(name, clusterDomain); i >= 0 && i+len(clusterDomain) < len(name) {
		return true
	}
	// The right-most svc: the name that was expanded may itself be a service's.
	if i := lastIndex(labels, "svc"); i >= 0 && i < len(labels)-1 {
		switch i {
		case 1: // NAME.svc.C: nobody asks for a namespace
			return true
		case 2: // A.B.svc.C: the address of a service, unless B can't be a namespace
			return isTopLevel(labels[1])
		default:
			// From three labels on, taken for NAME.NS.svc.C. It may also be a host
			// of a headless service, for as long as it is not ready.
			return i > 2
		}
	}
	if rest, ok := strings.CutSuffix(name, clusterDomain); ok {
		// There is nothing here but the branches pod and dns.
		return rest != "pod" && !strings.HasSuffix(rest, ".pod") &&
			rest != "dns" && rest != "ns.dns" && rest != "dns-version"
	}
	for _, d := range s.domains {
		// A name of the node's domain may be one that somebody asks for. Appended
		// to a name of the outside world, it has a top-level domain in its midst.
		if rest, ok := strings.CutSuffix(name, d); ok {
			before := dns.SplitDomainName(rest)
			if n := len(before); n > 1 && isTopLevel(before[n-1]) {
				return true
			}
		}
	}
	return false
}

func lastIndex(labels []string, label string) int {
	for i := len(labels) - 1; i >= 0; i-- {
		if labels[i] == label {
			return i
		}
	}
	return -1
}

// topLevel are the domains that most names of the outside world end in, and that
// are hardly ever the name of a namespace or of a department. Those of countries
// are left out, as two letters (qa, db, ci) are a namespace's name as well.
var topLevel = []string{"com", "net", "org", "edu", "gov", "mil", "int", "info", "biz", "arpa"}

func isTopLevel(label string) bool { return slices.Contains(topLevel, label) }
