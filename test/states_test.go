package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// stated are the sections of specifications whose tables say what happens at each
// point, with how many rows there are at least.
var stated = []struct {
	file, section string
	rows          int
}{
	{"bundle-v1.md", "States and crashes", 38},
	{"bundle-v1.md", "Versions", 7},
}

// TestEveryStateNamesItsTests: each row of these tables names tests or vectors that are
// there.
func TestEveryStateNamesItsTests(t *testing.T) {
	tests, vectors := functions(t, true), vectorFiles(t)
	for _, s := range stated {
		b, err := os.ReadFile(filepath.Join("..", "docs", "spec", s.file))
		if err != nil {
			t.Fatal(err)
		}
		rows := shownRows(string(b), s.section)
		if len(rows) < s.rows {
			t.Errorf("%s, %s: only %d rows", s.file, s.section, len(rows))
		}
		for _, row := range rows {
			list := quoted.FindAllStringSubmatch(row.shown, -1)
			if len(list) == 0 {
				t.Errorf("%s: %q names no test", s.file, row.name)
			}
			for _, proof := range list {
				if vectors[proof[1]] == "" && tests[proof[1]] == nil {
					t.Errorf("%s: %q: there is neither a test nor a file of vectors %s", s.file, row.name, proof[1])
				}
			}
		}
	}
}

// shownRows are the rows of all tables of a section whose last column is "shown by".
func shownRows(text, section string) (list []threat) {
	_, text, _ = strings.Cut(text, "\n## "+section+"\n")
	text, _, _ = strings.Cut(text, "\n## ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) != 3 || strings.HasPrefix(cells[0], "---") || strings.TrimSpace(cells[2]) == "shown by" {
			continue
		}
		list = append(list, threat{strings.TrimSpace(cells[0]), strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2])})
	}
	return list
}
