// Command generate makes zplugin.go and zdirectives.go in the working directory
// from the plugin.cfg that it is given. It is run by `go generate ./build`.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/resolute-dns/resolute/build/plugincfg"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: generate PLUGIN.CFG")
		os.Exit(2)
	}
	if err := run(os.Args[1], "."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run reads file and writes the generated files into dir.
func run(file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	entries, err := plugincfg.Parse(f, file)
	if err != nil {
		return err
	}
	if err := checkPackages(entries, file); err != nil {
		return err
	}
	for name, render := range map[string]func([]plugincfg.Entry) ([]byte, error){
		"zplugin.go":     plugincfg.Imports,
		"zdirectives.go": plugincfg.Directives,
	} {
		src, err := render(entries)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), src, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// checkPackages asks the go command for every package, so that a misspelt one
// is found here, with the line to mend, and not by the compiler in a generated
// file. All packages that can't be found are reported.
func checkPackages(entries []plugincfg.Entry, file string) error {
	args := []string{"list", "-e", "-find", "-json=ImportPath,Error"}
	lines := map[string]plugincfg.Entry{}
	for _, e := range entries {
		args = append(args, e.Package)
		lines[e.Package] = e
	}
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}

	var errs []error
	for dec := json.NewDecoder(out); ; {
		var pkg struct {
			ImportPath string
			Error      *struct{ Err string }
		}
		if err := dec.Decode(&pkg); err == io.EOF {
			break
		} else if err != nil {
			return errors.Join(fmt.Errorf("go list: %w", err), cmd.Wait())
		}
		if pkg.Error != nil {
			e := lines[pkg.ImportPath]
			why, _, _ := strings.Cut(pkg.Error.Err, "\n")
			errs = append(errs, fmt.Errorf("%s:%d: plugin %q: package %s can't be found: %s", file, e.Line, e.Name, e.Package, why))
		}
	}
	if err := cmd.Wait(); err != nil {
		errs = append(errs, fmt.Errorf("go list: %w", err))
	}
	return errors.Join(errs...)
}
