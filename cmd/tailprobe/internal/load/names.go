package load

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"strings"
)

// ReadNames reads names, one a line; # starts a comment.
func ReadNames(r io.Reader) ([]string, error) {
	var names []string
	sc := bufio.NewScanner(r)
	for line := 1; sc.Scan(); line++ {
		text, _, _ := strings.Cut(sc.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if err := CheckName(text); err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		names = append(names, text)
	}
	return names, sc.Err()
}

// CheckName says why a name can't be looked up.
func CheckName(name string) error {
	if _, err := netip.ParseAddr(name); err == nil {
		return fmt.Errorf("%q is an address already; valid is a host name", name)
	}
	trimmed := strings.TrimSuffix(name, ".")
	if len(trimmed) > 253 {
		return fmt.Errorf("%q is longer than 253 bytes", name)
	}
	for label := range strings.SplitSeq(trimmed, ".") {
		if label == "" || len(label) > 63 || strings.ContainsAny(label, " \t/") {
			return fmt.Errorf("%q isn't a host name: its labels must have 1 to 63 bytes and no spaces", name)
		}
	}
	return nil
}
