package harness

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// KubernetesAPI starts a stand-in for a Kubernetes API server, with as much of it
// as the kubernetes plugin asks for, and returns its address. It knows one
// Service, `default/web` on 10.96.0.80.
func KubernetesAPI(t *testing.T) string {
	t.Helper()
	lists := map[string]any{
		"/api/v1/namespaces": list("v1", "NamespaceList", map[string]any{"metadata": map[string]any{"name": "default"}}),
		"/api/v1/services": list("v1", "ServiceList", map[string]any{
			"metadata": map[string]any{"name": "web", "namespace": "default"},
			"spec": map[string]any{
				"clusterIP": "10.96.0.80", "clusterIPs": []string{"10.96.0.80"}, "type": "ClusterIP",
				"ports": []any{map[string]any{"name": "http", "port": 80, "protocol": "TCP"}},
			},
		}),
		"/api/v1/pods": list("v1", "PodList"),
		"/apis/discovery.k8s.io/v1/endpointslices": list("discovery.k8s.io/v1", "EndpointSliceList"),
	}
	stop := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Query().Get("sendInitialEvents") != "":
			// Streaming lists are newer than this; a client then asks for a plain one.
			w.WriteHeader(http.StatusBadRequest)
			json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "BadRequest", "code": http.StatusBadRequest})
		case r.URL.Query().Get("watch") != "":
			// Nothing ever changes here.
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		case lists[r.URL.Path] != nil:
			json.NewEncoder(w).Encode(lists[r.URL.Path])
		case r.URL.Path == "/apis/discovery.k8s.io/v1":
			json.NewEncoder(w).Encode(map[string]any{
				"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "discovery.k8s.io/v1",
				"resources": []any{map[string]any{"name": "endpointslices", "kind": "EndpointSlice", "namespaced": true, "verbs": []string{"list", "watch"}}},
			})
		case r.URL.Path == "/version":
			json.NewEncoder(w).Encode(map[string]any{"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(func() {
		close(stop)
		s.Close()
	})
	return s.URL
}

func list(apiVersion, kind string, items ...any) any {
	if items == nil {
		items = []any{}
	}
	return map[string]any{"kind": kind, "apiVersion": apiVersion, "metadata": map[string]any{"resourceVersion": "1"}, "items": items}
}

// WithKubernetes makes the kubernetes plugin of a Corefile talk to the API server
// at url.
func WithKubernetes(corefile, url string) string {
	lines := strings.Split(corefile, "\n")
	for i, line := range lines {
		switch trimmed := strings.TrimSpace(line); {
		case !strings.HasPrefix(trimmed, "kubernetes "):
		case strings.HasSuffix(trimmed, "{"):
			lines[i] += "\n\tendpoint " + url
		default:
			lines[i] += " {\n\tendpoint " + url + "\n}"
		}
	}
	return strings.Join(lines, "\n")
}
