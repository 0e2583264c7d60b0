package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg string
		err string
	}{
		"good":            {cfg: "aa:github.com/resolute-dns/resolute/plugin/aa\nwhoami:whoami\n"},
		"no such package": {cfg: "whoami:whoami\nnone:nosuchplugin\n", err: `plugin.cfg:2: plugin "none": package github.com/coredns/coredns/plugin/nosuchplugin can't be found`},
		"no such module":  {cfg: "x:example.invalid/x\n", err: `plugin.cfg:1: plugin "x": package example.invalid/x can't be found`},
		"duplicate":       {cfg: "log:log\nlog:log\n", err: "plugin.cfg:2: duplicate"},
	} {
		t.Run(name, func(t *testing.T) {
			// The go command is asked from inside the module, the files go elsewhere.
			dir := t.TempDir()
			cfg := filepath.Join(dir, "plugin.cfg")
			if err := os.WriteFile(cfg, []byte(tc.cfg), 0o644); err != nil {
				t.Fatal(err)
			}
			err := run(cfg, dir)
			if tc.err == "" {
				if err != nil {
					t.Fatal(err)
				}
				src, err := os.ReadFile(filepath.Join(dir, "zplugin.go"))
				if err != nil || !strings.Contains(string(src), "resolute/plugin/aa") {
					t.Errorf("zplugin.go: %v\n%s", err, src)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got %v, want %q in it", err, tc.err)
			}
			if _, err := os.Stat(filepath.Join(dir, "zplugin.go")); err == nil {
				t.Error("a file was written in spite of the error")
			}
		})
	}
}
