package resolvconf

import (
	"fmt"
	"strconv"
	"strings"
)

// The upper bounds of glibc's resolv.h: RES_MAXNDOTS, RES_MAXRETRANS (seconds),
// RES_MAXRETRY; and those of musl's resolvconf.c, where they are others.
const (
	MaxNdots        = 15
	MaxTimeout      = 30
	MaxAttempts     = 5
	MaxTimeoutMusl  = 60
	MaxAttemptsMusl = 10
)

// flags are the options without a value. Glibc compares prefixes, in this order.
var flags = []struct {
	name string
	of   func(*Config) *bool
}{
	{"rotate", func(c *Config) *bool { return &c.Rotate }},
	{"edns0", func(c *Config) *bool { return &c.EDNS0 }},
	{"single-request-reopen", func(c *Config) *bool { return &c.SingleRequestReopen }},
	{"single-request", func(c *Config) *bool { return &c.SingleRequest }},
	{"no-tld-query", func(c *Config) *bool { return &c.NoTLDQuery }},
	{"no_tld_query", func(c *Config) *bool { return &c.NoTLDQuery }},
	{"use-vc", func(c *Config) *bool { return &c.UseVC }},
	{"trust-ad", func(c *Config) *bool { return &c.TrustAD }},
	{"no-aaaa", func(c *Config) *bool { return &c.NoAAAA }},
}

// silent are options that are valid and change nothing that this tool does.
var silent = []string{"no-reload", "debug", "inet6", "ip6-bytestring", "ip6-dotint", "no-ip6-dotint", "no-check-names", "insecure1", "insecure2"}

// OptionNames are the options with an effect, for messages.
const OptionNames = "ndots:N, timeout:N, attempts:N, rotate, edns0, single-request, single-request-reopen, use-vc, trust-ad, no-tld-query, no-aaaa"

// Option applies one option of resolv.conf. An error leaves c as libraries have
// it: unchanged for an unknown option, capped for a value out of range, at the
// bounds of musl; [Config.Glibc] has those of glibc.
func (c *Config) Option(o string) error {
	c.Options = append(c.Options, o)
	for _, v := range []struct {
		name      string
		to        *int
		max, musl int
	}{
		{"ndots:", &c.Ndots, MaxNdots, MaxNdots},
		{"timeout:", &c.Timeout, MaxTimeout, MaxTimeoutMusl},
		{"attempts:", &c.Attempts, MaxAttempts, MaxAttemptsMusl},
	} {
		text, ok := strings.CutPrefix(o, v.name)
		if !ok {
			continue
		}
		n, err := strconv.Atoi(text)
		switch {
		case err != nil || n < 0:
			return fmt.Errorf("option %q: valid is a number from 0 to %d", o, v.max)
		case n > v.max:
			*v.to = min(n, v.musl)
			return fmt.Errorf("option %q: glibc uses %d, the most that is allowed", o, v.max)
		}
		*v.to = n
		return nil
	}
	for _, f := range flags {
		if strings.HasPrefix(o, f.name) {
			*f.of(c) = true
			if o != f.name {
				return fmt.Errorf("option %q: glibc takes it for %q", o, f.name)
			}
			return nil
		}
	}
	for _, s := range silent {
		if o == s {
			return nil
		}
	}
	return fmt.Errorf("unknown option %q; valid: %s", o, OptionNames)
}

// Glibc returns c with the bounds of glibc.
func (c Config) Glibc() Config {
	c.Timeout, c.Attempts = min(c.Timeout, MaxTimeout), min(c.Attempts, MaxAttempts)
	return c
}
