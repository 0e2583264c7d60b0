package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"strings"
	"testing"
)

// Ports for servers that are other processes. They lie below those that the
// kernel hands out for outgoing traffic (net.ipv4.ip_local_port_range, from 32768
// on), which could take one away between here and the start of the server.
const firstPort, lastPort = 20000, 32000

// FreePort returns a port of 127.0.0.1 that was free for UDP and TCP a moment
// ago.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if l, p, err := listen(port); err == nil {
			l.Close()
			p.Close()
			return port
		}
	}
	t.Fatal("no port is free for both UDP and TCP")
	return 0
}

// listen listens on a port of 127.0.0.1 over TCP and UDP.
func listen(port int) (net.Listener, net.PacketConn, error) {
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		l.Close()
		return nil, nil, err
	}
	return l, p, nil
}

var (
	localPorts  = regexp.MustCompile(`127\.0\.0\.\d+:(\d+)`)
	serverBlock = regexp.MustCompile(`(?m)^(\S[^\n{#]*)\{[ \t]*$`)
	blockPort   = regexp.MustCompile(`:(\d+)\b`)
	toLine      = regexp.MustCompile(`(?m)^([ \t]*(?:forward|failover)[ \t]+\S+)((?:[ \t]+[^\s{]+)+)`)
	listener    = regexp.MustCompile(`(?m)^([ \t]+)(prometheus|health|ready|pprof)\b[ \t]*([^\s{]*)`)
)

// localizeTO returns what stands for a TO argument of forward or failover: the
// upstream for a file, and for another address the same port of a loopback
// address of its own. What is on loopback already stays.
func localizeTO(to, upstream string, i int) string {
	scheme, host, ok := strings.Cut(to, "://")
	if !ok {
		scheme, host = "", to
	}
	if strings.HasPrefix(host, "127.") || strings.HasPrefix(host, "/") && host != "/etc/resolv.conf" {
		return to
	}
	if upstream == "" {
		upstream = "127.0.0.1:9" // discard
	}
	_, port, _ := net.SplitHostPort(upstream)
	local := upstream
	if host != "/etc/resolv.conf" && i > 0 {
		local = fmt.Sprintf("127.0.0.%d:%s", i+1, port)
	}
	if scheme == "" {
		return local
	}
	// ADDRESS%NAME is the name that the certificate has to be for.
	if _, name, ok := strings.Cut(host, "%"); ok {
		name, _, _ = strings.Cut(name, ":")
		addr, port, _ := net.SplitHostPort(local)
		return scheme + "://" + addr + "%" + name + ":" + port
	}
	return scheme + "://" + local
}

// Localize rewrites a Corefile that is written for a cluster so that it can be
// started anywhere: everything listens on 127.0.0.1, on ports that are free, and
// the upstreams of forward and failover are replaced by the one given and other
// loopback addresses, so that nothing leaves this machine. It returns the new
// Corefile and the ports that took the place of those in it; server blocks
// without a port are on 53.
func Localize(t *testing.T, corefile, upstream string) (string, map[string]int) {
	t.Helper()
	ports := map[string]int{}
	port := func(old string) int {
		if ports[old] == 0 {
			ports[old] = FreePort(t)
		}
		return ports[old]
	}
	corefile = toLine.ReplaceAllStringFunc(corefile, func(s string) string {
		m := toLine.FindStringSubmatch(s)
		line := m[1]
		for i, to := range strings.Fields(m[2]) {
			line += " " + localizeTO(to, upstream, i)
		}
		return line + " "
	})
	corefile = listener.ReplaceAllStringFunc(corefile, func(s string) string {
		m := listener.FindStringSubmatch(s)
		addr := m[3]
		if addr == "" {
			addr = map[string]string{"prometheus": ":9153", "health": ":8080", "ready": ":8181", "pprof": ":6053"}[m[2]]
		}
		_, p, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		return fmt.Sprintf("%s%s 127.0.0.1:%s ", m[1], m[2], p)
	})
	bound := strings.Contains(corefile, "bind 127.")
	corefile = serverBlock.ReplaceAllStringFunc(corefile, func(s string) string {
		keys := strings.Fields(strings.TrimSuffix(strings.TrimSpace(s), "{"))
		for i, k := range keys {
			if blockPort.MatchString(k) {
				keys[i] = blockPort.ReplaceAllStringFunc(k, func(p string) string { return fmt.Sprintf(":%d", port(p[1:])) })
			} else {
				keys[i] = fmt.Sprintf("%s:%d", k, port("53"))
			}
		}
		s = strings.Join(keys, " ") + " {"
		if !bound {
			s += "\n\tbind 127.0.0.1"
		}
		return s
	})
	corefile = localPorts.ReplaceAllStringFunc(corefile, func(s string) string {
		host, p, _ := net.SplitHostPort(s)
		if _, up, _ := net.SplitHostPort(upstream); p == up || p == "9" {
			return s
		}
		return fmt.Sprintf("%s:%d", host, port(p))
	})
	return corefile, ports
}
