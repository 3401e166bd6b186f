package export

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/yizhan-gateway/yizhan/exchange"
)

func count(n int) string { return strconv.Itoa(n) }

// The values of the journal of sent documents.
const (
	ended       = 0
	outstanding = 1
)

// settledFor is how old a document is before its place in the list of the sent ones
// is sure: one whose upload takes long appears behind newer ones.
const settledFor = 7 * 24 * time.Hour

// follow writes how each sent document stands and its proof, until nothing of it is
// outstanding.
func (f *Folder) follow(ctx context.Context, s *Summary) error {
	fresh, err := f.fresh(ctx)
	if err != nil {
		return err
	}
	// The oldest first, so that after a crash those behind a known one are known.
	for _, id := range slices.Backward(fresh) {
		if err := f.step("journal", func() error { return f.sent.add(outstanding, id) }); err != nil {
			return err
		}
	}
	for _, id := range f.sent.with(outstanding) {
		if err := f.refresh(ctx, id, s); err != nil {
			return err
		}
	}
	return nil
}

// fresh lists the sent documents that the journal does not know, newest first.
func (f *Folder) fresh(ctx context.Context) ([]string, error) {
	var fresh []string
	for behind := ""; ; {
		page, err := f.c.Node.Sent(ctx, behind)
		if err != nil || len(page) == 0 {
			return fresh, err
		}
		known := true
		for _, id := range page {
			if !validID(id) {
				return nil, exchange.Fail(exchange.CodeInternal, "the node names a document in no way that is known")
			}
			if !f.sent.has(id) {
				known, fresh = false, append(fresh, id)
			}
		}
		behind = page[len(page)-1]
		if known && f.older(behind) {
			return fresh, nil
		}
	}
}

// older tells by its id whether a document was made long ago.
func (f *Folder) older(id string) bool {
	made, err := ulid.ParseStrict(id)
	return err == nil && f.c.Now().Sub(made.Timestamp()) > settledFor
}

// refresh writes status and proof of one sent document, when there are more receipts
// than were written.
func (f *Folder) refresh(ctx context.Context, id string, s *Summary) error {
	status, err := f.c.Node.Status(ctx, id)
	if err != nil {
		return err
	}
	if !status.Ended {
		s.Open++
	}
	dir := path.Join(sentDir, id)
	proof := "evidence-" + count(status.Receipts) + ".json"
	if _, err := f.root.Stat(path.Join(dir, proof)); err == nil {
		return f.end(id, status)
	}
	if err := f.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := f.replace(dir, "status.csv", statusSheet(id, status)); err != nil {
		return err
	}
	// The proof comes last: that it is there says that the status is as new.
	if err := f.prove(ctx, id, dir, proof); err != nil {
		return err
	}
	s.Sent++
	return f.end(id, status)
}

// end notes that nothing of a sent document is outstanding. A crash before it asks
// for its status once more.
func (f *Folder) end(id string, status *Status) error {
	if !status.Ended {
		return nil
	}
	return f.step("journal", func() error { return f.sent.add(ended, id) })
}

// prove writes a document's newest proof and then removes the older ones.
func (f *Folder) prove(ctx context.Context, id, dir, name string) error {
	part := path.Join(partDir, id)
	if err := f.root.RemoveAll(part); err != nil {
		return err
	}
	if err := f.evidence(ctx, id, part); err != nil {
		return err
	}
	if err := f.move(part, path.Join(dir, name)); err != nil {
		return err
	}
	names, err := f.names(dir)
	for _, n := range names {
		if n != name && strings.HasPrefix(n, "evidence-") {
			err = errors.Join(err, f.root.Remove(path.Join(dir, n)))
		}
	}
	return err
}

// replace writes a file anew as a whole.
func (f *Folder) replace(dir, name string, b []byte) error {
	part := path.Join(partDir, name)
	if err := f.root.RemoveAll(part); err != nil {
		return err
	}
	if err := f.write(part, bytes.NewReader(b)); err != nil {
		return err
	}
	return f.move(part, path.Join(dir, name))
}

func statusSheet(id string, s *Status) []byte {
	lines := [][]string{{"公文标识", "文号", "标题", "公文状态", "收文单位", "收文单位名称", "状态", "时间", "原因"}}
	for _, r := range s.Recipients {
		lines = append(lines, []string{id, s.Number, s.Title, s.State, r.Agency, r.Name, r.Stage, local(r.At), r.Reason})
	}
	return sheet(true, lines...)
}
