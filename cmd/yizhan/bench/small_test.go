package bench

import (
	"testing"
)

func BenchmarkSealSmall(b *testing.B) {
	c := &cryptoRun{}
	c.sender, _ = newParty("91110000600037341L")
	c.to, _ = newParty("91350100M000100Y43")
	for b.Loop() {
		if _, err := c.seal(b.Context(), smallDocument, 1, discard); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenSmall(b *testing.B) {
	c := &cryptoRun{}
	c.sender, _ = newParty("91110000600037341L")
	c.to, _ = newParty("91350100M000100Y43")
	open, err := c.small(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := open(); err != nil {
			b.Fatal(err)
		}
	}
}
