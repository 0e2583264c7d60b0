package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/resolvconf"
	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/stub"
)

// The files that are looked at.
const (
	resolvConfFile = "/etc/resolv.conf"
	nsswitchFile   = "/etc/nsswitch.conf"
)

// Old glibc, before 2.26, ignores the search list beyond these (MAXDNSRCH and
// 256 bytes in resolv.h and resolv.conf(5)).
const (
	oldSearchDomains = 6
	oldSearchBytes   = 256
)

// longSearch is from how many domains on a search list is long: Kubernetes makes
// three, and with ndots:5 each external name is asked for with all of them.
const longSearch = 3

// resolvConf looks at resolv.conf.
func (x *examination) resolvConf() {
	x.config = resolvconf.Default()
	text, err := x.read(resolvConfFile)
	if err != nil {
		x.find("resolv-conf-missing", Problem, resolvConfFile, errorText(err),
			"Libraries ask a name server on this host then, 127.0.0.1, with no search list.",
			"Mount a resolv.conf, or look at the pod's dnsPolicy and dnsConfig.")
	} else {
		x.config.Parse(text)
		if x.Libc.Kind != string(stub.Musl) {
			x.config.Env(x.o.Getenv)
		}
		for _, w := range x.config.Warnings {
			x.find("resolv-conf-ignored", Problem, resolvConfFile, w.String(),
				"The library does otherwise than the file says.", "Correct the file: in a pod, its dnsConfig.")
		}
		if len(x.config.Nameservers) == 0 && len(x.o.Servers) == 0 {
			x.find("no-nameserver", Problem, resolvConfFile, "no name server is given",
				"Libraries ask a name server on this host then, 127.0.0.1.", "Add a nameserver line: in a pod, dnsConfig.nameservers.")
		}
	}
	c := &x.config
	x.Search, x.Ndots, x.Options = append([]string{}, c.Search...), c.Ndots, append([]string{}, c.Options...)
	musl := x.Libc.Kind == string(stub.Musl)
	x.searchList(musl)

	if c.Attempts == 0 {
		x.find("attempts-zero", Problem, resolvConfFile, "attempts:0", "glibc never sends a query.", "Remove the option, or use attempts:2.")
	}
	if musl && c.Timeout == 0 {
		x.find("timeout-zero", Problem, resolvConfFile, "timeout:0", "musl never sends a query.", "Remove the option, or use timeout:5.")
	}
	if musl {
		x.ignoredByMusl()
	}
}

// searchList looks at ndots and the search list.
func (x *examination) searchList(musl bool) {
	c := &x.config
	if n := len(c.Search); c.Ndots > 1 && n >= longSearch {
		x.find("ndots-search", Problem, resolvConfFile,
			fmt.Sprintf("ndots:%d with %d search domains (%s)", c.Ndots, n, strings.Join(c.Search, " ")),
			fmt.Sprintf("A name with less than %d dots, as www.example.com, is asked for with each of them first: %d queries in place of 2. "+
				"Every one can be lost, and costs the whole lookup %d s then.", c.Ndots, 2*(n+1), max(c.Timeout, 1)),
			"Write external names with a dot at the end, set ndots:1 or 2 in the pod's dnsConfig, or use the autopath plugin.")
	}
	bytes := len(strings.Join(c.Search, " "))
	if (len(c.Search) > oldSearchDomains || bytes > oldSearchBytes) && x.Libc.Kind == string(stub.Glibc) && (x.Libc.Version == "" || x.Libc.older(2, 26)) {
		x.find("search-cut", Problem, resolvConfFile, fmt.Sprintf("%d search domains with %d bytes", len(c.Search), bytes),
			fmt.Sprintf("glibc before 2.26 uses the first %d domains and %d bytes only.", oldSearchDomains, oldSearchBytes),
			"Shorten the search list in the pod's dnsConfig.")
	}
	for _, d := range c.Search {
		if d == "" && musl {
			x.find("search-root", Problem, resolvConfFile, "the search list has the entry .",
				"musl can't use it; before 1.2.4 it waits for the whole timeout there.", "Remove the entry.")
		}
	}
}

// ignoredByMusl looks for options that only glibc has.
func (x *examination) ignoredByMusl() {
	c := &x.config
	var ignored []string
	for _, o := range c.Options {
		if !strings.HasPrefix(o, "ndots:") && !strings.HasPrefix(o, "timeout:") && !strings.HasPrefix(o, "attempts:") {
			ignored = append(ignored, o)
		}
	}
	if len(ignored) == 0 {
		return
	}
	severity, means := Note, "musl knows ndots, timeout and attempts only."
	if c.SingleRequest || c.SingleRequestReopen || c.UseVC {
		severity = Problem
		means = "musl knows ndots, timeout and attempts only: it goes on sending A and AAAA at the same time from one port, " +
			"which the conntrack race needs, whatever the options say."
	}
	x.find("musl-ignores-options", severity, resolvConfFile, x.Libc.String()+" ignores: "+strings.Join(ignored, " "), means,
		"Take the race away on the node: NodeLocal DNSCache or Resolute's nodelocal. Or use an image with glibc.")
}

// nsswitch looks at nsswitch.conf.
func (x *examination) nsswitch() {
	text, err := x.read(nsswitchFile)
	if err != nil {
		x.nsswitchMissing(err)
		return
	}
	if x.Libc.Kind == string(stub.Musl) {
		return // which doesn't read it
	}
	for line := range strings.SplitSeq(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		hosts, ok := strings.CutPrefix(strings.TrimSpace(line), "hosts:")
		if !ok {
			continue
		}
		fields := strings.Fields(hosts)
		dns, files := -1, -1
		for i, f := range fields {
			if f == "dns" || f == "resolve" {
				dns = max(dns, i)
			}
			if f == "files" && files < 0 {
				files = i
			}
		}
		switch {
		case dns < 0:
			x.find("nsswitch-no-dns", Problem, nsswitchFile, "hosts:"+hosts, "glibc never asks a name server.", "Use the line: hosts: files dns")
		case files > dns:
			x.find("nsswitch-dns-first", Problem, nsswitchFile, "hosts:"+hosts,
				"Names in /etc/hosts, localhost among them, are asked for in the DNS first.", "Use the line: hosts: files dns")
		}
		return
	}
	x.find("nsswitch-no-hosts", Note, nsswitchFile, "there is no hosts line", "The library uses its default.", "Add the line: hosts: files dns")
}

// nsswitchMissing tells who cares that there is no nsswitch.conf.
func (x *examination) nsswitchMissing(err error) {
	switch {
	case !errors.Is(err, fs.ErrNotExist):
		x.find("nsswitch-unreadable", Note, nsswitchFile, errorText(err), "What it says isn't known here.", "Run the doctor as the user of the application.")
	case x.Libc.Kind == string(stub.Glibc) && (x.Libc.Version == "" || x.Libc.older(2, 35)):
		x.find("nsswitch-missing", Problem, nsswitchFile, "there is none, and the library is "+x.Libc.String(),
			"glibc before 2.35 asks the DNS before it looks into /etc/hosts then (BZ #28700), for localhost and the pod's own name too.",
			"Add the file to the image, with the line: hosts: files dns")
	case x.Libc.Kind == string(stub.Glibc):
		x.find("nsswitch-missing", Note, nsswitchFile, "there is none, and the library is "+x.Libc.String(),
			"glibc since 2.35 looks into /etc/hosts first without it.", "Nothing has to be done.")
	default:
		x.find("nsswitch-missing", Note, nsswitchFile, "there is none, and the library is "+x.Libc.String(),
			"musl doesn't read it. Programs made with Go before 1.16 do: without it they ask the DNS before /etc/hosts.",
			"If such a program is in the image, add the file with the line: hosts: files dns")
	}
}

// errorText describes an error without the path below the root.
func errorText(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// servers returns the name servers to ask.
func (x *examination) servers() []netip.AddrPort {
	if len(x.o.Servers) > 0 {
		return x.o.Servers
	}
	if len(x.config.Nameservers) > 0 {
		return x.config.Nameservers
	}
	return []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), resolvconf.DNSPort)}
}
