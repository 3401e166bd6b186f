package envelope

import (
	"bytes"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
)

// TestSlotsAreTheSameHoweverDivided: a simulation replays on any machine.
func TestSlotsAreTheSameHoweverDivided(t *testing.T) {
	a := agenciesOf(t)
	var list []Recipient
	for i := range 10 * spreadAt {
		to := a[i%len(a)]
		list = append(list, Recipient{Agency: to.Code, Role: RoleRecipient, Certificate: to.EncryptCert})
	}
	key := bytes.Repeat([]byte{7}, 32)
	var first [][]byte
	for _, processors := range []int{1, 2, 3, 8} {
		before := runtime.GOMAXPROCS(processors)
		_, sealed, err := makeSlots(rand.NewChaCha8([32]byte{1}), list, key)
		runtime.GOMAXPROCS(before)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = sealed
		}
		for i := range sealed {
			if !bytes.Equal(sealed[i], first[i]) {
				t.Fatalf("slot %d is another one on %d processors", i, processors)
			}
		}
	}
	if bytes.Equal(first[0], first[len(a)]) {
		t.Error("two slots for one certificate are the same: randomness was used twice")
	}
}

// TestDrawnGoesOn: what was thrown away as no scalar is not given again.
func TestDrawnGoesOn(t *testing.T) {
	seed := bytes.Repeat([]byte{0xff}, slotRandom)
	var draws [][]byte
	for r := newDrawn(bytes.Clone(seed)); len(draws) < 4; {
		b := make([]byte, slotRandom)
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatal(err)
		}
		for _, had := range draws {
			if bytes.Equal(had, b) {
				t.Fatal("the same bytes twice")
			}
		}
		draws = append(draws, b)
	}
	if !bytes.Equal(draws[0], seed) {
		t.Error("it does not begin with what was drawn")
	}
}
