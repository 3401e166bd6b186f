// Package backup copies a node's data while it runs, and makes a data directory
// of a copy again.
//
// A repository is a folder. Blobs never change, so each is copied once, under
// its reference; a snapshot has the rest as of one moment:
//
//	blobs/XX/REF                 payloads and headers, ciphertext
//	20261126T160000Z-0042/rows   all rows of the store
//	                     /blobs  the references of these rows, size, SM3
//	                     /files/ settings, keystore, directories
//	                     /manifest  signed by the node; written last
//
// One document on its way: [Create] opens one View, in which the document's
// rows are read with everything that was committed before; blobs are kept from
// deletion meanwhile and copied afterwards. [Restore] puts rows and blobs under
// the keys and references they had into a folder beside the data directory's
// place, and the caller moves it there when the node has begun again. A
// snapshot without a manifest is one that a crash ended, and counts for nothing.
package backup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// The names in a repository.
const (
	blobsDir     = "blobs"
	rowsFile     = "rows"
	blobList     = "blobs"
	filesDir     = "files"
	manifestFile = "manifest"
)

// Limits of a snapshot; they are checked before anything is allocated.
const (
	MaxManifest = 4 << 20  // bytes, signed
	MaxFile     = 64 << 20 // bytes of one of the files
	MaxFiles    = 10_000
	MaxMissing  = 10_000 // blobs that a copy may lack
)

const manifestType = "yizhan-backup"

// Manifest says what a snapshot holds.
type Manifest struct {
	Type   string          `json:"type"`
	V      int             `json:"v"`
	Crit   []string        `json:"crit,omitempty"`
	Domain string          `json:"domain"`
	Node   string          `json:"node"`
	Ledger string          `json:"ledger"`
	Size   uint64          `json:"size"` // leaves
	Root   sm.Digest       `json:"root"`
	At     strictjson.Time `json:"at"`
	// Generation is that of the blob store; blobs of a restored node get a
	// higher one.
	Generation uint32     `json:"generation"`
	Rows       Part       `json:"rows"`
	Blobs      Part       `json:"blobs"` // of the list; BlobBytes is what it names
	BlobBytes  int64      `json:"blob_bytes"`
	Files      []FilePart `json:"files"`
	// Missing names the blobs that rows speak of and that could not be read any
	// more: they are in no list, and a node restored from this copy lacks them.
	Missing []string `json:"missing,omitempty"`
	Extra   strictjson.Extra
}

// Part is one file of a snapshot.
type Part struct {
	Count int64     `json:"count"`
	Size  int64     `json:"size"`
	SM3   sm.Digest `json:"sm3"`
	Extra strictjson.Extra
}

// FilePart is a file of the data directory, by its path in it.
type FilePart struct {
	Path  string    `json:"path"`
	Size  int64     `json:"size"`
	SM3   sm.Digest `json:"sm3"`
	Extra strictjson.Extra
}

// ParseManifest reads the one encoding.
func ParseManifest(b []byte) (*Manifest, error) {
	var m Manifest
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("%w: a manifest of %d bytes, at most %d are possible", ErrDamaged, len(b), MaxManifest)
	}
	if err := strictjson.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
	}
	if m.Type != manifestType || m.V != 1 || m.Node == "" || len(m.Files) > MaxFiles || len(m.Missing) > MaxMissing {
		return nil, fmt.Errorf("%w: a manifest of type %s version 1 is expected", ErrDamaged, manifestType)
	}
	for _, f := range m.Files {
		if !filepath.IsLocal(f.Path) || filepath.Clean(f.Path) != f.Path || f.Size < 0 || f.Size > MaxFile {
			return nil, fmt.Errorf("%w: the manifest names a file outside the data directory, or one too large", ErrDamaged)
		}
	}
	for _, ref := range m.Missing {
		if !refForm.MatchString(ref) {
			return nil, fmt.Errorf("%w: the manifest misses something that is no reference", ErrDamaged)
		}
	}
	return &m, nil
}

// ErrDamaged marks a snapshot that is not what was written, and
// ErrNoSnapshot a place without one.
var (
	ErrDamaged    = errors.New("backup: the snapshot is damaged")
	ErrNoSnapshot = errors.New("backup: no snapshot here")
)

// Snapshot is one that is complete: its manifest is there, and signed.
type Snapshot struct {
	Name     string
	Manifest *Manifest
	Signer   []byte // certificate, DER

	repo string
}

// Progress is how far a call has come.
type Progress struct {
	Rows      int64 `json:"rows"`
	Blobs     int64 `json:"blobs"`
	Bytes     int64 `json:"bytes"` // of blobs
	OfBlobs   int64 `json:"of_blobs,omitempty"`
	NewBlobs  int64 `json:"new_blobs,omitempty"`
	NewBytes  int64 `json:"new_bytes,omitempty"`
	Missing   int64 `json:"missing,omitempty"` // blobs that could not be read
	FilesDone int   `json:"files,omitempty"`
}

var snapshotName = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z-[0-9]+$`)

// Snapshots lists the complete ones of a repository, the oldest first. One
// whose manifest cannot be read is left out; Open says why.
func Snapshots(repo string) ([]*Snapshot, error) {
	entries, err := os.ReadDir(repo)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	var list []*Snapshot
	for _, e := range entries {
		if !e.IsDir() || !snapshotName.MatchString(e.Name()) {
			continue
		}
		s, err := open(repo, e.Name())
		if err == nil {
			list = append(list, s)
		}
	}
	return list, nil
}

// Generation is the highest of the repository that the snapshot is in: blobs of the
// restored node get a higher one, so that its later copies may go there as well.
func (s *Snapshot) Generation() uint32 {
	highest := s.Manifest.Generation
	list, err := Snapshots(s.repo)
	if err != nil { // it was read a moment ago
		return highest
	}
	for _, other := range list {
		highest = max(highest, other.Manifest.Generation)
	}
	return highest
}

// Open opens a snapshot by its folder, or the newest of a repository.
func Open(path string) (*Snapshot, error) {
	path = filepath.Clean(path)
	if snapshotName.MatchString(filepath.Base(path)) {
		return open(filepath.Dir(path), filepath.Base(path))
	}
	list, err := Snapshots(path)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: %s has no complete one", ErrNoSnapshot, path)
	}
	return slices.MaxFunc(list, func(a, b *Snapshot) int { return int(a.Manifest.At - b.Manifest.At) }), nil
}

func open(repo, name string) (*Snapshot, error) {
	s := &Snapshot{Name: name, repo: repo}
	b, err := durable.ReadFile(durable.OS, s.path(manifestFile), MaxManifest)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is not complete", ErrNoSnapshot, name)
	}
	if err != nil {
		return nil, err
	}
	signed, err := cms.Parse(b, MaxManifest)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := signed.Verify(signed.Certificate); err != nil {
		return nil, fmt.Errorf("%w: the manifest's signature does not hold: %w", ErrDamaged, err)
	}
	s.Signer = signed.Certificate
	s.Manifest, err = ParseManifest(signed.Content)
	return s, err
}

func (s *Snapshot) path(name string) string { return filepath.Join(s.repo, s.Name, name) }

// Files is the folder with the copies of settings, keystore and directories.
func (s *Snapshot) Files() string { return s.path(filesDir) }

var refForm = regexp.MustCompile(`^[gs][0-9a-f]{8}[0-9a-f-]{9,48}$`)

// blobFile is where a repository keeps a blob; anything but a reference is
// refused, so that no path can be smuggled in.
func blobFile(repo string, ref queue.Ref) (string, error) {
	if !refForm.MatchString(string(ref)) {
		return "", fmt.Errorf("%w: %q is no reference", ErrDamaged, ref)
	}
	return filepath.Join(repo, blobsDir, string(ref[len(ref)-2:]), string(ref)), nil
}
