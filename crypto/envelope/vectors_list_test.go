package envelope

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

func agenciesOf(t *testing.T) []*agency {
	return []*agency{
		newAgency(t, "jia", "115203000000000018"),
		newAgency(t, "yi", "11520300000000002B"),
		newAgency(t, "bing", "11520300000000003E"),
		newAgency(t, "ding", "11520300000000004H"),
	}
}

const routing = `{"label":"internal","urgency":"normal","kind":"official","created":"2026-11-23T08:00:00.000Z","expires":"2027-02-21T08:00:00.000Z"}`

// newDraft is from the first agency to others and to itself.
func newDraft(seed, id string, from *agency, to []target, files ...content) *draft {
	to = append(to[:len(to):len(to)], target{from, RoleSelf})
	h := Header{Sender: from.Code}
	for _, r := range to {
		h.Recipients = append(h.Recipients, Slot{Agency: r.Code, Role: r.role})
	}
	meta := fmt.Sprintf(`{"type":"yizhan-document","v":1,"sender":%q,"to":%s,"label":"internal","kind":"official","urgency":"normal","title":"关于印发示范文件的通知"}`, from.Code, addressed(&h))
	return &draft{seed: seed, id: id, from: from, to: to, routing: routing, meta: meta, files: files}
}

const (
	small  = "one recipient"
	chunky = "three chunks"
)

func validDrafts(a []*agency) []*draft {
	jia, yi, bing, ding := a[0], a[1], a[2], a[3]
	one := []target{{yi, RoleRecipient}}
	body := func(n int) content { return content{Name: "正文.ofd", Type: "application/ofd", Length: n} }
	text := content{Name: "正文.txt", Type: "text/plain", Bytes: []byte("各有关单位：\n")}
	full := newDraft("last chunk full", "01KD3S3ZQ000000000000000F0", jia, one, body(100000))
	full.files[0].Length = 2*sm.ChunkPlain - manifestLength(full)
	return []*draft{
		newDraft(small, "01KD3S3ZQ000000000000000A0", jia, one, text),
		newDraft("two recipients", "01KD3S3ZQ000000000000000B0", jia, []target{{yi, RoleRecipient}, {bing, RoleRecipient}},
			text, content{Name: "附件1.pdf", Type: "application/pdf", Bytes: []byte("%PDF-")}, body(3)),
		newDraft("inspection slot", "01KD3S3ZQ000000000000000C0", jia, []target{{yi, RoleRecipient}, {ding, RoleInspection}}, text),
		newDraft(chunky, "01KD3S3ZQ000000000000000D0", jia, one, body(132000)),
		newDraft("manifest begins a chunk", "01KD3S3ZQ000000000000000E0", jia, one, body(sm.ChunkPlain)),
		full,
		newDraft("two leaves", "01KD3S3ZQ000000000000000G0", jia, one, body(1100000)),
		newDraft("two parts", "01KD3S3ZQ000000000000000H0", jia, one, body(8400000)),
	}
}

// manifestLength is that of a draft with one file of six digits.
func manifestLength(d *draft) int {
	m := Manifest{Type: "yizhan-manifest", V: 1, Domain: "vectors", Envelope: d.id, Document: strictjson.Raw(d.meta),
		Files: []FileInfo{{Role: RoleBody, Name: d.files[0].Name, Type: d.files[0].Type, Size: 100000}}}
	b, err := strictjson.Marshal(&m)
	if err != nil {
		panic(err)
	}
	return len(b)
}

// wrong is one envelope that must be refused.
type wrong struct {
	name, class, step, comment string
	of                         string       // the valid envelope it comes from
	draft                      func(*draft) // what the sender did
	after                      func(*built) // what happened on the way
	reader                     string       // yi when empty
}

func makeVectors(t *testing.T) *vectorFile {
	t.Helper()
	f := &vectorFile{
		About:    "Envelopes, version 1: see docs/spec/envelope-v1.md and crypto/sm/testdata/README.md. The keys are public and protect nothing. Keys and digests of the inside are hexadecimal, other byte strings base64.",
		Agencies: agenciesOf(t),
	}
	stored := map[string][]byte{}
	for _, d := range validDrafts(f.Agencies) {
		b := d.build(t)
		stored[d.seed] = b.payload
		f.Vectors = append(f.Vectors, d.vector(b))
	}
	for _, w := range append(wrongSenders(f.Agencies), wrongRelays(f.Agencies)...) {
		f.Vectors = append(f.Vectors, w.vector(t, f.Agencies, stored[w.of]))
	}
	return f
}

func (d *draft) vector(b *built) *vector {
	v := &vector{
		Name: d.seed, Comment: fmt.Sprintf("%d slots, %d bytes of ciphertext", len(b.slots), len(b.payload)), Result: "valid",
		Header: b.header, Slots: b.slots, Payload: payload{Size: len(b.payload), SM3: sm.Sum(b.payload)}, Inside: b.inside(d.files),
	}
	for i, to := range d.to {
		v.Opens = append(v.Opens, reads{to.Name, i})
	}
	if len(b.payload) < 1<<14 {
		v.Payload.Pieces = []piece{{Bytes: b.payload}}
	}
	return v
}

func (w *wrong) vector(t *testing.T, a []*agency, original []byte) *vector {
	t.Helper()
	var d *draft
	for _, d = range validDrafts(a) {
		if d.seed == w.of {
			break
		}
	}
	if w.draft != nil {
		w.draft(d)
	}
	b := d.build(t)
	if w.after != nil {
		w.after(b)
	}
	reader := w.reader
	if reader == "" {
		reader = "yi"
	}
	return &vector{
		Name: w.name, Comment: w.comment, Result: "invalid", Class: w.class, Step: w.step,
		Opens: []reads{{reader, 0}}, Header: b.header, Slots: b.slots,
		Payload: payload{Size: len(b.payload), SM3: sm.Sum(b.payload), Pieces: piecesOf(b.payload, w.of, original)},
	}
}

// piecesOf writes a payload as chunks of another where they are the same.
func piecesOf(b []byte, of string, original []byte) (list []piece) {
	for len(original) > 0 && bytes.HasPrefix(b, original) {
		list, b = append(list, piece{Of: of, Length: len(original)}), b[len(original):]
	}
	for len(b) > 0 {
		n := min(sm.ChunkSealed, len(b))
		p := piece{Bytes: b[:n]}
		for from := 0; from+n <= len(original); from += sm.ChunkSealed {
			if bytes.Equal(original[from:from+n], b[:n]) {
				p = piece{Of: of, From: from, Length: n}
			}
		}
		list, b = append(list, p), b[n:]
	}
	return list
}
