// Package fileshare takes in the documents that an agency's old systems leave on a file
// share. One document goes this way:
//
//	scan      folders are listed through descriptors; links are never followed
//	stable    its files have not changed for a while by our clock, or a marker says so
//	validate  recipients are found in the directory, the metadata is what a node takes
//	hash      what is read now is what is sent, or nothing is
//	claim     its key is entered in the ledger: SM3 of contents, recipients and number
//	submit    to the node, under an idempotency key made of the claimed key
//	archive   its files leave the way; what cannot be sent goes to the quarantine
//
// What a document is says a list beside the files ([manifest]), or, in folders that
// never had one, rules about names ([Rules]). The ledger is a [queue.Store] of the
// agency's own. A crash at any step is mended by doing all of it again: what was
// claimed has the same key and the node answers it with the same document; what was
// submitted is only put away. On a share that may not be written nothing is moved and
// the ledger alone remembers.
//
// The package knows no node, only a [Submitter].
package fileshare

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Submitter is the node, as the agency's own client sees it. Submit answers the same
// key and content with the same document, however often it is called. What is not a
// *Refused or a *Busy is wrong with the settings, and ends a run.
type Submitter interface {
	Submit(ctx context.Context, key string, d *exchange.Document, files []File) (document string, err error)
	// Find gives agencies whose code, name or alias holds a text.
	Find(ctx context.Context, text string) ([]Agency, error)
}

// File is one file of a submission, the body first. Open may be called again.
type File struct {
	Role string // body or attachment
	Name string
	Size int64
	Open func() (io.ReadCloser, error)
}

// Agency is one that a document may go to.
type Agency struct {
	Code    string
	Name    string
	Aliases []string
}

// Refused says that a node will not take a document as it is.
type Refused struct{ Code, Detail string }

// Error implements error.
func (r *Refused) Error() string { return r.Code + ": " + r.Detail }

// Busy says that nothing is decided, and that the same may be tried again after a while.
type Busy struct {
	After time.Duration
	Err   error
}

// Error implements error.
func (b *Busy) Error() string { return fmt.Sprintf("the node does not take it now: %v", b.Err) }

// Unwrap gives what happened.
func (b *Busy) Unwrap() error { return b.Err }

// Stability is how a file is known to be whole.
type Stability string

// The ways.
const (
	Quiet  Stability = "quiet"  // size and time of change stand still for a while
	Size   Stability = "size"   // the size does; for shares whose times are not to be trusted
	Marker Stability = "marker" // a file beside it says so
	Rename Stability = "rename" // it came under its name when it was whole
)

// Atomicity is what one wrong document keeps from being sent.
type Atomicity string

// The choices.
const (
	ByRow   Atomicity = "row"   // itself alone
	ByFile  Atomicity = "file"  // all of its list, or of its folder
	ByBatch Atomicity = "batch" // all that the run found
)

// Defaults are for what a list does not say.
type Defaults struct {
	Label   string
	Urgency string
	Kind    string
	To      []string
	Cc      []string
}

// Config of an import. Names of folders are below the share.
type Config struct {
	Share    string
	Sentinel string // a file of the share; without it the share is not there
	// SentinelCounts: the sentinel may be a document as well.
	SentinelCounts bool
	State          string // a directory of ours, for notices about a share that is not written
	ReadOnly       bool
	Archive        string
	Quarantine     string

	Depth     int // folders in one another that are looked into
	Include   []string
	Exclude   []string
	Manifests []string
	// Detect: other CSV, XLSX and XML files with the headings of a list are lists, too.
	Detect bool

	Stable Stability
	Quiet  time.Duration
	Mark   string // "*.ok": beside each file; else one name for a whole folder
	Atomic Atomicity

	Defaults Defaults
	Rules    Rules

	Parallel int
	Patience time.Duration // how long the node may be away until a run gives up

	Logger *slog.Logger
	Now    func() time.Time
	Sleep  func(ctx context.Context, d time.Duration) error
	// Progress hears of each document that was dealt with; nil is nobody. It is
	// called by one goroutine at a time.
	Progress func(Entry, Summary)
}

// What is left out of every share: what systems and office programs leave there.
var alwaysExcluded = []string{"thumbs.db", "desktop.ini", "~$*", ".~*", ".*", "*.tmp", "*.part", "*.filepart", "*.crdownload", "*.lock", "$recycle.bin", "system volume information"}

// DefaultManifests are the names of lists.
var DefaultManifests = []string{"manifest.*", "清单.*", "*公文清单.*", "*发文清单.*", "*交换清单.*", "*导入清单.*"}

// The defaults and bounds.
const (
	DefaultQuiet    = 10 * time.Second
	defaultPatience = 5 * time.Minute
	DefaultParallel = 128 // documents that are submitted side by side
	maxParallel     = 256
	maxDepth        = 32
	// keyLife is how long a node is sure to know an idempotency key. What was tried
	// longer ago and never answered is not sent again by itself.
	keyLife = 48 * time.Hour
)

// Import is one share with its ledger. Run and Scan are for one caller at a time.
type Import struct {
	c       Config
	ledger  ledger
	node    Submitter
	pattern *regexp.Regexp // of the rules

	mu       sync.Mutex
	sights   map[spot]sight
	inflight map[digest]chan struct{}
	agencies map[string]found
	gate     gate
	total    Summary
	crash    func(step string) error // tests end an import at any step
}

// LeftOut says whether a file or a folder of this name is left out of every share, or is
// like one of the patterns.
func LeftOut(name string, patterns []string) bool {
	text, _ := shown(name)
	return matches(alwaysExcluded, text) || matches(patterns, text)
}

// Open checks the settings. The share is looked at when there is something to do.
func Open(c Config, store queue.Store, node Submitter) (*Import, error) {
	if err := c.fill(); err != nil {
		return nil, err
	}
	i := &Import{
		c: c, ledger: ledger{store}, node: node,
		sights: map[spot]sight{}, inflight: map[digest]chan struct{}{}, agencies: map[string]found{},
		crash: func(string) error { return nil },
	}
	i.gate = gate{patience: c.Patience, now: c.Now, sleep: c.Sleep}
	if c.Rules.Pattern != "" {
		var err error
		if i.pattern, err = regexp.Compile(c.Rules.Pattern); err != nil {
			return nil, setting("rules.pattern", "is no regular expression")
		}
	}
	return i, nil
}

func setting(name, problem string) error {
	return exchange.Fail(exchange.CodeBadRequest, "the profile's %s %s", name, problem)
}

func (c *Config) fill() error {
	c.Stable, c.Atomic = cmp.Or(c.Stable, Quiet), cmp.Or(c.Atomic, ByRow)
	c.Archive, c.Quarantine = cmp.Or(c.Archive, ".yizhan/archive"), cmp.Or(c.Quarantine, ".yizhan/quarantine")
	c.Patience, c.Parallel = cmp.Or(c.Patience, defaultPatience), cmp.Or(c.Parallel, DefaultParallel)
	if c.Quiet == 0 && (c.Stable == Quiet || c.Stable == Size) {
		c.Quiet = DefaultQuiet
	}
	if c.Manifests == nil {
		c.Manifests = DefaultManifests
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Sleep == nil {
		c.Sleep = sleep
	}
	return c.check()
}

func (c *Config) check() error {
	switch {
	case c.Share == "":
		return setting("share", "is missing")
	case c.Sentinel == "" || !inside(c.Sentinel):
		return setting("sentinel", "must name a file of the share: without one, a share that is not mounted looks empty")
	case c.ReadOnly && c.State == "":
		return setting("state", "is missing")
	case c.Depth < 0 || c.Depth > maxDepth:
		return setting("depth", fmt.Sprintf("is from 0 to %d", maxDepth))
	case c.Parallel < 1 || c.Parallel > maxParallel:
		return setting("parallel", fmt.Sprintf("is from 1 to %d", maxParallel))
	case c.Stable != Quiet && c.Stable != Size && c.Stable != Marker && c.Stable != Rename:
		return setting("stable", "is quiet, size, marker or rename")
	case c.Stable == Marker && (c.Mark == "" || strings.ContainsAny(c.Mark, "/\\")):
		return setting("marker", "must be a name such as *.ok or done")
	case c.Atomic != ByRow && c.Atomic != ByFile && c.Atomic != ByBatch:
		return setting("atomic", "is row, file or batch")
	case !inside(c.Archive) || !inside(c.Quarantine) || c.Archive == c.Quarantine:
		return setting("archive", "and quarantine are two folders below the share")
	}
	for _, list := range [][]string{c.Include, c.Exclude, c.Manifests} {
		for _, p := range list {
			if _, err := path.Match(p, ""); err != nil {
				return setting("include, exclude and manifest", "are patterns such as *.pdf")
			}
		}
	}
	return nil
}

// inside says whether a path stays below where it begins, as it is written.
func inside(p string) bool {
	return p != "" && p == path.Clean(p) && !path.IsAbs(p) && p != "." && p != ".." && !strings.HasPrefix(p, "../")
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ErrShareGone: the share is not there, or not the one that it was.
var ErrShareGone = errors.New("fileshare: the share is not there")
