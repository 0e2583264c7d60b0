package stub

import (
	"context"
	"strings"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/dnstest"
)

var testContext = context.Background()

// scenario is a resolv.conf, servers and lookups one after the other.
type scenario struct {
	only    Libc // empty: both
	options string
	search  string
	servers int // 0: one
	family  Family
	names   []string
	script  dnstest.Script // nil: nobody listens
}

func (sc scenario) fam() Family {
	if sc.family == "" {
		return Any
	}
	return sc.family
}

func (sc scenario) resolvConf() string {
	var b strings.Builder
	for _, a := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}[:max(sc.servers, 1)] {
		b.WriteString("nameserver " + a + "\n")
	}
	if sc.search != "" {
		b.WriteString("search " + sc.search + "\n")
	} else {
		b.WriteString("search .\n")
	}
	b.WriteString("options timeout:1 " + sc.options + "\n")
	return b.String()
}

// always gives every query the same answer.
func always(k dnstest.Kind) dnstest.Script { return func(dnstest.Packet) dnstest.Kind { return k } }

// byType answers A and AAAA differently.
func byType(a, aaaa dnstest.Kind) dnstest.Script {
	return func(p dnstest.Packet) dnstest.Kind {
		if p.Type == "A" {
			return a
		}
		return aaaa
	}
}

// lose drops the first n copies of a type's queries, all else is answered.
func lose(qtype string, n int) dnstest.Script {
	return func(p dnstest.Packet) dnstest.Kind {
		if (qtype == "" || p.Type == qtype) && p.Copy < n {
			return dnstest.Drop
		}
		return dnstest.OK
	}
}

// only knows one name; others don't exist.
func only(name string, otherwise dnstest.Kind) dnstest.Script {
	return func(p dnstest.Packet) dnstest.Kind {
		if p.Name == name {
			return dnstest.OK
		}
		return otherwise
	}
}

// byServer lets each server answer in its own way.
func byServer(kinds ...dnstest.Kind) dnstest.Script {
	return func(p dnstest.Packet) dnstest.Kind { return kinds[p.Server] }
}

// aTo answers queries of a type as kind says, others well.
func aTo(qtype string, kind dnstest.Kind) dnstest.Script {
	return func(p dnstest.Packet) dnstest.Kind {
		if p.Type == qtype {
			return kind
		}
		return dnstest.OK
	}
}

const kube = "default.svc.cluster.local svc.cluster.local cluster.local"

// scenarios are compared with the real libraries. Each takes a few seconds at
// most, all of them run at the same time. For one library only are those with an
// option of its own, those whose end depends on which server musl hears first,
// and those in which musl 1.2.3, which Debian has, isn't like 1.2.4 yet.
var scenarios = map[string]scenario{
	"answered":                     {names: []string{"a.example", "b.example."}, script: always(dnstest.OK)},
	"address family 4":             {family: IPv4, names: []string{"a.example"}, script: lose("", 1)},
	"address family 6":             {family: IPv6, names: []string{"a.example"}, script: lose("", 1)},
	"A lost":                       {names: []string{"a.example", "b.example"}, script: lose("A", 1)},
	"AAAA lost":                    {names: []string{"a.example", "b.example"}, script: lose("AAAA", 1)},
	"AAAA lost twice":              {names: []string{"a.example"}, script: lose("AAAA", 2)},
	"AAAA lost always":             {names: []string{"a.example", "b.example"}, script: lose("AAAA", 99)},
	"A lost always":                {names: []string{"a.example"}, script: lose("A", 99)},
	"both lost":                    {names: []string{"a.example"}, script: lose("", 1)},
	"both lost twice":              {names: []string{"a.example"}, script: lose("", 2)},
	"all lost":                     {names: []string{"a.example"}, script: always(dnstest.Drop)},
	"all lost with search list":    {options: "ndots:5", search: kube, names: []string{"a.example"}, script: always(dnstest.Drop)},
	"attempts":                     {options: "attempts:3", names: []string{"a.example"}, script: always(dnstest.Drop)},
	"single-request":               {options: "single-request", names: []string{"a.example"}, script: always(dnstest.OK)},
	"single-request, A lost":       {options: "single-request", names: []string{"a.example"}, script: lose("A", 1)},
	"single-request, AAAA lost":    {options: "single-request", names: []string{"a.example"}, script: lose("AAAA", 1)},
	"single-request, A SERVFAIL":   {options: "single-request", names: []string{"a.example"}, script: byType(dnstest.ServFail, dnstest.OK)},
	"reopen":                       {options: "single-request-reopen", names: []string{"a.example", "b.example"}, script: always(dnstest.OK)},
	"reopen, A lost":               {options: "single-request-reopen", names: []string{"a.example"}, script: lose("A", 1)},
	"reopen, AAAA lost":            {options: "single-request-reopen", names: []string{"a.example"}, script: lose("AAAA", 1)},
	"use-vc":                       {options: "use-vc", names: []string{"a.example", "b.example"}, script: always(dnstest.OK)},
	"use-vc, NXDOMAIN":             {options: "use-vc ndots:2", search: "x.test y.test", names: []string{"a.example"}, script: always(dnstest.NXDomain)},
	"use-vc, lame is no matter":    {options: "use-vc", names: []string{"a.example"}, script: always(dnstest.Lame)},
	"edns0":                        {options: "edns0", names: []string{"a.example"}, script: always(dnstest.OK)},
	"edns0 rejected":               {options: "edns0", names: []string{"a.example"}, script: always(dnstest.FormErr)},
	"edns0 rejected, two servers":  {options: "edns0", servers: 2, names: []string{"a.example"}, script: byServer(dnstest.FormErr, dnstest.OK)},
	"trust-ad":                     {options: "trust-ad", names: []string{"a.example"}, script: always(dnstest.OK)},
	"no-aaaa":                      {only: Glibc, options: "no-aaaa", names: []string{"a.example"}, script: always(dnstest.OK)},
	"search list":                  {options: "ndots:5", search: kube, names: []string{"a.example", "web", "a.b.c.d.e.f", "dot.example."}, script: only("a.example", dnstest.NXDomain)},
	"search list, found":           {options: "ndots:5", search: kube, names: []string{"web"}, script: only("web.svc.cluster.local", dnstest.NXDomain)},
	"search list after as is":      {search: kube, names: []string{"web.other"}, script: only("web.other.svc.cluster.local", dnstest.NXDomain)},
	"search list, no data":         {options: "ndots:5", search: kube, names: []string{"a.example"}, script: always(dnstest.NoData)},
	"search list, SERVFAIL":        {options: "ndots:5 attempts:1", search: kube, names: []string{"a.example"}, script: only("a.example", dnstest.ServFail)},
	"search list, REFUSED":         {options: "ndots:5 attempts:1", search: kube, names: []string{"a.example"}, script: only("a.example", dnstest.Refused)},
	"search list, lame":            {options: "ndots:5", search: kube, names: []string{"a.example"}, script: only("a.example", dnstest.Lame)},
	"search list, root":            {only: Glibc, options: "ndots:2", search: "x.test . y.test", names: []string{"a.example"}, script: always(dnstest.NXDomain)},
	"no-tld-query":                 {options: "no-tld-query", search: "x.test", names: []string{"web"}, script: always(dnstest.NXDomain)},
	"ndots 0":                      {options: "ndots:0", search: "x.test", names: []string{"web"}, script: always(dnstest.NXDomain)},
	"alias without address":        {search: "x.test", names: []string{"a.example"}, script: always(dnstest.CNAME)},
	"no data":                      {names: []string{"a.example"}, script: always(dnstest.NoData)},
	"only A exists":                {names: []string{"a.example"}, script: byType(dnstest.OK, dnstest.NoData)},
	"only AAAA exists":             {names: []string{"a.example"}, script: byType(dnstest.NoData, dnstest.OK)},
	"A NXDOMAIN":                   {only: Glibc, names: []string{"a.example"}, script: byType(dnstest.NXDomain, dnstest.OK)},
	"lame AAAA":                    {names: []string{"a.example"}, script: byType(dnstest.OK, dnstest.Lame)},
	"lame A":                       {names: []string{"a.example"}, script: byType(dnstest.Lame, dnstest.OK)},
	"lame both":                    {names: []string{"a.example"}, script: always(dnstest.Lame)},
	"lame with AA":                 {names: []string{"a.example"}, script: always(dnstest.LameAA)},
	"lame both with EDNS":          {options: "edns0", names: []string{"a.example"}, script: always(dnstest.Lame)},
	"lame, family 6":               {family: IPv6, servers: 2, names: []string{"a.example"}, script: always(dnstest.Lame)},
	"lame server first":            {only: Glibc, servers: 2, names: []string{"a.example"}, script: byServer(dnstest.Lame, dnstest.OK)},
	"address without RA":           {names: []string{"a.example"}, script: always(dnstest.NoRA)},
	"SERVFAIL":                     {names: []string{"a.example"}, script: always(dnstest.ServFail)},
	"SERVFAIL for A":               {names: []string{"a.example"}, script: aTo("A", dnstest.ServFail)},
	"SERVFAIL for AAAA":            {names: []string{"a.example"}, script: aTo("AAAA", dnstest.ServFail)},
	"SERVFAIL for A, AAAA lost":    {names: []string{"a.example"}, script: byType(dnstest.ServFail, dnstest.Drop)},
	"SERVFAIL server first":        {only: Glibc, servers: 2, names: []string{"a.example"}, script: byServer(dnstest.ServFail, dnstest.OK)},
	"REFUSED server first":         {servers: 2, names: []string{"a.example"}, script: byServer(dnstest.Refused, dnstest.OK)},
	"NOTIMP":                       {options: "attempts:1", names: []string{"a.example"}, script: always(dnstest.NotImp)},
	"two servers, first dead":      {servers: 2, names: []string{"a.example"}, script: byServer(dnstest.Drop, dnstest.OK)},
	"two servers, both dead":       {servers: 2, names: []string{"a.example"}, script: always(dnstest.Drop)},
	"three servers, all dead":      {options: "attempts:1", servers: 3, names: []string{"a.example"}, script: always(dnstest.Drop)},
	"two servers, AAAA never":      {servers: 2, names: []string{"a.example"}, script: lose("AAAA", 99)},
	"truncated":                    {only: Glibc, names: []string{"a.example"}, script: truncated},
	"truncated, two servers":       {only: Glibc, servers: 2, names: []string{"a.example"}, script: truncated},
	"wrong ID":                     {names: []string{"a.example"}, script: always(dnstest.WrongID)},
	"wrong question":               {only: Glibc, names: []string{"a.example"}, script: always(dnstest.WrongQ)},
	"question in upper case":       {names: []string{"a.example"}, script: always(dnstest.Upper)},
	"garbage":                      {names: []string{"a.example"}, script: always(dnstest.Garbage)},
	"short reply":                  {only: Glibc, names: []string{"a.example"}, script: always(dnstest.Short)},
	"short reply for musl":         {only: Musl, names: []string{"a.example"}, script: always(dnstest.Short)},
	"nobody listens":               {options: "ndots:5", search: kube, names: []string{"a.example"}},
	"nobody listens, single":       {options: "single-request", names: []string{"a.example"}},
	"options of glibc in musl":     {only: Musl, options: "edns0 trust-ad single-request use-vc", names: []string{"a.example"}, script: lose("AAAA", 1)},
	"one timeout, then search":     {options: "ndots:5", search: kube, names: []string{"a.example"}, script: lose("", 2)},
	"a label too long":             {search: "x.test", names: []string{strings.Repeat("a", 64) + ".example"}, script: always(dnstest.OK)},
	"rotate":                       {only: Glibc, options: "rotate", servers: 3, names: []string{"a.example", "b.example", "c.example", "d.example"}, script: always(dnstest.OK)},
	"learns single-request":        {only: Glibc, names: []string{"a.example", "b.example", "c.example"}, script: loseFirstAAAA},
	"three servers, third answers": {servers: 3, names: []string{"a.example"}, script: byServer(dnstest.Drop, dnstest.Drop, dnstest.OK)},
}

// truncated answers over TCP only.
func truncated(p dnstest.Packet) dnstest.Kind {
	if p.TCP {
		return dnstest.OK
	}
	return dnstest.TC
}

// loseFirstAAAA loses one packet of the first lookup.
func loseFirstAAAA(p dnstest.Packet) dnstest.Kind {
	if p.Name == "a.example" && p.Type == "AAAA" && p.Copy == 0 {
		return dnstest.Drop
	}
	return dnstest.OK
}
