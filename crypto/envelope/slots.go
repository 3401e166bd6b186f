package envelope

import (
	"crypto/ecdsa"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// slotRandom is what one SM2 encryption reads, bytes, all but once in 2^32.
const slotRandom = 32

// drawn is randomness that was drawn before. Should the encryption want more,
// because the first 32 bytes are no scalar of the curve and were thrown away,
// it gets what follows from them: 224 bits of them are known to nobody.
type drawn struct{ left, last []byte }

func newDrawn(b []byte) *drawn { return &drawn{left: b, last: b} }

func (d *drawn) Read(p []byte) (int, error) {
	if len(d.left) == 0 {
		next := sm.Sum([]byte("yizhan/v1/slot"), d.last)
		d.left, d.last = next[:], next[:]
	}
	n := copy(p, d.left)
	d.left = d.left[n:]
	return n, nil
}

// makeSlots wraps the file key to every recipient, on all processors: with
// thousands of recipients this is the most that sealing does. Randomness is
// drawn before, in the recipients' order, so that the same source gives the
// same slots however the work is divided.
func makeSlots(rand io.Reader, list []Recipient, fileKey []byte) ([]Slot, [][]byte, error) {
	keys := make([]*ecdsa.PublicKey, len(list))
	for i, r := range list {
		var err error
		if keys[i], err = encryptionKey(r.Certificate); err != nil {
			return nil, nil, fmt.Errorf("%w: recipient %s: %w", ErrInvalid, r.Agency, err)
		}
	}
	random := make([]byte, slotRandom*len(list))
	if _, err := io.ReadFull(rand, random); err != nil {
		return nil, nil, err
	}
	defer clear(random)
	slots, sealed, errs := make([]Slot, len(list)), make([][]byte, len(list)), make([]error, len(list))
	spread(len(list), func(i int) {
		r := list[i]
		if sealed[i], errs[i] = sm.Encrypt(newDrawn(random[i*slotRandom:(i+1)*slotRandom]), keys[i], fileKey); errs[i] == nil {
			slots[i] = Slot{Agency: r.Agency, Role: r.Role, Certificate: cms.CertificateDigest(r.Certificate), Slot: sm.Sum(sealed[i])}
		}
	})
	for _, err := range errs {
		if err != nil {
			return nil, nil, err
		}
	}
	return slots, sealed, nil
}

// spreadAt is how many pieces of work are worth a goroutine.
const spreadAt = 16

// spread does the pieces of a work on all processors, when they are many.
func spread(n int, do func(int)) {
	workers := min(runtime.GOMAXPROCS(0), n/spreadAt)
	if workers < 2 {
		for i := range n {
			do(i)
		}
		return
	}
	var wait sync.WaitGroup
	for w := range workers {
		wait.Go(func() {
			for i := w; i < n; i += workers {
				do(i)
			}
		})
	}
	wait.Wait()
}
