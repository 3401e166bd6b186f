package envelope

import (
	"bytes"
	"testing"
)

// FuzzOpen gives the reader of a good header other slots and payloads: nothing
// but what was sealed opens, and there is one error for everything.
func FuzzOpen(f *testing.F) {
	c := sealCase(f)
	slot, payload := c.s.Slots[0], c.m.all()
	f.Add(slot, payload)
	f.Add(c.s.Slots[1], payload)
	f.Add(slot, payload[:len(payload)-1])
	f.Add([]byte{}, []byte{})
	_, first := Open(f.Context(), c.e, c.yi.unwrap, nil, c.m)
	f.Fuzz(func(t *testing.T, s, p []byte) {
		o, err := Open(t.Context(), c.e, c.yi.unwrap, s, &memory{[][]byte{p}})
		if bytes.Equal(s, slot) && bytes.Equal(p, payload) {
			if err != nil {
				t.Fatalf("what was sealed does not open: %v", err)
			}
			return
		}
		if err == nil {
			// The manifest opened and the files are read to their ends: only
			// there a changed chunk of a file shows.
			for i := range o.Manifest.Files {
				if err = readFile(t.Context(), o, i, new(bytes.Buffer)); err != nil {
					break
				}
			}
		}
		if err == nil || err.Error() != first.Error() {
			t.Fatalf("%v, want %v", err, first)
		}
	})
}

// FuzzVerifyDisclosure: no other leaves than those sealed lead to the header's
// commitment.
func FuzzVerifyDisclosure(f *testing.F) {
	c := sealCase(f)
	o, err := c.open(f, c.e, c.yi, 0)
	if err != nil {
		f.Fatal(err)
	}
	leaves, err := o.Disclose()
	if err != nil {
		f.Fatal(err)
	}
	for i, l := range leaves {
		f.Add(i, l.Name, l.Salt[:], []byte(l.Value))
	}
	f.Add(0, "document/title", []byte{}, []byte(`"x"`))
	f.Fuzz(func(t *testing.T, i int, name string, salt, value []byte) {
		i = int(uint(i) % uint(len(leaves)))
		list := append([]Leaf{}, leaves...)
		l := &list[i]
		l.Name, l.Value = name, value
		l.Salt = [32]byte{}
		copy(l.Salt[:], salt)
		same := name == leaves[i].Name && bytes.Equal(value, leaves[i].Value) && l.Salt == leaves[i].Salt
		if err := VerifyDisclosure(&c.e.Header, list); (err == nil) != same {
			t.Fatalf("same leaf: %v; %v", same, err)
		}
	})
}
