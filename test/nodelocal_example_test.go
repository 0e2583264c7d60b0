package test

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

func init() { exampleTests["node-local"] = nodeLocalExample }

// nodeLocalExample starts the example as it is, on a node of a cluster.
func nodeLocalExample(t *testing.T) {
	corefile, err := os.ReadFile("../corefile-examples/node-local.Corefile")
	if err != nil {
		t.Fatal(err)
	}
	// What Kubernetes sets in a pod.
	t.Setenv("KUBE_DNS_SERVICE_HOST", clusterIP)
	t.Setenv("KUBE_DNS_UPSTREAM_SERVICE_HOST", upstreamIP)
	c := newCluster(t)
	s := c.node.Start(t, resolute(t), string(corefile))
	for _, m := range append(slices.Clone(c.pods), c.node) {
		for _, name := range []string{"a.default.svc.cluster.local.", "a.example."} {
			m.resolves(name, nodeLocalIP, clusterIP)
		}
	}
	// Per address: 6 rules for port 53, 2 for the port of health.
	if addrs, rules := c.node.inPlace(); len(addrs) != 2 || rules != 2*(6+2) {
		t.Errorf("%v and %d rules", addrs, rules)
	}
	s.Stop(t)
	if !c.node.clean() {
		t.Errorf("left after the end:\n%s", c.node.run("ip", "addr"))
	}
}

// TestNodeLocalDeploy checks what has to be the same, or not there at all, in the
// files for Kubernetes.
func TestNodeLocalDeploy(t *testing.T) {
	read := func(file string) []byte {
		t.Helper()
		b, err := os.ReadFile("../" + file)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const dir = "deploy/kubernetes/node-local/"
	if !bytes.Equal(read("corefile-examples/node-local.Corefile"), read(dir+"Corefile")) {
		t.Errorf("%sCorefile is not corefile-examples/node-local.Corefile", dir)
	}
	daemonset := string(read(dir + "daemonset.yaml"))
	// A port of the host is for one pod, and an update has two.
	for _, never := range []string{"\n          ports:", "hostPort", "enableServiceLinks: false", "privileged: true"} {
		if strings.Contains(daemonset, never) {
			t.Errorf("daemonset.yaml has %q", strings.TrimSpace(never))
		}
	}
	for _, always := range []string{"hostNetwork: true", "dnsPolicy: Default", "priorityClassName: system-node-critical", "maxSurge: 1", "maxUnavailable: 0", "drop: [ALL]", "readOnlyRootFilesystem: true"} {
		if !strings.Contains(daemonset, always) {
			t.Errorf("daemonset.yaml has no %q", always)
		}
	}
	// The name is in the name of the variable in the Corefile.
	if !strings.Contains(string(read(dir+"upstream-service.yaml")), "\n  name: kube-dns-upstream ") {
		t.Error("the Service is not kube-dns-upstream")
	}
}
