//go:build cgo

package bench

import (
	"crypto/rand"
	"path/filepath"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/keystore/pkcs11"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

func BenchmarkWrappedSign(b *testing.B) {
	config, err := makeToken(filepath.Join(b.TempDir(), "hsm"))
	if err != nil || config == nil {
		b.Skip("SoftHSM2 is missing (Debian package softhsm2)")
	}
	if err := pkcs11.GenerateKey(*config); err != nil {
		b.Fatal(err)
	}
	guard, err := pkcs11.OpenGuard(*config)
	if err != nil {
		b.Fatal(err)
	}
	store, err := keystore.CreateWrapped(filepath.Join(b.TempDir(), "keys"), guard, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	pub, err := store.Generate()
	if err != nil {
		b.Fatal(err)
	}
	id, msg := sm.KeyID(pub), make([]byte, 256)
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := store.Sign(id, msg); err != nil {
				b.Fatal(err)
			}
		}
	})
}
