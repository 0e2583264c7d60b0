package trail

import (
	"errors"
	"slices"
	"sync"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
)

// cachePlugin is the directive that the watched plugin goes by.
const cachePlugin = "cache"

// Watch puts a handler of ours right before and one right behind the cache
// plugin of c's server block, so that [Record.Cached] knows. It does nothing in
// a block without cache, and is to be called from the setup function of a
// directive that comes before cache. Calling it for several directives of one
// block is fine.
//
// CoreDNS has no call that inserts a handler somewhere else than at the end of
// the chain as built so far, so this is done when the chain has grown to the
// right place: caddy runs the setup of one directive for all server blocks
// before that of the next, and calls back in between.
func Watch(c *caddy.Controller) error {
	if err := registerCallbacks(); err != nil {
		return err
	}
	watched.add(c.Context(), dnsserver.GetConfig(c))

	// With a start-up error rather than with wrong answers, should a future
	// caddy not call back.
	cfg := dnsserver.GetConfig(c)
	c.OnStartup(func() error {
		if cfg.Handler(cachePlugin) != nil && cfg.Handler(frontName) == nil {
			return errors.New("internal error: the cache plugin could not be watched")
		}
		return nil
	})
	return nil
}

// Caches reports whether the server block of cfg has the cache plugin. It can
// be answered from start-up on, when all handlers have been made.
func Caches(cfg *dnsserver.Config) bool { return cfg.Handler(cachePlugin) != nil }

// watched are the server blocks to put our handlers into, of the Corefile that
// is being read.
var watched pending

type pending struct {
	mu      sync.Mutex
	context caddy.Context // of the caddy instance that is being set up
	configs []*dnsserver.Config
	sizes   []int // of each config's chain before cache had its turn
}

func (p *pending) add(ctx caddy.Context, cfg *dnsserver.Config) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.context != ctx {
		// What is left of a Corefile that turned out to be broken.
		p.context, p.configs, p.sizes = ctx, nil, nil
	}
	if !slices.Contains(p.configs, cfg) {
		p.configs = append(p.configs, cfg)
	}
}

// beforeCache is called when the next directive to be set up is cache.
func (p *pending) beforeCache(ctx caddy.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.context != ctx {
		return nil
	}
	for _, cfg := range p.configs {
		cfg.AddPlugin(func(next plugin.Handler) plugin.Handler { return &front{next: next} })
		p.sizes = append(p.sizes, len(cfg.Plugin))
	}
	return nil
}

// behindCache is called when cache has been set up.
func (p *pending) behindCache(ctx caddy.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.context != ctx {
		return nil
	}
	for i, cfg := range p.configs {
		switch len(cfg.Plugin) {
		case p.sizes[i]: // no cache in this block
			cfg.Plugin = cfg.Plugin[:p.sizes[i]-1]
		default:
			cfg.AddPlugin(func(next plugin.Handler) plugin.Handler { return &back{next: next} })
		}
	}
	p.context, p.configs, p.sizes = nil, nil, nil
	return nil
}

// registerCallbacks hangs the two callbacks on the directives, once per
// process. It waits for the first use because the list of directives is set by
// main.
var registerCallbacks = sync.OnceValue(func() error {
	i := slices.Index(dnsserver.Directives, cachePlugin)
	if i < 1 {
		return errors.New("internal error: no directive comes before cache")
	}
	caddy.RegisterParsingCallback("dns", dnsserver.Directives[i-1], watched.beforeCache)
	caddy.RegisterParsingCallback("dns", cachePlugin, watched.behindCache)
	return nil
})
