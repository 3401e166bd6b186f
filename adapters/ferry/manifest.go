package ferry

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/link"
)

// Manifest lists the files of one round, for the courier and for whoever looks for a
// document on a medium. It names documents by their ids alone. Nobody signs it, and
// nothing is decided by it: what a file is worth, its bundles say.
type Manifest struct {
	Version int            `json:"version"`
	Link    string         `json:"link"`
	From    string         `json:"from"`
	To      string         `json:"to"`
	Round   uint64         `json:"round"`
	At      time.Time      `json:"at"`
	Files   []ManifestFile `json:"files"`
}

// ManifestFile is one file. Unnamed counts the documents that the list had no room for.
type ManifestFile struct {
	File    string             `json:"file"`
	Bytes   int64              `json:"bytes"`
	SHA256  string             `json:"sha256"`
	SM3     string             `json:"sm3"`
	Bundles []link.FiledBundle `json:"bundles"`
	Unnamed int                `json:"unnamed,omitempty"`
}

// The bounds of lists.
const (
	maxManifest  = 16 << 20 // bytes of one that is read
	maxManifests = 64       // of one medium
	maxListed    = 20_000   // files of one
	maxAmiss     = 100      // files that are named as missing or changed
)

func (s *Spool) newManifest() *Manifest {
	return &Manifest{Version: 1, Link: s.f.Link(), From: s.c.From, To: s.c.To, At: s.now().UTC().Truncate(time.Second), Files: []ManifestFile{}}
}

// sums are the digests of a file while it is written.
type sums struct {
	sha, sm3 hash.Hash
	n        int64
}

func newSums() *sums { return &sums{sha256.New(), sm.New(), 0} }

func (s *sums) reset() {
	s.sha.Reset()
	s.sm3.Reset()
	s.n = 0
}

// Write is as fast as SM3 alone, which takes several times as long as SHA-256.
func (s *sums) Write(p []byte) (int, error) {
	s.n += int64(len(p))
	if len(p) < besidePiece {
		_, _ = s.sha.Write(p) // digests take all
		return s.sm3.Write(p)
	}
	var beside sync.WaitGroup
	beside.Go(func() { _, _ = s.sha.Write(p) })
	n, err := s.sm3.Write(p)
	beside.Wait()
	return n, err
}

// besidePiece is from how many bytes on it pays to do several things with them at once.
const besidePiece = 64 << 10

// summing writes a file while it takes the digests of it.
type summing struct {
	w   io.Writer
	sum *sums
}

func (s summing) Write(p []byte) (n int, err error) {
	var beside sync.WaitGroup
	beside.Go(func() { n, err = s.w.Write(p) })
	_, _ = s.sum.Write(p)
	beside.Wait()
	return n, err
}

func (s *sums) entry(name string) ManifestFile {
	return ManifestFile{
		File: name, Bytes: s.n, Bundles: []link.FiledBundle{},
		SHA256: hex.EncodeToString(s.sha.Sum(nil)), SM3: hex.EncodeToString(s.sm3.Sum(nil)),
	}
}

// fill says what is in the files. One that was written and not noted, because
// something failed in between, has no more than its digests.
func (m *Manifest) fill(got *link.Exported) {
	m.Round = got.Round
	for i, filed := range got.Filed {
		if i < len(m.Files) && filed.Bundles != nil {
			m.Files[i].Bundles, m.Files[i].Unnamed = filed.Bundles, filed.Documents
		}
	}
}

// name has the mark of the link's files in it: a medium may carry several links.
func (m *Manifest) name() string {
	mark, _, _ := strings.Cut(m.Files[0].File, "-")
	return fmt.Sprintf("manifest-%s-%06d", mark, m.Round)
}

func (m *Manifest) writeOn(b berth) error {
	for ext, write := range map[string]func(io.Writer) error{".json": m.encode, ".txt": m.print} {
		if err := b.place(m.name()+ext, write); err != nil {
			return noRoom(err, b.to.full(""))
		}
	}
	return nil
}

func (m *Manifest) encode(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(m)
}

// Text is the list to be printed and signed.
func (m *Manifest) Text() string {
	var b bytes.Buffer
	_ = m.print(&b) // memory takes it
	return b.String()
}

func (m *Manifest) print(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "驿站介质交接单 · Yizhan carrier manifest\n\n")
	fmt.Fprintf(&b, "链路 link: %s    轮次 round: %d\n", m.Link, m.Round)
	fmt.Fprintf(&b, "自 from: %s    至 to: %s\n", m.From, m.To)
	fmt.Fprintf(&b, "时间 when: %s (UTC)\n", m.At.Format(time.DateTime))
	total := int64(0)
	for _, f := range m.Files {
		total += f.Bytes
	}
	fmt.Fprintf(&b, "文件数 files: %d    字节数 bytes: %d\n\n", len(m.Files), total)
	for i, f := range m.Files {
		fmt.Fprintf(&b, "%3d. %s  %d B\n     SHA-256 %s\n     SM3     %s\n", i+1, f.File, f.Bytes, f.SHA256, f.SM3)
		for _, one := range f.Bundles {
			fmt.Fprintf(&b, "     驿包 bundle %d (%d B)\n", one.Seq, one.Bytes)
			for _, id := range one.Documents {
				fmt.Fprintf(&b, "       公文 document %s\n", id)
			}
		}
		if f.Unnamed > 0 {
			fmt.Fprintf(&b, "     另有 and %d 份公文未列 documents that are not named\n", f.Unnamed)
		}
	}
	fmt.Fprintf(&b, "\n交接人 handed over by: ____________________    时间 when: ________________\n")
	fmt.Fprintf(&b, "承运人 carried by:     ____________________    时间 when: ________________\n")
	fmt.Fprintf(&b, "接收人 received by:    ____________________    时间 when: ________________\n")
	_, err := w.Write(b.Bytes())
	return err
}

// keepList keeps the list of a round with the node, where a gate never looks.
func (s *Spool) keepList(m *Manifest) error {
	root, err := os.OpenRoot(s.c.Lists)
	if err != nil {
		return err
	}
	defer root.Close()
	at := folder{root, s.c.Lists, "."}
	return errors.Join(berth{at, at, suffixed}.place(m.name()+".json", m.encode), prune(at, keptLists))
}

// ReadManifest gives the list of a round that a node has kept in a directory; of round
// 0 that of the last. It needs no running node.
func ReadManifest(dir string, round uint64) (*Manifest, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, exchange.Fail(exchange.CodeNotFound, "no file of this link was written here yet")
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	names, err := folder{root, dir, "."}.which(maxNames, func(name string) bool {
		return manifestName.MatchString(name) && (round == 0 || strings.HasSuffix(name, fmt.Sprintf("-%06d.json", round)))
	})
	if err != nil {
		return nil, err
	}
	var best *Manifest
	for _, name := range names {
		m, err := readManifest(root, name)
		if err != nil {
			return nil, err
		}
		if best == nil || m.At.After(best.At) || m.At.Equal(best.At) && m.Round > best.Round {
			best = m
		}
	}
	if best == nil {
		return nil, exchange.Fail(exchange.CodeNotFound, "no list of round %d; those of the newest %d that carried something are kept", round, keptLists)
	}
	return best, nil
}

var (
	manifestName = regexp.MustCompile(`^manifest-[0-9a-z]{1,32}-[0-9]{6,20}\.json$`)
	listedName   = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._-]{0,99}$`)
	digestText   = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

func readManifest(root *os.Root, name string) (*Manifest, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("ferry: the list %s is not a regular file", name)
	}
	f, err := openFile(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, err
	}
	return ParseManifest(b)
}

// ParseManifest reads a list. One that somebody else wrote may say what it likes: it
// leads to no file but those beside it.
func ParseManifest(b []byte) (*Manifest, error) {
	var m Manifest
	if len(b) > maxManifest {
		return nil, fmt.Errorf("ferry: a list of more than %d bytes", maxManifest)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("ferry: a list that cannot be read: %w", err)
	}
	if m.Version != 1 || len(m.Files) == 0 || len(m.Files) > maxListed {
		return nil, fmt.Errorf("ferry: a list of version %d with %d files", m.Version, len(m.Files))
	}
	for _, f := range m.Files {
		if !listedName.MatchString(f.File) || f.Bytes < 0 || !digestText.MatchString(f.SHA256) || !digestText.MatchString(f.SM3) {
			return nil, errors.New("ferry: a list with an impossible file")
		}
	}
	return &m, nil
}

// Compared says how the files of a medium stand to the lists on it.
type Compared struct {
	Lists      int      `json:"lists"`
	Unreadable int      `json:"unreadable"` // lists
	Missing    []string `json:"missing"`
	Changed    []string `json:"changed"`
}

// compare is only for people: files are taken whatever it finds.
func (s *Spool) compare(at folder) (*Compared, error) {
	names, err := at.which(maxNames, manifestName.MatchString)
	if err != nil {
		return nil, err
	}
	c, want := &Compared{Missing: []string{}, Changed: []string{}}, map[string]ManifestFile{}
	for _, name := range names[:min(len(names), maxManifests)] {
		m, err := readManifest(at.root, name)
		switch {
		case err != nil:
			c.Unreadable++
		case m.Link == s.f.Link() && m.To == s.c.From:
			c.Lists++
			for _, f := range m.Files[:min(len(m.Files), maxNames-len(want))] {
				want[f.File] = f
			}
		}
	}
	if c.Lists+c.Unreadable == 0 {
		return nil, nil
	}
	for _, name := range slices.Sorted(maps.Keys(want)) { // each is read once, whatever lists say
		if err := c.add(at, want[name]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Compared) add(at folder, want ManifestFile) error {
	info, err := at.root.Lstat(at.at(want.File))
	switch {
	case err != nil:
		c.Missing = noted(c.Missing, want.File)
		return nil
	case !info.Mode().IsRegular() || info.Size() != want.Bytes:
		c.Changed = noted(c.Changed, want.File)
		return nil
	}
	same, err := sameFile(at.root, at.at(want.File), &want)
	if errors.Is(err, errDenied) { // it counts among those that wait
		return nil
	}
	if err == nil && !same {
		c.Changed = noted(c.Changed, want.File)
	}
	return err
}

func noted(list []string, name string) []string {
	if len(list) >= maxAmiss {
		return list
	}
	return append(list, name)
}

func sameFile(root *os.Root, path string, want *ManifestFile) (bool, error) {
	f, err := openFile(root, path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	sum := newSums()
	if _, err := io.Copy(sum, io.LimitReader(f, want.Bytes+1)); err != nil {
		return false, err
	}
	got := sum.entry(want.File)
	return got.SHA256 == want.SHA256 && got.SM3 == want.SM3 && got.Bytes == want.Bytes, nil
}
