package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/coredns/coredns/plugin/pkg/parse"
	"github.com/coredns/coredns/plugin/pkg/transport"

	"github.com/miekg/dns"
)

// ports are the transports that are supported and their default ports.
var ports = map[string]string{
	transport.DNS:   transport.Port,
	transport.TLS:   transport.TLSPort,
	transport.QUIC:  transport.QUICPort,
	transport.HTTPS: transport.HTTPSPort,
}

// kind is what a TO argument is.
type kind uint8

const (
	kindAddr kind = iota
	kindFile
	kindHost
)

// Spec is one TO argument.
type Spec struct {
	to   string // as written
	kind kind

	addr Target // kindAddr
	file string // kindFile
	host string // kindHost, fully qualified

	// kindHost: what its addresses are completed with.
	transport, serverName string
	port                  uint16

	// note is a sentence about what was accepted and yet is probably not meant.
	note string
}

// Specs are the TO arguments of a directive, in order.
type Specs []Spec

// Watchable says whether there is anything in s that can change: a file or a
// host name.
func (s Specs) Watchable() bool {
	return slices.ContainsFunc(s, func(e Spec) bool { return e.kind != kindAddr })
}

// ServerNames returns the TLS server names that are written at TO arguments,
// each once.
func (s Specs) ServerNames() []string {
	var names []string
	for _, e := range s {
		if name := e.serverName + e.addr.ServerName; name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// Parse reads TO arguments. Each is, with or without dns://, tls://, quic:// or
// https:// in front of it,
//
//   - an IP address with an optional port (a number or a service name);
//   - the path of a file, if there is one by that name;
//   - a host name with an optional port.
//
// Behind `%` may stand the TLS server name or, for plain DNS, the zone of an
// IPv6 link-local address. Files are looked for but not read, names not looked
// up.
func Parse(to []string) (Specs, error) { return parseWith(system, to) }

func parseWith(src source, to []string) (Specs, error) {
	specs := make(Specs, 0, len(to))
	for _, arg := range to {
		e, err := parseOne(src, arg)
		if err != nil {
			return nil, err
		}
		e.to = arg
		specs = append(specs, e)
	}
	return specs, nil
}

func parseOne(src source, to string) (Spec, error) {
	trans, rest := parse.Transport(to)
	if rest == "" {
		return Spec{}, fmt.Errorf("'%s' is not an upstream: want an IP address, a file or a host name", to)
	}
	if trans == transport.HTTPS && strings.Contains(rest, "/") {
		return Spec{}, fmt.Errorf("'%s': an https:// upstream is an address without a path, /dns-query is always used", to)
	}

	host, port, name := split(rest)
	if addr, err := netip.ParseAddr(host); err == nil {
		return addrSpec(to, trans, addr, port, name)
	}
	if path := filePath(rest); trans != transport.UNIX {
		_, err := src.readFile(path)
		switch {
		case err == nil:
			e := Spec{kind: kindFile, file: path}
			if trans != transport.DNS {
				e.note = fmt.Sprintf("'%s': the servers of a file are asked over plain DNS, %s:// has no effect on them", to, trans)
			}
			return e, nil
		case !errors.Is(err, fs.ErrNotExist), strings.Contains(path, "/"):
			return Spec{}, fmt.Errorf("'%s' is not an IP address, and not a file that can be read: %w", to, err)
		}
	}
	return hostSpec(to, trans, host, port, name)
}

func addrSpec(to, trans string, addr netip.Addr, port *string, name string) (Spec, error) {
	n, err := checkTransport(to, trans, port)
	if err != nil {
		return Spec{}, err
	}
	if addr.Zone() != "" { // two of them; split has taken one off
		return Spec{}, fmt.Errorf("'%s' has more than one %%", to)
	}
	e := Spec{kind: kindAddr}
	linkLocal := addr.Is6() && !addr.Is4In6() && addr.IsLinkLocalUnicast()
	if trans != transport.DNS {
		if name, err = serverName(to, name); err != nil {
			return Spec{}, err
		}
	} else if linkLocal {
		if strings.ContainsAny(name, "[]:/ \t") {
			return Spec{}, fmt.Errorf("'%s': '%s' is not a network interface: want fe80::1%%eth0 or [fe80::1%%eth0]:53", to, name)
		}
		addr = addr.WithZone(name)
	}
	if linkLocal && addr.Zone() == "" {
		e.note = fmt.Sprintf("'%s' can't be reached: a link-local address needs an interface, as in fe80::1%%eth0, "+
			"which plain DNS alone can have", to)
	}
	e.addr = newTarget(trans, addr, n, name)
	return e, nil
}

func hostSpec(to, trans, host string, port *string, name string) (Spec, error) {
	n, err := checkTransport(to, trans, port)
	if err != nil {
		return Spec{}, err
	}
	if strings.Trim(host, "0123456789.") == "" {
		return Spec{}, fmt.Errorf("'%s' is not an IP address, and a host name is not made of numbers", to)
	}
	if _, ok := dns.IsDomainName(host); !ok || strings.ContainsAny(host, ":[]%") {
		return Spec{}, fmt.Errorf("'%s' is not an IP address, a file or a host name", to)
	}
	if trans == transport.DNS {
		name = ""
	} else if name, err = serverName(to, name); err != nil {
		return Spec{}, err
	}
	// The name is absolute with or without a dot at its end, as in forward: a
	// search list would make the upstream depend on where the server runs.
	return Spec{kind: kindHost, host: dns.Fqdn(host), transport: trans, port: n, serverName: name}, nil
}

// split takes an address or a host name apart. The name is what is behind the
// last `%`, which stands behind the host, inside its brackets or behind the
// port; port is nil where there is none.
func split(s string) (host string, port *string, name string) {
	if h, p, err := net.SplitHostPort(s); err == nil {
		host, port = h, &p
		if i := strings.LastIndexByte(p, '%'); i >= 0 {
			p, name = p[:i], p[i+1:]
			return host, &p, name
		}
	} else {
		host = strings.Trim(s, "[]")
	}
	if i := strings.LastIndexByte(host, '%'); i >= 0 {
		host, name = host[:i], host[i+1:]
	}
	return host, port, name
}

// filePath is what forward takes for a path: the argument without its transport,
// and without brackets unless a port follows.
func filePath(s string) string {
	if _, _, err := net.SplitHostPort(s); err == nil {
		return s
	}
	return strings.Trim(s, "[]")
}

// checkTransport returns the port as a number.
func checkTransport(to, trans string, port *string) (uint16, error) {
	def, ok := ports[trans]
	if !ok {
		return 0, fmt.Errorf("'%s': '%s' is not supported as a protocol to upstreams: valid are dns, tls, quic and https", to, trans)
	}
	if port == nil {
		port = &def
	}
	if n, err := strconv.ParseUint(*port, 10, 16); err == nil && n > 0 {
		return uint16(n), nil
	}
	// A service name works with forward, which leaves the port to package net.
	if n, err := net.DefaultResolver.LookupPort(context.Background(), "tcp", *port); err == nil && n > 0 && n < 1<<16 {
		return uint16(n), nil
	}
	return 0, fmt.Errorf("'%s': '%s' is not a port: valid are 1 to 65535", to, *port)
}

// serverName checks a TLS server name and brings it into one form, so that the
// same name is the same upstream.
func serverName(to, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	if err := CheckServerName(name); err != nil {
		return "", fmt.Errorf("'%s': %w", to, err)
	}
	return strings.ToLower(strings.TrimSuffix(name, ".")), nil
}

// CheckServerName returns an error for what can't be the name in a certificate:
// neither a host name of letters, digits, hyphens and underscores nor an IP
// address. With such a name every connection would fail.
func CheckServerName(name string) error {
	if _, err := netip.ParseAddr(name); err == nil {
		return nil
	}
	bad := fmt.Errorf("'%s' is not a TLS server name: want a host name such as resolver.example", name)
	host := strings.TrimSuffix(name, ".")
	if host == "" || len(host) > 253 {
		return bad
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || strings.ContainsFunc(label, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
		}) {
			return bad
		}
	}
	return nil
}
