package latency

import (
	"os"
	"strings"
	"testing"
)

// TestReadme checks that the manual names every metric and every value of a label.
func TestReadme(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	values := sourceNames[:]
	for _, c := range causes {
		values = append(values, string(c))
	}
	for _, c := range confidences {
		values = append(values, string(c))
	}
	for _, name := range exported {
		if !strings.Contains(text, "* `"+name) {
			t.Errorf("%s is not in the README", name)
		}
	}
	for _, v := range values {
		if !strings.Contains(text, "`"+v+"`") {
			t.Errorf("%s is not in the README", v)
		}
	}
	for _, domain := range topLevel {
		if !strings.Contains(text, domain) {
			t.Errorf("the top-level domain %s is not in the README", domain)
		}
	}
}
