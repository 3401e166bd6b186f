package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestMetricsAreDocumented: docs/operations.md names every metric that is
// served, with its labels, and no other; no label can hold an id or a title.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	var documented, served []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(yizhan_[a-z_]+(?:\\{[a-z_,]+\\})?)` \\|").FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, m[1])
	}
	list := make(chan *prometheus.Desc, 100)
	collector{}.Describe(list)
	close(list)
	form := regexp.MustCompile(`fqName: "([a-z_]+)".*variableLabels: \{([a-z_,]*)\}`)
	for d := range list {
		m := form.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("%s", d)
		}
		name := m[1]
		if m[2] != "" {
			name += "{" + m[2] + "}"
			for _, label := range strings.Split(m[2], ",") {
				if !slices.Contains([]string{"link", "rank", "outcome", "holder_kind", "use", "version", "commit", "go"}, label) {
					t.Errorf("%s has the label %s: is it an id?", m[1], label)
				}
			}
		}
		served = append(served, name)
	}
	slices.Sort(documented)
	slices.Sort(served)
	if !slices.Equal(documented, served) {
		t.Errorf("documented %v\nserved     %v", documented, served)
	}
}
