package inspect

import (
	"bytes"
	"errors"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// The kinds of files that may pass. Those from TIFF on are opaque: their first
// bytes are looked at and nothing else.
const (
	KindOFD    = "ofd"
	KindPDF    = "pdf"
	KindOOXML  = "ooxml" // docx, xlsx, pptx and what WPS writes as such
	KindPNG    = "png"
	KindJPEG   = "jpeg"
	KindText   = "text"
	KindXML    = "xml"
	KindTIFF   = "tiff"
	KindOLE    = "ole"    // doc, xls, ppt, wps, et, dps
	KindLegacy = "legacy" // ceb, gd and others of makers that publish no format
)

// facts say under which endings and media types a kind may come.
type facts struct{ endings, media []string }

var kinds = map[string]facts{
	KindOFD:  {[]string{".ofd"}, []string{"application/ofd", "application/vnd.ofd"}},
	KindPDF:  {[]string{".pdf"}, []string{"application/pdf", "application/x-pdf"}},
	KindPNG:  {[]string{".png"}, []string{"image/png"}},
	KindJPEG: {[]string{".jpg", ".jpeg", ".jpe"}, []string{"image/jpeg", "image/jpg", "image/pjpeg"}},
	KindTIFF: {[]string{".tif", ".tiff"}, []string{"image/tiff"}},
	KindText: {[]string{".txt", ".csv"}, []string{"text/plain", "text/csv"}},
	KindXML:  {[]string{".xml"}, []string{"text/xml", "application/xml"}},
	KindOOXML: {[]string{".docx", ".xlsx", ".pptx", ".wps", ".et", ".dps"}, []string{
		"application/vnd.openxmlformats-officedocument.wordprocessingml.document",
		"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
		"application/vnd.openxmlformats-officedocument.presentationml.presentation",
		"application/vnd.ms-works", "application/wps-office.docx", "application/wps-office.xlsx", "application/wps-office.pptx",
	}},
	KindOLE: {[]string{".doc", ".xls", ".ppt", ".wps", ".et", ".dps"}, []string{
		"application/msword", "application/vnd.ms-excel", "application/vnd.ms-powerpoint", "application/vnd.ms-works",
		"application/wps-office.doc", "application/wps-office.xls", "application/wps-office.ppt",
		"application/kswps", "application/kset", "application/ksdps",
	}},
	KindLegacy: {[]string{".ceb", ".cebx", ".gd", ".gw", ".sep", ".s2", ".s72", ".s92", ".s10"}, []string{"application/ceb", "application/x-ceb", "application/x-gd"}},
}

// Kinds lists all kinds that may pass.
func Kinds() []string { return slices.Sorted(maps.Keys(kinds)) }

// unspecific are media types that claim nothing.
var unspecific = []string{"", "application/octet-stream", "binary/octet-stream"}

// headSize is how much of a file tells its kind.
const headSize = 1024

func headOf(r io.ReaderAt, size int64) ([]byte, error) {
	b := make([]byte, min(size, headSize))
	n, err := r.ReadAt(b, 0)
	if n == len(b) || errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}

var programs = []struct{ magic, what string }{
	{"\x7fELF", "ELF"},
	{"\xfe\xed\xfa\xce", "Mach-O"}, {"\xfe\xed\xfa\xcf", "Mach-O"}, {"\xce\xfa\xed\xfe", "Mach-O"}, {"\xcf\xfa\xed\xfe", "Mach-O"},
	{"\xca\xfe\xba\xbe", "Java"},
	{"L\x00\x00\x00\x01\x14\x02\x00", "shortcut"},
	{"#!", "script"}, {"\xef\xbb\xbf#!", "script"},
}

// executable names the program that a file begins like; empty for none. A text
// may begin with MZ; a program has zeros in what follows.
func executable(head []byte) string {
	for _, p := range programs {
		if bytes.HasPrefix(head, []byte(p.magic)) {
			return p.what
		}
	}
	if bytes.HasPrefix(head, []byte("MZ")) && bytes.IndexByte(head[:min(len(head), 64)], 0) >= 0 {
		return "Windows"
	}
	return ""
}

// archives are packed files that are not looked into.
var archives = []string{
	"Rar!\x1a\x07", "7z\xbc\xaf\x27\x1c", "\x1f\x8b", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd", "MSCF", "\x1f\x9d", "LZIP",
}

func isArchive(head []byte) bool {
	for _, m := range archives {
		if bytes.HasPrefix(head, []byte(m)) {
			return true
		}
	}
	return len(head) > 262 && string(head[257:262]) == "ustar"
}

const (
	magicZip      = "PK\x03\x04"
	magicZipEmpty = "PK\x05\x06"
	magicOLE      = "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
)

var magics = []struct{ magic, kind string }{
	{"%PDF-", KindPDF}, {"\x89PNG\r\n\x1a\n", KindPNG}, {"\xff\xd8\xff", KindJPEG},
	{"II*\x00", KindTIFF}, {"MM\x00*", KindTIFF}, {magicOLE, KindOLE},
}

// kindOf finds out what a file is. The ending decides only among kinds that
// have no first bytes of their own.
func (l *look) kindOf(ending string, head []byte, r io.ReaderAt, size int64) (string, error) {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.kind, nil
		}
	}
	switch {
	case bytes.HasPrefix(head, []byte(magicZip)), bytes.HasPrefix(head, []byte(magicZipEmpty)):
		return l.zipKind(r, size)
	case isArchive(head):
		return "archive", refuse(exchange.CodeContentArchive, "an archive of a kind that is not looked into")
	}
	for _, kind := range []string{KindLegacy, KindXML, KindText} {
		if slices.Contains(kinds[kind].endings, ending) {
			return kind, nil
		}
	}
	return "unknown", refuse(exchange.CodeContentType, "its bytes are of no kind that may pass")
}

// fits compares what a file is with what it is said to be.
func (i *Inspector) fits(kind, name, media string) error {
	if len(i.Kinds) > 0 && !slices.Contains(i.Kinds, kind) {
		return refuse(exchange.CodeContentType, "files of kind %s may not pass here", kind)
	}
	// Marks that turn the direction of writing make a name read as another.
	if strings.ContainsAny(name, "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f") {
		return refuse(exchange.CodeContentType, "its name has marks that turn the direction of writing")
	}
	f := kinds[kind]
	if !slices.Contains(f.endings, path.Ext(strings.ToLower(name))) {
		return refuse(exchange.CodeContentType, "it is %s, and its name says otherwise", kind)
	}
	media, _, _ = strings.Cut(strings.ToLower(media), ";")
	media = strings.TrimSpace(media)
	if !slices.Contains(unspecific, media) && !slices.Contains(f.media, media) {
		return refuse(exchange.CodeContentType, "it is %s, and its declared type says otherwise", kind)
	}
	return nil
}

func (l *look) image(kind string, r io.ReaderAt, size int64) error {
	decode := png.DecodeConfig
	if kind == KindJPEG {
		decode = jpeg.DecodeConfig
	}
	c, err := decode(io.NewSectionReader(r, 0, size))
	if err != nil {
		return damagedBy(err, "its first bytes are those of an image, and no image follows")
	}
	return l.area(c)
}

func (l *look) area(c image.Config) error {
	if c.Width <= 0 || c.Height <= 0 || int64(c.Width) > l.Pixels/int64(c.Height) {
		return refuse(exchange.CodeContentTooLarge, "an image of %d × %d points, at most %d points are possible", c.Width, c.Height, l.Pixels)
	}
	return nil
}

// damagedBy is the verdict on a file that cannot be understood, unless it could
// not be read: what was cut short by that looks damaged, and is not.
func damagedBy(err error, detail string, args ...any) error {
	if s := (source{}); errors.As(err, &s) {
		return s
	}
	if r := (*refusal)(nil); errors.As(err, &r) {
		return r
	}
	return refuse(exchange.CodeContentDamaged, detail, args...)
}

// text is free of what no text holds. Which of the Chinese encodings it is in
// does not matter: all leave the control characters alone.
func (l *look) text(r io.ReaderAt, size int64) error {
	s := io.NewSectionReader(r, 0, size)
	b := make([]byte, 64<<10)
	for {
		n, err := s.Read(b)
		for _, c := range b[:n] {
			if c < ' ' && !strings.ContainsRune("\t\n\f\r", rune(c)) || c == 0x7f {
				return refuse(exchange.CodeContentType, "its name says that it is a text, and its bytes are not")
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
