package nodelocal

import (
	"slices"
	"testing"

	"github.com/coredns/caddy"
)

func TestHealthPorts(t *testing.T) {
	for corefile, want := range map[string][]port{
		".:5353 {\nwhoami\n}":                              nil,
		".:5353 {\nhealth\n}":                              {{"tcp", 8080}},
		".:5353 {\nhealth {\nlameduck 5s\n}\n}":            {{"tcp", 8080}},
		".:5353 {\nhealth 169.254.20.10:8081\n}":           {{"tcp", 8081}},
		"a:5353 {\nhealth :81\n}\nb:5353 {\nhealth :80\n}": {{"tcp", 80}, {"tcp", 81}},
		"(h) {\nhealth [::1]:82\n}\n.:5353 {\nimport h\n}": {{"tcp", 82}},
	} {
		input := caddy.CaddyfileInput{Contents: []byte(corefile), ServerTypeName: "dns"}
		if got := healthPorts(input); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", corefile, got, want)
		}
	}
	if got := healthPorts(nil); got != nil {
		t.Errorf("without a server: %v", got)
	}
}
