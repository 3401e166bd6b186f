package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
)

// campaign is a test that is run with a count, or a run of its own.
type campaign struct {
	name, what string
	counts     string // what -n counts
	usually    int
	test       func(n int) []string
	pattern    func(n int) *regexp.Regexp // the line that says what was gone through
	run        func(n int) (tally, error)
	mutants    *regexp.Regexp // of go test's arguments of a mutant's campaign
}

func find(name string) (campaign, bool) {
	for _, c := range campaigns {
		if c.name == name {
			return c, true
		}
	}
	return campaign{}, false
}

// fixed are the arguments of a test that is told N as a flag of its own, or,
// with -count, run N times.
func fixed(pkg, test, flag string) func(int) []string {
	return func(n int) []string {
		if flag == "-count" {
			return []string{pkg, "-run", "^" + test + "$", "-count=" + strconv.Itoa(n)}
		}
		return []string{pkg, "-run", "^" + test + "$", flag, strconv.Itoa(n)}
	}
}

func says(pattern string) func(int) *regexp.Regexp {
	re := regexp.MustCompile(pattern)
	return func(int) *regexp.Regexp { return re }
}

// tells is the line of a campaign over real nodes, which compare what was
// acknowledged with what is there in the end.
func tells(cycles string) func(int) *regexp.Regexp {
	return says(`(?P<acknowledged>\d+) documents, (?P<cycles>\d+) ` + cycles + `.*; (?P<lost>\d+) lost, (?P<duplicated>\d+) duplicated, (?P<receipts>\d+) receipts verified`)
}

var campaigns = []campaign{
	{
		name: "simulation", what: "several nodes under a scheduler drawn from a seed: crashes, losses, doubled, reordered and mangled bundles, attacks",
		counts: "seeds", usually: 2000,
		test: fixed("./test/sim", "TestPromises", "-seeds"), pattern: says(`ran (?P<cycles>\d+) seeds: \{Submitted:(?P<acknowledged>\d+) .*Receipts:(?P<receipts>\d+)`),
		mutants: regexp.MustCompile(`^\./test/sim .*TestPromises`),
	},
	{
		name: "disk-loss", what: "the same with a node's disk destroyed in the middle and restored from a copy, now and then twice",
		counts: "seeds", usually: 1000,
		test:    func(n int) []string { return fixed("./test/sim", "TestDiskLoss", "-seeds")(4 * n) },
		pattern: says(`ran (?P<cycles>\d+) seeds: \{Submitted:(?P<acknowledged>\d+) .*Receipts:(?P<receipts>\d+)`),
		mutants: regexp.MustCompile(`TestDiskLoss|LosesItsDisk|ALoss|WithoutNotice`),
	},
	{
		name: "clock", what: "the same with clocks that jump by seconds, hours and days, ahead and back, each node's for itself",
		counts: "seeds", usually: 1000,
		test:    func(n int) []string { return fixed("./test/sim", "TestClockJumps", "-seeds")(40 * n) },
		pattern: says(`ran (?P<cycles>\d+) seeds: \{Submitted:(?P<acknowledged>\d+) .*Receipts:(?P<receipts>\d+)`),
		mutants: regexp.MustCompile(`TestClockJumps|TestNobodyWaits`),
	},
	{
		name: "every-io", what: "the n-th I/O of a node fails, for every n: a commit or an operation of the disk, with all of it there or nothing, and the process goes on or ends",
		counts: "scenarios", usually: 5,
		test: fixed("./test/sim", "TestEveryIO", "-scenarios"), pattern: says(`(?P<cycles>\d+) failures, one in each run: \{Submitted:(?P<acknowledged>\d+) .*Receipts:(?P<receipts>\d+)`),
		mutants: regexp.MustCompile(`TestEveryIO`),
	},
	{
		name: "model", what: "a node over a real store is given commands drawn at random, fails and loses its power among them, and is compared with a model of what it must do after each; what fails is made short",
		counts: "sequences", usually: 500,
		test: fixed("./test/model", "TestEngine", "-rapid.checks"), pattern: tells(`sequences of commands`),
		mutants: regexp.MustCompile(`^\./test/model .*TestEngine`),
	},
	{
		name: "kill", what: "kill -9 of three real nodes in a row at random moments while clients submit and agencies sign",
		counts: "kills", usually: 200,
		test:    fixed("./test/e2e", "TestKillNine", "-kills"),
		pattern: tells(`kills`),
		mutants: regexp.MustCompile(`^\./test/e2e .*TestKillNine`),
	},
	{
		name: "gate", what: "kill -9 of four real nodes, two of them on either side of a gate that moves files and loses 20%, doubles 10% and cuts 5% of them",
		counts: "kills", usually: 60,
		test:    fixed("./test/e2e", "TestAcrossAGate", "-gatekills"),
		pattern: tells(`kills`),
	},
	{
		name: "ferry", what: "many documents over a gate that moves files, loses 20% or half of them, doubles 10%, cuts 5% and delays some, in both directions; a seed is two crossings",
		counts: "seeds", usually: 20,
		test:    fixed("./adapters/ferry", "TestVolume", "-ferryseeds"),
		pattern: tells(`crossings`),
		mutants: regexp.MustCompile(`TestVolume`),
	},
	{
		name: "disaster", what: "real nodes: a data directory destroyed in the middle of traffic and restored from a copy made while the node ran",
		counts: "losses", usually: 20, run: disaster,
	},
	{
		name: "stopped", what: "real nodes are stopped and go on (SIGSTOP, SIGCONT) at random moments",
		counts: "documents", usually: 1000,
		test: fixed("./test/e2e", "TestStoppedProcesses", "-paused"), pattern: tells(`stops`),
	},
	{
		name: "clock-process", what: "the clocks of two real nodes jump by seconds to days, ahead and back, each for itself, while the monotonic clock goes on (they are built over a standard library whose wall clock is off by what a file says)",
		counts: "documents", usually: 500,
		test: fixed("./test/e2e", "TestClocksOfProcesses", "-clocks"), pattern: tells(`jumps of clocks`),
	},
	{
		name: "parted", what: "the network between real nodes is parted, swallows everything or is slow, in turn",
		counts: "documents", usually: 1000,
		test: fixed("./test/e2e", "TestPartedLink", "-paused"), pattern: tells(`changes of the line`),
	},
	{
		name: "power-cut", what: "the file system under real nodes ends with all that was not synced (FS_IOC_SHUTDOWN on ext4, and on XFS where mkfs.xfs is)",
		counts: "cuts of each", usually: 30,
		test: fixed("./test/e2e", "TestPowerCut", "-cuts"), pattern: tells(`power cuts`),
		mutants: regexp.MustCompile(`TestPowerCut/ext4`),
	},
	{
		name: "disk-full", what: "the disk under a real node fills up to the end and is emptied again (a tmpfs; needs root), and turns read-only under two (the kernel is told of an error in ext4; needs root)",
		counts: "runs of both", usually: 5,
		test: fixed("./test/e2e", "(TestFullDisk|TestReadOnlyDisk)", "-count"), pattern: tells(`times (?:full|read-only)`),
	},
	{
		name: "mutation", what: "one stored file of a killed node is cut, changed, zeroed or taken away, and the node's data compared",
		counts: "files", usually: 500,
		test: fixed("./test/e2e", "TestMutatedFiles", "-mutations"), pattern: tells(`mutations`),
	},
	{
		name: "store-kill", what: "kill -9 of a process that commits to the store, which must then have every acknowledged row",
		counts: "runs", usually: 5,
		test: fixed("./queue/badgerstore", "TestKillNine", "-count"), pattern: says(`(?P<cycles>\d+) cycles, (?P<acknowledged>\d+) acknowledged rows`),
		mutants: regexp.MustCompile(`^\./queue/badgerstore`),
	},
	{
		name: "fan-out", what: "a crash at every commit of distributing and delivering to a thousand recipients",
		counts: "runs", usually: 3,
		test: fixed("./test/sim", "TestFanOutSurvivesEveryCrash", "-count"), pattern: says(`(?P<acknowledged>\d+) recipients; the power went (?P<cycles>\d+) times`),
		mutants: regexp.MustCompile(`TestFanOutSurvivesEveryCrash`),
	},
}

// disaster runs the demo of that name again and again.
func disaster(n int) (t tally, err error) {
	dir, err := os.MkdirTemp("", "yizhan-campaign-")
	if err != nil {
		return t, err
	}
	defer os.RemoveAll(dir)
	if out, err := exec.Command("go", "build", "-o", dir+"/yizhan", "./cmd/yizhan").CombinedOutput(); err != nil {
		return t, fmt.Errorf("%w: %s", err, out)
	}
	for range n {
		cmd := exec.Command(dir+"/yizhan", "demo", "--disaster", "--once", "--json")
		cmd.Stderr = os.Stderr
		out, failed := cmd.Output()
		var r struct {
			Acknowledged     int  `json:"acknowledged"`
			SignedFor        int  `json:"signed_for"`
			Lost             int  `json:"lost"`
			Duplicated       int  `json:"duplicated"`
			ReceiptsVerified bool `json:"receipts_verified"`
		}
		if err := json.Unmarshal(out, &r); err != nil {
			return t, fmt.Errorf("cycle %d: %w: %s", t.Cycles+1, failed, out)
		}
		t.Cycles++
		t.Acknowledged += r.Acknowledged
		t.Lost += r.Lost
		t.Duplicated += r.Duplicated
		if r.ReceiptsVerified {
			t.ReceiptsVerified += r.SignedFor
		}
		if failed != nil {
			return t, fmt.Errorf("cycle %d: %w", t.Cycles, failed)
		}
		fmt.Fprintf(os.Stderr, "%d of %d: %s", t.Cycles, n, out)
	}
	return t, nil
}
