// Package resolvconf reads resolv.conf(5) as the C libraries do: it never
// fails on a line it doesn't understand, and says what was wrong with it.
package resolvconf

import (
	"fmt"
	"net/netip"
	"strings"
)

// DNSPort is where name servers listen that are named without a port.
const DNSPort = 53

// MaxNameservers is how many name servers glibc (MAXNS in resolv.h) and musl
// use; the others are ignored.
const MaxNameservers = 3

// Config is what a resolv.conf says.
type Config struct {
	Nameservers []netip.AddrPort // as listed, at most MaxNameservers; empty: none was given
	Search      []string         // without trailing dots; a root entry is ""
	HasSearch   bool             // there was a search or domain line

	Ndots    int // dots from which on a name is tried as it is first
	Timeout  int // seconds
	Attempts int // rounds over the name servers

	Rotate              bool // start with another name server each time
	EDNS0               bool // send an OPT record
	SingleRequest       bool // A, and AAAA only after its answer
	SingleRequestReopen bool // the same, with a new socket for AAAA
	UseVC               bool // TCP
	TrustAD             bool // set the AD bit in queries
	NoTLDQuery          bool // never try a name without dots as it is
	NoAAAA              bool // glibc 2.36: no AAAA queries

	Options  []string  // all options as written, in order
	Warnings []Warning // what libraries silently ignore
}

// Warning is a line that doesn't do what its writer may think.
type Warning struct {
	Line int // from 1; 0 if it isn't about a line
	Text string
}

// String returns the warning with its line.
func (w Warning) String() string {
	if w.Line == 0 {
		return w.Text
	}
	return fmt.Sprintf("line %d: %s", w.Line, w.Text)
}

// Default returns what holds without a resolv.conf, name servers aside
// (RES_TIMEOUT, RES_DFLRETRY in glibc's resolv.h; musl has the same).
func Default() Config {
	return Config{Ndots: 1, Timeout: 5, Attempts: 2}
}

// Parse reads the text of a resolv.conf.
func Parse(text string) Config {
	c := Default()
	c.Parse(text)
	return c
}

// Parse adds the text of a resolv.conf to c.
func (c *Config) Parse(text string) {
	ignored := 0
	for i, line := range strings.Split(text, "\n") {
		warn := func(format string, args ...any) {
			c.Warnings = append(c.Warnings, Warning{Line: i + 1, Text: fmt.Sprintf(format, args...)})
		}
		line = strings.TrimSuffix(line, "\r")
		if line == "" || line[0] == ';' || line[0] == '#' {
			continue
		}
		if len(line) > 254 {
			warn("longer than 254 bytes: musl ignores the line")
		}
		keyword, rest := cutSpace(line)
		if keyword == "" {
			if rest != "" {
				warn("starts with a space: libraries ignore the line")
			}
			continue
		}
		switch fields := strings.FieldsFunc(rest, isSpace); keyword {
		case "nameserver":
			if len(fields) == 0 {
				warn("nameserver without an address")
				continue
			}
			addr, err := netip.ParseAddr(fields[0])
			if err != nil {
				warn("nameserver %q isn't an IP address; libraries ignore the line", fields[0])
				continue
			}
			if len(c.Nameservers) == MaxNameservers {
				ignored++
				continue
			}
			c.Nameservers = append(c.Nameservers, netip.AddrPortFrom(addr, DNSPort))
		case "search", "domain":
			if len(fields) == 0 {
				continue
			}
			if keyword == "domain" {
				fields = fields[:1]
			}
			if c.HasSearch {
				warn("%s replaces an earlier search or domain line", keyword)
			}
			c.SetSearch(fields)
		case "options":
			for _, o := range fields {
				if err := c.Option(o); err != nil {
					warn("%v", err)
				}
			}
		case "sortlist", "lookup", "family":
		default:
			warn("unknown keyword %q; valid: nameserver, search, domain, options, sortlist", keyword)
		}
	}
	if ignored > 0 {
		c.Warnings = append(c.Warnings, Warning{Text: fmt.Sprintf("%d name servers beyond the first %d are never asked", ignored, MaxNameservers)})
	}
}

// SetSearch replaces the search list.
func (c *Config) SetSearch(domains []string) {
	c.HasSearch, c.Search = true, nil
	for _, d := range domains {
		c.Search = append(c.Search, strings.TrimSuffix(strings.TrimPrefix(d, "."), "."))
	}
}

// Env applies the environment that glibc looks at: LOCALDOMAIN in place of the
// search list, RES_OPTIONS after the options (resolv.conf(5)).
func (c *Config) Env(getenv func(string) string) {
	if d := strings.FieldsFunc(getenv("LOCALDOMAIN"), isSpace); len(d) > 0 {
		c.SetSearch(d)
	}
	for _, o := range strings.FieldsFunc(getenv("RES_OPTIONS"), isSpace) {
		if err := c.Option(o); err != nil {
			c.Warnings = append(c.Warnings, Warning{Text: "RES_OPTIONS: " + err.Error()})
		}
	}
}

// SearchFromHost gives glibc's search list where none is configured: what
// follows the first dot of the host's name.
func (c *Config) SearchFromHost(host string) {
	if _, domain, ok := strings.Cut(host, "."); !c.HasSearch && ok && domain != "" {
		c.Search = []string{strings.TrimSuffix(domain, ".")}
	}
}

func isSpace(r rune) bool { return r == ' ' || r == '\t' }

// cutSpace splits line after its first word.
func cutSpace(line string) (word, rest string) {
	i := strings.IndexFunc(line, isSpace)
	if i < 0 {
		return line, ""
	}
	return line[:i], strings.TrimFunc(line[i:], isSpace)
}
