// Package plugincfg reads plugin.cfg, the ordered list of the directives that
// are built into CoreDNS, and writes the Go files made from it.
package plugincfg

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// stockPath is where CoreDNS keeps its own plugins. A package name in
// plugin.cfg that is not an import path of its own is relative to it.
const stockPath = "github.com/coredns/coredns/plugin/"

// Entry is one line of plugin.cfg.
type Entry struct {
	Name    string // the directive, as written in a Corefile
	Package string // the full import path of the package that registers it
	Line    int    // where it stands, from 1
}

// Parse reads plugin.cfg in CoreDNS's format: one `name:package` a line, empty
// lines and lines that start with # do not count. Unlike CoreDNS's own
// generator, which skips what it can't read, it takes a malformed line and a
// second line for the same name as errors. Errors name file and line.
func Parse(r io.Reader, file string) ([]Entry, error) {
	var entries []Entry
	seen := map[string]int{}
	scanner := bufio.NewScanner(r)
	for n := 1; scanner.Scan(); n++ {
		line := strings.TrimSpace(scanner.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, pkg, ok := strings.Cut(line, ":")
		if !ok || name == "" || pkg == "" || strings.ContainsAny(line, " \t\"") || strings.Contains(pkg, ":") {
			return nil, fmt.Errorf("%s:%d: malformed line %q: want <plugin-name>:<package-name>", file, n, line)
		}
		if first, ok := seen[name]; ok {
			return nil, fmt.Errorf("%s:%d: duplicate plugin name %q, first used in line %d", file, n, name, first)
		}
		seen[name] = n
		entries = append(entries, Entry{Name: name, Package: importPath(pkg), Line: n})
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("%s: no plugin in it", file)
	}
	return entries, nil
}

// importPath makes a full import path of a package name in plugin.cfg. As in
// the go command, a path whose first element has a dot is one already.
func importPath(pkg string) string {
	first, _, _ := strings.Cut(pkg, "/")
	if strings.Contains(first, ".") {
		return pkg
	}
	return stockPath + pkg
}
