package target

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/coredns/coredns/plugin/pkg/transport"
)

// maxFile is more than any resolv.conf has. It keeps a path that points at
// something else by mistake from being read into memory every second.
const maxFile = 1 << 20

// source is where files and addresses come from.
type source struct {
	readFile func(path string) ([]byte, error)
	// lookup returns the addresses of a name; network is "ip", "ip4" or "ip6".
	// notFound tells "there are none" from a failure.
	lookup func(ctx context.Context, network, name string, resolvers []string) ([]netip.Addr, error)
}

var system = source{readFile: readFile, lookup: lookup}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("read %s: more than %d bytes", path, maxFile)
	}
	return b, err
}

// nameservers returns the upstreams of a file in the form of resolv.conf(5), and
// what stands in a nameserver line and is not an IP address. Such a line is
// skipped, as glibc does; forward would look the name up for every query.
func nameservers(content []byte) (list []Target, bad []string) {
	for line := range bytes.Lines(content) {
		f := strings.Fields(string(line))
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		addr, err := netip.ParseAddr(f[1])
		if err != nil {
			bad = append(bad, f[1])
			continue
		}
		list = append(list, newTarget(transport.DNS, addr, 53, ""))
	}
	return dedup(list), bad
}

// readServers returns the upstreams of the file at path. It is an error if there
// is a nameserver line and none is good; a file without any is an empty list.
func readServers(src source, path string) (list []Target, bad []string, err error) {
	b, err := src.readFile(path)
	if err != nil {
		return nil, nil, err
	}
	list, bad = nameservers(b)
	if len(list) == 0 && len(bad) > 0 {
		return nil, bad, fmt.Errorf("%s: no nameserver with an IP address, only '%s'", path, bad[0])
	}
	return list, bad, nil
}
