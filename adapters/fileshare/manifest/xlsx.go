package manifest

import (
	"archive/zip"
	"bytes"
	"encoding/xml"
	"errors"
	"path"
	"strconv"
	"strings"
)

// The bounds of a workbook, on top of those of a list. What a workbook claims of its
// sizes is not believed: it is read until a bound, and nothing is unfolded elsewhere.
const (
	maxEntries = 2000     // files in it
	maxStrings = 64 << 20 // bytes of XML with its texts
	maxSheet   = 256 << 20
	maxTexts   = 4 << 20
	maxSmall   = 4 << 20 // bytes of the XML that says which sheet is where
	sheetDepth = 12
)

// workbook is what of an XLSX file is kept in memory.
type workbook struct {
	files   map[string]*zip.File
	sheet   string // its path in the file
	base    bool   // dates count from 1904
	strings []string
	styles  []styleKind
}

func openWorkbook(b []byte) (*Table, error) {
	w := &workbook{files: map[string]*zip.File{}}
	if err := w.open(b); err != nil {
		return nil, err
	}
	for _, step := range []func() error{w.findSheet, w.readStrings, w.readStyles} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return grid(w.rows)
}

func (w *workbook) open(b []byte) error {
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return fault(CodeShape, 0, "this is no XLSX workbook")
	}
	if len(z.File) > maxEntries {
		return fault(CodeTooLarge, 0, "%d files in the workbook, at most %d are read", len(z.File), maxEntries)
	}
	for _, f := range z.File {
		name := strings.ToLower(strings.TrimPrefix(f.Name, "/"))
		if w.files[name] != nil {
			return fault(CodeShape, 0, "the workbook has a file twice")
		}
		w.files[name] = f
	}
	return nil
}

// walk reads the XML of one file in the workbook. visit says whether to go on.
func (w *workbook) walk(name string, size int64, visit func(s *scanner, t xml.Token) (bool, error)) error {
	f := w.files[strings.ToLower(name)]
	if f == nil {
		return fault(CodeShape, 0, "the workbook has no %s", path.Base(name))
	}
	r, err := f.Open()
	if err != nil {
		return fault(CodeShape, 0, "the workbook is damaged")
	}
	defer r.Close()
	s := newScanner(r, size, sheetDepth)
	for {
		t, err := s.next()
		if err != nil {
			var known *Fault
			if errors.As(err, &known) {
				known.Row = 0 // a line of the XML says nothing to anybody
			}
			return err
		}
		if t == nil {
			return nil
		}
		if more, err := visit(s, t); err != nil || !more {
			return err
		}
	}
}

func attribute(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// findSheet takes the first sheet that is not hidden.
func (w *workbook) findSheet() error {
	id := ""
	err := w.walk("xl/workbook.xml", maxSmall, func(_ *scanner, t xml.Token) (bool, error) {
		e, ok := t.(xml.StartElement)
		switch {
		case !ok:
		case e.Name.Local == "workbookPr":
			w.base = attribute(e, "date1904") == "1" || attribute(e, "date1904") == "true"
		case e.Name.Local == "sheet" && id == "" && (attribute(e, "state") == "" || attribute(e, "state") == "visible"):
			for _, a := range e.Attr { // r:id, beside sheetId
				if a.Name.Local == "id" {
					id = a.Value
				}
			}
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	err = w.walk("xl/_rels/workbook.xml.rels", maxSmall, func(_ *scanner, t xml.Token) (bool, error) {
		if e, ok := t.(xml.StartElement); ok && e.Name.Local == "Relationship" && id != "" && attribute(e, "Id") == id {
			w.sheet = attribute(e, "Target")
		}
		return true, nil
	})
	if err == nil && w.sheet == "" {
		err = fault(CodeShape, 0, "the workbook has no sheet that is to be seen")
	}
	if strings.HasPrefix(w.sheet, "/") {
		w.sheet = strings.TrimPrefix(w.sheet, "/")
	} else {
		w.sheet = path.Join("xl", w.sheet)
	}
	return err
}

// readStrings keeps the texts that cells refer to by number.
func (w *workbook) readStrings() error {
	if w.files["xl/sharedstrings.xml"] == nil {
		return nil
	}
	in := inText{}
	return w.walk("xl/sharedStrings.xml", maxStrings, func(_ *scanner, t xml.Token) (bool, error) {
		if e, ok := t.(xml.StartElement); ok && e.Name.Local == "si" {
			in.text.Reset()
		}
		in.see(t)
		if e, ok := t.(xml.EndElement); ok && e.Name.Local == "si" {
			if len(w.strings) == maxTexts {
				return false, fault(CodeTooLarge, 0, "more than %d texts in the workbook", maxTexts)
			}
			w.strings = append(w.strings, in.text.String())
		}
		return true, nil
	})
}

// inText gathers the text of a cell, whatever its runs; how it is spoken (rPh) is
// none of it.
type inText struct {
	text   strings.Builder
	in     bool
	spoken bool
}

func (i *inText) see(t xml.Token) {
	switch t := t.(type) {
	case xml.StartElement:
		i.spoken = i.spoken || t.Name.Local == "rPh"
		i.in = t.Name.Local == "t" && !i.spoken
	case xml.EndElement:
		if t.Name.Local == "rPh" {
			i.spoken = false
		}
		i.in = false
	case xml.CharData:
		if i.in {
			i.text.Write(t)
		}
	}
}

// rows walks over the sheet.
func (w *workbook) rows(yield func(int, []cell, error) bool) {
	s := &sheetRows{w: w, yield: yield}
	err := w.walk(w.sheet, maxSheet, s.see)
	if err != nil {
		yield(0, nil, err)
	}
}

type sheetRows struct {
	w     *workbook
	yield func(int, []cell, error) bool

	line  int
	row   []cell
	at    int    // the cell's column
	kind  string // its type
	style int
	value strings.Builder
	in    bool
	text  inText
}

func (s *sheetRows) see(_ *scanner, t xml.Token) (bool, error) {
	s.text.see(t)
	switch t := t.(type) {
	case xml.StartElement:
		return true, s.start(t)
	case xml.CharData:
		if s.in {
			s.value.Write(t)
		}
	case xml.EndElement:
		switch t.Name.Local {
		case "v":
			s.in = false
		case "c":
			s.end()
		case "row":
			return s.yield(s.line, s.row, nil), nil
		case "sheetData":
			return false, nil
		}
	}
	return true, nil
}

func (s *sheetRows) start(e xml.StartElement) error {
	switch e.Name.Local {
	case "row":
		s.line++
		if n, err := strconv.Atoi(attribute(e, "r")); err == nil {
			if n < s.line || n > 1<<21 {
				return fault(CodeShape, n, "the rows of the sheet are not in order")
			}
			s.line = n
		}
		s.row, s.at = s.row[:0], -1
	case "c":
		s.at++
		if r := attribute(e, "r"); r != "" {
			s.at = column(r)
		}
		if s.at < len(s.row) || s.at >= MaxColumns {
			return fault(CodeColumns, s.line, "at most %d columns are read, in their order", MaxColumns)
		}
		s.kind = attribute(e, "t")
		s.style, _ = strconv.Atoi(attribute(e, "s")) // absent or odd: the first style
		s.value.Reset()
		s.text.text.Reset()
	case "v":
		s.in = true
	}
	return nil
}

// column reads the letters of a cell's name: B7 is 1.
func column(r string) int {
	n := 0
	for _, c := range strings.ToUpper(r) {
		if c < 'A' || c > 'Z' || n > MaxColumns {
			break
		}
		n = n*26 + int(c-'A') + 1
	}
	return n - 1
}

// end gives the cell as a person sees it.
func (s *sheetRows) end() {
	for len(s.row) < s.at {
		s.row = append(s.row, cell{})
	}
	s.row = append(s.row, s.cell())
}

func (s *sheetRows) cell() cell {
	v := s.value.String()
	switch s.kind {
	case "s":
		n, err := strconv.Atoi(strings.TrimSpace(v))
		if err != nil || n < 0 || n >= len(s.w.strings) {
			return cell{bad: "the workbook has no such text: it is damaged"}
		}
		return cell{text: s.w.strings[n]}
	case "inlineStr":
		return cell{text: s.text.text.String()}
	case "str", "d":
		return cell{text: v}
	case "e":
		return cell{bad: "the formula has an error: " + v}
	case "b":
		return cell{text: v}
	}
	return s.w.number(v, s.style)
}
