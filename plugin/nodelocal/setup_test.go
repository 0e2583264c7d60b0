package nodelocal

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
)

func TestParse(t *testing.T) {
	with := func(change func(*config)) config {
		c := config{iface: "nodelocaldns", addrs: addrs("169.254.20.10"), notrack: true, sync: time.Minute}
		change(&c)
		return c
	}
	for name, tc := range map[string]struct {
		input string
		want  config
		err   string // part of the error; empty: none
	}{
		"one":           {input: "nodelocal 169.254.20.10", want: with(func(*config) {})},
		"both families": {input: "nodelocal fd00::a 169.254.20.10", want: with(func(c *config) { c.addrs = addrs("169.254.20.10", "fd00::a") })},
		"IPv4 in IPv6":  {input: "nodelocal ::ffff:169.254.20.10", want: with(func(*config) {})},
		"all options": {input: "nodelocal 169.254.20.10 {\ninterface dns-0.x\nnotrack off\nsync 5s\nskip_teardown\n}",
			want: with(func(c *config) { c.iface, c.notrack, c.sync, c.skipTeardown = "dns-0.x", false, 5*time.Second, true })},
		"15 bytes": {input: "nodelocal 169.254.20.10 {\ninterface fifteen-bytes-x\n}", want: with(func(c *config) { c.iface = "fifteen-bytes-x" })},

		"no address":      {input: "nodelocal", err: "at least one IP address"},
		"a name":          {input: "nodelocal localhost", err: "'localhost' is not an IP address"},
		"a prefix":        {input: "nodelocal 169.254.20.10/32", err: "is not an IP address"},
		"twice the same":  {input: "nodelocal 10.0.0.1 ::ffff:10.0.0.1", err: "'::ffff:10.0.0.1' is there twice"},
		"loopback":        {input: "nodelocal 127.0.0.1", err: "'127.0.0.1' can't be"},
		"any":             {input: "nodelocal ::", err: "'::' can't be"},
		"multicast":       {input: "nodelocal 224.0.0.1", err: "'224.0.0.1' can't be"},
		"link-local IPv6": {input: "nodelocal fe80::1", err: "'fe80::1' is an address for one link only"},
		"with a zone":     {input: "nodelocal fd00::1%eth0", err: "for one link only"},
		"16 bytes":        {input: "nodelocal 10.0.0.1 {\ninterface sixteen-bytes-xx\n}", err: "'sixteen-bytes-xx' is a name of 16 bytes: the kernel has room for 15"},
		"slash":           {input: "nodelocal 10.0.0.1 {\ninterface a/b\n}", err: "'a/b' is not a name of letters"},
		"percent":         {input: "nodelocal 10.0.0.1 {\ninterface dns%d\n}", err: "'dns%d' is not a name of letters"},
		"dots":            {input: "nodelocal 10.0.0.1 {\ninterface ..\n}", err: "'..' is not a name for an interface"},
		"notrack maybe":   {input: "nodelocal 10.0.0.1 {\nnotrack maybe\n}", err: "unknown notrack 'maybe': valid are on and off"},
		"sync soon":       {input: "nodelocal 10.0.0.1 {\nsync soon\n}", err: "sync 'soon' is not a duration from 1s to 1h0m0s"},
		"sync 60":         {input: "nodelocal 10.0.0.1 {\nsync 60\n}", err: "sync '60'"},
		"sync too short":  {input: "nodelocal 10.0.0.1 {\nsync 999ms\n}", err: "sync '999ms'"},
		"sync too long":   {input: "nodelocal 10.0.0.1 {\nsync 61m\n}", err: "sync '61m'"},
		"no value":        {input: "nodelocal 10.0.0.1 {\nsync\n}", err: "'sync' needs one value"},
		"two values":      {input: "nodelocal 10.0.0.1 {\ninterface a b\n}", err: "'interface' needs one value"},
		"skip what":       {input: "nodelocal 10.0.0.1 {\nskip_teardown on\n}", err: "'skip_teardown' has no value, got 'on'"},
		"unknown option":  {input: "nodelocal 10.0.0.1 {\nhealth 8080\n}", err: "unknown property 'health': valid are interface, notrack, sync, skip_teardown"},
		"twice":           {input: "nodelocal 10.0.0.1\nnodelocal 10.0.0.2", err: plugin.ErrOnce.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parse(caddy.NewTestController("dns", tc.input))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got error %v, want one with %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*got, tc.want) {
				t.Errorf("got %+v, want %+v", *got, tc.want)
			}
		})
	}
}

// TestSharedDirective gives two directives to one plan.
func TestSharedDirective(t *testing.T) {
	first := some("10.0.0.1", "10.0.0.2").config
	change := func(f func(*config)) config {
		c := first
		f(&c)
		return c
	}
	for name, tc := range map[string]struct {
		second   config
		settings int
		err      string
	}{
		"the same":            {first, 1, ""},
		"another interface":   {change(func(c *config) { c.iface, c.addrs = "other", addrs("10.0.0.3") }), 2, ""},
		"other addresses":     {change(func(c *config) { c.addrs = addrs("10.0.0.1") }), 1, "interface 'nodelocaldns' is wanted with different"},
		"other sync":          {change(func(c *config) { c.sync = time.Second }), 1, "different"},
		"other notrack":       {change(func(c *config) { c.notrack = false }), 1, "different"},
		"other skip_teardown": {change(func(c *config) { c.skipTeardown = true }), 1, "different"},
		"an address on two":   {change(func(c *config) { c.iface = "other" }), 1, "address 10.0.0.1 is wanted on interface 'other' and, by another server block, on 'nodelocaldns'"},
	} {
		t.Run(name, func(t *testing.T) {
			p := new(plan)
			if err := p.add(first, []port{{"udp", 53}}); err != nil {
				t.Fatal(err)
			}
			err := p.add(tc.second, []port{{"tcp", 853}, {"udp", 53}})
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("got error %v, want %q", err, tc.err)
			}
			if len(p.settings) != tc.settings {
				t.Errorf("%d settings, want %d", len(p.settings), tc.settings)
			}
			if want := []port{{"udp", 53}, {"tcp", 853}}; name == "the same" && !slices.Equal(p.settings[0].dns, want) {
				t.Errorf("ports %v, want %v", p.settings[0].dns, want)
			}
		})
	}
}

func TestListenPorts(t *testing.T) {
	for key, want := range map[string][]port{
		"dns://.:53":              {{"udp", 53}, {"tcp", 53}},
		"dns://cluster.local.:54": {{"udp", 54}, {"tcp", 54}},
		"tls://.:853":             {{"tcp", 853}},
		"https://.:443":           {{"tcp", 443}},
		"quic://.:853":            {{"udp", 853}},
		"grpc://.:443":            {{"tcp", 443}},
		".:53":                    {{"udp", 53}, {"tcp", 53}},
		"unknown://.:53":          nil,
		"dns://.":                 nil,
		"dns://.:99999":           nil,
	} {
		if got := listenPorts([]string{key, key}); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", key, got, want)
		}
	}
}
