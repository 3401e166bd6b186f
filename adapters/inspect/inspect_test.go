package inspect

import (
	"archive/zip"
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// file is one entry of a package.
type file struct {
	name, text string
	edit       func(*zip.FileHeader)
}

func zipOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		h := &zip.FileHeader{Name: f.name, Method: zip.Deflate}
		if f.edit != nil {
			f.edit(h)
		}
		w, err := z.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const ns = ` xmlns:ofd="http://www.ofdspec.org/2016"`

// sampleOFD is a package with everything that is followed.
func sampleOFD() []file {
	page := `<ofd:Page` + ns + `><ofd:Content/></ofd:Page>`
	public := `<ofd:Res` + ns + ` BaseLoc="Res"><ofd:MultiMedias><ofd:MultiMedia ID="1"><ofd:MediaFile>seal.png</ofd:MediaFile></ofd:MultiMedia></ofd:MultiMedias></ofd:Res>`
	sm3 := sm.Sum([]byte(page))
	sha := sha256.Sum256([]byte(public))
	reference := func(name string, sum []byte) string {
		return `<ofd:Reference FileRef="` + name + `"><ofd:CheckValue>` + base64.StdEncoding.EncodeToString(sum) + `</ofd:CheckValue></ofd:Reference>`
	}
	signature := func(method, refs string) string {
		return `<ofd:Signature` + ns + `><ofd:SignedInfo><ofd:References CheckMethod="` + method + `">` + refs +
			`</ofd:References></ofd:SignedInfo><ofd:SignedValue>SignedValue.dat</ofd:SignedValue></ofd:Signature>`
	}
	return []file{
		{name: "OFD.xml", text: `<?xml version="1.0" encoding="UTF-8"?><ofd:OFD` + ns + `><ofd:DocBody><ofd:DocRoot>Doc_0/Document.xml</ofd:DocRoot><ofd:Signatures>/Doc_0/Signs/Signatures.xml</ofd:Signatures></ofd:DocBody></ofd:OFD>`},
		{name: "Doc_0/", text: ""},
		{name: "Doc_0/Document.xml", text: `<ofd:Document` + ns + `><ofd:CommonData><ofd:TemplatePage BaseLoc="Tpls/T.xml"/><ofd:PublicRes>PublicRes.xml</ofd:PublicRes></ofd:CommonData><ofd:Pages><ofd:Page ID="1" BaseLoc="Pages/P.xml"/></ofd:Pages><ofd:Attachments>Attachs/A.xml</ofd:Attachments></ofd:Document>`},
		{name: "Doc_0/PublicRes.xml", text: public},
		{name: "Doc_0/Res/seal.png", text: "not looked at"},
		{name: "Doc_0/Pages/P.xml", text: page},
		{name: "Doc_0/Tpls/T.xml", text: page},
		{name: "Doc_0/Attachs/A.xml", text: `<ofd:Attachments` + ns + `><ofd:Attachment><ofd:FileLoc>list.txt</ofd:FileLoc></ofd:Attachment></ofd:Attachments>`},
		{name: "Doc_0/Attachs/list.txt", text: "1, 2"},
		{name: "Doc_0/Signs/Signatures.xml", text: `<ofd:Signatures` + ns + `><ofd:Signature ID="1" BaseLoc="S0/Signature.xml"/><ofd:Signature ID="2" BaseLoc="/Doc_0/Signs/S1/Signature.xml"/></ofd:Signatures>`},
		{name: "Doc_0/Signs/S0/Signature.xml", text: signature("1.2.156.10197.1.401", reference("/Doc_0/Pages/P.xml", sm3[:]))},
		{name: "Doc_0/Signs/S0/SignedValue.dat", text: "0"},
		{name: "Doc_0/Signs/S1/Signature.xml", text: signature("SHA256", reference("/Doc_0/PublicRes.xml", sha[:]))},
		{name: "Doc_0/Signs/S1/SignedValue.dat", text: "0"},
	}
}

// with gives the files with one replaced, added, or with no text dropped.
func with(files []file, name, text string) []file {
	var out []file
	found := false
	for _, f := range files {
		if f.name == name {
			if found = true; text == "" {
				continue
			}
			f.text = text
		}
		out = append(out, f)
	}
	if !found {
		out = append(out, file{name: name, text: text})
	}
	return out
}

func replaced(files []file, name, old, fresh string) []file {
	for _, f := range files {
		if f.name == name {
			if !strings.Contains(f.text, old) {
				panic("no " + old + " in " + name)
			}
			return with(files, name, strings.ReplaceAll(f.text, old, fresh))
		}
	}
	panic("no file " + name)
}

func judge(t *testing.T, i *Inspector, name, media string, b []byte) exchange.Verdict {
	t.Helper()
	v, err := i.Inspect(t.Context(), name, media, bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestOFD: a package passes when all that it names is there and as signed.
func TestOFD(t *testing.T) {
	whole := sampleOFD()
	deep := strings.Repeat("<a>", 70) + strings.Repeat("</a>", 70)
	for _, c := range []struct {
		name   string
		files  []file
		reason string
	}{
		{"whole", whole, ""},
		{"another case", replaced(whole, "Doc_0/Document.xml", "Tpls/T.xml", "TPLS/t.XML"), ""},
		{"no document", replaced(whole, "OFD.xml", "DocRoot", "Other"), exchange.CodeContentDamaged},
		{"OFD.xml is something else", replaced(whole, "OFD.xml", "ofd:OFD", "ofd:ODF"), exchange.CodeContentDamaged},
		{"not well formed", replaced(whole, "OFD.xml", "</ofd:OFD>", "</ofd:OFX>"), exchange.CodeContentDamaged},
		{"two roots", replaced(whole, "Doc_0/Tpls/T.xml", "</ofd:Page>", "</ofd:Page><a/>"), exchange.CodeContentDamaged},
		{"no Document.xml", with(whole, "Doc_0/Document.xml", ""), exchange.CodeContentDamaged},
		{"no page", replaced(whole, "Doc_0/Document.xml", `<ofd:Page ID="1" BaseLoc="Pages/P.xml"/>`, ""), exchange.CodeContentDamaged},
		{"a page that is missing", with(whole, "Doc_0/Pages/P.xml", ""), exchange.CodeContentDamaged},
		{"a template that is missing", with(whole, "Doc_0/Tpls/T.xml", ""), exchange.CodeContentDamaged},
		{"resources that are missing", with(whole, "Doc_0/PublicRes.xml", ""), exchange.CodeContentDamaged},
		{"an image that is missing", with(whole, "Doc_0/Res/seal.png", ""), exchange.CodeContentDamaged},
		{"an attachment that is missing", with(whole, "Doc_0/Attachs/list.txt", ""), exchange.CodeContentDamaged},
		{"a reference out of the package", replaced(whole, "Doc_0/Document.xml", "Pages/P.xml", "../../../etc/passwd"), exchange.CodeContentDamaged},
		{"a DTD", replaced(whole, "Doc_0/Document.xml", "<ofd:Document", `<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><ofd:Document`), exchange.CodeContentActive},
		{"an entity", replaced(whole, "Doc_0/Tpls/T.xml", "<ofd:Content/>", "&x;"), exchange.CodeContentDamaged},
		{"deep elements", replaced(whole, "Doc_0/Tpls/T.xml", "<ofd:Content/>", deep), exchange.CodeContentTooLarge},
		{"a signed page changed", replaced(whole, "Doc_0/Pages/P.xml", "<ofd:Content/>", "<ofd:Content />"), exchange.CodeContentDigest},
		{"signed resources changed", replaced(whole, "Doc_0/PublicRes.xml", `ID="1"`, `ID="2"`), exchange.CodeContentDigest},
		{"a signed file is missing", replaced(whole, "Doc_0/Signs/S0/Signature.xml", "/Doc_0/Pages/P.xml", "/Doc_0/Pages/Q.xml"), exchange.CodeContentDamaged},
		{"a method that shows no change", replaced(whole, "Doc_0/Signs/S1/Signature.xml", "SHA256", "MD5"), exchange.CodeContentDigest},
		{"the method of the standard when none is named", replaced(whole, "Doc_0/Signs/S1/Signature.xml", ` CheckMethod="SHA256"`, ""), exchange.CodeContentDigest},
		{"a signature without its value", with(whole, "Doc_0/Signs/S1/SignedValue.dat", ""), exchange.CodeContentDamaged},
		{"a listed signature is missing", with(whole, "Doc_0/Signs/S1/Signature.xml", ""), exchange.CodeContentDamaged},
		{"encrypted by its maker", with(whole, "Encryptions.xml", "<a/>"), exchange.CodeContentHidden},
		{"a program inside", with(whole, "Doc_0/Attachs/list.txt", "\x7fELF\x02\x01\x01"), exchange.CodeContentActive},
		{"an archive inside that is not looked into", with(whole, "Doc_0/Attachs/list.txt", "Rar!\x1a\x07\x00"), exchange.CodeContentArchive},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := judge(t, new(Inspector), "a.ofd", "application/ofd", zipOf(t, c.files...))
			if v.Reason != c.reason || v.Kind != KindOFD && v.Kind != "zip" {
				t.Fatalf("%+v, want %q", v, c.reason)
			}
		})
	}
}

// TestRealOFD judges packages of several makers.
func TestRealOFD(t *testing.T) {
	list, _ := filepath.Glob(filepath.Join("..", "..", "..", "shared", "data", "ofd", "*.ofd"))
	if len(list) == 0 {
		t.Skip("shared/data/ofd is not beside the checkout; real OFD files are judged where it is")
	}
	for _, name := range list {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		if filepath.Base(name) == "zsbk.ofd" { // its pages were edited after it was sealed
			want = exchange.CodeContentDigest
		}
		if v := judge(t, new(Inspector), name, "", b); v.Reason != want || v.Kind != KindOFD {
			t.Errorf("%s: %+v", filepath.Base(name), v)
		}
	}
}

// TestZips: what would unfold, or lead somewhere else, is refused by what it is.
func TestZips(t *testing.T) {
	small := &Inspector{Limits: Limits{Entries: 20, Unpacked: 4 << 20, Ratio: 50, Nested: 64 << 10}}
	sample := func(more ...file) []byte { return zipOf(t, append(sampleOFD(), more...)...) }
	inner := func(n int) string {
		b := zipOf(t, sampleOFD()...)
		for range n {
			b = zipOf(t, append(sampleOFD(), file{name: "in.ofd", text: string(b)})...)
		}
		return string(b)
	}
	mode := func(m fs.FileMode) func(*zip.FileHeader) {
		return func(h *zip.FileHeader) { h.SetMode(m) }
	}
	many := make([]file, 10)
	for i := range many {
		many[i] = file{name: fmt.Sprint("x", i), text: "x"}
	}
	var noise strings.Builder
	for i := range 700_000 {
		fmt.Fprintf(&noise, "%x", i*2654435761)
	}
	encrypted := sample()
	for at := 0; ; { // the flag of every entry, in its header and in the list
		i := bytes.Index(encrypted[at:], []byte("PK\x01\x02"))
		if i < 0 {
			break
		}
		encrypted[at+i+8] |= 1
		at += i + 4
	}
	overlapping := sample(file{name: "a", text: noise.String()[:1000]}, file{name: "b", text: noise.String()[:1000]})
	overlap(t, overlapping, "b", "a")
	for _, c := range []struct {
		name   string
		b      []byte
		reason string
	}{
		{"whole", sample(), ""},
		{"up and out", sample(file{name: "../a", text: "x"}), exchange.CodeContentArchive},
		{"up in the middle", sample(file{name: "a/../../b", text: "x"}), exchange.CodeContentArchive},
		{"absolute", sample(file{name: "/etc/a", text: "x"}), exchange.CodeContentArchive},
		{"backslash", sample(file{name: `a\..\b`, text: "x"}), exchange.CodeContentArchive},
		{"drive", sample(file{name: "C:a", text: "x"}), exchange.CodeContentArchive},
		{"control character", sample(file{name: "a\nb", text: "x"}), exchange.CodeContentArchive},
		{"a long name", sample(file{name: strings.Repeat("x", maxName+1), text: "x"}), exchange.CodeContentArchive},
		{"a link", sample(file{"a", "/etc/passwd", mode(fs.ModeSymlink | 0o777)}), exchange.CodeContentArchive},
		{"a device", sample(file{"a", "", mode(fs.ModeDevice | 0o777)}), exchange.CodeContentArchive},
		{"one name twice", sample(file{name: "OFD.xml", text: "<a/>"}), exchange.CodeContentArchive},
		{"one name twice, on Windows", sample(file{name: "ofd.XML", text: "<a/>"}), exchange.CodeContentArchive},
		{"encrypted", encrypted, exchange.CodeContentHidden},
		{"many entries", sample(many...), exchange.CodeContentArchive},
		{"a bomb", sample(file{name: "a", text: strings.Repeat("0", 3<<20)}), exchange.CodeContentArchive},
		{"large in sum", sample(file{name: "a", text: noise.String()[:3<<20]}, file{name: "b", text: noise.String()[:3<<20]}), exchange.CodeContentArchive},
		{"entries that share bytes", overlapping, exchange.CodeContentArchive},
		{"a package in a package", sample(file{name: "a.ofd", text: inner(0)}), exchange.CodeContentArchive}, // entries of both count
		{"cut short", sample()[:1500], exchange.CodeContentArchive},
		{"no OFD", zipOf(t, file{name: "a.txt", text: "x"}), exchange.CodeContentArchive},
		{"empty", zipOf(t), exchange.CodeContentArchive},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := judge(t, small, "a.ofd", "", c.b)
			if c.name == "cut short" { // a zip without a list
				c.reason = exchange.CodeContentDamaged
			}
			if v.Reason != c.reason {
				t.Fatalf("%+v, want %q", v, c.reason)
			}
		})
	}
	t.Run("nesting", func(t *testing.T) {
		i := new(Inspector)
		if v := judge(t, i, "a.ofd", "", []byte(inner(1))); v.Reason != "" {
			t.Errorf("one within one: %+v", v)
		}
		if v := judge(t, i, "a.ofd", "", []byte(inner(2))); v.Reason != exchange.CodeContentArchive {
			t.Errorf("one within one within one: %+v", v)
		}
		bad := zipOf(t, append(sampleOFD(), file{name: "in.ofd", text: string(zipOf(t, with(sampleOFD(), "OFD.xml", "<a/>")...))})...)
		if v := judge(t, i, "a.ofd", "", bad); v.Reason != exchange.CodeContentDamaged {
			t.Errorf("a damaged one within one: %+v", v)
		}
	})
	t.Run("a byte of an entry changed", func(t *testing.T) {
		b := zipOf(t, append(sampleOFD(), file{"a", "stored as it is", func(h *zip.FileHeader) { h.Method = zip.Store }})...)
		b[bytes.Index(b, []byte("stored as"))] ^= 1
		if v := judge(t, new(Inspector), "a.ofd", "", b); v.Reason != exchange.CodeContentDamaged {
			t.Errorf("%+v", v)
		}
	})
	t.Run("a list longer than is read", func(t *testing.T) {
		var files []file
		for i := range maxZipList/400 + 100 {
			files = append(files, file{name: fmt.Sprintf("%s%d", strings.Repeat("x", 400), i), text: ""})
		}
		if v := judge(t, &Inspector{Limits: Limits{Entries: 1 << 30}}, "a.ofd", "", zipOf(t, files...)); v.Reason != exchange.CodeContentArchive {
			t.Errorf("%+v", v)
		}
	})
}

// overlap lets the list name the place of another entry.
func overlap(t *testing.T, b []byte, name, place string) {
	t.Helper()
	find := func(n string) int {
		for at := 0; ; at++ {
			i := bytes.Index(b[at:], []byte("PK\x01\x02"))
			if i < 0 {
				t.Fatalf("no entry %s", n)
			}
			if at += i; string(b[at+46:at+46+len(n)]) == n && b[at+28] == byte(len(n)) {
				return at
			}
		}
	}
	copy(b[find(name)+42:find(name)+46], b[find(place)+42:find(place)+46])
}

// samplePDF is a PDF of these objects, with a table that says where they are.
func samplePDF(objects ...string) []byte {
	b := []byte("%PDF-1.7\n")
	for i, o := range objects {
		b = fmt.Appendf(b, "%d 0 obj\n%s\nendobj\n", i+1, o)
	}
	at := len(b)
	return fmt.Appendf(b, "xref\n0 1\n0000000000 65535 f \ntrailer\n<< /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", at)
}

func packed(t *testing.T, dict, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("<< %s /Length %d >>\nstream\r\n%s\r\nendstream", dict, b.Len(), b.String())
}

func TestPDF(t *testing.T) {
	const objStm = "/Type /ObjStm /N 1 /First 4 /Filter /FlateDecode"
	catalog := "<< /Type /Catalog >>"
	for _, c := range []struct {
		name   string
		b      []byte
		reason string
	}{
		{"whole", samplePDF(catalog), ""},
		{"a table that is an object", bytes.Replace(samplePDF(catalog), []byte("xref\n0 1"), []byte("7 0 obj "), 1), ""},
		{"cut short", samplePDF(catalog)[:40], exchange.CodeContentDamaged},
		{"an end that points nowhere", bytes.Replace(samplePDF(catalog), []byte("startxref\n"), []byte("startxref\n9"), 1), exchange.CodeContentDamaged},
		{"an end that points to no table", bytes.Replace(samplePDF(catalog), []byte("xref\n0 1"), []byte("xxxx\n0 1"), 1), exchange.CodeContentDamaged},
		{"a script", samplePDF(catalog, "<< /S /JavaScript /JS (app.alert(1)) >>"), exchange.CodeContentActive},
		{"a script in disguise", samplePDF(catalog, "<< /S /J#61v#61Script /JS (x) >>"), exchange.CodeContentActive},
		{"a script without spaces", samplePDF(catalog, "<</S/JavaScript/JS(x)>>"), exchange.CodeContentActive},
		{"the start of a program", samplePDF(catalog, "<< /S /Launch /F (cmd.exe) >>"), exchange.CodeContentActive},
		{"an embedded file", samplePDF(catalog, "<< /Type /EmbeddedFile >>"), exchange.CodeContentActive},
		{"names that only begin alike", samplePDF(catalog, "<< /LaunchPad 1 /JavaScripts 2 /XLaunch 3 >>"), ""},
		{"a word in a text", samplePDF(catalog, "<< /Title (JavaScript and Launch) >>"), ""},
		{"packed objects", samplePDF(catalog, packed(t, objStm, "1 0 << /Type /Page >>")), ""},
		{"a script in packed objects", samplePDF(catalog, packed(t, objStm, "1 0 << /S /JavaScript >>")), exchange.CodeContentActive},
		{"the dictionary in another order", samplePDF(catalog, packed(t, "/Filter [ /Fl#61teDecode ] /Type /ObjStm", "<< /S /JavaScript >>")), exchange.CodeContentActive},
		{"objects packed in another way", samplePDF(catalog, packed(t, "/Type /ObjStm /Filter /LZWDecode", "x")), exchange.CodeContentHidden},
		{"objects packed twice", samplePDF(catalog, packed(t, "/Type /ObjStm /Filter [ /ASCIIHexDecode /FlateDecode ]", "x")), exchange.CodeContentHidden},
		{"packed objects that unfold", samplePDF(catalog, packed(t, objStm, strings.Repeat(" ", 2<<20))), exchange.CodeContentTooLarge},
		{"packed objects that are damaged", bytes.Replace(samplePDF(catalog, packed(t, objStm, "1 0 << >>")), []byte("stream\r\nx"), []byte("stream\r\ny"), 1), exchange.CodeContentDamaged},
		{"encrypted", bytes.Replace(samplePDF(catalog), []byte("/Root"), []byte("/Encrypt 3 0 R /Root"), 1), exchange.CodeContentHidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := judge(t, &Inspector{Limits: Limits{Unpacked: 1 << 20}}, "a.pdf", "application/pdf", c.b)
			if v.Reason != c.reason || v.Kind != KindPDF {
				t.Fatalf("%+v, want %q", v, c.reason)
			}
		})
	}
}

// TestNamesAcrossReads: a name is found wherever the reads happen to end.
func TestNamesAcrossReads(t *testing.T) {
	text := "<< /S /J#61vaScript >>/Launch"
	for n := 1; n < len(text); n++ {
		var got []string
		r := io.MultiReader(strings.NewReader(text[:n]), strings.NewReader(text[n:]))
		if err := findNames(r, func(name string, at int64) error {
			if text[at] != '/' {
				t.Errorf("%s at %d", name, at)
			}
			got = append(got, name)
			return nil
		}); err != nil || strings.Join(got, " ") != "S JavaScript Launch" {
			t.Fatalf("cut at %d: %q, %v", n, got, err)
		}
	}
}

func picture(t *testing.T, encode func(io.Writer, image.Image) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := encode(&b, image.NewGray(image.Rect(0, 0, 30, 20))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestKinds: what the bytes are counts, and name and declared type agree with it.
func TestKinds(t *testing.T) {
	asPNG := picture(t, png.Encode)
	asJPEG := picture(t, func(w io.Writer, m image.Image) error { return jpeg.Encode(w, m, nil) })
	docx := []file{{name: "[Content_Types].xml", text: "<Types/>"}, {name: "word/document.xml", text: "<a/>"}}
	rels := func(kind, mode string) file {
		return file{name: "word/_rels/settings.xml.rels", text: `<Relationships><Relationship Type="http://x/` + kind + `" TargetMode="` + mode + `" Target="http://x/a"/></Relationships>`}
	}
	program := "MZ\x90\x00\x03\x00\x00\x00" + strings.Repeat("\x00", 80)
	for _, c := range []struct {
		name, media string
		b           []byte
		kind        string
		reason      string
	}{
		{"a.png", "image/png", asPNG, KindPNG, ""},
		{"A.PNG", "", asPNG, KindPNG, ""},
		{"a.jpg", "image/jpeg", asJPEG, KindJPEG, ""},
		{"a.jpg", "image/png", asJPEG, KindJPEG, exchange.CodeContentType},
		{"a.pdf", "application/pdf", asPNG, KindPNG, exchange.CodeContentType},
		{"a.png", "image/png", asPNG[:20], KindPNG, exchange.CodeContentDamaged},
		{"a.ofd", "application/ofd", samplePDF("<< >>"), KindPDF, exchange.CodeContentType},
		{"a.pdf", "application/octet-stream", samplePDF("<< >>"), KindPDF, ""},
		{"a.exe.pdf", "application/pdf; version=1.7", samplePDF("<< >>"), KindPDF, ""},
		{"a\u202efdp.pdf", "application/pdf", samplePDF("<< >>"), KindPDF, exchange.CodeContentType},
		{"a.pdf", "application/pdf", []byte(program), "Windows", exchange.CodeContentActive},
		{"a.txt", "text/plain", []byte("#!/bin/sh\n"), "script", exchange.CodeContentActive},
		{"a.txt", "text/plain", []byte("MZ 是一个缩写"), KindText, ""},
		{"a.txt", "text/plain", []byte("通知\r\n\t正文"), KindText, ""},
		{"a.txt", "text/plain", []byte("\xcd\xa8\xd6\xaa\n"), KindText, ""}, // GB18030
		{"a.txt", "text/plain", []byte("a\x00b"), KindText, exchange.CodeContentType},
		{"a.xml", "text/xml", []byte("<a><b/></a>"), KindXML, ""},
		{"a.xml", "text/xml", []byte("<!DOCTYPE a><a/>"), KindXML, exchange.CodeContentActive},
		{"a.xml", "text/xml", []byte("words"), KindXML, exchange.CodeContentDamaged},
		{"a.tif", "image/tiff", []byte("II*\x00\x08\x00\x00\x00"), KindTIFF, ""},
		{"a.doc", "application/msword", []byte(magicOLE + "rest"), KindOLE, ""},
		{"a.wps", "application/vnd.ms-works", []byte(magicOLE + "rest"), KindOLE, ""},
		{"a.ceb", "", []byte("whatever its maker writes"), KindLegacy, ""},
		{"a.gd", "application/octet-stream", []byte("\x01\x02\x03"), KindLegacy, ""},
		{"a.ceb", "", samplePDF("<< >>"), KindPDF, exchange.CodeContentType},
		{"a.gd", "", []byte("\x7fELF\x02"), "ELF", exchange.CodeContentActive},
		{"a.gd", "", []byte("\x1f\x8b\x08"), "archive", exchange.CodeContentArchive},
		{"a.bin", "", []byte("\x01\x02\x03"), "unknown", exchange.CodeContentType},
		{"a", "", []byte("words"), "unknown", exchange.CodeContentType},
		{"a.docx", "", zipOf(t, docx...), KindOOXML, ""},
		{"a.docx", "", zipOf(t, append(docx, rels("hyperlink", "External"))...), KindOOXML, ""},
		{"a.docx", "", zipOf(t, append(docx, rels("attachedTemplate", "External"))...), KindOOXML, exchange.CodeContentActive},
		{"a.docx", "", zipOf(t, append(docx, file{name: "word/vbaProject.bin", text: "x"})...), KindOOXML, exchange.CodeContentActive},
		{"a.ofd", "", zipOf(t, docx...), KindOOXML, exchange.CodeContentType},
	} {
		t.Run(c.name+" "+c.kind+" "+c.reason, func(t *testing.T) {
			if v := judge(t, new(Inspector), c.name, c.media, c.b); v.Kind != c.kind || v.Reason != c.reason {
				t.Fatalf("%+v, want %s %q", v, c.kind, c.reason)
			}
		})
	}
	t.Run("only what is allowed here", func(t *testing.T) {
		i := &Inspector{Kinds: []string{KindOFD}}
		if v := judge(t, i, "a.png", "", asPNG); v.Reason != exchange.CodeContentType {
			t.Errorf("%+v", v)
		}
		if v := judge(t, i, "a.ofd", "", zipOf(t, sampleOFD()...)); v.Reason != "" {
			t.Errorf("%+v", v)
		}
	})
	t.Run("one at a time", func(t *testing.T) {
		i := &Inspector{AtOnce: 1}
		leave, err := i.enter(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := i.Inspect(ctx, "a.png", "", bytes.NewReader(asPNG), int64(len(asPNG))); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while another is looked into: %v", err)
		}
		leave()
		if v := judge(t, i, "a.png", "", asPNG); v.Reason != "" {
			t.Errorf("after it: %+v", v)
		}
	})
	t.Run("bounds", func(t *testing.T) {
		if v := judge(t, &Inspector{Limits: Limits{Pixels: 599}}, "a.png", "", asPNG); v.Reason != exchange.CodeContentTooLarge {
			t.Errorf("%+v", v)
		}
		if v := judge(t, &Inspector{Limits: Limits{Pixels: 600}}, "a.png", "", asPNG); v.Reason != "" {
			t.Errorf("%+v", v)
		}
		if v := judge(t, &Inspector{Limits: Limits{Size: 10}}, "a.png", "", asPNG); v.Reason != exchange.CodeContentTooLarge {
			t.Errorf("%+v", v)
		}
		if v := judge(t, &Inspector{Limits: Limits{XML: 10}}, "a.xml", "", []byte("<a>and more</a>")); v.Reason != exchange.CodeContentTooLarge {
			t.Errorf("%+v", v)
		}
	})
}

// failing reads until it has given so many bytes.
type failing struct {
	r    io.ReaderAt
	left int
}

var errDisk = errors.New("the disk is away")

func (f *failing) ReadAt(b []byte, off int64) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errDisk
	}
	return f.r.ReadAt(b, off)
}

// TestTroubleIsNoVerdict: a file that cannot be read is neither passed nor
// refused, wherever the trouble begins.
func TestTroubleIsNoVerdict(t *testing.T) {
	b := zipOf(t, append(sampleOFD(), file{name: "a", text: strings.Repeat("x", 1<<16)})...)
	for name, content := range map[string][]byte{
		"a.ofd": b, "a.pdf": samplePDF("<< >>"), "a.png": picture(t, png.Encode), "a.txt": []byte("words"), "a.xml": []byte("<a/>"),
	} {
		passed := false
		for left := 0; !passed; left += 64 {
			v, err := new(Inspector).Inspect(t.Context(), name, "", &failing{bytes.NewReader(content), left}, int64(len(content)))
			switch {
			case err == nil && v.Reason == "":
				passed = true
			case err == nil:
				t.Fatalf("%s: refused after %d bytes: %+v", name, left, v)
			case !errors.Is(err, errDisk):
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := new(Inspector).Inspect(ctx, "a.ofd", "", bytes.NewReader(b), int64(len(b))); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestVerdictsHaveWords: each reason is one that people can read.
func TestVerdictsHaveWords(t *testing.T) {
	internal := exchange.Explain(exchange.CodeInternal, "en").Title
	for _, code := range append(exchange.ContentCodes(), exchange.CodeInspectionMissing) {
		for _, lang := range []string{"en", "zh"} {
			if text := exchange.Explain(code, lang); text.Title == internal || text.Title == "内部错误" || text.Fix == "" {
				t.Errorf("%s has no words in %s", code, lang)
			}
		}
	}
}
