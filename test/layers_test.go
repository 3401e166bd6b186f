package test

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the depguard rules in .golangci.yml from the floor table")

// pkg is one package of the module as it stands on disk. Imports are those of
// every file, whatever its build constraints.
type pkg struct {
	path       string // below the module path
	imports    []string
	testImport []string
}

// TestFloors fails on every import that the floor table does not allow.
func TestFloors(t *testing.T) {
	for _, p := range modulePackages(t) {
		if _, ok := place(p.path); !ok {
			t.Errorf("package %s has no place in the house: decide its floor and add a line to house in test/house_test.go (then run: go test ./test -run TestDepguard -update)", p.path)
			continue
		}
		for _, to := range p.imports {
			if err := mayImport(p.path, to, false); err != nil {
				t.Error(err)
			}
		}
		for _, to := range p.testImport {
			if err := mayImport(p.path, to, true); err != nil {
				t.Errorf("test files: %v", err)
			}
		}
	}
}

// TestHouseHasNoEmptyRooms keeps the table honest: a line for a package that
// does not exist says something untrue about the project.
func TestHouseHasNoEmptyRooms(t *testing.T) {
	exists := map[string]bool{}
	for _, p := range modulePackages(t) {
		exists[p.path] = true
	}
	for _, r := range house {
		if !exists[r.path] {
			t.Errorf("house in test/house_test.go names %s, which is not a package: remove the line, or write the package", r.path)
		}
	}
}

// TestNames refuses package names that say nothing or hide the standard
// library, and any Go file directly in crypto/.
func TestNames(t *testing.T) {
	vague := []string{"util", "utils", "common", "models", "types", "errors", "log", "mocks", "helpers", "misc"}
	for _, p := range modulePackages(t) {
		if slices.Contains(vague, path.Base(p.path)) {
			t.Errorf("package %s: name a package after the one job it does", p.path)
		}
		if p.path == "crypto" {
			t.Error("crypto/ holds packages, not Go files: a package named crypto would shadow the standard library")
		}
	}
}

// TestArrows holds the judge itself against arrows whose answer is known.
func TestArrows(t *testing.T) {
	own := func(p string) string { return module + "/" + p }
	tests := []struct {
		from, to string
		inTest   bool
		ok       bool
	}{
		{"cmd/yizhan", own("adapters/rest"), false, true},
		{"cmd/yizhan", own("queue/badgerstore"), false, true},
		{"cmd/yizhan", own("cmd/yzverify"), false, false},
		{"cmd/yizhan", own("test/sim"), false, false},
		{"adapters/rest", own("exchange/node"), false, true},
		{"adapters/rest", own("adapters/peer"), false, false},
		{"adapters/console", own("adapters/rest"), false, false},
		{"adapters/peer", own("exchange/link"), false, true},
		{"exchange/link", own("exchange/node"), false, true},
		{"exchange/node", own("exchange/link"), false, false},
		{"exchange/node", own("adapters/rest"), false, false},
		{"exchange/node", own("queue"), false, true},
		{"exchange/node", own("queue/badgerstore"), false, false},
		{"exchange/node", own("queue/badgerstore"), true, true},
		{"exchange/evidence", own("queue"), false, false},
		{"exchange/evidence", own("exchange/records"), false, false},
		{"exchange", own("exchange/guard"), false, false},
		{"queue", own("crypto/merkle"), false, true},
		{"queue", own("certs"), false, false},
		{"queue", own("queue/badgerstore"), true, false},
		{"queue/blob", own("internal/durable/crashfs"), true, true},
		{"queue/blob", own("internal/durable/crashfs"), false, false},
		{"queue/blob/blobtest", own("internal/durable/crashfs"), false, true},
		{"internal/durable", own("internal/durable/crashfs"), true, true},
		{"internal/durable", own("internal/durable/crashfs"), false, false},
		{"internal/strictjson", own("crypto/sm"), false, false},
		{"crypto/sm", own("internal/strictjson"), false, true},
		{"queue", own("nowhere"), false, false},
		{"queue", "net/http", false, true},
		{"crypto/sm", "github.com/emmansun/gmsm/sm2", false, true},
		{"certs", "github.com/emmansun/gmsm/smx509", false, true},
		{"queue", "github.com/emmansun/gmsm/sm3", false, false},
		{"queue", "github.com/emmansun/gmsm/sm3", true, true},
		{"exchange/node", "github.com/gorilla/mux", false, false},
		{"adapters/rest", "github.com/gorilla/mux", false, true},
		{"adapters/rest", "github.com/gorilla/muxer", false, false},
		{"adapters/rest", "example.com/unknown", true, false},
	}
	for _, tt := range tests {
		err := mayImport(tt.from, tt.to, tt.inTest)
		if (err == nil) != tt.ok {
			t.Errorf("mayImport(%q, %q, test %v) = %v, want allowed %v", tt.from, tt.to, tt.inTest, err, tt.ok)
		}
	}
}

// TestAuditorToolIsSmall holds cmd/yzverify to what an auditor can trust: it
// links no store and no HTTP, whatever its own imports look like.
func TestAuditorToolIsSmall(t *testing.T) {
	noteInputs(t)
	deps := strings.Fields(run(t, []string{"CGO_ENABLED=0"}, "go", "list", "-deps", "./cmd/yzverify"))
	for _, dep := range deps {
		for _, pattern := range auditorMayNotLink {
			if matches(pattern, dep) {
				t.Errorf("cmd/yzverify links %s; see who asks for it with: go list -deps -f '{{.ImportPath}}: {{.Imports}}' ./cmd/yzverify", dep)
			}
		}
	}
}

const (
	floorsBegin = "      # floors: begin (written by: go test ./test -run TestDepguard -update)\n"
	floorsEnd   = "      # floors: end\n"
)

// TestDepguard keeps the linter's rules equal to the floor table, so that an
// editor shows a wrong import where it is written.
func TestDepguard(t *testing.T) {
	name := filepath.Join(moduleDir(t), ".golangci.yml")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(data), floorsBegin)
	_, tail, ok2 := strings.Cut(rest, floorsEnd)
	if !ok1 || !ok2 {
		t.Fatal(".golangci.yml has lost its floors: begin / floors: end lines")
	}
	want := head + floorsBegin + depguardRules() + floorsEnd + tail
	if want == string(data) {
		return
	}
	if !*update {
		t.Fatal("depguard in .golangci.yml differs from the floor table; run: go test ./test -run TestDepguard -update")
	}
	if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// depguardRules renders one strict rule for each room: everything it may
// import. Test files are left to TestFloors.
func depguardRules() string {
	var b strings.Builder
	for _, r := range house {
		if r.floor > 6 {
			continue
		}
		fmt.Fprintf(&b, "        %s:\n          list-mode: strict\n", strings.ReplaceAll(r.path, "/", "-"))
		fmt.Fprintf(&b, "          files: [\"**/%s/*.go\", \"!$test\"]\n          allow:\n            - $gostd\n", r.path)
		for _, to := range house {
			if mayImport(r.path, module+"/"+to.path, false) == nil {
				fmt.Fprintf(&b, "            - %s/%s$\n", module, to.path)
			}
		}
		for _, d := range doors {
			if mayImport(r.path, d.module, false) == nil {
				fmt.Fprintf(&b, "            - %s\n", d.module)
			}
		}
	}
	return b.String()
}

// mayImport says why from (below the module path) may not import to (a full
// import path), or nil. Test files may besides import support packages of
// their own or a lower floor, real engines, and every module named in doors.
func mayImport(from, to string, inTest bool) error {
	if to == module || strings.HasPrefix(to, module+"/") {
		return mayImportRoom(from, strings.TrimPrefix(strings.TrimPrefix(to, module), "/"), inTest)
	}
	if first, _, _ := strings.Cut(to, "/"); !strings.Contains(first, ".") {
		return nil // the standard library
	}
	for _, d := range doors {
		if !matches(d.module+"/...", to) {
			continue
		}
		if inTest || slices.ContainsFunc(d.rooms, func(r string) bool { return matches(r, from) }) {
			return nil
		}
		return fmt.Errorf("%s imports %s: only %v may (doors in test/house_test.go)", from, to, d.rooms)
	}
	return fmt.Errorf("%s imports %s, a module without a door: see docs/dependencies.md for what a new dependency must answer, then add it to doors in test/house_test.go", from, to)
}

func mayImportRoom(from, to string, inTest bool) error {
	i, ok := place(from)
	j, known := place(to)
	if !ok || !known {
		return fmt.Errorf("%s imports %s: one of them has no place in the house; add it to house in test/house_test.go", from, to)
	}
	if i == j {
		return nil // the external test of a package
	}
	f, g := house[i], house[j]
	if g.support && !f.support && !inTest && f.floor < 7 {
		return fmt.Errorf("%s imports %s: test support is for test files only", from, to)
	}
	if g.support && g.floor <= f.floor {
		return nil
	}
	if g.floor > f.floor {
		return fmt.Errorf("%s (floor %d) imports %s (floor %d): data settles downwards; move the shared part down, or declare the small interface you need in %s", from, f.floor, to, g.floor, from)
	}
	if f.floor >= 6 && strings.HasPrefix(to, from+"/") {
		return nil // a part of the command
	}
	if g.floor == f.floor && (j < i || f.floor >= 6) {
		return fmt.Errorf("%s imports %s: on one floor a package imports only those listed below it in test/house_test.go", from, to)
	}
	for _, d := range deny {
		own := strings.HasPrefix(to, from+"/") // a part of the package itself
		if !inTest && !own && matches(d.from, from) && matches(d.to, to) {
			return fmt.Errorf("%s imports %s: %s", from, to, d.why)
		}
	}
	return nil
}

// place finds the line of a package in the house.
func place(p string) (int, bool) {
	i := slices.IndexFunc(house, func(r room) bool { return r.path == p })
	return i, i >= 0
}

// matches is go list's pattern: "a/..." is a and everything below it.
func matches(pattern, p string) bool {
	base, below := strings.CutSuffix(pattern, "/...")
	return p == base || below && strings.HasPrefix(p, base+"/")
}

// modulePackages reads every package of the module. Files that the present
// build constraints leave out (cgo, another system) are parsed as well, so that
// no tag hides an arrow.
func modulePackages(t *testing.T) []pkg {
	t.Helper()
	noteInputs(t)
	var all []pkg
	dec := json.NewDecoder(strings.NewReader(run(t, nil, "go", "list", "-e", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,IgnoredGoFiles", "./...")))
	for {
		var l struct {
			ImportPath, Dir                                    string
			Imports, TestImports, XTestImports, IgnoredGoFiles []string
		}
		if err := dec.Decode(&l); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		p := pkg{path: strings.TrimPrefix(l.ImportPath, module+"/"), imports: l.Imports, testImport: append(l.TestImports, l.XTestImports...)}
		for _, name := range l.IgnoredGoFiles {
			found := fileImports(t, filepath.Join(l.Dir, name))
			if strings.HasSuffix(name, "_test.go") {
				p.testImport = append(p.testImport, found...)
			} else {
				p.imports = append(p.imports, found...)
			}
		}
		for _, list := range []*[]string{&p.imports, &p.testImport} {
			slices.Sort(*list)
			*list = slices.DeleteFunc(slices.Compact(*list), func(s string) bool { return s == "C" })
		}
		all = append(all, p)
	}
}

// noteInputs opens every directory of the module. go test reuses the result of
// a test whose inputs are unchanged and knows as inputs only what the test
// itself opens, not what go list reads for it.
func noteInputs(t *testing.T) {
	t.Helper()
	root := moduleDir(t)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && name != root && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func fileImports(t *testing.T, name string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, spec := range f.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, p)
	}
	return found
}

// moduleDir is the directory of go.mod.
func moduleDir(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("go env GOMOD: %v", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// run gives what a command prints, run in the module's directory.
func run(t *testing.T, env []string, name string, arg ...string) string {
	t.Helper()
	cmd := exec.Command(name, arg...)
	cmd.Dir = moduleDir(t)
	cmd.Env = append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(arg, " "), err, stderr.String())
	}
	return string(out)
}
