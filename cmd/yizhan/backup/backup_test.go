package backup

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/emmansun/gmsm/smx509"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/badgerstore"
	"github.com/yizhan-gateway/yizhan/queue/blob"
)

// place is a small data directory with rows, blobs and files.
type place struct {
	*testing.T
	dir   string
	store *badgerstore.Store
	blobs *blob.Store
	clock time.Time
	copy  Source
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{T: t, dir: filepath.Join(t.TempDir(), "data"), clock: time.Date(2026, 11, 26, 16, 0, 0, 0, time.UTC)}
	p.must(durable.OS.MkdirAll(filepath.Join(p.dir, "keys")))
	p.must(os.WriteFile(filepath.Join(p.dir, "config.toml"), []byte("node = \"jia\"\n"), 0o600))
	p.must(os.WriteFile(filepath.Join(p.dir, "keys", "1.key"), []byte("sealed"), 0o600))
	p.open()
	for i := range 30 {
		p.put(i)
	}
	signer := newSigner(t)
	p.copy = Source{
		Domain: "示范域", Node: "jia", Ledger: "01M83PPH002YTM2KNSQ5VBQFG2", Store: p.store, Blobs: p.blobs, Data: p.dir,
		Skip: []string{"store", "blobs"}, Now: func() time.Time { p.clock = p.clock.Add(time.Second); return p.clock },
		Sign: func(content []byte) ([]byte, error) { return cms.Sign(signer, content, p.clock) },
	}
	return p
}

// signer signs manifests with a certificate of its own.
type signer struct {
	key  *sm.PrivateKey
	cert []byte
}

func newSigner(t *testing.T) signer {
	t.Helper()
	key, err := sm.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &smx509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "jia"}, KeyUsage: smx509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := smx509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return signer{key, der}
}

func (s signer) Certificate() []byte             { return s.cert }
func (s signer) Sign(msg []byte) ([]byte, error) { return sm.Sign(rand.Reader, s.key, msg) }

func (p *place) open() {
	p.Helper()
	var err error
	p.store, err = badgerstore.Open(filepath.Join(p.dir, "store"), badgerstore.Options{Logger: slog.New(slog.DiscardHandler)})
	p.must(err)
	p.Cleanup(func() { p.store.Close() })
	p.blobs, err = blob.Open(durable.OS, filepath.Join(p.dir, "blobs"))
	p.must(err)
}

func (p *place) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// put stores a blob with its owner and a leaf.
func (p *place) put(i int) queue.Ref {
	p.Helper()
	content := make([]byte, 100+i*70_000)
	_, err := rand.Read(content)
	p.must(err)
	ref, err := p.blobs.Put(p.Context(), bytes.NewReader(content), blob.MaxBlob)
	p.must(err)
	p.must(p.store.Update(p.Context(), func(tx queue.Tx) error {
		if _, err := (queue.Ledger{Name: "main"}).Append(tx, content[:50]); err != nil {
			return err
		}
		return records.BlobOwners.Put(tx, &records.Owner{Envelope: sm.Sum(content)}, string(ref))
	}))
	return ref
}

func quiet(Progress) {}

// all reads every row, and each blob that they name.
func all(t *testing.T, s queue.Store, b interface {
	Open(context.Context, queue.Ref, int64) (io.ReadCloser, error)
}) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := s.View(t.Context(), func(tx queue.Tx) error {
		for kv, err := range tx.Scan(nil, nil, 0) {
			if err != nil {
				return err
			}
			out[string(kv.Key)] = string(kv.Value)
			if name, owned := strings.CutPrefix(string(kv.Key), string(records.BlobOwners.Key())); owned {
				ref := name[:len(name)-2]
				r, err := b.Open(t.Context(), queue.Ref(ref), 0)
				if err != nil {
					return err
				}
				content, err := io.ReadAll(r)
				if err := errors.Join(err, r.Close()); err != nil {
					return err
				}
				out["blob "+ref] = string(content)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func restored(t *testing.T, s *Snapshot) (map[string]string, error) {
	t.Helper()
	dir := t.TempDir()
	store, err := badgerstore.Open(filepath.Join(dir, "store"), badgerstore.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	blobs, err := blob.OpenAbove(durable.OS, filepath.Join(dir, "blobs"), s.Manifest.Generation)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RestoreFiles(dir); err != nil {
		return nil, err
	}
	if err := s.Restore(t.Context(), Target{Store: store, Blobs: blobs}, quiet); err != nil {
		return nil, err
	}
	got := all(t, store, blobs)
	for _, f := range s.Manifest.Files {
		b, err := os.ReadFile(filepath.Join(dir, f.Path))
		if err != nil {
			t.Fatal(err)
		}
		got["file "+f.Path] = string(b)
	}
	return got, nil
}

// TestCopyIsOfOneMoment: what is committed, and what is deleted, while the copy
// is made changes nothing of it.
func TestCopyIsOfOneMoment(t *testing.T) {
	p := newPlace(t)
	want := all(t, p.store, p.blobs)
	want["file config.toml"], want["file keys/1.key"] = "node = \"jia\"\n", "sealed"
	var first queue.Ref
	for k := range want {
		if ref, ok := strings.CutPrefix(k, "blob "); ok {
			first = queue.Ref(ref)
		}
	}
	p.copy.Blobs = meddling{p.blobs, func() {
		p.put(40)
		p.must(p.blobs.Delete(t.Context(), first))
		p.must(p.store.Update(t.Context(), func(tx queue.Tx) error { return records.BlobOwners.Delete(tx, string(first)) }))
	}, new(bool)}
	s, err := Create(t.Context(), p.copy, filepath.Join(t.TempDir(), "repo"), quiet)
	p.must(err)
	p.must(s.Verify(t.Context(), quiet))
	got, err := restored(t, s)
	p.must(err)
	if !maps.Equal(got, want) {
		t.Errorf("%d rows, blobs and files came back of %d, or others", len(got), len(want))
	}
	if _, err := p.blobs.Open(t.Context(), first, 0); !errors.Is(err, queue.ErrNoBlob) {
		t.Errorf("what was deleted during the copy stayed: %v", err)
	}
}

// meddling changes the node once, between the pass over the rows and that over
// the blobs.
type meddling struct {
	*blob.Store
	change func()
	done   *bool
}

func (m meddling) Open(ctx context.Context, ref queue.Ref, off int64) (io.ReadCloser, error) {
	if !*m.done {
		*m.done = true
		m.change()
	}
	return m.Store.Open(ctx, ref, off)
}

// TestNextCopyTakesWhatIsNew: a blob is copied once; the newest copy counts.
func TestNextCopyTakesWhatIsNew(t *testing.T) {
	p := newPlace(t)
	repo := filepath.Join(t.TempDir(), "repo")
	var last Progress
	note := func(q Progress) { last = q }
	_, err := Create(t.Context(), p.copy, repo, note)
	p.must(err)
	if last.NewBlobs != 30 {
		t.Errorf("%d blobs were copied first, want 30", last.NewBlobs)
	}
	p.put(41)
	second, err := Create(t.Context(), p.copy, repo, note)
	p.must(err)
	if last.NewBlobs != 1 || last.Blobs != 31 {
		t.Errorf("%d of %d blobs were copied again, want 1 of 31", last.NewBlobs, last.Blobs)
	}
	if s, err := Open(repo); err != nil || s.Name != second.Name {
		t.Errorf("the newest is not found: %v", err)
	}
	if list, err := Snapshots(repo); err != nil || len(list) != 2 {
		t.Errorf("%d snapshots, %v", len(list), err)
	}
}

// TestUnfinishedCopyCountsForNothing: one without a manifest is never taken for
// a copy, and is in nobody's way.
func TestUnfinishedCopyCountsForNothing(t *testing.T) {
	p := newPlace(t)
	repo := filepath.Join(t.TempDir(), "repo")
	good := p.copy.Sign
	p.copy.Sign = func([]byte) ([]byte, error) { return nil, errors.New("the HSM is away") }
	if _, err := Create(t.Context(), p.copy, repo, quiet); err == nil {
		t.Fatal("a copy that was not signed")
	}
	if _, err := Open(repo); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("got %v", err)
	}
	p.copy.Sign = good
	s, err := Create(t.Context(), p.copy, repo, quiet)
	p.must(err)
	p.must(s.Verify(t.Context(), quiet))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Create(ctx, p.copy, repo, quiet); !errors.Is(err, context.Canceled) {
		t.Errorf("a copy that nobody waits for goes on: %v", err)
	}
}

// TestDamageIsNamed: whichever file of a repository is cut, changed or gone, a
// look at it says so, and nothing is restored.
func TestDamageIsNamed(t *testing.T) {
	p := newPlace(t)
	repo := filepath.Join(t.TempDir(), "repo")
	s, err := Create(t.Context(), p.copy, repo, quiet)
	p.must(err)
	var files []string
	seen := map[string]bool{}
	p.must(filepath.WalkDir(repo, func(path string, d fs.DirEntry, err error) error {
		kind := filepath.Base(filepath.Dir(filepath.Dir(path)))
		if err != nil || d.IsDir() || kind == "blobs" && seen[kind] { // one blob stands for all
			return err
		}
		seen[kind] = true
		files = append(files, path)
		return nil
	}))
	for _, name := range files {
		whole, err := os.ReadFile(name)
		p.must(err)
		flipped := bytes.Clone(whole)
		flipped[len(flipped)/2] ^= 1
		for what, bad := range map[string][]byte{"cut": whole[:len(whole)-1], "flipped": flipped, "longer": append(bytes.Clone(whole), 0), "gone": nil} {
			p.must(os.WriteFile(name, bad, 0o600))
			if what == "gone" {
				p.must(os.Remove(name))
			}
			damaged := func() error {
				s, err := Open(filepath.Join(repo, s.Name))
				if err != nil {
					return err
				}
				if err := s.Verify(t.Context(), quiet); err == nil {
					return nil
				}
				_, err = restored(t, s)
				return err
			}()
			if !errors.Is(damaged, ErrDamaged) && !errors.Is(damaged, ErrNoSnapshot) {
				t.Errorf("%s %s: %v", filepath.Base(name), what, damaged)
			}
		}
		p.must(os.WriteFile(name, whole, 0o600))
	}
	if len(files) < 6 {
		t.Errorf("only %v were tried", files)
	}
	p.must(s.Verify(t.Context(), quiet))
}

// TestNothingLeavesItsPlace: a manifest or a list that names paths is refused,
// and so is a repository that would be lost with the data directory.
func TestNothingLeavesItsPlace(t *testing.T) {
	p := newPlace(t)
	for _, repo := range []string{p.dir, filepath.Join(p.dir, "copies")} {
		if _, err := Create(t.Context(), p.copy, repo, quiet); err == nil {
			t.Errorf("%s was taken for a repository", repo)
		}
	}
	for _, path := range []string{"../x", "/etc/passwd", "a/../../x", "a//b", ""} {
		m := &Manifest{Type: manifestType, V: 1, Node: "jia", Files: []FilePart{{Path: path}}}
		b, err := strictjson.Marshal(m)
		p.must(err)
		if _, err := ParseManifest(b); !errors.Is(err, ErrDamaged) {
			t.Errorf("file %q: %v", path, err)
		}
	}
	sum := sm.Sum(nil)
	for _, ref := range []string{"../../etc/passwd", "g00000001-../../../x", "", "x"} {
		if _, _, err := parseBlobLine(fmt.Sprintf("%s 1 %s", ref, sum)); !errors.Is(err, ErrDamaged) {
			t.Errorf("blob %q: %v", ref, err)
		}
	}
	outside := filepath.Join(t.TempDir(), "secret")
	p.must(os.WriteFile(outside, []byte("secret"), 0o600))
	p.must(os.Symlink(outside, filepath.Join(p.dir, "link")))
	s, err := Create(t.Context(), p.copy, filepath.Join(t.TempDir(), "repo"), quiet)
	p.must(err)
	for _, f := range s.Manifest.Files {
		if f.Path == "link" {
			t.Error("a symbolic link was followed")
		}
	}
}

// ailing has a blob that cannot be opened, and one that breaks off while it is read.
type ailing struct {
	*blob.Store
	gone, broken queue.Ref
	err          error
}

func (a ailing) Open(ctx context.Context, ref queue.Ref, off int64) (io.ReadCloser, error) {
	if ref == a.gone {
		return nil, a.err
	}
	r, err := a.Store.Open(ctx, ref, off)
	if err == nil && ref == a.broken {
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(r, 10), iotest.ErrReader(syscall.EIO)), r}, nil
	}
	return r, err
}

// TestOneUnreadableBlob is named, and the copy has all the others. A directory of
// blobs that is away, or a repository that cannot be written, is another matter.
func TestOneUnreadableBlob(t *testing.T) {
	p := newPlace(t)
	sick := ailing{p.blobs, p.put(42), p.put(43), queue.ErrNoBlob}
	want := all(t, p.store, p.blobs)
	delete(want, "blob "+string(sick.gone))
	delete(want, "blob "+string(sick.broken))
	p.copy.Blobs = sick
	repo := filepath.Join(t.TempDir(), "repo")
	s, err := Create(t.Context(), p.copy, repo, quiet)
	p.must(err)
	p.must(s.Verify(t.Context(), quiet))
	named := []string{string(sick.gone), string(sick.broken)}
	slices.Sort(named)
	if !slices.Equal(slices.Sorted(slices.Values(s.Manifest.Missing)), named) || s.Manifest.Blobs.Count != 30 {
		t.Errorf("missing are %v of %d, want %v", s.Manifest.Missing, s.Manifest.Blobs.Count, named)
	}
	to := &adopted{}
	target, err := badgerstore.Open(filepath.Join(t.TempDir(), "store"), badgerstore.Options{Logger: slog.New(slog.DiscardHandler)})
	p.must(err)
	defer target.Close()
	p.must(s.Restore(t.Context(), Target{Store: target, Blobs: to}, quiet))
	for k := range want {
		if ref, is := strings.CutPrefix(k, "blob "); is && !slices.Contains(to.refs, queue.Ref(ref)) {
			t.Errorf("%s was not restored", ref)
		}
	}

	p.copy.Blobs = p.blobs // the disk was mended
	again, err := Create(t.Context(), p.copy, repo, quiet)
	p.must(err)
	if len(again.Manifest.Missing) != 0 || again.Manifest.Blobs.Count != 32 {
		t.Errorf("the next copy misses %v", again.Manifest.Missing)
	}
	sick.err = blob.ErrNoRoot
	p.copy.Blobs = sick
	if _, err := Create(t.Context(), p.copy, filepath.Join(t.TempDir(), "other"), quiet); !errors.Is(err, blob.ErrNoRoot) {
		t.Errorf("without one of its directories: %v", err)
	}
	manifest := *s.Manifest
	manifest.Missing = []string{"../../etc/passwd"}
	b, err := strictjson.Marshal(&manifest)
	p.must(err)
	if _, err := ParseManifest(b); !errors.Is(err, ErrDamaged) {
		t.Errorf("a path among what is missing: %v", err)
	}
}

// adopted notes what is restored.
type adopted struct{ refs []queue.Ref }

func (a *adopted) Adopt(_ context.Context, ref queue.Ref, r io.Reader) error {
	a.refs = append(a.refs, ref)
	_, err := io.Copy(io.Discard, r)
	return err
}

// FuzzParseManifest: one encoding, no path outside.
func FuzzParseManifest(f *testing.F) {
	m := &Manifest{
		Type: manifestType, V: 1, Domain: "示范域", Node: "jia", Ledger: "01M83PPH002YTM2KNSQ5VBQFG2", Size: 3,
		Rows: Part{Count: 1, Size: 9}, Files: []FilePart{{Path: "config.toml", Size: 3}},
	}
	b, err := strictjson.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(bytes.Replace(b, []byte("config.toml"), []byte("../x"), 1))
	m.Missing = []string{"g00000001-00000001"}
	lacking, err := strictjson.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(lacking)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("an error without a class: %v", err)
			}
			return
		}
		if again, err := strictjson.Marshal(m); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("parse then marshal gives %q, %v", again, err)
		}
		for _, f := range m.Files {
			if !filepath.IsLocal(f.Path) {
				t.Fatalf("a path outside: %q", f.Path)
			}
		}
	})
}

// FuzzReadRows: rows within the limits of a store, or damage.
func FuzzReadRows(f *testing.F) {
	f.Add([]byte(rowsMagic + "\x00\x00\x00\x01\x00\x00\x00\x02kvv" + "\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte(rowsMagic + "\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.NewReader(b)
		for {
			kv, err := readRow(in)
			if err != nil {
				if !errors.Is(err, ErrDamaged) {
					t.Fatalf("an error without a class: %v", err)
				}
				return
			}
			if kv.Key == nil {
				return
			}
			if len(kv.Key) > queue.MaxKey || len(kv.Value) > queue.MaxValue {
				t.Fatal("a row beyond the limits")
			}
		}
	})
}

// TestARepositoryIsOfOneLife: copies of another node, or of a life of this one that a
// restore has ended, are not mixed with those that come.
func TestARepositoryIsOfOneLife(t *testing.T) {
	p := newPlace(t)
	repo := filepath.Join(t.TempDir(), "repo")
	s, err := Create(t.Context(), p.copy, repo, quiet)
	p.must(err)
	if s.Generation() != s.Manifest.Generation {
		t.Errorf("generation %d of %d", s.Generation(), s.Manifest.Generation)
	}
	other := p.copy
	other.Node = "yi"
	if _, err := Create(t.Context(), other, repo, quiet); err == nil {
		t.Error("the copies of two nodes are in one repository")
	}
	// The same references again, with other bytes.
	twin := newPlace(t)
	twin.clock = twin.clock.Add(time.Hour)
	if _, err := Create(t.Context(), twin.copy, repo, quiet); !errors.Is(err, ErrOtherBytes) {
		t.Errorf("another life: %v", err)
	}
	// What is damaged here since is taken from the earlier copy.
	files, err := filepath.Glob(filepath.Join(p.dir, "blobs", "*", "*"))
	p.must(err)
	spoilt := 0
	for _, name := range files {
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() && info.Size() > 1<<20 && !strings.Contains(name, "segment") {
			p.must(os.Remove(name))
			spoilt++
			break
		}
	}
	again, err := Create(t.Context(), p.copy, repo, quiet)
	p.must(err)
	p.must(again.Verify(t.Context(), quiet))
	if spoilt == 0 {
		t.Error("no file was taken away")
	}
}
