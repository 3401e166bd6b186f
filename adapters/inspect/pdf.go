package inspect

import (
	"bytes"
	"compress/zlib"
	"errors"
	"io"
	"strconv"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// A PDF is judged by what it names, not rendered. The whole file is searched for
// the names of what would run or unfold (they are too long to occur in packed
// data by chance), and so are its object streams, where such names can be packed.
// What is encrypted cannot be searched and may not pass.

const (
	pdfTail = 2048 // %%EOF and startxref are in the last bytes
	pdfDict = 4096 // of a stream's dictionary before its data
)

// active are the names that make a PDF more than paper.
var active = map[string]string{
	"JavaScript": "a script", "Launch": "the start of a program", "EmbeddedFile": "an embedded file",
	"EmbeddedFiles": "embedded files", "RichMedia": "rich media",
}

func (l *look) pdf(r io.ReaderAt, size int64) error {
	if err := l.pdfFrame(r, size); err != nil {
		return err
	}
	var packed []int64
	err := findNames(io.NewSectionReader(r, 0, size), func(name string, at int64) error {
		if name == "ObjStm" {
			if packed = append(packed, at); len(packed) > l.Entries {
				return refuse(exchange.CodeContentTooLarge, "a PDF with more than %d object streams", l.Entries)
			}
		}
		if name == "Encrypt" {
			return refuse(exchange.CodeContentHidden, "a PDF that is encrypted")
		}
		return pdfName(name)
	})
	for _, at := range packed {
		if err == nil {
			err = l.objectStream(r, size, at)
		}
	}
	return err
}

func pdfName(name string) error {
	if what := active[name]; what != "" {
		return refuse(exchange.CodeContentActive, "a PDF with %s", what)
	}
	return nil
}

// pdfFrame looks for the end that a reader starts from, and for what it points to.
func (l *look) pdfFrame(r io.ReaderAt, size int64) error {
	tail := make([]byte, min(size, pdfTail))
	if _, err := r.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	end := bytes.LastIndex(tail, []byte("%%EOF"))
	start := bytes.LastIndex(tail, []byte("startxref"))
	if start < 0 || end < start {
		return refuse(exchange.CodeContentDamaged, "a PDF without an end: it was cut short")
	}
	at, err := strconv.ParseInt(string(bytes.TrimSpace(tail[start+len("startxref"):end])), 10, 64)
	if err != nil || at <= 0 || at >= size {
		return refuse(exchange.CodeContentDamaged, "a PDF whose end points nowhere")
	}
	table := make([]byte, min(size-at, 32))
	if _, err := r.ReadAt(table, at); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if table = bytes.TrimLeft(table, "\x00\t\n\f\r "); !bytes.HasPrefix(table, []byte("xref")) && !startsObject(table) {
		return refuse(exchange.CodeContentDamaged, "a PDF whose end points to no table")
	}
	return nil
}

// startsObject: "12 0 obj", as a table that is an object begins.
func startsObject(b []byte) bool {
	f := bytes.Fields(b)
	if len(f) < 3 || !bytes.HasPrefix(f[2], []byte("obj")) {
		return false
	}
	_, e1 := strconv.ParseUint(string(f[0]), 10, 32)
	_, e2 := strconv.ParseUint(string(f[1]), 10, 32)
	return e1 == nil && e2 == nil
}

// objectStream unpacks one object stream and searches it.
func (l *look) objectStream(r io.ReaderAt, size, at int64) error {
	from := max(0, at-pdfDict)
	b := make([]byte, min(size-from, at-from+pdfDict))
	if _, err := r.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	here := int(at - from)
	begin := bytes.LastIndex(b[:here], []byte("obj"))
	data := bytes.Index(b[here:], []byte("stream"))
	if begin < 0 || data < 0 {
		return nil // the name alone, not the head of a stream
	}
	dict := normalNames(b[begin : here+data])
	body := from + int64(here+data+len("stream"))
	filters := bytes.Count(dict, []byte("Decode"))
	switch {
	case filters == 0:
		return nil // it lay open
	case filters > 1 || !bytes.Contains(dict, []byte("/FlateDecode")):
		return refuse(exchange.CodeContentHidden, "a PDF with objects packed in a way that is not looked into")
	}
	return l.inflate(io.NewSectionReader(r, body, size-body))
}

// inflate unpacks and searches the data of a stream. A line's end is before it.
func (l *look) inflate(s *io.SectionReader) error {
	lead := make([]byte, 2)
	n, err := io.ReadFull(s, lead)
	if err != nil {
		return damagedBy(err, "a PDF with an object stream that is cut short")
	}
	skip := n - len(bytes.TrimLeft(lead, "\r\n"))
	if _, err := s.Seek(int64(skip), io.SeekStart); err != nil {
		return err
	}
	z, err := zlib.NewReader(s)
	if err != nil {
		return damagedBy(err, "a PDF with an object stream that cannot be unpacked")
	}
	defer z.Close()
	m := &counted{r: io.LimitReader(z, l.unpacked+1)}
	err = findNames(m, func(name string, _ int64) error { return pdfName(name) })
	if l.unpacked -= m.n; l.unpacked < 0 {
		return refuse(exchange.CodeContentTooLarge, "a PDF whose objects unfold to more than %d bytes", l.Unpacked)
	}
	if err != nil {
		return damagedBy(err, "a PDF with an object stream that cannot be unpacked")
	}
	return nil
}

type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

// nameMost is how much of a name is kept: none that matters is longer.
const nameMost = 24

// findNames gives every name (/Name) of a stream of bytes and where it begins,
// with #xx written out: a reader knows /J#61vaScript as well.
func findNames(r io.Reader, each func(name string, at int64) error) error {
	var f nameFinder
	b := make([]byte, 64<<10)
	for off := int64(0); ; {
		n, err := r.Read(b)
		for i, c := range b[:n] {
			if name, at, ok := f.next(c, off+int64(i)); ok {
				if err := each(name, at); err != nil {
					return err
				}
			}
		}
		off += int64(n)
		if errors.Is(err, io.EOF) {
			if name, at, ok := f.next(' ', off); ok {
				return each(name, at)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

type nameFinder struct {
	inside bool
	at     int64
	name   []byte
	hex    []byte // after #
}

// next takes one byte and gives the name that it ends.
func (f *nameFinder) next(c byte, off int64) (name string, at int64, ok bool) {
	if f.inside && !ends(c) {
		f.add(c)
		return "", 0, false
	}
	if f.inside && len(f.name) > 0 {
		name, at, ok = string(f.name), f.at, true
	}
	f.inside, f.at, f.name, f.hex = c == '/', off, f.name[:0], nil
	return name, at, ok
}

func (f *nameFinder) add(c byte) {
	switch {
	case f.hex != nil:
		if f.hex = append(f.hex, c); len(f.hex) < 2 {
			return
		}
		v, err := strconv.ParseUint(string(f.hex), 16, 8)
		f.hex = nil
		if err != nil {
			v = '#'
		}
		c = byte(v)
	case c == '#':
		f.hex = []byte{}
		return
	}
	if len(f.name) <= nameMost { // one too long is none of those looked for
		f.name = append(f.name, c)
	}
}

// ends says whether a byte cannot be in a name.
func ends(c byte) bool {
	return bytes.IndexByte([]byte("\x00\t\n\f\r ()<>[]{}/%"), c) >= 0
}

// normalNames writes the names of a dictionary out, so that they can be looked for.
func normalNames(b []byte) []byte {
	var out []byte
	_ = findNames(bytes.NewReader(b), func(name string, _ int64) error { // reads memory, refuses nothing
		out = append(append(out, '/'), name...)
		out = append(out, ' ')
		return nil
	})
	return out
}
