package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// known are the attacks that every specification answers, even where the
// answer is that there is nothing to attack.
var known = []string{
	"spoofing", "replay", "downgrade", "cross-recipient confusion", "surreptitious forwarding",
	"re-signing of a stolen payload", "signature stripping", "key-commitment attacks", "padding-oracle attacks",
	"CMS malleability", "type confusion", "truncation", "reorder", "backdating",
}

// threat is one row of a table.
type threat struct{ name, mechanism, shown string }

// threats reads the table under "## Threats" of a specification.
func threats(text string) (list []threat) {
	_, section, ok := strings.Cut(text, "\n## Threats\n")
	if !ok {
		return nil
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) == 3 && !strings.HasPrefix(cells[0], "---") && strings.TrimSpace(cells[0]) != "threat" {
			list = append(list, threat{strings.TrimSpace(cells[0]), strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2])})
		}
	}
	return list
}

var quoted = regexp.MustCompile("`([^`]+)`")

// vectorFiles finds the files of vectors by their names.
func vectorFiles(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && filepath.Base(filepath.Dir(path)) == "testdata" && strings.HasSuffix(path, ".json") {
			found[d.Name()] = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestThreatTablesNameTestsThatExist: each specification answers every known
// attack, and what it names as proof is there.
func TestThreatTablesNameTestsThatExist(t *testing.T) {
	specs, err := filepath.Glob(filepath.Join("..", "docs", "spec", "*.md"))
	if err != nil || len(specs) < 7 {
		t.Fatalf("%d specifications, %v", len(specs), err)
	}
	tests, vectors, proofs := functions(t, true), vectorFiles(t), 0
	for _, path := range specs {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		answered := map[string]bool{}
		for _, row := range threats(string(b)) {
			answered[row.name] = true
			if strings.HasPrefix(row.mechanism, "not applicable: ") && row.shown == "–" {
				continue
			}
			list := quoted.FindAllStringSubmatch(row.shown, -1)
			if len(list) == 0 {
				t.Errorf("%s: %s names no test", name, row.name)
			}
			for _, proof := range list {
				proofs++
				file, class, isVector := strings.Cut(proof[1], "#")
				switch {
				case isVector && !holdsClass(vectors[file], class):
					t.Errorf("%s: %s: there is no vector of class %s in %s", name, row.name, class, file)
				case !isVector && tests[proof[1]] == nil:
					t.Errorf("%s: %s: there is no test %s", name, row.name, proof[1])
				}
			}
		}
		for _, threat := range known {
			if !answered[threat] {
				t.Errorf("%s does not answer %s", name, threat)
			}
		}
	}
	t.Logf("%d proofs named in %d specifications", proofs, len(specs))
}

func holdsClass(path, class string) bool {
	b, err := os.ReadFile(path)
	return err == nil && strings.Contains(string(b), `"class": "`+class+`"`)
}
