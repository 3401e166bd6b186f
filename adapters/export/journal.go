package export

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// Where the state lies below the folder. Each is on the folder's own file system,
// since what is whole is renamed out of it.
const (
	stateDir        = ".yizhan"
	partDir         = stateDir + "/part"  // being written; worth nothing after a crash
	readyDir        = stateDir + "/ready" // whole; given out when the journal has it
	receivedJournal = stateDir + "/received"
	sentJournal     = stateDir + "/sent"
	sentDir         = "sent"
)

// maxLine bounds a line of a journal: a number, a space, an id.
const maxLine = 64

// journal is a file of lines "seq id", each durable before what it permits is done;
// the last line of an id counts. It holds each id in memory, about 80 bytes.
type journal struct {
	f    *os.File
	seq  uint64
	id   string
	seen map[string]uint64
}

func openJournal(path string) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	j := &journal{f: f, seen: map[string]uint64{}}
	// A crash after the file was made and before its name is durable makes it anew, empty.
	if err := errors.Join(j.load(), durable.OS.SyncDir(filepath.Dir(path))); err != nil {
		return nil, errors.Join(fmt.Errorf("export: journal %s: %w", filepath.Base(path), err), f.Close())
	}
	return j, nil
}

// load reads the lines. A crash while one was written leaves it without its end:
// nothing was done by it, and it is cut off.
func (j *journal) load() error {
	r, end := bufio.NewReaderSize(j.f, 64<<10), int64(0)
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			if err := j.f.Truncate(end); err != nil {
				return err
			}
			_, err = j.f.Seek(end, io.SeekStart)
			return err
		}
		if err != nil {
			return err
		}
		number, id, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
		seq, err := strconv.ParseUint(string(number), 10, 64)
		if !ok || err != nil || len(line) > maxLine {
			return fmt.Errorf("the line at byte %d is damaged; restore the file, or name another folder", end)
		}
		j.note(seq, string(id))
		end += int64(len(line))
	}
}

func (j *journal) note(seq uint64, id string) { j.seq, j.id, j.seen[id] = seq, id, seq }

func (j *journal) has(id string) bool {
	_, ok := j.seen[id]
	return ok
}

// with lists the ids whose last line has a seq, in their order.
func (j *journal) with(seq uint64) []string {
	var out []string
	for id, at := range j.seen {
		if at == seq {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

func (j *journal) last() (uint64, string) { return j.seq, j.id }

// add makes a line durable. After an error the file ends in what is no line, or in
// a line that may not stay: the process must open it anew.
func (j *journal) add(seq uint64, id string) error {
	if _, err := fmt.Fprintf(j.f, "%d %s\n", seq, id); err != nil {
		return err
	}
	if err := j.f.Sync(); err != nil {
		return err
	}
	j.note(seq, id)
	return nil
}

func (j *journal) Close() error {
	if j == nil {
		return nil
	}
	return j.f.Close()
}
