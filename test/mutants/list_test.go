package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryMutantStillFits: a mutant whose text is gone would break nothing, and
// be noticed only when it is its turn. Changes of one file are made one after
// the other.
func TestEveryMutantStillFits(t *testing.T) {
	names := map[string]bool{}
	for _, m := range mutants {
		if names[m.name] {
			t.Errorf("two mutants are called %s", m.name)
		}
		names[m.name] = true
		texts := map[string]string{}
		for _, c := range m.changes {
			text, read := texts[c.file]
			if !read {
				b, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(c.file)))
				if err != nil {
					t.Fatal(err)
				}
				text = string(b)
			}
			if n := strings.Count(text, c.old); n != 1 {
				t.Errorf("%s: %s holds %d times, not once, what the mutant changes", m.name, c.file, n)
			}
			texts[c.file] = strings.Replace(text, c.old, c.new, 1)
		}
	}
	t.Logf("%d mutants", len(mutants))
}
