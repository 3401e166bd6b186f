package evidence

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// Object is one signed object of an evidence file in the form of RFC 5652, for
// tools that are not ours. Name is a safe file name without extension: it is
// made of numbers and of words of this program, never of what a file says.
type Object struct {
	Name     string
	DER      []byte    // CMS SignedData, RFC 5652
	Signer   []byte    // certificate, DER, as embedded in DER
	ID       sm.Digest // SM3 of what is signed
	Received time.Time // when the certificate had to be valid
}

// Relabelled gives every signed object of the file: the successions of the
// authority, the list of the directory, its approvals, the header, the
// receipts, the checkpoint. Nothing is verified; what is not a signed object at
// all is an error that names it.
func (f *File) Relabelled() ([]Object, error) {
	list, err := certs.SignedList(f.Directory)
	if err != nil {
		return nil, err
	}
	successions, approvals, err := certs.SignedParts(f.Directory)
	if err != nil {
		return nil, err
	}
	var out []Object
	add := func(name string, der []byte, atMost int, at time.Time) {
		if err == nil {
			var o *Object
			if o, err = relabelled(name, der, atMost, at); err == nil {
				out = append(out, *o)
			}
		}
	}
	for i, der := range successions {
		add(fmt.Sprintf("succession-%05d", i), der, certs.MaxDirectory, time.Time{})
	}
	add("directory", list, certs.MaxDirectory, time.Time{})
	for i, der := range approvals {
		add(fmt.Sprintf("approval-%05d", i), der, certs.MaxDirectory, time.Time{})
	}
	add("header", f.Header, MaxFile, f.firstSeen())
	for i := range f.Receipts {
		r := &f.Receipts[i]
		add(fmt.Sprintf("receipt-%05d", i), r.CMS, exchange.MaxReceiptCMS, r.Seen.Time())
	}
	add("checkpoint", f.Checkpoint, exchange.MaxCheckpointCMS, time.Time{})
	return out, err
}

// relabelled makes one object. Without a time at which it was received, the
// time that its signer claims is given.
func relabelled(name string, der []byte, atMost int, at time.Time) (*Object, error) {
	s, err := cms.Parse(der, atMost)
	if err == nil {
		der, err = cms.Relabel(der)
	}
	if err != nil {
		return nil, &exchange.Error{Code: exchange.CodeBadRequest, Detail: "evidence: " + name + " cannot be exported", Err: err}
	}
	if at.IsZero() {
		at = s.Time
	}
	return &Object{Name: name, DER: der, Signer: s.Certificate, ID: s.ID(), Received: at}, nil
}

// firstSeen is the earliest time at which a receipt of the document was seen;
// by then the header had been received.
func (f *File) firstSeen() time.Time {
	var first time.Time
	for _, r := range f.Receipts {
		if at := r.Seen.Time(); first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

// ObjectList is the file in an exported folder that names the objects, one a
// line: name, the second (of Unix time) at which its certificate had to be
// valid, SM3 of what is signed; AuthorityFile is the authority's certificate.
const (
	ObjectList    = "objects.txt"
	AuthorityFile = "authority.pem"
	IssuersFile   = "issuers.pem"   // where the directory names other issuers
	TokenFile     = "timestamp.der" // the token over the checkpoint, where there is one
)

// WriteRelabelled writes every signed object into a new or empty folder: NAME.der
// in the form of RFC 5652 and NAME.pem, its signer's certificate; beside them
// authority.pem and objects.txt, and where there are such issuers.pem,
// timestamp.der and the revocation lists. authority is the trusted certificate (DER),
// nil for the one in the file. Existing files are never overwritten. It gives
// the names written. A crash leaves some of the files: remove the folder and
// repeat.
func (f *File) WriteRelabelled(dir string, authority []byte) ([]string, error) {
	objects, err := f.Relabelled()
	if err != nil {
		return nil, err
	}
	if authority == nil {
		authority = f.Authority
	}
	if err := emptyFolder(dir); err != nil {
		return nil, err
	}
	w := folder{dir: dir}
	w.file(AuthorityFile, pemOf(authority))
	if d, err := certs.LoadDirectory(f.Directory, authority, 0, time.Time{}); err == nil && len(d.Issuers()) > 0 {
		var all []byte
		for _, issuer := range d.Issuers() {
			all = append(all, pemOf(issuer.DER)...)
		}
		w.file(IssuersFile, all)
	}
	if len(f.Timestamp) > 0 {
		w.file(TokenFile, f.Timestamp)
	}
	for i, crl := range f.CRLs {
		w.file(fmt.Sprintf("revoked-%05d.crl", i), crl)
	}
	var list bytes.Buffer
	for _, o := range objects {
		w.file(o.Name+".der", o.DER)
		w.file(o.Name+".pem", pemOf(o.Signer))
		fmt.Fprintf(&list, "%s %d %s\n", o.Name, o.Received.Unix(), o.ID)
	}
	w.file(ObjectList, list.Bytes())
	return w.names, w.err
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// emptyFolder makes the folder unless it is there and empty.
func emptyFolder(dir string) error {
	if err := durable.OS.MkdirAll(dir); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if _, err := d.Readdirnames(1); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return err
	}
	return exchange.Fail(exchange.CodeConflict, "%s is not empty: name a new folder, nothing is overwritten", filepath.Base(dir))
}

// folder writes files that were not there; the first failure ends it.
type folder struct {
	dir   string
	names []string
	err   error
}

func (w *folder) file(name string, b []byte) {
	if w.err != nil {
		return
	}
	out, err := durable.OS.Create(filepath.Join(w.dir, name))
	if err == nil {
		_, err = out.Write(b)
		err = errors.Join(err, out.Sync(), out.Close())
	}
	if err != nil {
		w.err = err
		return
	}
	w.names = append(w.names, name)
}
