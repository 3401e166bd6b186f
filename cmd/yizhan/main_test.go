package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/exchange"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"yizhan": main})
}

// TestScripts are the command line as a manual: testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			for i, name := range []string{"JIA", "YI"} {
				code, err := certs.MakeAgencyCode(fmt.Sprintf("1152000000000%03dT", i))
				if err != nil {
					return err
				}
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				rest, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				e.Setenv(name, string(code))
				e.Setenv(name+"_PEER", l.Addr().String())
				e.Setenv(name+"_REST", rest.Addr().String())
				l.Close()
				rest.Close()
			}
			e.Setenv("YIZHAN_PASSPHRASE", rand.Text())
			e.Setenv("LANG", "C.UTF-8")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exitcode": exitCodeIs,
			"keep":     keep,
			"waitfor":  waitFor,
		},
		Condition: func(cond string) (bool, error) {
			if cond == "short" {
				return testing.Short(), nil
			}
			return false, fmt.Errorf("unknown condition %s", cond)
		},
	})
}

// exitCodeIs N COMMAND… runs a command and expects its exit code.
func exitCodeIs(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if err != nil {
		code = -1
		var exit *exec.ExitError
		if e, ok := err.(*exec.ExitError); ok {
			exit = e
			code = exit.ExitCode()
		}
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// keep NAME sets a variable to what the last command printed.
func keep(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// waitfor PATTERN COMMAND… repeats a command until its output holds a text.
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	for range 200 {
		if err := ts.Exec(args[1], args[2:]...); err == nil && strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
		_ = ts.Exec("sleep", "0.05")
	}
	ts.Fatalf("%q did not come: %s", args[0], ts.ReadFile("stdout"))
}

// TestDemoOnce: the demo prints one JSON object with exactly the members that
// others read, with stdin closed.
func TestDemoOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts two processes; scripts/test runs it")
	}
	binary := filepath.Join(t.TempDir(), "yizhan")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command("sh", "-c", `exec "$0" demo --once --json <&-`, binary)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d := json.NewDecoder(strings.NewReader(string(out)))
	var got map[string]any
	if err := d.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if err := d.Decode(new(any)); err != io.EOF {
		t.Errorf("more than one JSON value: %s", out)
	}
	want := []string{"document", "state", "recipients", "receipts", "receipts_verified", "ledger_verified", "bytes_match", "elapsed_ms"}
	for _, k := range want {
		if _, ok := got[k]; !ok {
			t.Errorf("member %s is missing", k)
		}
	}
	if len(got) != len(want) {
		t.Errorf("members: %v", got)
	}
	r := got["recipients"].([]any)[0].(map[string]any)
	if got["state"] != string(exchange.StateSignedFor) || r["stage"] != "SIGNED_FOR" || got["bytes_match"] != true || got["receipts_verified"] != true || got["ledger_verified"] != true {
		t.Errorf("%s", out)
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "yizhan-demo-*"))
	if err != nil || len(left) > 0 {
		t.Logf("other demos may be running: %v", left)
	}
}

func TestExitCodes(t *testing.T) {
	for code, want := range map[string]int{
		exchange.CodeNotFound: 4, exchange.CodeUnauthenticated: 5, exchange.CodeForbidden: 5,
		exchange.CodeSignatureInvalid: 6, exchange.CodeTemporary: 7, exchange.CodeInternal: 1, exchange.CodeStateSecret: 1,
	} {
		if got := exitCode(fmt.Errorf("wrapped: %w", exchange.Fail(code, ""))); got != want {
			t.Errorf("%s exits %d, want %d", code, got, want)
		}
	}
	if got := exitCode(usage("x")); got != 2 {
		t.Errorf("usage exits %d", got)
	}
}
