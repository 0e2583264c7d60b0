package failover

import (
	"fmt"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/dnstap"
)

const pluginName = "failover"

func init() { plugin.Register(pluginName, setup) }

func setup(c *caddy.Controller) error {
	configs, err := parse(c)
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	block := strings.Join(c.ServerBlockKeys, " ")
	for i, conf := range configs {
		for _, w := range conf.warnings {
			log.Warning(w)
		}
		// A block may have the directive several times, with the same zone too, for
		// `next`. The place in the block tells them apart.
		f := &Failover{config: conf, key: fmt.Sprintf("%s %d %s", block, i, conf.from)}
		add(c, f)
	}
	return nil
}

// add adds f to the chain. All directives of a block stand in one place of the
// chain, in their order in the Corefile.
func add(c *caddy.Controller, f *Failover) {
	cfg := dnsserver.GetConfig(c)
	cfg.AddPlugin(func(next plugin.Handler) plugin.Handler {
		f.Next = next
		return f
	})
	c.OnStartup(func() error {
		for t, ok := cfg.Handler("dnstap").(*dnstap.Dnstap); ok; t, ok = t.Next.(*dnstap.Dnstap) {
			f.taps = append(f.taps, t)
		}
		if err := f.start(); err != nil {
			return plugin.Error(pluginName, err)
		}
		return nil
	})
	c.OnShutdown(func() error {
		if f.group != nil {
			f.retire()
		}
		return nil
	})
}
