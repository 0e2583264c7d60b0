package plugincfg

import (
	"fmt"
	"go/format"
	"slices"
	"strings"
)

// header marks the files as generated, in the form that the go command and
// linters know (https://go.dev/s/generatedcode).
const header = "// Code generated from plugin.cfg by build/generate; DO NOT EDIT.\n\npackage main\n\n"

// Imports returns the Go file that links every package of entries into the
// binary.
func Imports(entries []Entry) ([]byte, error) {
	var paths []string
	for _, e := range entries {
		paths = append(paths, e.Package)
	}
	slices.Sort(paths)
	paths = slices.Compact(paths) // two directives may live in one package

	var b strings.Builder
	b.WriteString(header + "import (\n")
	for _, p := range paths {
		fmt.Fprintf(&b, "_ %q\n", p)
	}
	b.WriteString(")\n")
	return format.Source([]byte(b.String()))
}

// Directives returns the Go file that holds the names of entries in their order.
func Directives(entries []Entry) ([]byte, error) {
	var b strings.Builder
	b.WriteString(header)
	b.WriteString("// directives are all directives in the order in which they see a query.\n")
	b.WriteString("var directives = []string{\n")
	for _, e := range entries {
		fmt.Fprintf(&b, "%q,\n", e.Name)
	}
	b.WriteString("}\n")
	return format.Source([]byte(b.String()))
}
