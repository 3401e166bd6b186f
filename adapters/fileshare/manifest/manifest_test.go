package manifest

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/text/encoding/simplifiedchinese"
)

func gbk(t testing.TB, s string) []byte {
	t.Helper()
	out, err := simplifiedchinese.GB18030.NewEncoder().Bytes([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// read gives the rows of a list as text.
func read(t *testing.T, name string, b []byte) (rows []string, err error) {
	t.Helper()
	table, err := Open(name, b)
	if err != nil {
		return nil, err
	}
	for r, err := range table.Rows() {
		if err != nil {
			return rows, err
		}
		s := fmt.Sprint(r.Line, ":", strings.Trim(strings.ReplaceAll(r.Cells(), "\x00", "|"), "|"))
		if r.Fault != nil {
			s += " " + r.Fault.Code
		}
		rows = append(rows, s)
	}
	return rows, nil
}

const sheet = "公文交换清单,,\r\n序号,标题（必填）,发文字号,主 送*,正文\r\n1,关于甲的通知,示〔2026〕1号,示范单位乙,甲.ofd\r\n,,,,\r\n2,\"带,逗号\n和换行\",,示范单位丙,乙.ofd\r\n"

// TestListsOfEveryKind say the same in every form and encoding.
func TestListsOfEveryKind(t *testing.T) {
	xml := `<?xml version="1.0" encoding="GB18030"?>` + "\n<清单>\n<公文><标题>关于甲的通知</标题><文号>示〔2026〕1号</文号><主送>示范单位乙</主送><正文>甲.ofd</正文></公文>\n" +
		"<公文><标题>带,逗号\n和换行</标题><主送>示范单位丙</主送><正文>乙.ofd</正文></公文>\n</清单>"
	workbook, err := os.ReadFile("testdata/list.xlsx")
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"utf8.csv": []byte(sheet), "bom.csv": []byte("\ufeff" + sheet), "gbk.csv": gbk(t, sheet), "tabs.txt": gbk(t, tabs(sheet)),
		"utf8.xml": []byte(xml), "gbk.xml": gbk(t, xml), "list.xlsx": workbook, "made.xlsx": made(t, sheetXML("")),
	} {
		rows, err := read(t, name, b)
		if err != nil || len(rows) != 2 {
			t.Errorf("%s: %q, %v", name, rows, err)
			continue
		}
		for i, want := range []string{":关于甲的通知|示〔2026〕1号|示范单位乙|||||||||||甲.ofd", ":带,逗号\n和换行||示范单位丙|||||||||||乙.ofd"} {
			if !strings.HasSuffix(rows[i], want) {
				t.Errorf("%s: row %q, want %q", name, rows[i], want)
			}
		}
	}
}

func tabs(s string) string {
	return strings.NewReplacer("\"带,逗号\n和换行\"", "\"带,逗号\n和换行\"", ",", "\t", "\"带\t", "\"带,").Replace(strings.Replace(s, "带,逗号", "带,逗号", 1))
}

// TestRowsAreThoseOfTheProgram: what is reported is the row that a person sees.
func TestRowsAreThoseOfTheProgram(t *testing.T) {
	for name, b := range map[string][]byte{"a.csv": []byte(sheet), "a.xlsx": made(t, sheetXML(""))} {
		rows, err := read(t, name, b)
		if err != nil || !strings.HasPrefix(rows[0], "3:") || !strings.HasPrefix(rows[1], "5:") {
			t.Errorf("%s: %q %v", name, rows, err)
		}
	}
}

// TestListsThatAreWrong each with its code, and the row where there is one.
func TestListsThatAreWrong(t *testing.T) {
	head := "标题,正文\n"
	deep := "<a>" + strings.Repeat("<b>", 100) + strings.Repeat("</b>", 100) + "</a>"
	for name, one := range map[string]struct {
		file string
		b    []byte
		code string
		row  int
	}{
		"UTF-16":             {"a.csv", []byte("\xff\xfe\x07\x68"), CodeEncoding, 0},
		"bytes of nothing":   {"a.csv", append([]byte(head), 0xb9, 0xff, '\n'), CodeEncoding, 2},
		"half converted":     {"a.csv", []byte(head + "\ufffd\ufffd,a.ofd\n"), CodeEncoding, 2},
		"a BOM that lies":    {"a.csv", append([]byte("\ufeff"+head), gbk(t, "标题甲,正文\n")...), CodeEncoding, 2},
		"zero bytes":         {"a.csv", []byte(head + "a\x00,b\n"), CodeEncoding, 2},
		"an open quote":      {"a.csv", []byte(head + "\"a,b\nc,d\n"), CodeShape, 2},
		"no headings":        {"a.csv", []byte("a,b\nc,d\n"), CodeColumns, 0},
		"nothing":            {"a.csv", nil, CodeColumns, 0},
		"no body":            {"a.csv", []byte("标题,主送\na,b\n"), CodeColumns, 1},
		"a field twice":      {"a.csv", []byte("正文,标题,公文标题\na,b,c\n"), CodeColumns, 1},
		"too many columns":   {"a.csv", []byte("标题,正文" + strings.Repeat(",", MaxColumns) + "\n"), CodeColumns, 1},
		"another ending":     {"a.doc", []byte(head), CodeShape, 0},
		"a DTD":              {"a.xml", []byte(`<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a><b><正文>&x;</正文></b></a>`), CodeXML, 1},
		"an entity":          {"a.xml", []byte(`<a><b><正文>&x;</正文></b></a>`), CodeXML, 1},
		"an instruction":     {"a.xml", []byte(`<?php x?><a><b><正文>x</正文></b></a>`), CodeXML, 1},
		"deep XML":           {"a.xml", []byte(deep), CodeXML, 1},
		"XML cut":            {"a.xml", []byte(`<a><b><正文>x</正文></b>`), CodeXML, 1},
		"an endless tag":     {"a.xml", []byte("<a><b><正文>" + strings.Repeat("x", maxToken+1) + "</正文></b></a>"), CodeTooLarge, 1},
		"no zip":             {"a.xlsx", []byte(head), CodeShape, 0},
		"an empty zip":       {"a.xlsx", zipped(t, nil), CodeShape, 0},
		"XXE in a workbook":  {"a.xlsx", made(t, `<!DOCTYPE x [<!ENTITY y SYSTEM "file:///etc/passwd">]>`+sheetXML("")), CodeXML, 0},
		"rows out of order":  {"a.xlsx", made(t, `<worksheet><sheetData><row r="5"/><row r="2"/></sheetData></worksheet>`), CodeShape, 2},
		"a column too far":   {"a.xlsx", made(t, `<worksheet><sheetData><row r="1"><c r="ZZZ1"/></row></sheetData></worksheet>`), CodeColumns, 1},
		"an entry that lies": {"a.xlsx", bomb(t), CodeTooLarge, 0},
	} {
		rows, err := read(t, one.file, one.b)
		var f *Fault
		if !errors.As(err, &f) || f.Code != one.code || f.Row != one.row {
			t.Errorf("%s: %q, %v, want %s in row %d", name, rows, err, one.code, one.row)
		}
	}
}

// TestCellsThatAreWrong spoil their row alone.
func TestCellsThatAreWrong(t *testing.T) {
	rows, err := read(t, "a.csv", []byte("标题,正文\na,b,c\n"+strings.Repeat("x", MaxCell+1)+",b\nd,e\n"))
	if err != nil || len(rows) != 3 || !strings.HasSuffix(rows[0], CodeCell) || !strings.HasSuffix(rows[1], CodeCell) || strings.HasSuffix(rows[2], CodeCell) {
		t.Errorf("%.200q %v", rows, err)
	}
	cells := `<row r="6"><c r="B6"><v>1.52000000000001E+17</v></c><c r="E6" t="inlineStr"><is><t>丙.ofd</t></is></c></row>` +
		`<row r="7"><c r="B7" t="e"><v>#REF!</v></c><c r="E7" t="inlineStr"><is><t>丁.ofd</t></is></c></row>` +
		`<row r="8"><c r="B8" t="s"><v>99</v></c></row>`
	rows, err = read(t, "a.xlsx", made(t, sheetXML(cells)))
	if err != nil || len(rows) != 5 {
		t.Fatalf("%q %v", rows, err)
	}
	for _, r := range rows[2:] {
		if !strings.HasSuffix(r, CodeCell) {
			t.Errorf("%q", r)
		}
	}
}

// TestDatesOfWorkbooks are days, in both calendars; other numbers stay as they are.
func TestDatesOfWorkbooks(t *testing.T) {
	for _, one := range []struct {
		value, style string
		base         bool
		want         string
	}{
		{"46353", "1", false, "2026-11-27"}, {"46353.5", "2", false, "2026-11-27 12:00:00"}, {"44891", "1", true, "2026-11-27"},
		{"46353", "0", false, "46353"}, {"20261127", "3", false, "20261127"},
	} {
		w := &workbook{base: one.base, styles: []styleKind{false, asDate, asDate, false}}
		n := int(one.style[0] - '0')
		if got := w.number(one.value, n); got.text != one.want || got.bad != "" {
			t.Errorf("%s in style %s: %+v, want %s", one.value, one.style, got, one.want)
		}
	}
	for format, want := range map[string]bool{`yyyy"年"m"月"d"日"`: true, "0.00": false, `[Red]0`: false, `"day"0`: false, "yyyy/m/d;@": true, "@": false, `\d0`: false, "General": false} {
		if showsDate(format) != want {
			t.Errorf("%s", format)
		}
	}
}

// TestARowOfManyRows: a hundred thousand of them are read one after the other.
func TestARowOfManyRows(t *testing.T) {
	var b bytes.Buffer
	b.WriteString("标题,主送,正文\n")
	for n := range 100_000 {
		fmt.Fprintf(&b, "公文%d,示范单位乙,%d.ofd\n", n, n)
	}
	table, err := Open("a.csv", b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		n := 0
		for r, err := range table.Rows() {
			if err != nil || r.Line != n+2 {
				t.Fatal(n, r, err)
			}
			n++
		}
		if n != 100_000 {
			t.Errorf("%d rows", n)
		}
	}
}

// TestWordsThatAreBoth: some are valid in both encodings.
func TestWordsThatAreBoth(t *testing.T) {
	for _, s := range []string{"通知", "通知.ofd", "联通", "测试", "附件①", "abc"} {
		if got, err := Text([]byte(s)); err != nil || got != s {
			t.Errorf("%s in UTF-8: %q, %v", s, got, err)
		}
	}
	for _, s := range []string{"通知", "通知.ofd", "联通", "遵义市人民政府", "附件①"} {
		if got, err := Text(gbk(t, s)); err != nil || got != s {
			t.Errorf("%s in GBK: %q, %v", s, got, err)
		}
	}
	for _, b := range []string{"\xff\xff", "\xb9", "a\ufffd", "\x84\x31\xa4\x37"} {
		if got, err := Text([]byte(b)); err == nil {
			t.Errorf("%q: %q", b, got)
		}
	}
}

// made is a workbook around a sheet.
func made(t testing.TB, sheet string) []byte {
	t.Helper()
	return zipped(t, map[string]string{
		"xl/workbook.xml":            `<workbook><sheets><sheet name="h" sheetId="1" r:id="rId9" state="hidden"/><sheet name="清单" sheetId="2" r:id="rId1"/></sheets></workbook>`,
		"xl/_rels/workbook.xml.rels": `<Relationships><Relationship Id="rId1" Target="worksheets/sheet1.xml"/></Relationships>`,
		"xl/worksheets/sheet1.xml":   sheet,
		"xl/sharedStrings.xml":       `<sst><si><t>标题</t></si><si><r><t>关于甲</t></r><rPh sb="0" eb="1"><t>x</t></rPh><r><t>的通知</t></r></si></sst>`,
	})
}

func sheetXML(more string) string {
	text := func(at, s string) string { return `<c r="` + at + `" t="inlineStr"><is><t>` + s + `</t></is></c>` }
	return `<worksheet><sheetData><row r="1">` + text("A1", "公文交换清单") + `</row>` +
		`<row r="2">` + text("A2", "序号") + `<c r="B2" t="s"><v>0</v></c>` + text("C2", "发文字号") + text("D2", "主送") + text("E2", "正文") + `</row>` +
		`<row r="3"><c r="A3"><v>1</v></c><c r="B3" t="s"><v>1</v></c>` + text("C3", "示〔2026〕1号") + text("D3", "示范单位乙") + text("E3", "甲.ofd") + `</row>` +
		`<row r="5">` + text("B5", "带,逗号\n和换行") + text("D5", "示范单位丙") + text("E5", "乙.ofd") + `</row>` + more + `</sheetData></worksheet>`
}

func zipped(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, content := range files {
		w, err := z.Create(name)
		if err == nil {
			_, err = w.Write([]byte(content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bomb is a workbook of some kilobytes that unfolds to more than is read.
func bomb(t testing.TB) []byte {
	t.Helper()
	return made(t, `<worksheet><sheetData><row r="1"><c r="A1" t="inlineStr"><is><t>`+strings.Repeat(" ", 4<<20)+`</t></is></c></row></sheetData></worksheet>`)
}
