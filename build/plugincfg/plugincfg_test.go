package plugincfg

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		input string
		want  []Entry
		err   string
	}{
		"comments and blanks": {
			input: "# order\n\nlog:log\n  \nforward:forward\n",
			want:  []Entry{{"log", stockPath + "log", 3}, {"forward", stockPath + "forward", 5}},
		},
		"of another module": {
			input: "on:github.com/coredns/caddy/onevent",
			want:  []Entry{{"on", "github.com/coredns/caddy/onevent", 1}},
		},
		"duplicate":     {input: "log:log\n# again\nlog:errors", err: `plugin.cfg:3: duplicate plugin name "log", first used in line 1`},
		"no package":    {input: "log:log\nerrors:", err: `plugin.cfg:2: malformed line "errors:"`},
		"no name":       {input: ":log", err: `plugin.cfg:1: malformed line ":log"`},
		"no colon":      {input: "log", err: `plugin.cfg:1: malformed line "log"`},
		"three parts":   {input: "log:log:log", err: `plugin.cfg:1: malformed line "log:log:log"`},
		"space inside":  {input: "log: log", err: `plugin.cfg:1: malformed line "log: log"`},
		"quote":         {input: `log:lo"g`, err: `plugin.cfg:1: malformed line`},
		"nothing in it": {input: "# nothing\n", err: "plugin.cfg: no plugin in it"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(strings.NewReader(tc.input), "plugin.cfg")
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got error %v, want %q in it", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(tc.want) {
				t.Fatalf("got %v, want %v", got, tc.want)
			}
			for i := range got {
				if got[i] != tc.want[i] {
					t.Errorf("got %v, want %v", got[i], tc.want[i])
				}
			}
		})
	}
}

func TestImportsOnce(t *testing.T) {
	src, err := Imports([]Entry{{Name: "b", Package: "example.org/both"}, {Name: "a", Package: "example.org/both"}, {Name: "c", Package: "example.org/a"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(src), "example.org/both"); got != 1 {
		t.Errorf("a package of two directives is imported %d times:\n%s", got, src)
	}
}
