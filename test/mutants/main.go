// Command mutants proves that the campaigns bite: it breaks the program in one
// known way at a time and expects the named campaign to fail. A mutant that
// survives means that a promise is no longer tested.
//
//	go run ./test/mutants [-share 1/4] [-only NAME] [-list]
//
// The tree is not touched: the broken file is laid over it at build time.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	share := flag.String("share", "1/1", "K/N: run every N-th mutant, a different K each day is up to you")
	only := flag.String("only", "", "run this mutant alone")
	list := flag.Bool("list", false, "print the names and the campaigns that must notice, and run none")
	flag.Parse()
	if *list {
		for _, m := range mutants {
			fmt.Printf("%s\t%s\n", m.name, strings.Join(m.campaign, " "))
		}
		return
	}
	var k, n int
	if _, err := fmt.Sscanf(*share, "%d/%d", &k, &n); err != nil || n < 1 || k < 1 || k > n {
		fmt.Fprintln(os.Stderr, "mutants: -share K/N with 1 ≤ K ≤ N")
		os.Exit(2)
	}
	caught, survived := 0, 0
	for i, m := range mutants {
		if *only != "" && m.name != *only || *only == "" && i%n != k-1 {
			continue
		}
		start := time.Now()
		how, err := try(m)
		switch {
		case err != nil:
			fmt.Printf("BROKEN    %-28s %v\n", m.name, err)
			survived++
		case how == "":
			fmt.Printf("SURVIVED  %-28s %s\n          must be caught by: %s\n", m.name, m.reason, strings.Join(m.campaign, " "))
			survived++
		default:
			fmt.Printf("caught    %-28s %s (%.0f s)\n          %s\n", m.name, m.reason, time.Since(start).Seconds(), how)
			caught++
		}
	}
	fmt.Printf("mutants caught %d, survived %d, of %d known\n", caught, survived, len(mutants))
	if survived > 0 {
		os.Exit(1)
	}
}

// try builds the campaign with the mutant laid over the tree. how is the line
// in which the campaign complains, empty when it passes.
func try(m mutant) (how string, err error) {
	dir, err := os.MkdirTemp("", "yizhan-mutant-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for i, c := range m.changes {
		path, err := filepath.Abs(c.file)
		if err != nil {
			return "", err
		}
		from := path
		if laid := overlay.Replace[path]; laid != "" {
			from = laid
		}
		b, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		if strings.Count(string(b), c.old) != 1 {
			return "", fmt.Errorf("%s no longer holds exactly once what the mutant changes; mend test/mutants/list.go", c.file)
		}
		laid := filepath.Join(dir, fmt.Sprintf("%d.go", i))
		if err := os.WriteFile(laid, []byte(strings.Replace(string(b), c.old, c.new, 1)), 0o600); err != nil {
			return "", err
		}
		overlay.Replace[path] = laid
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, b, 0o600); err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "vet", "-overlay", list, m.campaign[0]).CombinedOutput(); err != nil {
		return "", fmt.Errorf("does not compile: %s", out)
	}
	test := exec.Command("go", append([]string{"test", "-count=1"}, m.campaign...)...)
	test.Env = append(os.Environ(), "GOFLAGS=-overlay="+list) // what a campaign builds itself is broken as well
	out, err := test.CombinedOutput()
	if err == nil {
		return "", nil
	}
	return complaint(string(out)), nil
}

// complaint is the first line that says what broke.
func complaint(out string) string {
	for line := range strings.Lines(out) {
		if strings.Contains(line, "_test.go:") || strings.HasPrefix(line, "panic:") {
			return strings.TrimSpace(line)
		}
	}
	return "the campaign failed"
}
