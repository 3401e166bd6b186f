package certs

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// kept is how many versions before the one in force are kept: from each of
// them a neighbour can be brought up to date by a delta.
const kept = 16

// Files of a shelf.
const (
	versionFile = "directory.version"
	trustFile   = "authority.new" // the certificate that the next directory file needs
	shelfDir    = "directories"   // the version in force and those before it
)

// Shelf keeps the directory in force on disk, and the versions before it. What
// it holds was judged when it came: by the certificate of the authority that is
// trusted here and its heirs, by the highest version ever in force, and by the
// policy of the version before.
//
// A crash at any point leaves the old directory in force or the new one. The
// directory file is the one that decides. Its certificate is durable before it,
// under another name; its number is durable after it, and counts from the file
// until then.
//
// It is safe for concurrent use. Another process may install a version at the
// same folder, see Reload.
type Shelf struct {
	fs   durable.FS
	path string
	now  func() time.Time

	current atomic.Pointer[Directory]
	updates updates
	known   atomic.Pointer[[]*CRL]

	mu       sync.Mutex // one installation at a time; guards what follows
	restored error
}

// OpenShelf opens the shelf in a folder, which may be empty: then Current is
// nil, and Trust makes a beginning. A directory file that is refused is
// replaced by a kept version if one is as new as the highest ever in force, see
// Restored; else that is the error.
func OpenShelf(fsys durable.FS, path string, now func() time.Time) (*Shelf, error) {
	s := &Shelf{fs: fsys, path: path, now: now}
	d, err := s.read(0)
	if err != nil {
		d = s.rescue()
		if d == nil && errors.Is(err, fs.ErrNotExist) {
			return s, nil
		}
		if d == nil {
			return nil, err
		}
		s.restored = err
		if err := s.put(d); err != nil {
			return nil, err
		}
	}
	s.current.Store(d)
	return s, nil
}

// Current is the directory in force; nil when none is installed yet.
func (s *Shelf) Current() *Directory { return s.current.Load() }

// Restored says why the directory file was replaced by a kept version when the
// shelf was opened; nil when it was not.
func (s *Shelf) Restored() error { return s.restored }

// Know tells the shelf the revocation lists that are known here, in place of
// those before: an administrator whom they revoke, or whose issuer, approves
// nothing that is installed from now on.
func (s *Shelf) Know(list []*CRL) { s.known.Store(&list) }

func (s *Shelf) lists() []*CRL {
	if list := s.known.Load(); list != nil {
		return *list
	}
	return nil
}

func (s *Shelf) at(name string) string { return filepath.Join(s.path, name) }

// InForce gives the directory that is in force in a folder, for a process that
// only looks while another one may be writing; nil when none is installed.
// Nothing is written, whatever a crash left.
func InForce(fsys durable.FS, path string, now func() time.Time) (*Directory, error) {
	s := &Shelf{fs: fsys, path: path, now: now}
	d, _, _, err := s.load(0)
	if err == nil {
		return d, nil
	}
	if d = s.rescue(); d == nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return d, nil
}

// read judges what lies on disk and makes it consistent: a certificate or a
// version number that a crash kept from being noted is noted now, before the
// directory is used. It gives fs.ErrNotExist when nothing is installed.
func (s *Shelf) read(atLeast uint64) (*Directory, error) {
	d, trusted, highest, err := s.load(atLeast)
	if err != nil {
		return nil, err
	}
	return d, s.settle(d, trusted, highest)
}

// load judges what lies on disk, and gives what was noted of it: the trusted
// certificate and the highest version.
func (s *Shelf) load(atLeast uint64) (d *Directory, trusted []byte, highest uint64, err error) {
	file, err := durable.ReadFile(s.fs, s.at(directoryName), MaxDirectory)
	if err != nil {
		return nil, nil, 0, err
	}
	if highest, err = s.highest(); err != nil {
		return nil, nil, 0, err
	}
	trusted, err = s.certificate(authorityFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, 0, err
	}
	if had := s.Current(); had != nil && bytes.Equal(had.raw, file) && bytes.Equal(had.authority, trusted) {
		return had, trusted, highest, nil
	}
	d, err = LoadDirectory(file, trusted, max(highest, atLeast), s.now())
	if err == nil {
		if err = s.judge(d, trusted); err != nil {
			return nil, nil, 0, err
		}
		return d, trusted, highest, nil
	}
	// Trust was interrupted after the directory and before its certificate.
	next, missing := s.certificate(trustFile)
	if missing != nil {
		return nil, nil, 0, err
	}
	d, again := LoadDirectory(file, next, max(highest, atLeast), s.now())
	if again != nil {
		return nil, nil, 0, err
	}
	return d, trusted, highest, nil
}

// judge looks at a directory file that lies in its place and was perhaps not
// put there by a shelf, which keeps a copy first: copied by hand it would be
// in force without having been judged by the version before. What is kept and
// cannot be read, judges nothing.
func (s *Shelf) judge(d *Directory, trusted []byte) error {
	versions, err := s.versions()
	if err != nil {
		return err
	}
	before := uint64(0)
	for _, v := range versions {
		if v <= d.Version() {
			before = max(before, v)
		}
	}
	if before == 0 {
		return nil // a data directory from before there were shelves
	}
	file, err := durable.ReadFile(s.fs, s.copyOf(before), MaxDirectory)
	if err != nil || bytes.Equal(file, d.raw) {
		return nil
	}
	had, err := LoadDirectory(file, trusted, 0, s.now())
	if err != nil || had.id == d.id {
		return nil
	}
	return d.follows(had, s.lists())
}

// settle makes durable what follows from the directory file: its authority's
// certificate and its version. A crash before or between the two is mended by
// the next read.
func (s *Shelf) settle(d *Directory, trusted []byte, highest uint64) error {
	if !bytes.Equal(trusted, d.authority) {
		if err := s.writeCertificate(authorityFile, d.authority); err != nil {
			return err
		}
	}
	if err := s.fs.Remove(s.at(trustFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if d.Version() > highest {
		return durable.WriteFile(s.fs, s.at(versionFile), []byte(strconv.FormatUint(d.Version(), 10)+"\n"))
	}
	return nil
}

func (s *Shelf) certificate(name string) ([]byte, error) {
	b, err := durable.ReadFile(s.fs, s.at(name), maxCertificateFile)
	if err != nil {
		return nil, err
	}
	return parseCertificate(b, name)
}

func (s *Shelf) writeCertificate(name string, der []byte) error {
	return durable.WriteFile(s.fs, s.at(name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// highest is the highest version that was ever in force here.
func (s *Shelf) highest() (uint64, error) {
	b, err := durable.ReadFile(s.fs, s.at(versionFile), 64)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("certs: %s is unreadable: put the highest directory version this node has seen into it", s.at(versionFile))
	}
	return n, nil
}

// rescue finds the newest kept version that is as new as it must be.
func (s *Shelf) rescue() *Directory {
	trusted, err := s.certificate(authorityFile)
	if err != nil {
		return nil
	}
	highest, err := s.highest()
	if err != nil {
		return nil
	}
	versions, err := s.versions()
	if err != nil || len(versions) == 0 {
		return nil
	}
	file, err := durable.ReadFile(s.fs, s.copyOf(slices.Max(versions)), MaxDirectory)
	if err != nil {
		return nil
	}
	d, err := LoadDirectory(file, trusted, highest, s.now())
	if err != nil {
		return nil
	}
	return d
}

// Reload takes into force what another process installed in the folder. What
// is refused, or older than the version in force, leaves that in force.
func (s *Shelf) Reload() (*Directory, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.read(s.version())
	if err != nil {
		return nil, err
	}
	if had := s.Current(); had == nil || had.id != d.id || !bytes.Equal(had.authority, d.authority) {
		s.current.Store(d)
	}
	return s.Current(), nil
}

func (s *Shelf) version() uint64 {
	if d := s.Current(); d != nil {
		return d.Version()
	}
	return 0
}

// Install judges a whole directory file and takes it into force. The version
// in force again is no error; an older one is ErrRollback, another history
// ErrFork, and one that lacks approvals ErrApproval.
func (s *Shelf) Install(file []byte) (*Directory, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.catchUp()
	return s.install(file)
}

// catchUp takes what another process installed since; what cannot be read is
// about to be replaced.
func (s *Shelf) catchUp() {
	if d, err := s.read(s.version()); err == nil {
		s.current.Store(d)
	}
}

func (s *Shelf) install(file []byte) (*Directory, error) {
	before := s.Current()
	if before == nil {
		return nil, fail(codeSignature, "no authority is trusted here yet: join the domain first")
	}
	highest, err := s.highest()
	if err != nil {
		return nil, err
	}
	d, err := LoadDirectory(file, before.authority, max(highest, before.Version()), s.now())
	if err != nil {
		return nil, err
	}
	if d.id == before.id {
		// The one that came first stays: it has the approvals it needed.
		return before, nil
	}
	if err := d.follows(before, s.lists()); err != nil {
		return nil, err
	}
	if err := s.force(d); err != nil {
		return nil, err
	}
	return d, nil
}

// follows judges a newer version by the one in force and the revocation lists
// that are known.
func (d *Directory) follows(before *Directory, known []*CRL) error {
	if d.Domain() != before.Domain() {
		return fail(codeContent, "the directory is one of domain %.128q, and this is a node of %.128q", d.Domain(), before.Domain())
	}
	if d.Version() == before.Version() {
		return fail(codeFork, "version %d is in force here with other content: the authority signed two, ask it which one counts", d.Version())
	}
	if d.Version() == before.Version()+1 && d.list.Previous != before.id {
		return fail(codeFork, "version %d does not follow version %d that is in force here: the authority signed two histories, ask it which one counts", d.Version(), before.Version())
	}
	if d.list.Issued < before.list.Issued {
		return fail(codeFork, "version %d was issued before version %d: the authority checks its clock and publishes again", d.Version(), before.Version())
	}
	if err := d.approved(before, known); err != nil {
		return err
	}
	return d.approved(d, known)
}

// force makes a judged directory durable and then current.
func (s *Shelf) force(d *Directory) error {
	if had := s.Current(); had != nil && bytes.Equal(had.raw, d.raw) && bytes.Equal(had.authority, d.authority) {
		return nil
	}
	if err := s.put(d); err != nil {
		return err
	}
	s.current.Store(d)
	return nil
}

// Trust begins with a directory of an authority whose certificate (DER) a
// person compared, or begins anew with that of another one. A version below the
// highest ever in force here is refused all the same, and so is a return to a
// certificate that has an heir here: who stole the old key gains nothing by
// asking. It gives the directory that is then in force.
func (s *Shelf) Trust(authority, file []byte) (*Directory, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.catchUp()
	if had := s.Current(); had != nil && had.descends(authority) {
		return s.install(file)
	}
	highest, err := s.highest()
	if err != nil {
		return nil, err
	}
	d, err := LoadDirectory(file, authority, highest, s.now())
	if err != nil {
		return nil, err
	}
	if err := d.approved(d, s.lists()); err != nil {
		return nil, err
	}
	if err := s.force(d); err != nil {
		return nil, err
	}
	return d, nil
}

// put writes a directory and what belongs to it. Until the directory file is
// replaced a crash leaves the old version in force, with copies and a
// certificate beside it that nobody uses; from then on the new one.
func (s *Shelf) put(d *Directory) error {
	if err := s.keep(d); err != nil {
		return err
	}
	trusted, err := s.certificate(authorityFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !bytes.Equal(trusted, d.authority) {
		if err := s.writeCertificate(trustFile, d.authority); err != nil {
			return err
		}
	}
	highest, err := s.highest()
	if err != nil {
		return err
	}
	if err := durable.WriteFile(s.fs, s.at(directoryName), d.raw); err != nil {
		return err
	}
	return s.settle(d, trusted, highest)
}

// keep puts copies of a directory and of the one in force on the shelf, and
// removes the oldest beyond those that are kept.
func (s *Shelf) keep(d *Directory) error {
	if err := s.fs.MkdirAll(s.at(shelfDir)); err != nil {
		return err
	}
	versions, err := s.versions()
	if err != nil {
		return err
	}
	if had := s.Current(); had != nil && had.Version() != d.Version() && !slices.Contains(versions, had.Version()) {
		if err := durable.WriteFile(s.fs, s.copyOf(had.Version()), had.raw); err != nil {
			return err
		}
		versions = append(versions, had.Version())
	}
	slices.Sort(versions)
	for len(versions) > kept {
		if err := s.fs.Remove(s.copyOf(versions[0])); err != nil {
			return err
		}
		versions = versions[1:]
	}
	return durable.WriteFile(s.fs, s.copyOf(d.Version()), d.raw)
}

const copySuffix = ".yzd"

func (s *Shelf) copyOf(version uint64) string {
	return s.at(filepath.Join(shelfDir, strconv.FormatUint(version, 10)+copySuffix))
}

// versions lists the kept versions; names that are not ours are left alone.
func (s *Shelf) versions() ([]uint64, error) {
	names, err := s.fs.ReadDir(s.at(shelfDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []uint64
	for _, name := range names {
		text, ok := strings.CutSuffix(name, copySuffix)
		n, err := strconv.ParseUint(text, 10, 64)
		if ok && err == nil && strconv.FormatUint(n, 10) == text {
			out = append(out, n)
		}
	}
	return out, err
}

// Take judges an update, assembles the directory file it leads to from the
// version in force, and installs that.
func (s *Shelf) Take(update []byte) (*Directory, error) {
	u, err := parseDelta(update)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.Current()
	if before == nil {
		return nil, fail(codeSignature, "no authority is trusted here yet: join the domain first")
	}
	file, err := before.assemble(u)
	if err != nil {
		return nil, err
	}
	return s.install(file)
}
