package aa

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
)

func TestParse(t *testing.T) {
	block := plugin.Zones{"example.org."}
	tests := map[string]struct {
		input string
		want  rule
		err   string // part of the error; empty: none
	}{
		"bare":     {input: `aa`, want: rule{zones: block, setAA: true}},
		"zones":    {input: `aa Example.net 10.0.0.0/8`, want: rule{zones: plugin.Zones{"example.net.", "10.in-addr.arpa."}, setAA: true}},
		"cached":   {input: "aa {\nanswers cached\n}", want: rule{zones: block, answers: Cached, setAA: true}},
		"empty":    {input: "aa {\nanswers empty\n}", want: rule{zones: block, answers: Empty, setAA: true}},
		"bit ra":   {input: "aa {\nbit ra\n}", want: rule{zones: block, setRA: true}},
		"bit both": {input: "aa {\nbit both\n}", want: rule{zones: block, setAA: true, setRA: true}},
		"clients": {
			input: "aa {\nclients 10.0.0.0/8 2001:db8::1\nclients 192.0.2.7/24\n}",
			want: rule{zones: block, setAA: true, clients: []netip.Prefix{
				netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::1/128"), netip.MustParsePrefix("192.0.2.0/24")}},
		},
		"except": {input: "aa . {\nexcept a.example.org b.example.org.\n}",
			want: rule{zones: plugin.Zones{"."}, setAA: true, except: plugin.Zones{"a.example.org.", "b.example.org."}}},

		"unknown option":   {input: "aa {\nanswer all\n}", err: "unknown property 'answer': valid are answers, bit, clients, except"},
		"unknown answers":  {input: "aa {\nanswers some\n}", err: "unknown answers 'some': valid are all, cached and empty"},
		"two answers":      {input: "aa {\nanswers all empty\n}", err: "unknown answers 'all empty'"},
		"answers of what":  {input: "aa {\nanswers\n}", err: "'answers' needs a value"},
		"unknown bit":      {input: "aa {\nbit tc\n}", err: "unknown bit 'tc': valid are aa, ra and both"},
		"bad CIDR":         {input: "aa {\nclients 10.0.0.0/8 10.0.0.0/33\n}", err: "'10.0.0.0/33' is not a CIDR prefix"},
		"CIDR of a name":   {input: "aa {\nclients localhost\n}", err: "'localhost' is not a CIDR prefix"},
		"address and zone": {input: "aa {\nclients fe80::1%eth0\n}", err: "'fe80::1%eth0' is not a CIDR prefix"},
		"bad except":       {input: "aa {\nexcept a..example\n}", err: "except: 'a..example' is not a zone"},
		"bad zone":         {input: "aa a..example", err: "zone: 'a..example' is not a zone"},
		"twice":            {input: "aa\naa", err: plugin.ErrOnce.Error()},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c := caddy.NewTestController("dns", tc.input)
			c.ServerBlockKeys = []string{"dns://example.org.:53"}
			got, err := parse(c)
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
