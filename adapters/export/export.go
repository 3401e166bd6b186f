// Package export writes what an agency received, and what became of what it sent,
// into a folder: for agencies whose systems have no interface and read files.
//
// Each received document becomes a folder of its own with its files, a list of them
// (manifest.csv, which fileshare reads as well), its metadata (document.json) and
// the proof that it came (evidence.json). A reader never sees half of one, because
// it is renamed into place, and never sees one twice, because a journal says what
// was given out before it is. Of each sent document the folder sent/ has the proof
// and how it stands, written again until every recipient signed for it or ended.
//
//	DIR/01K…/manifest.csv document.json evidence.json 正文.ofd …
//	DIR/sent/01K…/status.csv evidence.json
//	DIR/received-2026-11.csv   one line for each document, for a spreadsheet
//	DIR/.yizhan/               journal, and what is not whole yet
//
// Titles stand in the files of the folder, which belongs to the agency, and in no
// name of one.
package export

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// File is one file of a received document.
type File struct {
	Index int    `json:"index"`
	Role  string `json:"role"`
	Name  string `json:"name"`
	Type  string `json:"type"`
	Size  int64  `json:"size"`
	SM3   string `json:"sm3"` // hex
	// Saved is the name it has in the folder, where that cannot be Name.
	Saved string `json:"saved"`
}

// Document is a received one, as document.json has it.
type Document struct {
	Seq        uint64    `json:"seq"` // place in the inbox
	ID         string    `json:"document"`
	Sender     string    `json:"sender"`
	SenderName string    `json:"sender_name"`
	Title      string    `json:"title"`
	Number     string    `json:"number,omitempty"`
	Label      string    `json:"label_zh"`
	Urgency    string    `json:"urgency_zh"`
	Kind       string    `json:"kind_zh"`
	DueAt      string    `json:"due_at,omitempty"`
	Received   time.Time `json:"received"`
	RelatesTo  string    `json:"relates_to,omitempty"`
	Files      []File    `json:"files"`
}

// Recipient is where one delivery of a sent document stands.
type Recipient struct {
	Agency, Name, Stage string
	At                  time.Time
	Reason              string
}

// Status is how a sent document stands. Ended: nothing of it is outstanding.
type Status struct {
	Title, Number, State string
	Recipients           []Recipient
	Receipts             int
	Ended                bool
}

// Node is the agency's node, as far as an export asks it.
type Node interface {
	// Received lists what lies in the inbox behind seq, oldest first, some at a time.
	Received(ctx context.Context, after uint64) ([]Document, error)
	// Content gives the bytes of a received file from the first on.
	Content(ctx context.Context, document string, file int) (io.ReadCloser, error)
	// Evidence gives the proof of a sent or received document.
	Evidence(ctx context.Context, document string) (io.ReadCloser, error)
	// Sent lists ids of sent documents, newest first, some at a time behind one.
	Sent(ctx context.Context, behind string) ([]string, error)
	// Status tells how a sent document stands.
	Status(ctx context.Context, document string) (*Status, error)
}

// Config of a Folder.
type Config struct {
	Dir    string
	Node   Node
	Logger *slog.Logger
	Now    func() time.Time // nil: the machine's clock
	// Step is called before each durable step, for tests that end there; nil: nothing.
	Step func(name string) error
}

// Folder is an export folder under one process.
type Folder struct {
	c     Config
	root  *os.Root
	state *journal // of received documents
	sent  *journal // of sent ones: seq 1 while something is outstanding, then 0
}

// Summary is what one Run did.
type Summary struct {
	Received int `json:"received"` // documents given out
	Sent     int `json:"sent"`     // sent documents whose status was written
	Open     int `json:"open"`     // sent documents with something outstanding
	Waiting  int `json:"waiting"`  // whole, and their place in the folder is taken
}

// ErrForeign says that a folder was filled for another agency.
var ErrForeign = errors.New("none of its documents is in this agency's inbox; name another folder")

// Open takes a folder, makes what is missing in it, and finishes what an earlier
// process had begun. One process at a time: the caller holds a lock.
func Open(c Config) (*Folder, error) {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Step == nil {
		c.Step = func(string) error { return nil }
	}
	for _, dir := range []string{partDir, readyDir, sentDir} {
		if err := durable.OS.MkdirAll(filepath.Join(c.Dir, dir)); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return nil, err
	}
	f := &Folder{c: c, root: root}
	f.state, err = openJournal(filepath.Join(c.Dir, receivedJournal))
	if err == nil {
		f.sent, err = openJournal(filepath.Join(c.Dir, sentJournal))
	}
	if err == nil {
		err = f.clean(partDir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close lets go of the folder.
func (f *Folder) Close() error {
	return errors.Join(f.state.Close(), f.sent.Close(), f.root.Close())
}

// Run gives out what came since, then brings the status of what was sent.
func (f *Folder) Run(ctx context.Context) (Summary, error) {
	var s Summary
	if err := f.finish(&s); err != nil {
		return s, err
	}
	after, err := f.resume(ctx)
	if err != nil {
		return s, err
	}
	for {
		list, err := f.c.Node.Received(ctx, after)
		if err != nil {
			return s, err
		}
		if len(list) == 0 {
			break
		}
		for i := range list {
			if err := f.give(ctx, &list[i], &s); err != nil {
				return s, err
			}
			after = list[i].Seq
		}
	}
	return s, f.follow(ctx, &s)
}

// resume finds where the inbox goes on. A node that was restored may count anew,
// and another agency's inbox has other documents: so the last document given out
// must still stand where it stood. Otherwise the inbox is read from its beginning,
// where the journal tells what was given out already.
func (f *Folder) resume(ctx context.Context) (uint64, error) {
	seq, id := f.state.last()
	if id == "" {
		return 0, nil
	}
	list, err := f.c.Node.Received(ctx, seq-1)
	if err != nil {
		return 0, err
	}
	if len(list) > 0 && list[0].Seq == seq && list[0].ID == id {
		return seq, nil
	}
	list, err = f.c.Node.Received(ctx, 0)
	if err != nil {
		return 0, err
	}
	for i := range list {
		if f.state.has(list[i].ID) {
			f.c.Logger.Warn("the inbox counts anew; it is read from its beginning")
			return 0, nil
		}
	}
	if len(list) == 0 {
		return 0, nil
	}
	return 0, &exchange.Error{Code: exchange.CodeSetupConflict, Detail: f.c.Dir, Err: ErrForeign}
}
