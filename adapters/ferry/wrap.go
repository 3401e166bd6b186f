package ferry

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"

	"github.com/yizhan-gateway/yizhan/exchange/link"
)

// Gates that look at what is in a file let few kinds pass. A wrapping makes bundles
// look like one of them; it protects nothing and is believed in nothing. Which one a
// file has is told by its first bytes, never by its name, whatever is configured here.
const (
	WrapNone = "none" // bundles as they are
	WrapZip  = "zip"  // an archive of one entry, not compressed
	WrapXML  = "xml"  // base64 in elements of half a MiB, which every parser takes
	WrapText = "text" // base64 in lines, for gates that know text alone or change line ends
)

// Wrappings are those that there are, the one that costs least first.
func Wrappings() []string { return []string{WrapNone, WrapZip, WrapXML, WrapText} }

const (
	lineBytes    = 57       // that make a line of 76 characters
	elementLines = 8192     // lines of one element
	maxPreamble  = 1024     // bytes in front of the root element
	maxTag       = 128      // bytes of a tag
	zipHead      = 30       // bytes of a local header without its names
	zipEnd       = 22       // bytes of the record at the end, without a comment
	maxZipNames  = 2 * 1024 // bytes of a name and of the extra fields behind it

	textBegin = "-----BEGIN YIZHAN BUNDLES-----"
	textEnd   = "-----END YIZHAN BUNDLES-----"
	xmlHead   = `<?xml version="1.0" encoding="UTF-8"?>` + "\n<yizhan-bundles>\n"
	xmlRoot   = "<yizhan-bundles>"
	xmlEnd    = "</yizhan-bundles>"
	byteOrder = "\xef\xbb\xbf" // some gates put it in front of text
)

// wrapRoom is how many bytes of bundles go into a file of a size.
func wrapRoom(wrap string, size int64) int64 {
	switch wrap {
	case WrapZip:
		return size - 512
	case WrapXML, WrapText: // four characters for three bytes, line ends, tags
		return (size-1024)/78*lineBytes - size/1000
	}
	return size
}

// wrapped gives what writes a file's bundles in a wrapping. It may call write twice,
// which writes the same each time.
func wrapped(wrap, name string, write func(io.Writer) error) func(io.Writer) error {
	switch wrap {
	case WrapZip:
		return func(w io.Writer) error { return writeZip(w, name, write) }
	case WrapXML:
		return func(w io.Writer) error {
			return writeLines(w, xmlHead, "<data>\n", "</data>\n", xmlEnd+"\n", write)
		}
	case WrapText:
		return func(w io.Writer) error { return writeLines(w, textBegin+"\n", "", "", textEnd+"\n", write) }
	}
	return write
}

// writeZip knows size and checksum before the first byte: gates that look into
// archives know no entry whose size comes behind it.
func writeZip(w io.Writer, name string, write func(io.Writer) error) error {
	sum := &sized{sum: crc32.NewIEEE()}
	if err := write(sum); err != nil {
		return err
	}
	z := zip.NewWriter(w)
	h := &zip.FileHeader{Name: name, Method: zip.Store, CRC32: sum.sum.Sum32(), CompressedSize64: sum.n, UncompressedSize64: sum.n}
	h.ModifiedDate = 40<<9 | 1<<5 | 1 //nolint:staticcheck // CreateRaw writes these fields, and no other date: 2020-01-01
	entry, err := z.CreateRaw(h)
	if err == nil {
		err = write(entry)
	}
	if err != nil {
		return err
	}
	return z.Close()
}

type sized struct {
	sum hash.Hash32
	n   uint64
}

func (s *sized) Write(p []byte) (int, error) {
	s.n += uint64(len(p))
	return s.sum.Write(p)
}

// lines writes base64, some lines at a time between an opening and a closing tag.
type lines struct {
	w           *bufio.Writer
	open, close string
	rest        []byte
	n           int
}

func writeLines(w io.Writer, head, openTag, closeTag, tail string, write func(io.Writer) error) error {
	l := &lines{w: bufio.NewWriterSize(w, 64<<10), open: openTag, close: closeTag}
	_, _ = l.w.WriteString(head) // Flush gives the error
	if err := write(l); err != nil {
		return err
	}
	if len(l.rest) > 0 {
		l.line(l.rest)
	}
	if l.n > 0 {
		_, _ = l.w.WriteString(closeTag)
	}
	_, _ = l.w.WriteString(tail)
	return l.w.Flush()
}

func (l *lines) Write(p []byte) (int, error) {
	n := len(p)
	if len(l.rest) > 0 {
		take := min(len(p), lineBytes-len(l.rest))
		l.rest, p = append(l.rest, p[:take]...), p[take:]
		if len(l.rest) < lineBytes {
			return n, nil
		}
		l.line(l.rest)
		l.rest = l.rest[:0]
	}
	for len(p) >= lineBytes {
		l.line(p[:lineBytes])
		p = p[lineBytes:]
	}
	l.rest = append(l.rest, p...)
	_, err := l.w.Write(nil)
	return n, err
}

func (l *lines) line(b []byte) {
	if l.n == elementLines {
		_, _ = l.w.WriteString(l.close)
		l.n = 0
	}
	if l.n == 0 {
		_, _ = l.w.WriteString(l.open)
	}
	l.n++
	var text [80]byte
	out := base64.StdEncoding.AppendEncode(text[:0], b)
	_, _ = l.w.Write(append(out, '\n'))
}

// ErrWrapping marks a file in a wrapping that is not as this program makes it.
var ErrWrapping = errors.New("ferry: a wrapping that is not as it is made here")

// unwrapper gives what is in a file. Inside is nil when the file is no wrapping. What
// it gives ends early where the wrapping is damaged or cut.
type unwrapper struct {
	wrap   string
	inside io.Reader
	ended  func() bool // the wrapping came to its end, asked when all was read
}

// parseWrapping tells by the first bytes of a file which wrapping it has.
func parseWrapping(r io.ReaderAt, size int64) (*unwrapper, error) {
	var buf [maxPreamble]byte
	n, err := r.ReadAt(buf[:min(size, maxPreamble)], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	head := bytes.TrimPrefix(buf[:n], []byte(byteOrder))
	skipped := int64(n - len(head))
	text := func(wrap string, from int) *unwrapper {
		f := &base64Filter{r: bufio.NewReaderSize(io.NewSectionReader(r, skipped+int64(from), size-skipped-int64(from)), 64<<10), xml: wrap == WrapXML}
		return &unwrapper{wrap, base64.NewDecoder(base64.StdEncoding, f), func() bool { return f.ended }}
	}
	switch at := bytes.Index(head, []byte(xmlRoot)); {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")) && skipped == 0:
		return parseZip(r, size)
	case bytes.HasPrefix(head, []byte(textBegin)):
		return text(WrapText, len(textBegin)), nil
	case at >= 0 && (at == 0 || bytes.HasPrefix(head, []byte("<?xml"))):
		return text(WrapXML, at+len(xmlRoot)), nil
	}
	return &unwrapper{wrap: WrapNone}, nil
}

// parseZip finds the only entry. Names in it mean nothing, and lead nowhere.
func parseZip(r io.ReaderAt, size int64) (*unwrapper, error) {
	var h [zipHead]byte
	if n, err := r.ReadAt(h[:], 0); n < zipHead {
		return nil, fmt.Errorf("%w: a zip archive of %d bytes (%w)", ErrWrapping, size, err)
	}
	le := binary.LittleEndian
	flags, method := le.Uint16(h[6:]), le.Uint16(h[8:])
	long, names := int64(le.Uint32(h[18:])), int64(le.Uint16(h[26:]))+int64(le.Uint16(h[28:]))
	switch {
	case method != zip.Store || le.Uint32(h[18:]) != le.Uint32(h[22:]):
		return nil, fmt.Errorf("%w: a zip archive whose entry is compressed", ErrWrapping)
	case flags&^0x0800 != 0: // names may be UTF-8
		return nil, fmt.Errorf("%w: a zip archive whose entry is encrypted or of unknown size", ErrWrapping)
	case names > maxZipNames || long == 1<<32-1:
		return nil, fmt.Errorf("%w: a zip archive with an entry of %d bytes and %d bytes of names", ErrWrapping, long, names)
	}
	at := zipHead + names
	return &unwrapper{WrapZip, io.NewSectionReader(r, min(at, size), min(long, max(0, size-at))), func() bool { return zipEnds(r, size, at+long) }}, nil
}

// zipEnds says whether a file is an archive of one entry up to its last byte.
func zipEnds(r io.ReaderAt, size, directory int64) bool {
	var e [zipEnd]byte
	if size < directory+zipEnd {
		return false
	}
	if n, _ := r.ReadAt(e[:], size-zipEnd); n < zipEnd {
		return false
	}
	le := binary.LittleEndian
	return string(e[:4]) == "PK\x05\x06" && le.Uint16(e[8:]) == 1 && le.Uint16(e[10:]) == 1 && le.Uint16(e[20:]) == 0 &&
		int64(le.Uint32(e[16:])) == directory && int64(le.Uint32(e[12:])) == size-zipEnd-directory
}

// endsWell looks at the last bytes of a file alone: whether it may be whole.
func (u *unwrapper) endsWell(r io.ReaderAt, size int64) bool {
	switch u.wrap {
	case WrapNone:
		return link.EndsLikeABundle(r, size)
	case WrapZip:
		return u.ended()
	}
	end := map[string]string{WrapXML: xmlEnd, WrapText: textEnd}[u.wrap]
	var tail [64]byte
	n, _ := r.ReadAt(tail[:], max(0, size-int64(len(tail))))
	return bytes.HasSuffix(bytes.TrimRight(tail[:n], " \t\r\n"), []byte(end))
}

// base64Filter lets the characters of base64 through, and ends at the end of the
// wrapping or at the first thing that is none of its own.
type base64Filter struct {
	r      *bufio.Reader
	xml    bool
	inside bool // a <data> element
	ended  bool
	broken bool
}

func (f *base64Filter) Read(p []byte) (n int, err error) {
	for n < len(p) && !f.ended && !f.broken {
		if n > 0 && f.r.Buffered() == 0 {
			return n, nil
		}
		c, err := f.r.ReadByte()
		switch {
		case err != nil:
			return n, err
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
		case c == '<' && f.xml:
			f.tag()
		case c == '-' && !f.xml:
			f.mark()
		case f.xml && !f.inside || !isBase64(c):
			f.broken = true
		default:
			p[n] = c
			n++
		}
	}
	if n == 0 {
		err = io.EOF
	}
	return n, err
}

func isBase64(c byte) bool {
	return 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '+' || c == '/' || c == '='
}

// tag reads a tag behind its first character.
func (f *base64Filter) tag() {
	tag := []byte{'<'}
	for len(tag) < maxTag {
		c, err := f.r.ReadByte()
		if err != nil {
			return
		}
		if tag = append(tag, c); c == '>' {
			break
		}
	}
	switch {
	case string(tag) == "<data>" && !f.inside:
		f.inside = true
	case string(tag) == "</data>" && f.inside:
		f.inside = false
	case string(tag) == xmlEnd && !f.inside:
		f.ended = true
	default:
		f.broken = true
	}
}

// mark reads the last line of a text behind its first character.
func (f *base64Filter) mark() {
	rest := make([]byte, len(textEnd)-1)
	n, _ := io.ReadFull(f.r, rest)
	f.ended = string(rest[:n]) == textEnd[1:]
	f.broken = !f.ended
}

// known says whether a word names a wrapping; none is the empty one.
func known(wrap string) bool { return wrap == "" || slices.Contains(Wrappings(), wrap) }
