package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pins are the versions that were measured and read. Raising one is a decision:
// change it here, in go.mod and in docs/dependencies.md together.
var pins = []struct{ module, version, why string }{
	{"github.com/emmansun/gmsm", "v0.44.0", "an upgrade by @latest resolves to v0.15.5, which is years old and has no pkcs7; v0.43 and v0.44 differ in the smx509 API; strict CMS, key slots and deterministic signing were tested against v0.44.0"},
	{"github.com/ThalesIgnite/crypto11", "v1.2.5", "the version whose wrapped mode was tested against SoftHSM; its Seal panics on HSM errors and its default IV length is 16, both handled at the boundary"},
	{"github.com/gorilla/mux", "v1.8.1", "the router whose 404, 405 and // behaviour adapters/rest accounts for"},
	{"github.com/dgraph-io/badger/v4", "v4.9.6", "the engine whose durability with SyncWrites was tested through power cuts"},
}

type goMod struct {
	Go      string
	Require []struct {
		Path, Version string
		Indirect      bool
	}
	Replace []struct{ Old struct{ Path string } }
}

func readGoMod(t *testing.T) goMod {
	t.Helper()
	var m goMod
	if err := json.Unmarshal([]byte(run(t, nil, "go", "mod", "edit", "-json")), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestPins fails when go.mod asks for another version than the one examined.
func TestPins(t *testing.T) {
	m := readGoMod(t)
	have := map[string]string{}
	for _, r := range m.Require {
		have[r.Path] = r.Version
	}
	for _, p := range pins {
		if have[p.module] != p.version {
			t.Errorf("go.mod requires %s %q, want %s: %s. To go back: go get %s@%s", p.module, have[p.module], p.version, p.why, p.module, p.version)
		}
	}
	for _, r := range m.Replace {
		t.Errorf("go.mod replaces %s: a client that imports this module would not see the replacement", r.Old.Path)
	}
}

// TestDependenciesAreExplained fails when a direct dependency is missing from
// docs/dependencies.md or stands there with another version, and when a module
// is explained, or has a door, that go.mod does not require.
func TestDependenciesAreExplained(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join(moduleDir(t), "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]string{}
	for line := range strings.Lines(string(doc)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		if name := strings.TrimSpace(cells[1]); strings.HasPrefix(name, "`") {
			explained[strings.Trim(name, "`")] = strings.TrimSpace(cells[2])
		}
	}
	required := map[string]bool{}
	for _, r := range readGoMod(t).Require {
		if r.Indirect {
			continue
		}
		required[r.Path] = true
		if got := explained[r.Path]; got != r.Version {
			t.Errorf("docs/dependencies.md has %q for %s, go.mod has %s: give the module, the version, what it is for, why it is not our own code, and its licence", got, r.Path, r.Version)
		}
	}
	for name := range explained {
		if !required[name] {
			t.Errorf("docs/dependencies.md explains %s, which go.mod does not require directly: remove the line", name)
		}
	}
	for _, d := range doors {
		if !required[d.module] {
			t.Errorf("doors in test/house_test.go names %s, which go.mod does not require directly: remove the line", d.module)
		}
	}
}
