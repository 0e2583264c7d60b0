package latency

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
	def := func(f func(*Config)) Config {
		c := Config{Zones: []string{"example.org."}, Slow: time.Second, PerSecond: 10, Retries: 65536, Window: time.Minute}
		if f != nil {
			f(&c)
		}
		return c
	}
	tests := map[string]struct {
		input string
		want  Config
		err   string // part of the error; empty: none
	}{
		"bare":            {input: `latency`, want: def(nil)},
		"zones":           {input: `latency Example.net 10.0.0.0/8`, want: def(func(c *Config) { c.Zones = []string{"example.net.", "10.in-addr.arpa."} })},
		"slow":            {input: "latency {\nslow 250ms\n}", want: def(func(c *Config) { c.Slow = 250 * time.Millisecond })},
		"slow per second": {input: "latency {\nslow 2s 1\n}", want: def(func(c *Config) { c.Slow, c.PerSecond = 2*time.Second, 1 })},
		"slow off":        {input: "latency {\nslow off\n}", want: def(func(c *Config) { c.Slow = 0 })},
		"retries":         {input: "latency {\nretries 1024\n}", want: def(func(c *Config) { c.Retries = 1024 })},
		"retries off":     {input: "latency {\nretries off\n}", want: def(func(c *Config) { c.Retries = 0 })},
		"window":          {input: "latency {\nwindow 5m\n}", want: def(func(c *Config) { c.Window = 5 * time.Minute })},
		"all": {input: "latency . {\nslow 1ms 10000\nretries 16777216\nwindow 1s\n}",
			want: Config{Zones: []string{"."}, Slow: time.Millisecond, PerSecond: 10000, Retries: 1 << 24, Window: time.Second}},

		"bad zone":           {input: `latency a..example`, err: "zone: 'a..example' is not a zone"},
		"twice":              {input: "latency\nlatency", err: plugin.ErrOnce.Error()},
		"unknown option":     {input: "latency {\nslower 1s\n}", err: "unknown property 'slower': valid are slow, retries, window"},
		"option twice":       {input: "latency {\nslow 1s\nslow 2s\n}", err: "'slow' is set twice"},
		"slow what":          {input: "latency {\nslow\n}", err: "'slow' needs a value"},
		"slow number":        {input: "latency {\nslow 1\n}", err: "slow: '1' is neither a duration of 1ms to 1h nor off"},
		"slow too short":     {input: "latency {\nslow 1us\n}", err: "slow: '1us' is neither"},
		"slow negative":      {input: "latency {\nslow -1s\n}", err: "slow: '-1s' is neither"},
		"slow too long":      {input: "latency {\nslow 61m\n}", err: "slow: '61m' is neither"},
		"slow no lines":      {input: "latency {\nslow 1s 0\n}", err: "slow: '0' is not a number of lines a second of 1 to 10000"},
		"slow many lines":    {input: "latency {\nslow 1s 10001\n}", err: "slow: '10001' is not a number of lines"},
		"slow bad lines":     {input: "latency {\nslow 1s many\n}", err: "slow: 'many' is not a number of lines"},
		"slow too much":      {input: "latency {\nslow 1s 5 6\n}", err: "slow: unexpected '6'"},
		"slow off lines":     {input: "latency {\nslow off 10\n}", err: "slow: unexpected '10'"},
		"retries what":       {input: "latency {\nretries\n}", err: "'retries' needs a value"},
		"retries few":        {input: "latency {\nretries 1023\n}", err: "retries: '1023' is neither a number of entries of 1024 to 16777216 nor off"},
		"retries many":       {input: "latency {\nretries 16777217\n}", err: "retries: '16777217' is neither"},
		"retries bad":        {input: "latency {\nretries on\n}", err: "retries: 'on' is neither"},
		"retries too much":   {input: "latency {\nretries 2048 2048\n}", err: "retries: unexpected '2048'"},
		"retries off and on": {input: "latency {\nretries off 2048\n}", err: "retries: unexpected '2048'"},
		"window what":        {input: "latency {\nwindow\n}", err: "'window' needs a value"},
		"window off":         {input: "latency {\nwindow off\n}", err: "window: 'off' is not a duration of 1s to 1h"},
		"window short":       {input: "latency {\nwindow 999ms\n}", err: "window: '999ms' is not a duration"},
		"window long":        {input: "latency {\nwindow 2h\n}", err: "window: '2h' is not a duration"},
		"window too much":    {input: "latency {\nwindow 1m 2m\n}", err: "window: unexpected '2m'"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			c := caddy.NewTestController("dns", tc.input)
			c.ServerBlockKeys = []string{"dns://Example.org.:53"}
			got, err := parseConfig(c)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got error %v, want one with %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestServers(t *testing.T) {
	for _, tc := range []struct {
		keys, hosts, want []string
	}{
		{[]string{"dns://.:53"}, []string{""}, []string{"dns://:53"}},
		{[]string{"dns://example.org.:53", "dns://example.net.:53", "tls://example.net.:853"}, []string{"127.0.0.1", "::1"},
			[]string{"dns://127.0.0.1:53", "dns://[::1]:53", "tls://127.0.0.1:853", "tls://[::1]:853"}},
	} {
		if got := servers(tc.keys, tc.hosts); !slices.Equal(got, tc.want) {
			t.Errorf("%v on %v: got %v, want %v", tc.keys, tc.hosts, got, tc.want)
		}
	}
}
