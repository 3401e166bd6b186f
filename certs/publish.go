package certs

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Files in an authority's directory for the version about to be published.
const (
	draftFile     = "draft.json" // its list, exactly the bytes that are approved and signed
	approvalsDir  = "approvals"  // signed approvals, one file for each administrator
	approvalEnd   = ".cms"
	successionDir = "succession" // the signed objects of the list's member, oldest first
	successionEnd = ".cms"
)

// gather reads the approvals that lie there: those of the draft, and who gave
// one to something else.
func (a *Authority) gather(d *Draft) error {
	dir := filepath.Join(a.dir, approvalsDir)
	names, err := durable.OS.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.HasSuffix(name, approvalEnd) {
			continue
		}
		b, err := durable.ReadFile(durable.OS, filepath.Join(dir, name), maxSmallCMS)
		if err != nil {
			return err
		}
		g, err := readApproval(b)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(approvalsDir, name), err)
		}
		if !d.fixed || g.List != d.Directory.id || g.Administrator+approvalEnd != name {
			d.Void = append(d.Void, g.Administrator)
			continue
		}
		g.raw = b
		d.Directory.approvals = append(d.Directory.approvals, g)
	}
	return nil
}

// Approved says whether the draft may be published: enough administrators of
// its own approve it by its own policy, and of the version before by that one's.
func (d *Draft) Approved() error {
	if d.Before != nil {
		if err := d.Directory.approved(d.Before, nil); err != nil {
			return err
		}
	}
	return d.Directory.approved(d.Directory, nil)
}

// Keyring signs with private keys that it may or may not hold.
type Keyring interface {
	Has(id sm.Digest) bool
	Sign(id sm.Digest, msg []byte) ([]byte, error)
}

// Approve signs a draft as an administrator and keeps the approval beside it.
// The draft is fixed first, so that it is the same for all who approve it.
// A crash before the approval is durable leaves the draft without it.
func (a *Authority) Approve(d *Draft, administrator string, keys Keyring, now time.Time) error {
	c, err := d.Approver(administrator, keys, now)
	if err != nil {
		return err
	}
	content, err := strictjson.Marshal(&approval{
		Type: approvalType, V: 1, Domain: a.domain, Version: d.Directory.Version(), List: d.Directory.id,
		Administrator: administrator, Time: strictjson.TimeOf(now),
	})
	if err != nil {
		return err
	}
	signed, err := cms.Sign(Signer(keys, c), content, now)
	if err != nil {
		return err
	}
	g, err := readApproval(signed)
	if err != nil {
		return err
	}
	g.raw = signed
	if err := a.Fix(d); err != nil {
		return err
	}
	dir := filepath.Join(a.dir, approvalsDir)
	if err := durable.OS.MkdirAll(dir); err != nil {
		return err
	}
	if err := durable.WriteFile(durable.OS, filepath.Join(dir, administrator+approvalEnd), signed); err != nil {
		return err
	}
	others := slices.DeleteFunc(d.Directory.approvals, func(had *given) bool { return had.Administrator == administrator })
	d.Directory.approvals = append(others, g)
	d.Void = slices.DeleteFunc(d.Void, func(id string) bool { return id == administrator })
	return nil
}

// Publish signs the next version of the directory over all entries, verifies
// it as a node would that has the version before, and gives the directory file.
// What was approved is published exactly as it was approved; without approvals
// where some are needed nothing is, see [ErrApproval]. Where none are needed and
// none are there, the list is made anew, with the times of its publication. A
// crash before its WriteFile returns leaves this version or the one before, never a torn one,
// and nobody has seen this one.
func (a *Authority) Publish(now time.Time) ([]byte, error) {
	if a.keys == nil {
		return nil, fail(codeSignature, "the authority was opened without its keys")
	}
	d, err := a.Draft(now)
	if err != nil {
		return nil, err
	}
	if err := d.Approved(); err != nil {
		return nil, fmt.Errorf("certs: not published: %w", err)
	}
	if d.fixed && len(d.Directory.approvals) == 0 {
		if d, err = a.draft(now, false, nil); err != nil {
			return nil, err
		}
	}
	f := &directoryFile{Type: fileType, V: 1, Entries: d.entries}
	for _, g := range d.Directory.approvals {
		f.Approvals = append(f.Approvals, g.raw)
	}
	self := &Certificate{Use: UseSign, DER: a.cert.Raw, KeyID: a.keyID()}
	if f.List, err = cms.Sign(Signer(a.keys, self), d.content, now); err != nil {
		return nil, err
	}
	b, err := strictjson.Marshal(f)
	if err != nil {
		return nil, err
	}
	next, err := LoadDirectory(b, a.cert.Raw, d.Directory.Version(), now)
	if err == nil && d.Before != nil {
		err = next.follows(d.Before, nil)
	}
	if err != nil {
		return nil, fmt.Errorf("certs: not published: %w", err)
	}
	if err := durable.WriteFile(durable.OS, filepath.Join(a.dir, directoryName), b); err != nil {
		return nil, err
	}
	return b, a.clearDraft()
}

// clearDraft removes what was approved, once it is published. What a crash
// leaves of it is for a version that is there already, and void.
func (a *Authority) clearDraft() error {
	dir := filepath.Join(a.dir, approvalsDir)
	names, err := durable.OS.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range names {
		if err := durable.OS.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := durable.OS.Remove(filepath.Join(a.dir, draftFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	a.above = nil
	return a.forgetAbove()
}

// Published reads the version that is published, nil if none is. A former
// certificate of the authority may have signed it.
func (a *Authority) Published() (*Directory, error) {
	b, err := durable.ReadFile(durable.OS, filepath.Join(a.dir, directoryName), MaxDirectory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	signer, err := SignerOf(b)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(a.former, func(der []byte) bool { return bytes.Equal(der, signer) }) {
		signer = a.cert.Raw
	}
	return LoadDirectory(b, signer, 0, time.Time{})
}

// AddAdministrator makes a key for a person who approves publications and
// issues its certificate. Whose key is kept elsewhere brings a certification
// request instead, see [Authority.Issue].
func (a *Authority) AddAdministrator(id, name string, keys Keys, now time.Time) error {
	e := administratorEntry{ID: id, Name: name}
	if err := e.check(); err != nil {
		return asRequest(err) // before a key is made
	}
	pub, err := keys.Generate()
	if err != nil {
		return err
	}
	_, err = a.Issue(&CSR{PublicKey: pub, KeyID: sm.KeyID(pub), Use: UseSign}, Purpose{Administrator: id, Name: name, Use: UseSign}, now)
	return err
}

// FormerFile is the name of the file that keeps a certificate of the authority
// (DER) when another one takes its place: evidence of its time is verified with
// it.
func FormerFile(der []byte) string {
	return "authority-" + sm.Sum(der).String()[:16] + ".crt"
}

// Succeed gives the authority a new key and certificate of the same name. The
// old certificate signs the new one, becomes an issuer, so that what it issued
// goes on to verify, and signs no list any more. Readers follow with the next
// publication. The old key stays in the keystore; nothing uses it. The old
// certificate stays beside the new one, see [FormerFile].
//
// The certificate file decides. A crash before it is replaced leaves a signed
// object for a certificate that nobody uses, which the next opening passes
// over; one after it leaves the issuer's entry to the next opening.
func (a *Authority) Succeed(now time.Time) error {
	if a.keys == nil {
		return fail(codeSignature, "the authority was opened without its keys")
	}
	list, err := a.succession()
	if err != nil {
		return err
	}
	if len(list) >= maxSuccessions {
		return fail(codeRequest, "an authority has at most %d successions", maxSuccessions)
	}
	pub, err := a.keys.Generate()
	if err != nil {
		return err
	}
	template := &smx509.Certificate{
		RawSubject: a.cert.RawSubject, Subject: a.cert.Subject,
		NotBefore: now.Add(-clockSkew), NotAfter: now.AddDate(authorityYears, 0, 0),
		KeyUsage: smx509.KeyUsageCertSign | smx509.KeyUsageCRLSign | smx509.KeyUsageDigitalSignature,
		IsCA:     true, BasicConstraintsValid: true,
	}
	der, err := a.issue(template, template, pub, sm.KeyID(pub))
	if err != nil {
		return err
	}
	self := &Certificate{Use: UseSign, DER: a.cert.Raw, KeyID: a.keyID()}
	signed, err := cms.Sign(Signer(a.keys, self), der, now)
	if err != nil {
		return err
	}
	if err := follow(append(list, signed), a.cert.Raw, der); err != nil {
		return err
	}
	dir := filepath.Join(a.dir, successionDir)
	if err := durable.OS.MkdirAll(dir); err != nil {
		return err
	}
	if err := durable.WriteFile(durable.OS, filepath.Join(dir, fmt.Sprintf("%04d%s", len(list)+1, successionEnd)), signed); err != nil {
		return err
	}
	former := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	if err := durable.WriteFile(durable.OS, filepath.Join(a.dir, FormerFile(a.cert.Raw)), former); err != nil {
		return err
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := durable.WriteFile(durable.OS, filepath.Join(a.dir, authorityFile), b); err != nil {
		return err
	}
	if err := a.adopt(der); err != nil {
		return err
	}
	return a.listFormer()
}

// succession reads the signed objects that lead to the certificate in force,
// and notes the former certificates. One beyond that, of a succession that a
// crash interrupted, is passed over.
func (a *Authority) succession() ([][]byte, error) {
	dir := filepath.Join(a.dir, successionDir)
	names, err := durable.OS.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var out [][]byte
	a.former = nil
	for _, name := range names {
		if !strings.HasSuffix(name, successionEnd) {
			continue
		}
		b, err := durable.ReadFile(durable.OS, filepath.Join(dir, name), maxSmallCMS)
		if err != nil {
			return nil, err
		}
		_, old, err := readSuccession(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(successionDir, name), err)
		}
		if bytes.Equal(old, a.cert.Raw) {
			break
		}
		out, a.former = append(out, b), append(a.former, old)
	}
	return out, follow(out, a.cert.Raw, a.cert.Raw)
}

// listFormer makes sure that every former certificate is listed as an issuer.
// To end what it issued it is revoked, not removed.
func (a *Authority) listFormer() error {
	if _, err := a.succession(); err != nil {
		return err
	}
	for _, der := range a.former {
		name := issuerFile(sm.Sum(der))
		var had issuerEntry
		if err := a.entry(name, &had); err != nil {
			return err
		}
		if had.Type != "" {
			continue
		}
		if err := a.putEntry(name, &issuerEntry{Type: issuerType, V: 1, Domain: a.domain, Cert: der}); err != nil {
			return err
		}
	}
	return nil
}

func (a *Authority) entries() ([]strictjson.Raw, error) { return a.entriesWith(nil) }

// entriesWith gives the entries as they would be with some of them changed: by
// name, nil for one that is taken out.
func (a *Authority) entriesWith(changed map[string]strictjson.Raw) ([]strictjson.Raw, error) {
	dir := filepath.Join(a.dir, entriesDir)
	files, err := durable.OS.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := slices.Collect(maps.Keys(changed))
	for _, file := range files {
		name, ok := strings.CutSuffix(file, ".json")
		if _, other := changed[name]; ok && !other {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(x, y string) int { return strings.Compare(x+".json", y+".json") })
	var out []strictjson.Raw
	for _, name := range names {
		b, other := changed[name]
		if !other {
			if b, err = durable.ReadFile(durable.OS, a.entryPath(name), maxEntry); err != nil {
				return nil, err
			}
		}
		if b != nil {
			out = append(out, b)
		}
	}
	return out, nil
}
