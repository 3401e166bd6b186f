package main

import (
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/yizhan-gateway/yizhan/adapters/ferry/badgate"
	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/timestamp/tsatest"
	"github.com/yizhan-gateway/yizhan/exchange"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"yizhan": main, "yizhan-in": later, "tsa": timestamps, "get": get, "hook": hook})
}

// later is yizhan with another clock: yizhan-in DURATION ARGUMENT…
func later() {
	by, err := time.ParseDuration(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitUsage)
	}
	a := &app{out: os.Stdout, err: os.Stderr, now: func() time.Time { return time.Now().Add(by) }}
	os.Exit(a.run(os.Args[2:]))
}

// timestamps is a timestamp authority: tsa HOST:PORT CERTIFICATE.
func timestamps() {
	t, err := tsatest.New(rand.Reader, time.Now)
	if err == nil {
		b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: t.Certificate()})
		err = os.WriteFile(os.Args[2], b, 0o600)
	}
	if err == nil {
		err = http.ListenAndServe(os.Args[1], t)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(exitError)
}

// hook is an agency's system that is called: hook HOST:PORT FILE. It writes each
// body into the file.
func hook() {
	out, err := os.OpenFile(os.Args[2], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		err = http.ListenAndServe(os.Args[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			if err == nil {
				_, err = out.Write(append(b, '\n'))
			}
			if err != nil {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		}))
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(exitError)
}

// get URL prints what is there.
func get() {
	res, err := http.Get(os.Args[1])
	if err == nil {
		_, err = io.Copy(os.Stdout, res.Body)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitError)
	}
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
				e.Setenv(name, string(code))
				e.Setenv(name+"_PEER", quietAddress())
				e.Setenv(name+"_REST", quietAddress())
			}
			for _, name := range []string{"METRICS", "TSA"} {
				e.Setenv(name, quietAddress())
			}
			e.Setenv("YIZHAN_PASSPHRASE", rand.Text())
			e.Setenv("LANG", "C.UTF-8")
			e.Setenv("HSM_MODULE", softHSM())
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exitcode":  exitCodeIs,
			"headerof":  headerOf,
			"keep":      keep,
			"looked":    looked,
			"outsideca": outsideCA,
			"waitfor":   waitFor,
			"well":      well,
			"token":     makeToken,
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "short":
				return testing.Short(), nil
			case "cgo":
				return withCgo, nil
			case "softhsm":
				_, err := exec.LookPath("softhsm2-util")
				return err == nil && softHSM() != "", nil
			}
			return false, fmt.Errorf("unknown condition %s", cond)
		},
	})
}

// Addresses for nodes of scripts are below those that the system gives to outgoing
// connections: one of these took an address between its choice and its use now and then.
const (
	firstPort = 20000
	lastPort  = 32000
)

var nextPort atomic.Int64

// quietAddress is one on loopback that nothing listens on, and that no other script has.
func quietAddress() string {
	for {
		port := firstPort + (int64(os.Getpid())*97+nextPort.Add(1))%(lastPort-firstPort)
		address := fmt.Sprintf("127.0.0.1:%d", port)
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
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

// well COMMAND… runs a doctor, which may find the disk of this machine small
// and nothing else.
func well(ts *testscript.TestScript, _ bool, args []string) {
	_ = ts.Exec(args[0], args[1:]...) // its exit code follows from what it says
	var report struct{ Checks []finding }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &report))
	for _, f := range report.Checks {
		if f.Result != resultOK && f.Name != "disk" {
			ts.Fatalf("%s: %s", f.Name, f.Cause)
		}
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

// headerOf DATADIR ID is an administrator who looks at what waits for approval: HEADER
// is then what was shown.
func headerOf(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("yizhan", "guard", "show", args[1], "--data", args[0], "--json"))
	var item struct{ Header string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &item))
	ts.Setenv("HEADER", item.Header)
}

// softHSM is where Debian puts the module; empty when it is not installed.
func softHSM() string {
	for _, path := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// makeToken LABEL makes a SoftHSM2 token of the script's own, whose PIN is the
// passphrase.
func makeToken(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.MkdirAll(ts.MkAbs("tokens"), 0o700))
	conf := ts.MkAbs("softhsm2.conf")
	text := "directories.tokendir = " + ts.MkAbs("tokens") + "\nobjectstore.backend = file\nlog.level = ERROR\n"
	ts.Check(os.WriteFile(conf, []byte(text), 0o600))
	ts.Setenv("SOFTHSM2_CONF", conf)
	pin := ts.Getenv("YIZHAN_PASSPHRASE")
	ts.Check(ts.Exec("softhsm2-util", "--init-token", "--free", "--label", args[0], "--pin", pin, "--so-pin", pin))
}

// TestDisaster runs the loss of a disk as a user would, with real processes:
// everything arrives once.
func TestDisaster(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts two processes; scripts/test runs it")
	}
	binary := filepath.Join(t.TempDir(), "yizhan")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(binary, "demo", "--disaster", "--once", "--json").Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got disasterResult
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if got.Acknowledged != 50 || got.Delivered != 50 || got.SignedFor != 50 || got.Lost != 0 || got.Duplicated != 0 || !got.ReceiptsVerified {
		t.Errorf("%+v", got)
	}
}

// TestBoundary runs the demo across a gate as a user would: everything arrives once and
// is proven, and the gate did its share of harm.
func TestBoundary(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: starts four processes; scripts/test runs it")
	}
	binary := filepath.Join(t.TempDir(), "yizhan")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(binary, "demo", "--boundary", "ferry", "--once", "--json").Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got boundaryResult
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	all := boundaryThere + boundaryBack
	if got.Documents != all || got.SignedFor != all || got.State != exchange.StateSignedFor || len(got.Recipients) != all || got.Lost+got.Duplicated != 0 {
		t.Errorf("%s", out)
	}
	if !got.ReceiptsVerified || !got.LedgerVerified || !got.BytesMatch || !got.BooksBalanced || got.Receipts < 6*all {
		t.Errorf("%s", out)
	}
	for _, r := range got.Recipients {
		if r.Stage != exchange.StageSignedFor {
			t.Errorf("%+v", r)
		}
	}
	if s := got.Suffered; s.Files < badgate.Deck || s.Lost == 0 || s.Doubled == 0 || s.Truncated == 0 {
		t.Errorf("the gate did no harm: %+v", s)
	}
	for _, args := range [][]string{{"demo", "--boundary", "pigeon"}, {"demo", "--boundary", "ferry", "--disaster"}} {
		var exit *exec.ExitError
		if err := exec.Command(binary, args...).Run(); !errors.As(err, &exit) || exit.ExitCode() != exitUsage {
			t.Errorf("%v: %v", args, err)
		}
	}
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
