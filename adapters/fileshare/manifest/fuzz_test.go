package manifest

import (
	"bytes"
	"errors"
	"os"
	"testing"
)

// FuzzOpen: whatever a list is made of, it is read twice the same, or refused with a
// code; nothing that cannot be a text comes out.
func FuzzOpen(f *testing.F) {
	workbook, err := os.ReadFile("testdata/list.xlsx")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(0), []byte(sheet))
	f.Add(uint8(0), gbk(f, sheet))
	f.Add(uint8(2), workbook)
	f.Add(uint8(2), made(f, sheetXML("")))
	f.Add(uint8(3), []byte(`<a><b><标题>x</标题><正文>y</正文></b></a>`))
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		if kind == 4 { // the sheet of a workbook, so that the zip does not hide it
			kind, b = 2, made(t, string(b))
		}
		table, err := Open("list"+Kinds[int(kind)%len(Kinds)], b)
		if err != nil {
			wantFault(t, err)
			return
		}
		var first, second bytes.Buffer
		for _, out := range []*bytes.Buffer{&first, &second} {
			for r, err := range table.Rows() {
				if err != nil {
					wantFault(t, err)
					break
				}
				if _, err := Text([]byte(r.Cells())); err != nil {
					t.Fatalf("%q", r.Cells())
				}
				out.WriteString(r.Cells())
			}
		}
		if first.String() != second.String() {
			t.Fatal("two walks differ")
		}
	})
}

func wantFault(t *testing.T, err error) {
	t.Helper()
	var fault *Fault
	if !errors.As(err, &fault) || fault.Code == "" {
		t.Fatalf("%v has no code", err)
	}
}
