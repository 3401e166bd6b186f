package keystore

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// nativeStorage holds the storage secret, encrypted with SM2 to a key that is
// inside the HSM and serves nothing else, after the 32 bytes of that key's id.
const nativeStorage = "storage.sm2"

// CreateNative makes a keystore whose keys are inside an HSM. The store closes
// the custody.
func CreateNative(dir string, c Custody, rand io.Reader) (*Store, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	secret := make([]byte, storageSize)
	if _, err := io.ReadFull(rand, secret); err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	pub, err := c.Generate(rand)
	if err != nil {
		return nil, err
	}
	sealed, err := sm.Encrypt(rand, pub, secret)
	if err != nil {
		return nil, err
	}
	id := sm.KeyID(pub)
	// A crash before WriteFile returns leaves a key in the HSM that nothing names.
	if err := durable.WriteFile(durable.OS, filepath.Join(dir, nativeStorage), append(id[:], sealed...)); err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	s := newStore(c, id, rand)
	return s, s.derive(secret)
}

// OpenNative opens a keystore whose keys are inside an HSM.
func OpenNative(dir string, c Custody, rand io.Reader) (*Store, error) {
	path := filepath.Join(dir, nativeStorage)
	if err := private(path); err != nil {
		return nil, err
	}
	b, err := durable.ReadFile(durable.OS, path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	if len(b) < sm.Size {
		return nil, damage{fmt.Errorf("keystore: %s is damaged: restore it", path)}
	}
	id := sm.Digest(b[:sm.Size])
	secret, err := c.Unwrap(id, b[sm.Size:])
	if err == nil && len(secret) != storageSize {
		err = errors.New("it does not hold a storage secret")
	}
	if err != nil {
		return nil, fmt.Errorf("keystore: %s does not open with the HSM's key %s: another token, or a damaged file: %w", path, id, err)
	}
	s := newStore(c, id, rand)
	return s, s.derive(secret)
}
