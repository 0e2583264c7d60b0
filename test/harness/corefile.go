package harness

import (
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"
)

// FreePort returns a port of 127.0.0.1 that was free for UDP and TCP a moment
// ago.
func FreePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		p, err := net.ListenPacket("udp", l.Addr().String())
		l.Close()
		if err == nil {
			p.Close()
			return port
		}
	}
	t.Fatal("no port is free for both UDP and TCP")
	return 0
}

var (
	localPorts  = regexp.MustCompile(`127\.0\.0\.\d+:(\d+)`)
	serverBlock = regexp.MustCompile(`(?m)^(\S[^\n{#]*)\{[ \t]*$`)
	blockPort   = regexp.MustCompile(`:(\d+)\b`)
	listener    = regexp.MustCompile(`(?m)^([ \t]+)(prometheus|health|ready|pprof)\b[ \t]*([^\s{]*)`)
)

// Localize rewrites a Corefile that is written for a cluster so that it can be
// started anywhere: everything listens on 127.0.0.1, on ports that are free, and
// upstreams of /etc/resolv.conf are replaced by the one given. It returns the
// new Corefile and the ports that took the place of those in it; server blocks
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
	corefile = strings.ReplaceAll(corefile, "/etc/resolv.conf", upstream)
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
		if s == upstream {
			return s
		}
		return fmt.Sprintf("%s:%d", host, port(p))
	})
	return corefile, ports
}
