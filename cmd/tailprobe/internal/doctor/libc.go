package doctor

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/resolute-dns/resolute/cmd/tailprobe/internal/stub"
)

// Libc is the C library of the image, by its files.
type Libc struct {
	Kind    string `json:"kind"`    // glibc, musl, or none (as in images with a static binary only)
	Version string `json:"version"` // empty: unknown
	File    string `json:"file"`    // where it is; empty: nowhere
}

// Where distributions have the libraries. Musl's dynamic linker is its C library.
var (
	muslFiles  = []string{"lib/ld-musl-*.so.1", "usr/lib/ld-musl-*.so.1"}
	glibcFiles = []string{"lib/*/libc.so.6", "lib64/libc.so.6", "lib/libc.so.6", "usr/lib/*/libc.so.6", "usr/lib64/libc.so.6", "usr/lib/libc.so.6"}
)

var (
	// Glibc prints this when it is run as a program.
	glibcVersion = regexp.MustCompile(`GNU C Library [^\n\x00]*release version ([0-9]+\.[0-9]+)`)
	// Musl has its version as a string of its own.
	muslVersion = regexp.MustCompile(`\x00([01]\.[0-9]{1,2}\.[0-9]{1,2})(?:-[^\x00]*)?\x00`)
)

// maxLibrary bounds what is read of a file that claims to be a library; the
// largest are below 3 MB.
const maxLibrary = 16 << 20

// FindLibc looks for the C library below root. In an image with both, as Debian
// with musl-tools, it is glibc: the programs of such an image use it.
func FindLibc(root string) Libc {
	for _, kind := range []struct {
		name    string
		files   []string
		version *regexp.Regexp
	}{{string(stub.Glibc), glibcFiles, glibcVersion}, {string(stub.Musl), muslFiles, muslVersion}} {
		for _, pattern := range kind.files {
			// The patterns are well-formed; a root that makes them otherwise matches nothing.
			files, _ := filepath.Glob(filepath.Join(root, pattern))
			for _, file := range files {
				l := Libc{Kind: kind.name, File: "/" + strings.TrimPrefix(strings.TrimPrefix(file, root), "/")}
				if m := kind.version.FindSubmatch(readSome(file)); m != nil {
					l.Version = string(m[1])
				}
				return l
			}
		}
	}
	return Libc{Kind: "none"}
}

// readSome returns the beginning of a file, nothing if it can't be read.
func readSome(name string) []byte {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, maxLibrary))
	return bytes.Clone(b)
}

// older reports whether the version is known to be lower than major.minor.
func (l Libc) older(major, minor int) bool {
	a, b, _ := strings.Cut(l.Version, ".")
	b, _, _ = strings.Cut(b, ".")
	x, err1 := strconv.Atoi(a)
	y, err2 := strconv.Atoi(b)
	return err1 == nil && err2 == nil && (x < major || x == major && y < minor)
}

// String names the library with its version.
func (l Libc) String() string { return strings.TrimSpace(l.Kind + " " + l.Version) }

// findLibc finds what follows from the library by itself.
func (x *examination) findLibc() {
	x.Libc = FindLibc(x.o.Root)
	switch {
	case x.Libc.Kind == string(stub.Glibc) && x.Libc.older(2, 20):
		x.find("glibc-old", Problem, x.Libc.File, "this is "+x.Libc.String(),
			"glibc before 2.20 fails a lookup of A and AAAA when one of the answers is empty with neither AA nor RA set (BZ #14308).",
			"Use an image with a newer glibc, or have the server set AA (Resolute's aa plugin).")
	case x.Libc.Kind == string(stub.Musl) && (x.Libc.older(1, 2) || strings.HasPrefix(x.Libc.Version, "1.2.") && lastNumber(x.Libc.Version) < 4):
		x.find("musl-no-tcp", Note, x.Libc.File, "this is "+x.Libc.String(),
			"musl before 1.2.4 doesn't ask over TCP when an answer is truncated: it uses the part that it got.",
			"Keep answers below 512 bytes, or use an image with musl 1.2.4 (Alpine 3.18) or newer.")
	}
}

// lastNumber returns the last part of a version.
func lastNumber(version string) int {
	n, err := strconv.Atoi(version[strings.LastIndexByte(version, '.')+1:])
	if err != nil {
		return 0
	}
	return n
}
