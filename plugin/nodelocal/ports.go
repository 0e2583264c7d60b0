package nodelocal

import (
	"bytes"
	"net"
	"strconv"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/plugin/pkg/transport"
)

// protocols are those that CoreDNS listens on, by the scheme of a server block.
var protocols = map[string][]string{
	transport.DNS:    {"udp", "tcp"},
	transport.TLS:    {"tcp"},
	transport.HTTPS:  {"tcp"},
	transport.GRPC:   {"tcp"},
	transport.QUIC:   {"udp"},
	transport.HTTPS3: {"udp"},
}

// listenPorts returns the ports of a server block, of its keys as CoreDNS
// normalizes them: SCHEME://ZONE:PORT.
func listenPorts(keys []string) []port {
	var all []port
	for _, key := range keys {
		scheme, rest, ok := strings.Cut(key, "://")
		if !ok {
			scheme, rest = transport.DNS, key
		}
		n, err := strconv.ParseUint(rest[strings.LastIndex(rest, ":")+1:], 10, 16)
		if err != nil {
			continue
		}
		for _, proto := range protocols[scheme] {
			all = append(all, port{proto, uint16(n)})
		}
	}
	return union(nil, all)
}

// defaultHealth is where the health plugin listens if it isn't told.
const defaultHealth = ":8080"

// newest returns the Corefile of the server that is being started, nil if there
// is none.
func newest() caddy.Input {
	instances := caddy.Instances()
	if len(instances) == 0 {
		return nil
	}
	return instances[len(instances)-1].Caddyfile()
}

// healthPorts returns the ports that the health plugin listens on. It tells
// nobody, so they are read from the Corefile.
func healthPorts(input caddy.Input) []port {
	if input == nil {
		return nil
	}
	// It has been parsed before, so there is nothing to complain of.
	blocks, err := caddyfile.Parse(input.Path(), bytes.NewReader(input.Body()), nil)
	if err != nil {
		return nil
	}
	var all []port
	for _, b := range blocks {
		tokens, ok := b.Tokens["health"]
		if !ok {
			continue
		}
		addr := defaultHealth
		d := caddyfile.NewDispenserTokens(input.Path(), tokens)
		for d.Next() {
			if args := d.RemainingArgs(); len(args) > 0 {
				addr = args[0]
			}
			for d.NextBlock() {
				d.RemainingArgs()
			}
		}
		_, p, err := net.SplitHostPort(addr)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseUint(p, 10, 16); err == nil {
			all = append(all, port{"tcp", uint16(n)})
		}
	}
	return union(nil, all)
}
