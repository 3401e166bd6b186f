// Command campaign runs one fault campaign at length and sums up what it went
// through. The campaigns are tests, of which every run of scripts/test has a
// share; here they get a count.
//
//	go run ./test/campaign ls
//	go run ./test/campaign NAME [-n N] [-mutants] [-json]
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// tally is what a campaign went through. Lost and Duplicated are counted where
// real nodes run, from what clients were told, inboxes and evidence in the end; a
// simulation stops at the first broken promise instead. They stand at zero, or the
// campaign has failed and says what it found; unknown is -1.
type tally struct {
	Campaign         string  `json:"campaign"`
	Cycles           int     `json:"cycles"`
	Acknowledged     int     `json:"acknowledged"`
	Lost             int     `json:"lost"`
	Duplicated       int     `json:"duplicated"`
	ReceiptsVerified int     `json:"receipts_verified"`
	MutantsCaught    int     `json:"mutants_caught"`
	Mutants          int     `json:"mutants"`
	Passed           bool    `json:"passed"`
	Seconds          float64 `json:"seconds"`

	Skipped []string `json:"skipped,omitempty"` // what could not be done here, and why
}

func (t tally) String() string {
	s := fmt.Sprintf("%s: cycles=%d acknowledged=%d lost=%d duplicated=%d receipts_verified=%d mutants_caught=%d/%d (%.0f s)",
		t.Campaign, t.Cycles, t.Acknowledged, t.Lost, t.Duplicated, t.ReceiptsVerified, t.MutantsCaught, t.Mutants, t.Seconds)
	for _, one := range t.Skipped {
		s += "\n  skipped: " + one
	}
	return s
}

func main() {
	if len(os.Args) < 2 || strings.HasPrefix(os.Args[1], "-") {
		fail(2, "usage: campaign ls | NAME [-n N] [-mutants] [-json]")
	}
	name := os.Args[1]
	if name == "ls" {
		for _, c := range campaigns {
			fmt.Printf("%-16s %s (-n: %s, usually %d)\n", c.name, c.what, c.counts, c.usually)
		}
		return
	}
	c, known := find(name)
	if !known {
		fail(2, "no campaign "+name+"; campaign ls lists them")
	}
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	n := flags.Int("n", c.usually, c.counts)
	mutants := flags.Bool("mutants", false, "also break the program in each way that this campaign must notice")
	asJSON := flags.Bool("json", false, "one JSON object")
	_ = flags.Parse(os.Args[2:]) // it exits itself
	if *n < 1 || flags.NArg() > 0 {
		fail(2, "-n is a number from 1")
	}
	t, err := c.play(*n, *mutants)
	if *asJSON {
		_ = json.NewEncoder(os.Stdout).Encode(t)
	} else {
		fmt.Println(t)
	}
	if err != nil {
		fail(1, err.Error())
	}
}

func fail(code int, what string) {
	fmt.Fprintln(os.Stderr, what)
	os.Exit(code)
}

func (c campaign) play(n int, mutants bool) (t tally, err error) {
	begin := time.Now()
	if c.run != nil {
		t, err = c.run(n)
	} else {
		t, err = goTest(c.test(n), c.pattern(n))
	}
	t.Campaign, t.Passed = c.name, err == nil
	if err == nil && mutants {
		if t.MutantsCaught, t.Mutants, err = c.bite(); err == nil && t.MutantsCaught < t.Mutants {
			err = fmt.Errorf("%d of %d mutants survived", t.Mutants-t.MutantsCaught, t.Mutants)
		}
		t.Passed = err == nil
	}
	t.Seconds = time.Since(begin).Seconds()
	return t, err
}

// goTest runs a test, shows what it says, and sums the lines in which it tells
// what it went through.
func goTest(args []string, line *regexp.Regexp) (t tally, err error) {
	cmd := exec.Command("go", append([]string{"test", "-count=1", "-v", "-timeout", "12h"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return t, err
	}
	if err := cmd.Start(); err != nil {
		return t, err
	}
	told := t.read(out, line)
	_, _ = io.Copy(io.Discard, out) // a line too long for the scanner
	if err := cmd.Wait(); err != nil {
		t.uncounted(told, line)
		return t, fmt.Errorf("the campaign failed: %w", err)
	}
	if told == 0 {
		return t, fmt.Errorf("the campaign did not say what it went through; skipped: %q", t.Skipped)
	}
	return t, nil
}

// uncounted is what a test that failed leaves unknown: one that ended before it
// compared, and one that stops at the first broken promise.
func (t *tally) uncounted(told int, line *regexp.Regexp) {
	if told == 0 || line.SubexpIndex("lost") < 0 {
		t.Lost, t.Duplicated = unknown, unknown
	}
}

// unknown stands where a campaign that failed could not count.
const unknown = -1

var (
	saidLine    = regexp.MustCompile(`^\s+\w+_test\.go:\d+: (.*)`)
	skippedLine = regexp.MustCompile(`^\s*--- SKIP: (\S+)`)
)

// read sums what a test tells, and notes what it skipped: the reason is the line
// before.
func (t *tally) read(out io.Reader, line *regexp.Regexp) (told int) {
	said := ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		text := lines.Text()
		fmt.Fprintln(os.Stderr, text)
		if m := line.FindStringSubmatch(text); m != nil {
			told++
			t.add(line.SubexpNames(), m)
		}
		if m := saidLine.FindStringSubmatch(text); m != nil {
			said = m[1]
		}
		if m := skippedLine.FindStringSubmatch(text); m != nil {
			t.Skipped = append(t.Skipped, m[1]+": "+said)
		}
	}
	return told
}

func (t *tally) add(names, values []string) {
	for i, name := range names {
		v, _ := strconv.Atoi(values[i]) // the pattern has digits only
		switch name {
		case "cycles":
			t.Cycles += v
		case "acknowledged":
			t.Acknowledged += v
		case "receipts":
			t.ReceiptsVerified += v
		case "lost":
			t.Lost += v
		case "duplicated":
			t.Duplicated += v
		}
	}
}

// bite runs the mutants whose campaign is this one.
func (c campaign) bite() (caught, all int, err error) {
	out, err := exec.Command("go", "run", "./test/mutants", "-list").Output()
	if err != nil {
		return 0, 0, fmt.Errorf("listing the mutants: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		name, of, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if c.mutants == nil || !c.mutants.MatchString(of) {
			continue
		}
		all++
		cmd := exec.Command("go", "run", "./test/mutants", "-only", name)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if cmd.Run() == nil {
			caught++
		}
	}
	return caught, all, nil
}
