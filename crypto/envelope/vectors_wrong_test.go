package envelope

import (
	"bytes"
	"strings"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// sealed gives another ciphertext from the right chunks.
func sealed(edit func(list [][]byte) [][]byte) func(*draft) {
	return func(d *draft) {
		d.seal = func(s *sm.Stream, plain []byte) []byte {
			return bytes.Join(edit(cut(inOrder(s, plain))), nil)
		}
	}
}

func cut(payload []byte) (list [][]byte) {
	for len(payload) > sm.ChunkSealed {
		list, payload = append(list, payload[:sm.ChunkSealed]), payload[sm.ChunkSealed:]
	}
	return append(list, payload)
}

func header(edit func(*Header)) func(*draft)     { return func(d *draft) { d.header = edit } }
func manifest(edit func(*Manifest)) func(*draft) { return func(d *draft) { d.manifest = edit } }
func headerText(old, now string) func(*draft) {
	return func(d *draft) {
		d.json = func(s string) string { return strings.Replace(s, old, now, 1) }
	}
}

// wrongSenders signed what they sent: header, slots and tree agree.
func wrongSenders(a []*agency) []wrong {
	list := append(wrongHeaders(a), wrongKeys(a)...)
	list = append(list, wrongChunks()...)
	return append(list, wrongManifests(a)...)
}

func wrongHeaders(a []*agency) []wrong {
	bad := func(name, class string, edit func(*draft)) wrong {
		return wrong{name: name, class: class, step: "header", of: small, draft: edit}
	}
	return []wrong{
		bad("no self slot", "SELF_SLOT", header(func(h *Header) { h.Recipients[1].Role = RoleInspection })),
		bad("self slot of another", "SELF_SLOT", header(func(h *Header) { h.Recipients[1].Agency = a[3].Code })),
		bad("self slot first", "SELF_SLOT", header(func(h *Header) { h.Recipients[0], h.Recipients[1] = h.Recipients[1], h.Recipients[0] })),
		bad("one slot", "SELF_SLOT", header(func(h *Header) { h.Recipients = h.Recipients[1:] })),
		bad("recipient twice", "RECIPIENT_TWICE", header(func(h *Header) { h.Recipients = append(h.Recipients[:1:1], h.Recipients...) })),
		bad("unknown role", "UNKNOWN_ROLE", header(func(h *Header) { h.Recipients[0].Role = "reader" })),
		bad("unknown critical member", "UNKNOWN_CRITICAL", headerText(`"v":1,`, `"v":1,"crit":["later"],`)),
		bad("version 2", "WRONG_VERSION", headerText(`"v":1,`, `"v":2,`)),
		bad("another type", "WRONG_TYPE", headerText("yizhan-envelope", "yizhan-receipt")),
		bad("id in lower case", "BAD_ID", headerText("01KD3S3ZQ000000000000000A0", "01kd3s3zq000000000000000a0")),
		bad("id above the range", "BAD_ID", headerText("01KD3S3ZQ000000000000000A0", "81KD3S3ZQ000000000000000A0")),
		bad("space in the JSON", "NON_CANONICAL_JSON", headerText(`{"type"`, `{ "type"`)),
		bad("member twice", "NON_CANONICAL_JSON", headerText(`"v":1,`, `"v":1,"v":1,`)),
		bad("commitment in upper case", "NON_CANONICAL_JSON", upperCommitment),
		bad("no routing", "MEMBER_MISSING", headerText(`"routing":`+routing+`,`, ``)),
		bad("size of no payload", "BAD_SIZE", header(func(h *Header) { h.Payload.Size = 15 })),
		bad("negative size", "BAD_SIZE", header(func(h *Header) { h.Payload.Size = -1 })),
		bad("manifest of no bytes", "BAD_OFFSET", header(func(h *Header) { h.Payload.Manifest = h.Payload.Size - sm.Overhead })),
		bad("manifest at 0", "BAD_OFFSET", header(func(h *Header) { h.Payload.Manifest = 0 })),
	}
}

func upperCommitment(d *draft) {
	d.json = func(s string) string {
		const name = `"commitment":"`
		at := strings.Index(s, name) + len(name)
		return s[:at] + strings.ToUpper(s[at:at+64]) + s[at+64:]
	}
}

// wrongKeys: what the slot holds does not belong to this header.
func wrongKeys(a []*agency) []wrong {
	bad := func(name, class, comment string, edit func(*draft)) wrong {
		return wrong{name: name, class: class, step: "open", comment: comment, of: small, draft: edit}
	}
	length := func(n int) func(*draft) {
		return func(d *draft) {
			d.wrapped = func(_ int, key []byte) []byte { return append(bytes.Clone(key), 0)[:n] }
		}
	}
	stranger := bad("opened by another agency", "WRONG_KEY", "the slot is not for this reader", nil)
	stranger.reader = "bing"
	swapped := bad("slot of another recipient, signed", "SLOT_OF_ANOTHER", "the header names the slots in the wrong order", func(d *draft) {
		d.slots = func(slots [][]byte) { slots[0], slots[1] = slots[1], slots[0] }
	})
	swapped.of = "two recipients"
	return []wrong{
		stranger, swapped,
		bad("header id changed", "HEADER_ID_CHANGED", "signed again by the sender; the id is bound to the file key", header(func(h *Header) { h.ID = "01KD3S3ZQ000000000000000A1" })),
		bad("salt changed", "SALT_CHANGED", "signed again by the sender", header(func(h *Header) { h.Salt[0] ^= 1 })),
		bad("commitment changed", "COMMITMENT_CHANGED", "signed again by the sender; everything else opens", header(func(h *Header) { h.Commitment[31] ^= 1 })),
		bad("re-signed by another agency", "RESIGNED_BY_ANOTHER", "bing gives payload and slots as its own", func(d *draft) {
			d.by = a[2]
			d.header = func(h *Header) { h.Sender, h.Recipients[1].Agency = a[2].Code, a[2].Code }
		}),
		bad("slot with another file key", "TWO_KEYS", "the slots hold different keys", func(d *draft) {
			d.wrapped = func(_ int, key []byte) []byte { return flip(key, 0) }
		}),
		bad("file key of 31 bytes", "FILE_KEY_LENGTH", "", length(31)),
		bad("file key of 33 bytes", "FILE_KEY_LENGTH", "the first 32 are right", length(33)),
		bad("everything derived from 31 bytes", "FILE_KEY_LENGTH", "the commitment is that of the shorter file key", func(d *draft) { d.keySize = 31 }),
		bad("everything derived from 33 bytes", "FILE_KEY_LENGTH", "the commitment is that of the longer file key", func(d *draft) { d.keySize = 33 }),
		bad("byte behind the slot, signed", "TRAILING_BYTES", "the header names the longer slot", func(d *draft) {
			d.slots = func(slots [][]byte) { slots[0] = append(slots[0], 0) }
		}),
	}
}

// wrongChunks: header and tree fit the ciphertext, the chunks do not.
func wrongChunks() []wrong {
	bad := func(name, class, comment string, edit func(*draft)) wrong {
		return wrong{name: name, class: class, step: "open", comment: comment, of: chunky, draft: edit}
	}
	shorter := sealed(func(list [][]byte) [][]byte { return list[:2] })
	return []wrong{
		bad("last chunk without its flag", "LAST_FLAG_MISSING", "sealed with last = 0", func(d *draft) {
			d.seal = func(s *sm.Stream, plain []byte) []byte {
				list := chunks(plain)
				last := uint32(len(list) - 1)
				right := cut(inOrder(s, plain))
				return append(bytes.Join(right[:last], nil), s.SealChunk(nil, list[last], last, false)...)
			}
		}),
		bad("last chunk missing, signed", "TRUNCATED", "the second chunk is no last one", func(d *draft) {
			shorter(d)
			d.header = func(h *Header) { h.Payload.Manifest = 2*sm.ChunkPlain - 1000 }
		}),
		bad("chunks reordered, signed", "CHUNKS_REORDERED", "the first two, found when the file is read", sealed(func(list [][]byte) [][]byte {
			return [][]byte{list[1], list[0], list[2]}
		})),
		bad("chunk repeated, signed", "CHUNK_REPEATED", "the first stands in place of the second", sealed(func(list [][]byte) [][]byte {
			return [][]byte{list[0], list[0], list[2]}
		})),
		bad("chunk dropped, signed", "CHUNK_DROPPED", "the third stands in place of the second", func(d *draft) {
			sealed(func(list [][]byte) [][]byte { return [][]byte{list[0], list[2]} })(d)
			d.header = func(h *Header) { h.Payload.Manifest -= sm.ChunkPlain }
		}),
		bad("byte behind the payload, signed", "TRAILING_BYTES", "size and root include it", sealed(func(list [][]byte) [][]byte {
			return append(list, []byte{0})
		})),
		bad("byte of the last chunk missing, signed", "TRUNCATED", "size and root agree", sealed(func(list [][]byte) [][]byte {
			return [][]byte{list[0], list[1], list[2][:len(list[2])-1]}
		})),
		bad("bit of the last chunk, signed", "PAYLOAD_CHANGED", "the root agrees", func(d *draft) {
			d.seal = func(s *sm.Stream, plain []byte) []byte { return flip(inOrder(s, plain), 2*sm.ChunkSealed+3) }
		}),
		bad("manifest elsewhere", "OFFSET_CHANGED", "one byte earlier", header(func(h *Header) { h.Payload.Manifest-- })),
		{
			name: "size one byte smaller", class: "SIZE_DIFFERS", step: "payload", comment: "the root is that of the whole payload", of: small,
			draft: header(func(h *Header) { h.Payload.Size-- }),
		},
		{
			name: "size one byte larger", class: "SIZE_DIFFERS", step: "payload", comment: "the root is that of the whole payload", of: small,
			draft: header(func(h *Header) { h.Payload.Size++ }),
		},
		func() wrong {
			w := bad("counter from 1", "WRONG_COUNTER", "the only chunk is sealed as the second", func(d *draft) {
				d.seal = func(s *sm.Stream, plain []byte) []byte { return s.SealChunk(nil, plain, 1, true) }
			})
			w.of = small
			return w
		}(),
	}
}

// wrongManifests: everything opens, and what it says is wrong.
func wrongManifests(a []*agency) []wrong {
	bad := func(name, class, comment string, edit func(*draft)) wrong {
		return wrong{name: name, class: class, step: "open", comment: comment, of: small, draft: edit}
	}
	differs := func(name, class, old, now string) wrong {
		w := bad(name, class, "opens; the document contradicts the header", func(d *draft) { d.meta = strings.Replace(d.meta, old, now, 1) })
		w.step = "document"
		return w
	}
	return []wrong{
		bad("manifest of another envelope", "MANIFEST_OF_ANOTHER", "its envelope is not the header's id", manifest(func(m *Manifest) { m.Envelope = "01KD3S3ZQ000000000000000A1" })),
		bad("manifest of another domain", "MANIFEST_OF_ANOTHER", "", manifest(func(m *Manifest) { m.Domain = "elsewhere" })),
		bad("file larger than it is", "FILES_SIZE", "the sizes do not add up", manifest(func(m *Manifest) { m.Files[0].Size++ })),
		bad("file smaller than it is", "FILES_SIZE", "the sizes do not add up", manifest(func(m *Manifest) { m.Files[0].Size-- })),
		bad("byte between file and manifest", "FILES_SIZE", "size and digest leave out the last byte of the file", func(d *draft) {
			d.manifest = resized(d, func(all []byte) []byte { return all[:len(all)-1] })
		}),
		bad("file that reaches into the manifest", "FILES_SIZE", "size and digest take in its first byte", func(d *draft) {
			d.manifest = resized(d, func(all []byte) []byte { return append(all[:len(all):len(all)], '{') })
		}),
		bad("file of 2^53-1 bytes", "FILES_SIZE", "nothing may be allocated by it", manifest(func(m *Manifest) { m.Files[0].Size = 1<<53 - 1 })),
		bad("empty file", "FILES_SIZE", "a second file of no bytes", manifest(func(m *Manifest) {
			m.Files = append(m.Files, FileInfo{Role: RoleAttachment, Name: "x", Type: "t", SM3: sm.Sum(nil)})
		})),
		bad("digest of a file", "FILE_DIGEST", "found at the file's end", manifest(func(m *Manifest) { m.Files[0].SM3[0] ^= 1 })),
		bad("path in a file name", "FILE_NAME", "", manifest(func(m *Manifest) { m.Files[0].Name = "../x" })),
		bad("backslash in a file name", "FILE_NAME", "", manifest(func(m *Manifest) { m.Files[0].Name = `..\x` })),
		bad("file named ..", "FILE_NAME", "", manifest(func(m *Manifest) { m.Files[0].Name = ".." })),
		bad("control character in a file name", "FILE_NAME", "", manifest(func(m *Manifest) { m.Files[0].Name = "a\nb" })),
		bad("file name of 256 bytes", "FILE_NAME", "", manifest(func(m *Manifest) { m.Files[0].Name = strings.Repeat("x", 256) })),
		bad("attachment first", "NO_BODY", "", manifest(func(m *Manifest) { m.Files[0].Role = RoleAttachment })),
		bad("manifest of version 2", "WRONG_VERSION", "", manifest(func(m *Manifest) { m.V = 2 })),
		bad("unknown critical member of the manifest", "UNKNOWN_CRITICAL", "", manifest(func(m *Manifest) { m.Crit = []string{"later"} })),
		bad("field commitment changed", "FIELDS_CHANGED", "signed again by the sender", header(func(h *Header) { h.Fields[0] ^= 1 })),
		bad("commitment to another title", "FIELDS_CHANGED", "salts are right, one value is not", func(d *draft) {
			d.commits = func(m *Manifest) { m.Document = strictjson.Raw(strings.Replace(d.meta, "示范", "样本", 1)) }
		}),
		differs("label differs", "LABEL_DIFFERS", `"label":"internal"`, `"label":"public"`),
		differs("sender differs", "SENDER_DIFFERS", a[0].Code, a[2].Code),
		differs("recipient differs", "RECIPIENTS_DIFFER", a[1].Code, a[2].Code),
		differs("urgency differs", "URGENCY_DIFFERS", `"urgency":"normal"`, `"urgency":"urgent"`),
	}
}

// resized has the manifest tell of another first file, of which it is right.
func resized(d *draft, edit func([]byte) []byte) func(*Manifest) {
	return func(m *Manifest) {
		all := edit(d.files[0].all())
		m.Files[0].Size, m.Files[0].SM3 = int64(len(all)), sm.Sum(all)
	}
}

// wrongRelays: what the sender signed was right, and changed on the way.
func wrongRelays(a []*agency) []wrong {
	bad := func(name, class, step, of string, after func(*built)) wrong {
		return wrong{name: name, class: class, step: step, comment: "changed on the way", of: of, after: after}
	}
	payload := func(name, class string, edit func(list [][]byte) [][]byte) wrong {
		return bad(name, class, "payload", chunky, func(b *built) { b.payload = bytes.Join(edit(cut(b.payload)), nil) })
	}
	return []wrong{
		bad("byte behind the header", "TRAILING_BYTES", "header", small, func(b *built) { b.header = append(b.header, 0) }),
		bad("last byte of the header missing", "TRUNCATED", "header", small, func(b *built) { b.header = b.header[:len(b.header)-1] }),
		bad("header twice", "TRAILING_BYTES", "header", small, func(b *built) { b.header = append(b.header, b.header...) }),
		bad("no header", "EMPTY", "header", small, func(b *built) { b.header = nil }),
		bad("bit of the signature", "HEADER_CHANGED", "signature", small, func(b *built) { b.header = flip(b.header, len(b.header)-1) }),
		bad("label changed", "HEADER_CHANGED", "signature", small, relabel(a[0])),
		{
			name: "signed by another for the sender", class: "RESIGNED_BY_ANOTHER", step: "signature", of: small,
			comment: "the signature is good, the certificate is not the sender's", draft: func(d *draft) { d.by = a[2] },
		},
		bad("slot of another recipient", "SLOT_OF_ANOTHER", "slot", "two recipients", func(b *built) { b.slots[0], b.slots[1] = b.slots[1], b.slots[0] }),
		bad("bit of the slot", "SLOT_CHANGED", "slot", small, func(b *built) { b.slots[0] = flip(b.slots[0], 80) }),
		bad("byte behind the slot", "TRAILING_BYTES", "slot", small, func(b *built) { b.slots[0] = append(b.slots[0], 0) }),
		bad("last byte of the slot missing", "TRUNCATED", "slot", small, func(b *built) { b.slots[0] = b.slots[0][:len(b.slots[0])-1] }),
		bad("no slot", "EMPTY", "slot", small, func(b *built) { b.slots[0] = nil }),
		bad("bit of the payload", "PAYLOAD_CHANGED", "payload", small, func(b *built) { b.payload = flip(b.payload, 0) }),
		bad("no payload", "EMPTY", "payload", small, func(b *built) { b.payload = nil }),
		payload("last byte of the payload missing", "TRUNCATED", func(list [][]byte) [][]byte {
			return [][]byte{list[0], list[1], list[2][:len(list[2])-1]}
		}),
		payload("last chunk missing", "TRUNCATED", func(list [][]byte) [][]byte { return list[:2] }),
		payload("chunks reordered", "CHUNKS_REORDERED", func(list [][]byte) [][]byte { return [][]byte{list[1], list[0], list[2]} }),
		payload("chunk repeated", "CHUNK_REPEATED", func(list [][]byte) [][]byte { return [][]byte{list[0], list[0], list[2]} }),
		payload("byte behind the payload", "TRAILING_BYTES", func(list [][]byte) [][]byte { return append(list, []byte{0}) }),
		payload("payload twice", "TRAILING_BYTES", func(list [][]byte) [][]byte { return append(list, list...) }),
	}
}

// keeps remembers the signature it gives.
type keeps struct {
	*agency
	signature []byte
}

func (k *keeps) Sign(msg []byte) (sig []byte, err error) {
	k.signature, err = k.agency.Sign(msg)
	return k.signature, err
}

// relabel writes another label into a header and keeps its signature.
func relabel(from *agency) func(*built) {
	return func(b *built) {
		k := &keeps{agency: from}
		if _, err := cms.Sign(k, []byte(b.content), when); err != nil {
			panic(err)
		}
		changed := strings.Replace(b.content, `"label":"internal"`, `"label":"public"`, 1)
		der, err := cms.Sign(oldSignature{from, k.signature}, []byte(changed), when)
		if err != nil {
			panic(err)
		}
		b.header = der
	}
}
