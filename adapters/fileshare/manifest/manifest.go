// Package manifest reads the lists that lie beside the files of a share: which file is
// the body of which document, to whom it goes and what else there is to say of it. A
// list is a CSV file, a workbook (XLSX) or an XML file, in UTF-8 or GB18030, and has
// the headings that its agency gives it.
//
// What a list says is a stranger's until it was checked: everything is bounded before
// it is kept, text that cannot be decoded without loss is refused, a workbook is read
// without unfolding it, and XML has neither DTD nor entities of its own. A list is
// wrong as a whole when its shape is, and row by row otherwise.
package manifest

import (
	"fmt"
	"iter"
	"path"
	"strings"
	"unicode/utf8"
)

// The bounds of a list.
const (
	MaxSize    = 64 << 20 // bytes of the file
	MaxRows    = 1_000_000
	MaxColumns = 256
	MaxCell    = 64 << 10 // bytes
)

// Field is what a column says of a document.
type Field int

// The fields.
const (
	Title Field = iota
	Number
	To
	Cc
	Label
	LabelTerm
	Urgency
	DocType
	Kind
	WrittenOn
	Signatory
	SignedBy
	IssuerMark
	Body
	Attachments
	AttachmentNote
	DueAt
	Remark
	ReleaseScope
	Contact
	fields
)

// The codes of what is wrong with a list.
const (
	CodeEncoding = "manifest_encoding" // not UTF-8 or GB18030
	CodeTooLarge = "manifest_too_large"
	CodeShape    = "manifest_shape"   // not the file format it is named for
	CodeColumns  = "manifest_columns" // headings
	CodeXML      = "manifest_xml"     // DTD, entities, depth
	CodeCell     = "manifest_cell"    // one cell
)

// Fault is what is wrong, and where. Row counts from 1 as the program that made the
// list shows it, 0 is the whole list; Column is its heading. Detail is for the
// agency's own eyes: it may name what stands in a cell.
type Fault struct {
	Code   string
	Row    int
	Column string
	Detail string
}

// Error implements error.
func (f *Fault) Error() string {
	s := f.Code
	if f.Row > 0 {
		s += fmt.Sprintf(" in row %d", f.Row)
	}
	if f.Column != "" {
		s += ", column " + f.Column
	}
	return s + ": " + f.Detail
}

func fault(code string, row int, detail string, args ...any) *Fault {
	return &Fault{Code: code, Row: row, Detail: fmt.Sprintf(detail, args...)}
}

// Row is one document of a list. It is reused for the next one. A cell that cannot be
// what it says is empty and has a fault.
type Row struct {
	Line   int
	Fault  *Fault
	values [fields]string
}

// Get gives a cell without the space around it.
func (r *Row) Get(f Field) string { return r.values[f] }

// Set is for those who make rows of their own.
func (r *Row) Set(f Field, s string) { r.values[f] = s }

// Cells gives all cells, each followed by a zero byte: what the row says.
func (r *Row) Cells() string { return strings.Join(r.values[:], "\x00") }

func (r *Row) blank() bool {
	for _, v := range r.values {
		if v != "" {
			return false
		}
	}
	return r.Fault == nil
}

// Table is a list that was opened. Its rows can be walked over again and again.
type Table struct {
	Headings [fields]string // as they stand in the list; empty: there is no such column
	Unknown  []string       // headings that say nothing to us
	rows     func(yield func(*Row, error) bool)
}

// Kinds are the endings of files that may be lists.
var Kinds = []string{".csv", ".txt", ".xlsx", ".xml"}

// Open reads the headings of a list. The name tells what it is by its ending. A
// *Fault says what is wrong with it as a whole.
func Open(name string, b []byte) (*Table, error) {
	if len(b) > MaxSize {
		return nil, fault(CodeTooLarge, 0, "%d bytes, at most %d are read", len(b), MaxSize)
	}
	switch strings.ToLower(path.Ext(name)) {
	case ".csv", ".txt":
		return openCSV(b)
	case ".xlsx":
		return openWorkbook(b)
	case ".xml":
		return openXML(b)
	}
	return nil, fault(CodeShape, 0, "there are lists with the endings %s", strings.Join(Kinds, " "))
}

// Rows walks over the documents of the list. An error ends it and is of the whole
// list; a row that is wrong alone has a fault.
func (t *Table) Rows() iter.Seq2[*Row, error] {
	return func(yield func(*Row, error) bool) {
		n := 0
		t.rows(func(r *Row, err error) bool {
			if err != nil {
				return yield(nil, err)
			}
			if r.blank() {
				return true
			}
			if n++; n > MaxRows {
				yield(nil, fault(CodeTooLarge, r.Line, "more than %d rows", MaxRows))
				return false
			}
			return yield(r, nil)
		})
	}
}

// headings finds the columns of a row of headings.
func (t *Table) headings(line int, cells []string) (columns []Field, err error) {
	if len(cells) > MaxColumns {
		return nil, fault(CodeColumns, line, "%d columns, at most %d are read", len(cells), MaxColumns)
	}
	for _, heading := range cells {
		f, known := FieldOf(heading)
		if known && f != none && t.Headings[f] != "" {
			return nil, &Fault{CodeColumns, line, heading, fmt.Sprintf("%s says the same", t.Headings[f])}
		}
		if known && f != none {
			t.Headings[f] = heading
		}
		if !known {
			t.Unknown = append(t.Unknown, heading)
		}
		columns = append(columns, f)
	}
	if t.Headings[Body] == "" {
		return nil, &Fault{CodeColumns, line, "正文", "no column names the body file"}
	}
	return columns, nil
}

// looksLikeHeadings tells the row of headings from a caption above it.
func looksLikeHeadings(cells []string) bool {
	n := 0
	for _, c := range cells {
		if f, known := FieldOf(c); known && f != none {
			n++
		}
	}
	return n >= 2
}

// captionRows is how many rows may stand above the headings.
const captionRows = 10

// grid makes a table of rows of cells, whatever they come from.
func grid(cells func(yield func(line int, cells []cell, err error) bool)) (*Table, error) {
	t := &Table{}
	var columns []Field
	first, n := 0, 0
	var failed error
	cells(func(line int, row []cell, err error) bool {
		if err != nil {
			failed = err
			return false
		}
		texts := make([]string, len(row))
		for i, c := range row {
			texts[i] = c.text
		}
		if n++; !looksLikeHeadings(texts) {
			return n < captionRows
		}
		first = line
		columns, failed = t.headings(line, texts)
		return false
	})
	if failed != nil {
		return nil, failed
	}
	if columns == nil {
		return nil, fault(CodeColumns, 0, "none of the first %d rows has headings such as 标题, 主送 and 正文", captionRows)
	}
	t.rows = func(yield func(*Row, error) bool) {
		r := new(Row)
		cells(func(line int, row []cell, err error) bool {
			if err != nil {
				return yield(nil, err)
			}
			if line <= first {
				return true
			}
			r.fill(t, line, columns, row)
			return yield(r, nil)
		})
	}
	return t, nil
}

// cell is one of a grid. A text that is not to be trusted has a reason.
type cell struct{ text, bad string }

func (r *Row) fill(t *Table, line int, columns []Field, cells []cell) {
	*r = Row{Line: line}
	for i, c := range cells {
		if i >= len(columns) {
			if strings.TrimSpace(c.text) != "" && r.Fault == nil {
				r.Fault = fault(CodeCell, line, "there are more cells than headings: is a comma or a quote misplaced?")
			}
			continue
		}
		f := columns[i]
		if f == none {
			continue
		}
		r.values[f] = strings.TrimSpace(c.text)
		bad := c.bad
		if strings.ContainsRune(c.text, utf8.RuneError) {
			bad = "U+FFFD: the text was converted wrongly before"
		}
		if len(c.text) > MaxCell {
			bad = fmt.Sprintf("%d bytes, at most %d are read", len(c.text), MaxCell)
		}
		if bad != "" && r.Fault == nil {
			r.Fault = &Fault{CodeCell, line, t.Headings[f], bad}
		}
	}
}
