package inspect

import (
	"bytes"
	"runtime"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// tight bounds keep the fuzzer from waiting for what is allowed.
var tight = Limits{Entries: 100, Unpacked: 1 << 20, Nested: 64 << 10, XML: 64 << 10, Depth: 16, Pixels: 1 << 20}

func lookAt(t *testing.T, name string, b []byte) exchange.Verdict {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	v, err := (&Inspector{Limits: tight}).Inspect(t.Context(), name, "", bytes.NewReader(b), int64(len(b)))
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatalf("bytes in memory cannot fail: %v", err)
	}
	if v.Reason == "" && kinds[v.Kind].endings == nil {
		t.Fatalf("passed as %q", v.Kind)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 {
		t.Fatalf("%d bytes were allocated for %d", used, len(b))
	}
	return v
}

func FuzzOFD(f *testing.F) {
	whole := zipOf(f, sampleOFD()...)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(zipOf(f, with(sampleOFD(), "Doc_0/Pages/P.xml", "")...))
	f.Add(zipOf(f, append(sampleOFD(), file{name: "a.ofd", text: string(whole)})...))
	f.Add(zipOf(f, file{name: "[Content_Types].xml", text: "<Types/>"}))
	f.Fuzz(func(t *testing.T, b []byte) { lookAt(t, "a.ofd", b) })
}

func FuzzPDF(f *testing.F) {
	f.Add(samplePDF("<< /Type /Catalog >>"))
	f.Add(samplePDF("<< /S /J#61vaScript >>"))
	f.Add(samplePDF("<< /Type /ObjStm /Filter /FlateDecode >>\nstream\nx\x9c\x03\x00\x00\x00\x00\x01\nendstream"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v := lookAt(t, "a.pdf", b)
		if v.Reason == "" && bytes.Contains(b, []byte("/JavaScript ")) {
			t.Fatal("a script passed")
		}
	})
}

// FuzzXML: what passes has no document type, in the bytes either.
func FuzzXML(f *testing.F) {
	f.Add("<?xml version=\"1.0\"?><a b='c'>d</a>")
	f.Add("<!DOCTYPE a><a/>")
	f.Add(strings.Repeat("<a>", 20))
	f.Fuzz(func(t *testing.T, s string) { lookAt(t, "a.xml", []byte(s)) })
}

// FuzzReply: only two answers are a result, and both are bounded.
func FuzzReply(f *testing.F) {
	f.Add([]byte("stream: OK\x00"))
	f.Add([]byte("stream: Eicar-Signature FOUND\x00"))
	f.Add([]byte("INSTREAM size limit exceeded. ERROR\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		found, err := parseReply(b)
		switch {
		case err != nil && (found != "" || !exchange.IsTemporary(err)):
			t.Fatalf("%q and %v", found, err)
		case err == nil && found == "" && string(b) != "stream: OK\x00":
			t.Fatalf("%q passed", b)
		case len(found) > clamdName || strings.ContainsFunc(found, func(r rune) bool { return r <= ' ' || r > '~' }):
			t.Fatalf("%q", found)
		}
	})
}
