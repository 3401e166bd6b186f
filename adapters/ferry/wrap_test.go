package ferry

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

func wrappedBytes(t testing.TB, wrap string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	err := wrapped(wrap, "x.yzb", func(w io.Writer) error {
		for rest := b; len(rest) > 0; { // in pieces, as bundles come
			n := min(len(rest), 1+len(rest)/3)
			if _, err := w.Write(rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	})(&out)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func unwrappedBytes(b []byte) (inside []byte, ended bool, err error) {
	u, err := parseWrapping(bytes.NewReader(b), int64(len(b)))
	if err != nil || u.inside == nil {
		return nil, false, err
	}
	inside, err = io.ReadAll(u.inside)
	return inside, err == nil && u.ended(), err
}

// TestWrappings give back what went in, never exceed what the gate lets pass, and give
// what they have where they are cut.
func TestWrappings(t *testing.T) {
	for _, wrap := range []string{WrapZip, WrapXML, WrapText} {
		for _, size := range []int{0, 1, 56, 57, 58, 5000, lineBytes*elementLines - 1, lineBytes * elementLines, lineBytes*elementLines + 1, 2_000_000} {
			want := make([]byte, size)
			_, _ = rand.NewChaCha8([32]byte{1}).Read(want)
			b := wrappedBytes(t, wrap, want)
			got, ended, err := unwrappedBytes(b)
			if !bytes.Equal(got, want) || !ended || err != nil {
				t.Fatalf("%s of %d bytes: %d bytes, %v, %v", wrap, size, len(got), ended, err)
			}
			if limit := int64(len(b)); size > 5000 && (wrapRoom(wrap, limit) > int64(size) || wrapRoom(wrap, limit) < int64(size)*9/10) {
				t.Errorf("%s: in %d bytes there is room for %d, and %d had some", wrap, limit, wrapRoom(wrap, limit), size)
			}
			if size < 5000 {
				continue
			}
			got, ended, _ = unwrappedBytes(b[:len(b)/2])
			if ended || !bytes.HasPrefix(want, got) || len(got) < size/3 {
				t.Errorf("half of %s of %d bytes: %d bytes, %v", wrap, size, len(got), ended)
			}
		}
	}
}

// TestHostileWrappings: archives that are none of ours, and text with something else
// in it.
func TestHostileWrappings(t *testing.T) {
	good := wrappedBytes(t, WrapZip, []byte("YZB1"))
	set := func(at int, v uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	for name, b := range map[string][]byte{
		"a bomb":                 bomb(t),
		"a size that is unknown": archive(t, &zip.FileHeader{Name: "x", Method: zip.Store}, []byte("YZB1")),
		"compressed":             set(8, uint32(zip.Deflate)),
		"encrypted":              set(6, 1),
		"zip64":                  set(18, 1<<32-1),
		"two sizes":              set(18, 3),
		"a name without end":     set(26, 0xffff),
		"a header that is cut":   good[:20],
	} {
		if _, _, err := unwrappedBytes(b); !errors.Is(err, ErrWrapping) {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := bytes.Clone(good)
	binary.LittleEndian.PutUint32(long[18:], 1<<31)
	binary.LittleEndian.PutUint32(long[22:], 1<<31)
	for name, b := range map[string][]byte{
		"a size that is not there": long,
		"bytes behind it":          append(bytes.Clone(good), 0),
		"a second entry":           append(bytes.Clone(good[:len(good)-zipEnd]), good...),
		"an entity":                []byte(xmlHead + "<data>WVpC&#77;Q==</data>" + xmlEnd),
		"another element":          []byte(xmlHead + "<data>WVpC<b/>MQ==</data>" + xmlEnd),
		"an element without end":   []byte(xmlHead + "<data>WVpCMQ==" + xmlEnd),
		"a doctype":                []byte(xmlHead + `<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>` + "<data>WVpCMQ==</data>" + xmlEnd),
		"text outside":             []byte(xmlHead + "WVpCMQ==<data></data>" + xmlEnd),
		"no base64":                []byte(textBegin + "\nWV!CMQ==\n" + textEnd + "\n"),
		"another end":              []byte(textBegin + "\nWVpCMQ==\n-----END SOMETHING ELSE-----\n"),
	} {
		if inside, ended, err := unwrappedBytes(b); ended || errors.Is(err, ErrWrapping) {
			t.Errorf("%s counts as whole: %q, %v", name, inside, err)
		}
	}
}

func archive(t *testing.T, h *zip.FileHeader, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	w, err := z.CreateHeader(h)
	check(t, err)
	_, err = w.Write(b)
	check(t, err)
	check(t, z.Close())
	return out.Bytes()
}

func bomb(t *testing.T) []byte {
	t.Helper()
	return archive(t, &zip.FileHeader{Name: "x", Method: zip.Deflate}, make([]byte, 1<<20))
}

// FuzzWrapping: whatever a file says, no more comes out than is in it, and what is
// wrapped here comes out as it was.
func FuzzWrapping(f *testing.F) {
	for _, wrap := range Wrappings() {
		f.Add(wrappedBytes(f, wrap, []byte("YZB1 and more than a line of it, so that there are two of them, and a rest")))
	}
	f.Add([]byte(byteOrder + xmlHead + "<data>\r\nWVpC\r\nMQ==\r\n</data>" + xmlEnd))
	f.Add([]byte(textBegin + "\n=\n" + textEnd))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := parseWrapping(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			u.endsWell(bytes.NewReader(b), int64(len(b)))
		}
		inside, ended, err := unwrappedBytes(b)
		if len(inside) > len(b) || ended && err != nil {
			t.Fatalf("%d bytes out of %d, %v, %v", len(inside), len(b), ended, err)
		}
		for _, wrap := range []string{WrapZip, WrapXML, WrapText} {
			if again, ended, err := unwrappedBytes(wrappedBytes(t, wrap, b)); !bytes.Equal(again, b) || !ended || err != nil {
				t.Fatalf("%s gives %d bytes of %d, %v, %v", wrap, len(again), len(b), ended, err)
			}
		}
	})
}
