package certs

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// edit is a change of several entries that is not written yet.
type edit struct {
	a         *Authority
	changed   map[string]strictjson.Raw // by name; nil takes the entry out
	order     []string                  // in which they are written
	published map[string]strictjson.Raw // what nodes have, by name
}

func (a *Authority) edit() (*edit, error) {
	published, err := a.publishedEntries()
	return &edit{a: a, changed: map[string]strictjson.Raw{}, published: published}, err
}

// publishedEntries gives the nodes, agencies, links and routes of the version
// that is published, by the names that their files have.
func (a *Authority) publishedEntries() (map[string]strictjson.Raw, error) {
	out := map[string]strictjson.Raw{}
	b, err := durable.ReadFile(durable.OS, filepath.Join(a.dir, directoryName), MaxDirectory)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := parseFile(b)
	if err != nil {
		return nil, err
	}
	for _, raw := range f.Entries {
		one, err := describe(raw)
		if err != nil {
			return nil, err
		}
		if one.file != "" {
			out[one.file] = raw
		}
	}
	return out, nil
}

func (e *edit) put(name string, entry any) error {
	b, err := strictjson.Marshal(entry)
	if err != nil {
		return err
	}
	e.set(name, b)
	return nil
}

func (e *edit) set(name string, b strictjson.Raw) {
	if _, twice := e.changed[name]; !twice {
		e.order = append(e.order, name)
	}
	e.changed[name] = b
}

// find reads an entry as the edit leaves it; one that is not there, as it is
// published. What is in neither leaves into as it is.
func (e *edit) find(name string, into any) (inEntries bool, err error) {
	b, changed := e.changed[name]
	if !changed {
		if b, err = durable.ReadFile(durable.OS, e.a.entryPath(name), maxEntry); errors.Is(err, fs.ErrNotExist) {
			b, err = nil, nil
		}
	}
	inEntries = b != nil
	if !inEntries {
		b = e.published[name]
	}
	if err == nil && b != nil {
		err = strictjson.Unmarshal(b, into)
	}
	if err != nil {
		return false, &Error{Code: codeContent, Detail: "entry " + name, Err: err}
	}
	return inEntries, nil
}

// judgeDraft sees that what would be published with the change is what every
// node takes, but for the approvals, which come later. If not, it says whether
// the draft was whole before: a fault that lay there is none of the change.
func (e *edit) judgeDraft(now time.Time) (whole bool, err error) {
	d, err := e.a.draft(now, false, e.changed)
	if err == nil {
		err = d.fits()
	}
	if err == nil {
		return true, nil
	}
	if _, before := e.a.draft(now, false, nil); before != nil {
		return false, fmt.Errorf("what lies in %s cannot be published already without this change; correct it, or take it out with yizhan ca remove: %w", entriesDir, before)
	}
	return true, err
}

// fits refuses a draft that would make a directory file of more bytes than
// anybody reads.
func (d *Draft) fits() error {
	bytes := base64.StdEncoding.EncodedLen(len(d.content)) + maxSmallCMS
	for _, e := range d.entries {
		bytes += len(e) + len(",")
	}
	if bytes > MaxDirectory {
		return fail(codeContent, "the directory would have %d bytes, at most %d are possible", bytes, MaxDirectory)
	}
	return nil
}

// write makes the change durable, one file after the other.
func (e *edit) write() error {
	for _, name := range e.order {
		if b := e.changed[name]; b != nil {
			if err := durable.WriteFile(durable.OS, e.a.entryPath(name), b); err != nil {
				return err
			}
			continue
		}
		if err := durable.OS.Remove(e.a.entryPath(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return durable.OS.SyncDir(filepath.Join(e.a.dir, entriesDir))
}
