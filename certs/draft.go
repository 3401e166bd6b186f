package certs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Bounds of the times that a list names. One issued in the future would keep
// every later version from being taken, because none may be issued before the
// one in force; one without a next update in sight would never be stale.
const (
	listSkew    = 10 * time.Minute // how far before the clock here another one may be
	maxListLife = 3 * nextUpdate
)

// Draft is the version about to be published.
type Draft struct {
	// Directory is what would be published. It is not signed, and Raw is empty.
	Directory *Directory
	// Before is the version that is published; nil if none is.
	Before *Directory
	// Void names the administrators who approved something else: an entry has
	// changed since, and they must look again.
	Void []string

	content []byte // the list's JSON
	entries []strictjson.Raw
	fixed   bool // its list is on disk
}

// Draft gives what would be published: the list that was fixed, if it is still
// what would be made of the entries, else a new one, which is not fixed yet. It
// needs no keys.
func (a *Authority) Draft(now time.Time) (*Draft, error) { return a.draft(now, true, nil) }

// draft gives it as it would be with some entries changed, by name, nil for one
// that is taken out.
func (a *Authority) draft(now time.Time, keepFixed bool, changed map[string]strictjson.Raw) (*Draft, error) {
	d := new(Draft)
	var err error
	if d.Before, err = a.Published(); err != nil {
		return nil, err
	}
	l, err := a.nextList(d.Before, now)
	if err != nil {
		return nil, err
	}
	if d.entries, err = a.entriesWith(changed); err != nil {
		return nil, err
	}
	for _, e := range d.entries {
		l.Entries = append(l.Entries, sm.Sum(e))
	}
	if keepFixed {
		if d.fixed, err = a.adoptFixed(l, d.Before, now); err != nil {
			return nil, err
		}
	}
	if d.Before != nil && l.Issued < d.Before.list.Issued {
		return nil, fail(codeContent, "the clock here says %s, and version %d was issued at %s: check the clock", now.UTC().Format(time.RFC3339), d.Before.Version(), d.Before.Issued().Format(time.RFC3339))
	}
	if d.content, err = strictjson.Marshal(l); err != nil {
		return nil, err
	}
	if d.Directory, err = a.preview(l, d.content, d.entries); err != nil {
		return nil, fmt.Errorf("certs: not published: %w", err)
	}
	return d, a.gather(d)
}

// nextList is the list after a version, without entries.
func (a *Authority) nextList(before *Directory, now time.Time) (*list, error) {
	l := &list{
		Type: listType, V: 1, Domain: a.domain,
		Issued: strictjson.TimeOf(now), NextUpdate: strictjson.TimeOf(now.Add(nextUpdate)),
	}
	if before != nil {
		l.Previous = before.id
	}
	var err error
	if l.Version, err = a.nextNumber(before.number()); err != nil {
		return nil, err
	}
	l.Succession, err = a.succession()
	return l, err
}

// adoptFixed gives a list the times of the one that was fixed, if that is the
// same otherwise, byte for byte: nothing else is taken from the file, so that
// nobody signs what was put there. One that is overdue by now, or was issued
// before the version that is published, is passed over.
func (a *Authority) adoptFixed(l *list, before *Directory, now time.Time) (bool, error) {
	b, err := durable.ReadFile(durable.OS, filepath.Join(a.dir, draftFile), MaxDirectory)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var had list
	if err := strictjson.Unmarshal(b, &had); err != nil || had.Type != listType || had.V != 1 {
		return false, &Error{Code: codeContent, Detail: draftFile + " is not a list; remove it, and have the version approved again", Err: err}
	}
	same := *l
	same.Issued, same.NextUpdate = had.Issued, had.NextUpdate
	content, err := strictjson.Marshal(&same)
	if err != nil || !bytes.Equal(content, b) {
		return false, err
	}
	if err := had.timely(now); err != nil {
		return false, err
	}
	if now.After(had.NextUpdate.Time()) || before != nil && had.Issued < before.list.Issued {
		return false, nil
	}
	*l = same
	return true, nil
}

// timely refuses a list with times that nobody meant.
func (l *list) timely(now time.Time) error {
	issued, next := l.Issued.Time(), l.NextUpdate.Time()
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	remedy := "check the clocks, remove " + draftFile + ", and have the version approved again"
	switch {
	case issued.After(now.Add(listSkew)):
		return fail(codeContent, "the list says that it was issued at %s, and the clock here says %s: %s", at(issued), at(now), remedy)
	case !next.After(issued):
		return fail(codeContent, "the list was issued at %s, and its next update is due before that, at %s: %s", at(issued), at(next), remedy)
	case next.Sub(issued) > maxListLife:
		return fail(codeContent, "the list was issued at %s, and its next update is not due before %s, more than %d days later: %s", at(issued), at(next), int(maxListLife.Hours()/24), remedy)
	}
	return nil
}

// Fix makes a draft's list durable, so that it is the same for all who look at
// it, approve it and publish it.
func (a *Authority) Fix(d *Draft) error {
	if d.fixed {
		return nil
	}
	if err := durable.WriteFile(durable.OS, filepath.Join(a.dir, draftFile), d.content); err != nil {
		return err
	}
	d.fixed = true
	return nil
}

// Fixed says whether the draft's list is on disk.
func (d *Draft) Fixed() bool { return d.fixed }

// preview judges what would be published as a reader would, but for the
// signature.
func (a *Authority) preview(l *list, content []byte, entries []strictjson.Raw) (*Directory, error) {
	c, err := newChain(a.cert.Raw)
	if err != nil {
		return nil, err
	}
	d := newDirectory()
	d.list, d.id, d.authority, d.drafted = *l, sm.Sum(content), a.cert.Raw, entries
	if err := d.matches(entries); err != nil {
		return nil, err
	}
	if err := d.index(entries, c); err != nil {
		return nil, err
	}
	return d, nil
}

// Approver gives the certificate with which an administrator, of the draft or
// of the version before, can approve: one whose key is held, and that counts.
// One that both versions know goes before one that the draft alone knows, even
// when that is newer: the version before asks for approvals by its own, and a
// renewal is approved with what is renewed.
func (d *Draft) Approver(administrator string, keys Keyring, now time.Time) (*Certificate, error) {
	at := d.Directory.Issued()
	counts := func(c Certificate) bool {
		c.Revoked = earliest(c.Revoked, d.Directory.revoked[sm.Sum(c.DER)])
		return keys.Has(c.KeyID) && !at.Before(c.NotBefore) && !at.After(c.NotAfter) && !c.RevokedAt(at) && !now.After(c.NotAfter)
	}
	next, isNext := d.Directory.administered(administrator)
	before, wasBefore := d.Before.administered(administrator)
	both := func(c Certificate) bool { return counts(c) && among(before, &c) }
	for _, try := range []struct {
		list []Certificate
		good func(Certificate) bool
	}{{next, both}, {next, counts}, {before, counts}} {
		if i := slices.IndexFunc(try.list, try.good); i >= 0 {
			return &try.list[i], nil
		}
	}
	if !isNext && !wasBefore {
		return nil, fail(codeApproval, "%.40q is no administrator, neither of the version to be published nor of the one before", administrator)
	}
	return nil, fail(codeApproval, "the keystore holds no key of administrator %s with a certificate that is valid and not revoked", administrator)
}

// administered gives the certificates of an administrator; a version that is
// not there has none.
func (d *Directory) administered(id string) (held []Certificate, known bool) {
	if d == nil {
		return nil, false
	}
	i := slices.IndexFunc(d.administrators, func(a *Administrator) bool { return a.ID == id })
	if i < 0 {
		return nil, false
	}
	return d.administrators[i].Certificates, true
}

// among says whether a certificate is one of several.
func among(list []Certificate, c *Certificate) bool {
	return slices.ContainsFunc(list, func(one Certificate) bool { return bytes.Equal(one.DER, c.DER) })
}
