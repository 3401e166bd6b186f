package certs

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// aboveFile keeps the number above which the next version is, until it is
// published.
const aboveFile = "version.above"

// maxSkipped is how many numbers may be left out at once. A number near the end
// of what can be written would be the last one that any node takes.
const maxSkipped = 100_000

// NumberAbove makes the number of the next version greater than n: versions up
// to n were lost with the authority's disk, and nodes that have them take none
// below. A number that the next version is above anyway changes nothing, and
// takes an earlier one back. With keep it is durable, and counts until a version
// is published; else for this Authority alone.
func (a *Authority) NumberAbove(n uint64, keep bool) error {
	before, err := a.Published()
	if err != nil {
		return err
	}
	current := before.number()
	if n > current+maxSkipped {
		return fail(codeRequest, "version %d is published, and %d is more than %d above it: name the highest version that any node shows (yizhan directory show)", current, n, maxSkipped)
	}
	a.above = &n
	path := filepath.Join(a.dir, aboveFile)
	switch {
	case !keep:
		return nil
	case n > current:
		return durable.WriteFile(durable.OS, path, []byte(strconv.FormatUint(n, 10)+"\n"))
	}
	return a.forgetAbove()
}

func (a *Authority) forgetAbove() error {
	err := durable.OS.Remove(filepath.Join(a.dir, aboveFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// number is the version's, 0 for none.
func (d *Directory) number() uint64 {
	if d == nil {
		return 0
	}
	return d.Version()
}

// nextNumber is the number of the version after one. Behind a number that was
// lost one more is left out: who has that version would see in the number after
// it a second history, because it does not name that version as the one before.
func (a *Authority) nextNumber(current uint64) (uint64, error) {
	above, err := a.notedAbove()
	if err != nil {
		return 0, err
	}
	if a.above != nil {
		above = *a.above
	}
	if above > current+maxSkipped {
		return 0, fail(codeContent, "%s says %d, more than %d above version %d: remove it", aboveFile, above, maxSkipped, current)
	}
	if above > current {
		return above + 2, nil
	}
	return current + 1, nil
}

func (a *Authority) notedAbove() (uint64, error) {
	b, err := durable.ReadFile(durable.OS, filepath.Join(a.dir, aboveFile), 64)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, &Error{Code: codeContent, Detail: aboveFile + " is not a number: remove it", Err: err}
	}
	return n, nil
}
