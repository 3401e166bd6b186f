package client_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/client"
)

// blocks are the code blocks of a page of docs/api in a language.
func blocks(t *testing.T, page, language string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "docs", "api", page))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, part := range strings.Split(string(b), "\n```"+language+"\n")[1:] {
		code, _, closed := strings.Cut(part, "\n```\n")
		if !closed {
			t.Fatalf("%s: a block does not end", page)
		}
		all = append(all, code)
	}
	if len(all) == 0 {
		t.Fatalf("%s has no block of %s", page, language)
	}
	return all
}

// TestWalkthroughs runs what the pages of docs/api show, each as one program, with
// a receiver of its own.
func TestWalkthroughs(t *testing.T) {
	for _, tt := range []struct {
		page, language, file, receiver string
		needs                          []string
		run                            []string
	}{
		{"curl.md", "sh", "walkthrough.sh", "戊", []string{"bash", "curl"}, []string{"bash", "walkthrough.sh"}},
		{"python.md", "python", "walkthrough.py", "己", []string{"python3"}, []string{"python3", "walkthrough.py"}},
		{"java.md", "java", "Walkthrough.java", "庚", []string{"java"}, []string{"java", "-Dfile.encoding=UTF-8", "Walkthrough.java"}},
	} {
		t.Run(tt.language, func(t *testing.T) {
			for _, program := range tt.needs {
				if _, err := exec.LookPath(program); err != nil {
					t.Skipf("%s is not installed: docs/api/%s is not run (apt-get install curl python3 default-jdk-headless)", program, tt.page)
				}
			}
			s, dir := start(), t.TempDir()
			code := strings.Join(blocks(t, tt.page, tt.language), "\n") + "\n"
			if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(code), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), tt.run[0], tt.run[1:]...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "YIZHAN_SERVER="+s.url, "SENDER_KEY="+s.keys["甲"],
				"RECEIVER_KEY="+s.keys[tt.receiver], "RECEIVER=示范"+tt.receiver, "no_proxy=127.0.0.1", "JAVA_TOOL_OPTIONS=")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if lines := strings.Fields(string(out)); len(lines) < 2 || lines[len(lines)-1] != "SIGNED_FOR" {
				t.Errorf("it said %s", out)
			}
			for name, want := range map[string]string{"body.txt": "正文的内容\n", "attachment.txt": "附件的内容\n"} {
				if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
					t.Errorf("%s holds %q, %v", name, b, err)
				}
			}
			// The node says so, too.
			doc := firstOf(t, s, tt.receiver)
			trace, err := s.as("甲").Trace(t.Context(), doc.Document)
			if err != nil || trace.State != "SIGNED_FOR" || trace.Number != "示范办发〔2026〕1号" {
				t.Errorf("%+v, %v", trace, err)
			}
		})
	}
}

func firstOf(t *testing.T, s *site, receiver string) client.Received {
	t.Helper()
	list, err := s.as(receiver).InboxPage(t.Context(), 0, 10, 0)
	if err != nil || len(list) != 1 || len(list[0].Files) != 2 || list[0].Files[1].Name == "" {
		t.Fatalf("the inbox has %+v, %v", list, err)
	}
	return list[0]
}

// TestGoWalkthrough: what the page of Go shows is what the examples run.
func TestGoWalkthrough(t *testing.T) {
	b, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	examples := outdented(string(b))
	for _, block := range blocks(t, "go.md", "go") {
		if !strings.Contains(examples, outdented(block)) {
			t.Errorf("no example has\n%s", block)
		}
	}
}

// outdented is a text without what its lines begin with.
func outdented(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimLeft(lines[i], " \t")
	}
	return strings.Join(lines, "\n")
}
