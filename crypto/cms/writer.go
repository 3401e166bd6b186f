package cms

import (
	"bytes"

	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// writer writes DER from its last byte to its first, since a length is known
// when what it is the length of stands. Without out it only counts; with
// comparing it holds what would be written against out, and writes nothing: that
// spares a copy of each object that is read.
type writer struct {
	out       []byte
	at        int // where out begins by now
	comparing bool
	differs   bool
}

// written gives what write writes. It is called twice: to count, and to write.
func written(write func(*writer)) []byte {
	var w writer
	write(&w)
	w = writer{out: make([]byte, -w.at), at: -w.at}
	write(&w)
	return w.out
}

// same says whether write writes exactly these bytes.
func same(der []byte, write func(*writer)) bool {
	w := writer{out: der, at: len(der), comparing: true}
	write(&w)
	return w.at == 0 && !w.differs
}

// add writes bytes before what stands.
func (w *writer) add(b []byte) {
	end := w.at
	w.at -= len(b)
	switch {
	case w.out == nil: // counting
	case w.comparing:
		w.differs = w.differs || w.at < 0 || !bytes.Equal(w.out[w.at:end], b)
	default:
		copy(w.out[w.at:], b)
	}
}

// wrapped writes an element around what content writes.
func (w *writer) wrapped(t tag.Tag, content func()) {
	end := w.at
	content()
	n := end - w.at
	var head [6]byte
	i := len(head) - 1
	head[i] = byte(n)
	if n >= 0x80 {
		for rest := n >> 8; rest > 0; rest >>= 8 {
			i--
			head[i] = byte(rest)
		}
		i--
		head[i] = 0x80 | byte(len(head)-1-i)
	}
	i--
	head[i] = byte(t)
	w.add(head[i:])
}
