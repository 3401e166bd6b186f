package inspect

import (
	"archive/zip"
	"cmp"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// What a zip's list of entries may take, bytes: the library reads it whole and
// keeps several times as much in memory.
const maxZipList = 4 << 20

// maxName bounds the name of an entry, bytes.
const maxName = 512

// metered lets the library read so much and no more, since it believes the
// number of entries that a file claims.
type metered struct {
	io.ReaderAt
	left int64
}

func (m *metered) ReadAt(b []byte, off int64) (int, error) {
	if m.left -= int64(len(b)); m.left < 0 {
		return 0, refuse(exchange.CodeContentArchive, "a list of entries of more than %d bytes", maxZipList)
	}
	return m.ReaderAt.ReadAt(b, off)
}

// pack is a zip whose entries were all looked at.
type pack struct {
	*look
	size  int64
	files map[string]*zip.File // by name, without folders
}

// open reads a zip's list of entries and every entry once: what is claimed is
// bounded first, what comes out is bounded again while it comes.
func (l *look) open(r io.ReaderAt, size int64) (*pack, error) {
	meter := &metered{r, maxZipList}
	z, err := zip.NewReader(meter, size)
	if err != nil {
		return nil, damagedBy(err, "a zip whose list of entries is damaged")
	}
	meter.left = 1 << 62 // its entries have bounds of their own
	if l.entries -= len(z.File); l.entries < 0 {
		return nil, refuse(exchange.CodeContentArchive, "more than %d entries", l.Entries)
	}
	p := &pack{look: l, size: size, files: map[string]*zip.File{}}
	if err := p.names(z.File); err != nil {
		return nil, err
	}
	if err := p.claims(z.File); err != nil {
		return nil, err
	}
	for i, f := range z.File {
		if err := p.entry(i, f); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// names refuses names that would lead somewhere else when the zip is unpacked,
// and two that would end in one file.
func (p *pack) names(list []*zip.File) error {
	seen := map[string]bool{}
	for i, f := range list {
		if f.Flags&1 != 0 {
			return refuse(exchange.CodeContentHidden, "entry %d is encrypted", i)
		}
		if mode := f.Mode() & fs.ModeType; mode != 0 && mode != fs.ModeDir {
			return refuse(exchange.CodeContentArchive, "entry %d is a link or a device", i)
		}
		if !plainName(f.Name) {
			return refuse(exchange.CodeContentArchive, "the name of entry %d leads out of the archive", i)
		}
		same := strings.ToLower(strings.TrimSuffix(f.Name, "/"))
		if seen[same] {
			return refuse(exchange.CodeContentArchive, "two entries have the name of entry %d", i)
		}
		seen[same] = true
		if !strings.HasSuffix(f.Name, "/") {
			p.files[f.Name] = f
		}
	}
	return nil
}

// plainName says whether a name stays below the folder it is unpacked in, on
// any system.
func plainName(name string) bool {
	name = strings.TrimSuffix(name, "/")
	if name == "" || len(name) > maxName || strings.ContainsAny(name, "\\:") || name != path.Clean(name) || strings.HasPrefix(name, "/") {
		return false
	}
	for _, c := range []byte(name) {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return name != "." && name != ".." && !strings.HasPrefix(name, "../")
}

// claims refuses what an archive says that it will unfold to, and entries that
// share bytes: so a small file would unfold to a large one many times over.
func (p *pack) claims(list []*zip.File) error {
	type extent struct{ from, to int64 }
	var extents []extent
	total := uint64(0)
	for i, f := range list {
		if f.UncompressedSize64 > uint64(p.unpacked) || f.CompressedSize64 > uint64(p.size) {
			return refuse(exchange.CodeContentArchive, "entry %d says that it is larger than may be", i)
		}
		if total += f.UncompressedSize64; total > uint64(p.unpacked) {
			return refuse(exchange.CodeContentArchive, "its entries unfold to more than %d bytes", p.Unpacked)
		}
		if f.UncompressedSize64 > 1<<20 && f.UncompressedSize64/max(f.CompressedSize64, 1) > uint64(p.Ratio) {
			return refuse(exchange.CodeContentArchive, "entry %d unfolds to more than %d times its size", i, p.Ratio)
		}
		if strings.HasSuffix(f.Name, "/") && f.UncompressedSize64 > 0 {
			return refuse(exchange.CodeContentArchive, "entry %d is a folder with content", i)
		}
		from, err := f.DataOffset()
		if err != nil {
			return damagedBy(err, "entry %d is not where the list says", i)
		}
		extents = append(extents, extent{from, from + int64(f.CompressedSize64)})
	}
	slices.SortFunc(extents, func(a, b extent) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
	for i := 1; i < len(extents); i++ {
		if extents[i].from < extents[i-1].to {
			return refuse(exchange.CodeContentArchive, "its entries overlap")
		}
	}
	return nil
}

// entry reads one entry to its end, which also checks its sum.
func (p *pack) entry(i int, f *zip.File) error {
	if strings.HasSuffix(f.Name, "/") {
		return nil
	}
	r, err := f.Open()
	if err != nil {
		return damagedBy(err, "entry %d cannot be unpacked", i)
	}
	defer r.Close()
	head := make([]byte, headSize)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return damagedBy(err, "entry %d is damaged", i)
	}
	head = head[:n]
	if what := executable(head); what != "" {
		return refuse(exchange.CodeContentActive, "entry %d is a program (%s)", i, what)
	}
	if isArchive(head) {
		return refuse(exchange.CodeContentArchive, "entry %d is an archive of a kind that is not looked into", i)
	}
	if strings.HasPrefix(string(head), magicZip) {
		return p.nested(i, head, r, f)
	}
	rest, err := io.Copy(io.Discard, io.LimitReader(r, p.unpacked-int64(n)+1))
	if err != nil {
		return damagedBy(err, "entry %d is damaged", i)
	}
	return p.spend(int64(n) + rest)
}

func (p *pack) spend(n int64) error {
	if p.unpacked -= n; p.unpacked < 0 {
		return refuse(exchange.CodeContentArchive, "its entries unfold to more than %d bytes", p.Unpacked)
	}
	return nil
}

// nested looks into a zip within a zip, whose bytes are held in memory.
func (p *pack) nested(i int, head []byte, r io.Reader, f *zip.File) error {
	if p.depth++; p.depth > p.Nesting {
		return refuse(exchange.CodeContentArchive, "archives within archives, deeper than %d", p.Nesting)
	}
	defer func() { p.depth-- }()
	if f.UncompressedSize64 > uint64(p.Nested) {
		return refuse(exchange.CodeContentArchive, "entry %d is an archive of more than %d bytes", i, p.Nested)
	}
	rest, err := io.ReadAll(io.LimitReader(r, p.Nested-int64(len(head))+1))
	if err != nil {
		return damagedBy(err, "entry %d is damaged", i)
	}
	b := append(head, rest...)
	if err := p.spend(int64(len(b))); err != nil {
		return err
	}
	_, err = p.zipKind(strings.NewReader(string(b)), int64(len(b)))
	return err
}

// zipKind looks into a zip and says what it is.
func (l *look) zipKind(r io.ReaderAt, size int64) (string, error) {
	p, err := l.open(r, size)
	if err != nil {
		return "zip", err
	}
	switch {
	case p.files["Encryptions.xml"] != nil:
		return KindOFD, refuse(exchange.CodeContentHidden, "an OFD whose entries are encrypted")
	case p.files["OFD.xml"] != nil:
		return KindOFD, p.ofd()
	case p.files["[Content_Types].xml"] != nil:
		return KindOOXML, p.ooxml()
	}
	return "zip", refuse(exchange.CodeContentArchive, "a zip that is neither OFD nor an office document: send the files by themselves")
}

// ooxml refuses macros and what an office document would start.
func (p *pack) ooxml() error {
	for name := range p.files {
		switch base := strings.ToLower(path.Base(name)); {
		case base == "vbaproject.bin", base == "vbadata.xml":
			return refuse(exchange.CodeContentActive, "an office document with macros")
		case strings.Contains(strings.ToLower(name), "/activex/"), strings.Contains(strings.ToLower(name), "/embeddings/oleobject"):
			return refuse(exchange.CodeContentActive, "an office document with embedded controls or objects")
		case strings.HasSuffix(base, ".rels"):
			if err := p.relations(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// relations refuses what an office document would fetch and run from elsewhere.
// A link that a person follows is none of it.
func (p *pack) relations(name string) error {
	r, err := p.files[name].Open()
	if err != nil {
		return damagedBy(err, "an entry that cannot be unpacked")
	}
	defer r.Close()
	return p.walkXML(r, func(e *element) error {
		kind := strings.ToLower(path.Base(e.attr("Type")))
		if e.attr("TargetMode") == "External" && (kind == "attachedtemplate" || kind == "oleobject" || kind == "frame" || kind == "subdocument") {
			return refuse(exchange.CodeContentActive, "an office document that loads a %s from elsewhere", kind)
		}
		return nil
	})
}
