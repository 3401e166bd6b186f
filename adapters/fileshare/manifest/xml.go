package manifest

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxToken bounds a tag or a text of XML: the decoder keeps each as a whole.
const maxToken = 4 * MaxCell

// bounded ends an XML stream that is too long, or has a token that is.
type bounded struct {
	r     io.Reader
	left  int64
	token int
}

var errLong = errors.New("larger than may be read")

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p[:min(len(p), 4<<10)])
	if b.left -= int64(n); b.left < 0 {
		return 0, errLong
	}
	for _, c := range p[:n] {
		b.token++
		if c == '<' || c == '>' {
			b.token = 0
		}
		if b.token > maxToken {
			return 0, errLong
		}
	}
	return n, err
}

// scanner reads XML without DTDs, entities of its own, and other instructions.
type scanner struct {
	d     *xml.Decoder
	depth int
	most  int // elements in one another
}

// newScanner reads text that is UTF-8, whatever it says of itself.
func newScanner(r io.Reader, size int64, depth int) *scanner {
	d := xml.NewDecoder(&bounded{r: r, left: size})
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	return &scanner{d: d, most: depth}
}

// next gives start and end tags and texts; nil at the end.
func (s *scanner) next() (xml.Token, error) {
	for {
		t, err := s.d.Token()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		line, _ := s.d.InputPos()
		if err != nil {
			return nil, xmlFault(line, err)
		}
		switch t := t.(type) {
		case xml.Directive:
			return nil, fault(CodeXML, line, "a DTD or another directive")
		case xml.ProcInst:
			if t.Target != "xml" {
				return nil, fault(CodeXML, line, "a processing instruction")
			}
		case xml.StartElement:
			if s.depth++; s.depth > s.most {
				return nil, fault(CodeXML, line, "elements are nested more than %d deep", s.most)
			}
			return t, nil
		case xml.EndElement:
			s.depth--
			return t, nil
		case xml.CharData:
			return t, nil
		}
	}
}

func xmlFault(line int, err error) error {
	if errors.Is(err, errLong) {
		return fault(CodeTooLarge, line, "XML %v", errLong)
	}
	var syntax *xml.SyntaxError
	if errors.As(err, &syntax) {
		return fault(CodeXML, syntax.Line, "%s", syntax.Msg)
	}
	return fault(CodeXML, line, "%v", err)
}

// openXML reads a list whose root has an element for each document, with an element
// for each field: <清单><公文><标题>…</标题>…</公文></清单>. A field that comes again
// adds to it.
func openXML(b []byte) (*Table, error) {
	text, err := decode(b)
	if err != nil {
		return nil, err
	}
	t := &Table{}
	t.rows = func(yield func(*Row, error) bool) {
		l := &xmlList{scanner: newScanner(strings.NewReader(text), MaxSize*2, 3), t: t, row: new(Row)}
		l.walk(yield)
	}
	// The headings are those of the first documents; nothing else would be known
	// before all of it is read.
	n := 0
	for _, err := range t.Rows() {
		if n++; err != nil || n > captionRows {
			break
		}
	}
	if t.Headings[Body] == "" {
		for _, err := range t.Rows() {
			if err != nil {
				return nil, err
			}
			break
		}
		return nil, fault(CodeColumns, 0, "no document has an element %s", Body.Heading())
	}
	return t, nil
}

type xmlList struct {
	*scanner
	t     *Table
	row   *Row
	field Field
	name  string
	text  strings.Builder
}

func (l *xmlList) walk(yield func(*Row, error) bool) {
	for {
		token, err := l.next()
		if err != nil {
			yield(nil, err)
			return
		}
		switch token := token.(type) {
		case nil:
			return
		case xml.StartElement:
			l.start(token)
		case xml.CharData:
			if l.depth == 3 {
				l.text.Write(token)
			} else if strings.TrimSpace(string(token)) != "" && l.depth == 2 && l.row.Fault == nil {
				l.row.Fault = fault(CodeCell, l.row.Line, "text that is in no field")
			}
		case xml.EndElement:
			if l.depth == 2 {
				l.add()
			}
			if l.depth == 1 && !yield(l.row, nil) {
				return
			}
		}
	}
}

func (l *xmlList) start(e xml.StartElement) {
	line, _ := l.d.InputPos()
	switch l.depth {
	case 2:
		*l.row = Row{Line: line}
	case 3:
		l.text.Reset()
		l.name = e.Name.Local
		f, known := FieldOf(l.name)
		l.field = f
		if !known && len(l.t.Unknown) < MaxColumns && !contains(l.t.Unknown, l.name) {
			l.t.Unknown = append(l.t.Unknown, l.name)
		}
	}
}

// add ends a field.
func (l *xmlList) add() {
	s := strings.TrimSpace(l.text.String())
	if l.field == none || s == "" {
		return
	}
	if l.t.Headings[l.field] == "" {
		l.t.Headings[l.field] = l.name
	}
	if before := l.row.values[l.field]; before != "" {
		s = before + "\n" + s
	}
	if len(s) > MaxCell {
		s = ""
		l.row.Fault = &Fault{CodeCell, l.row.Line, l.name, fmt.Sprintf("more than %d bytes", MaxCell)}
	}
	l.row.values[l.field] = s
}

func contains(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}
