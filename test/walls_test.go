package test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/resolute-dns/resolute/"

// imports returns what the Go files of every package below dir import, without
// the tests, by import path.
func imports(t *testing.T, dir string) map[string][]string {
	t.Helper()
	pkgs := map[string][]string{}
	err := filepath.WalkDir(filepath.Join("..", dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := module + filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), "../"))
		for _, spec := range f.Imports {
			imp, _ := strconv.Unquote(spec.Path.Value)
			pkgs[pkg] = append(pkgs[pkg], imp)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) == 0 {
		t.Fatalf("no package below %s", dir)
	}
	return pkgs
}

// directive returns the directory of the directive that pkg belongs to, the
// empty string for what the directives share.
func directive(pkg string) string {
	rest, ok := strings.CutPrefix(pkg, module+"plugin/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	if name == "internal" {
		return ""
	}
	return name
}

// TestDirectivesAreApart checks that a directive does not lean on another: what
// they share is in plugin/internal.
func TestDirectivesAreApart(t *testing.T) {
	for pkg, imps := range imports(t, "plugin") {
		for _, imp := range imps {
			if d := directive(imp); d != "" && d != directive(pkg) {
				t.Errorf("%s imports %s", pkg, imp)
			}
		}
	}
}

// TestTrailImportsNoPlugin checks that the trail, which all directives use, needs
// neither one of them nor one of CoreDNS's plugins. What lies in CoreDNS's
// plugin directory but is none (the package of the interface itself, and pkg/)
// may be used.
func TestTrailImportsNoPlugin(t *testing.T) {
	const stockPlugins = "github.com/coredns/coredns/plugin/"
	for pkg, imps := range imports(t, "plugin/internal/trail") {
		for _, imp := range imps {
			if directive(imp) != "" || strings.HasPrefix(imp, stockPlugins) && !strings.HasPrefix(imp, stockPlugins+"pkg/") {
				t.Errorf("%s imports %s", pkg, imp)
			}
		}
	}
}

// TestPoolIsPure checks that the decisions of failover depend on nothing but what
// they are told: no socket, no clock, no randomness, no goroutine of their own.
// That is what lets a simulation of hours run in seconds.
func TestPoolIsPure(t *testing.T) {
	const dir = "plugin/failover/internal/pool"
	allowed := []string{"fmt", "math", "math/bits", "slices", "time"}
	for _, imps := range imports(t, dir) {
		for _, imp := range imps {
			if !slices.Contains(allowed, imp) {
				t.Errorf("pool imports %s", imp)
			}
		}
	}
	files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	values := []string{"Duration", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour"}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a goroutine", set.Position(n.Pos()))
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && !slices.Contains(values, n.Sel.Name) {
					t.Errorf("%s: time.%s", set.Position(n.Pos()), n.Sel.Name)
				}
			}
			return true
		})
	}
}

// moduleVersions returns the modules of the build list in dir.
func moduleVersions(t *testing.T, dir string) map[string]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-mod=readonly", "-m", "-json=Path,Version,Replace,Main", "all")
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -m all in %s: %v\n%s", dir, err, &stderr)
	}
	versions := map[string]string{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var m struct {
			Path, Version string
			Main          bool
			Replace       *struct{ Path, Version string }
		}
		if err := dec.Decode(&m); err == io.EOF {
			return versions
		} else if err != nil {
			t.Fatal(err)
		}
		if m.Replace != nil {
			m.Version = "replaced by " + m.Replace.Path + "@" + m.Replace.Version
		}
		if !m.Main {
			versions[m.Path] = m.Version
		}
	}
}

// TestModuleVersions is the other half of the proof that the build is a drop-in:
// what stock CoreDNS is made of, ours is made of in the same versions.
func TestModuleVersions(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/coredns/coredns").Output()
	if err != nil {
		t.Fatal(err)
	}
	ours, stock := moduleVersions(t, ".."), moduleVersions(t, strings.TrimSpace(string(out)))
	shared := 0
	for path, version := range ours {
		if want, ok := stock[path]; ok {
			shared++
			if version != want {
				t.Errorf("%s is %s, stock has %s", path, version, want)
			}
		}
	}
	if shared < 100 {
		t.Errorf("only %d modules are shared: the lists were not read", shared)
	}
	t.Logf("%d modules are shared, %d are ours only", shared, len(ours)-shared)
}
