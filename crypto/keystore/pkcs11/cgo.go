//go:build cgo

package pkcs11

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/ThalesIgnite/crypto11"
)

// The wrapped form: magic ‖ nonce ‖ AES-256-GCM(secret), with the magic and
// the key's label as associated data.
const (
	magic     = "YZW1"
	nonceSize = 12
	tagSize   = 16
	wrapped   = len(magic) + nonceSize + SecretSize + tagSize
)

// Wrapper is a wrapping key inside a module. Safe for concurrent use. A key
// may wrap 2^32 secrets in its life; a keystore needs one.
type Wrapper struct {
	label   string
	context *crypto11.Context
	aead    cipher.AEAD
	random  io.Reader
}

// Open logs in to the token and finds the wrapping key by its label. A key
// that could be read out of the module is refused: ErrWeakKey.
func Open(c Config) (*Wrapper, error) {
	context, err := configure(c)
	if err != nil {
		return nil, err
	}
	w := &Wrapper{label: c.Key, context: context}
	if err := w.find(); err != nil {
		return nil, errors.Join(err, context.Close())
	}
	return w, nil
}

// GenerateKey makes the wrapping key inside the token: AES-256, sensitive,
// not extractable. An existing key of the label is left alone: ErrKeyExists.
func GenerateKey(c Config) error {
	context, err := configure(c)
	if err != nil {
		return err
	}
	return errors.Join(generate(context, c.Key), context.Close())
}

func generate(context *crypto11.Context, label string) error {
	// FindKey gives nil, nil for a key that is absent.
	key, err := context.FindKey(nil, []byte(label))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrModule, err)
	}
	if key != nil {
		return ErrKeyExists
	}
	if _, err := context.GenerateSecretKeyWithLabel([]byte(label), []byte(label), 256, crypto11.CipherAES); err != nil {
		return fmt.Errorf("%w: %w", ErrModule, err)
	}
	return nil
}

func configure(c Config) (*crypto11.Context, error) {
	for _, need := range []struct{ name, value string }{{"module", c.Module}, {"token", c.Token}, {"key", c.Key}, {"PIN", string(c.PIN)}} {
		if need.value == "" {
			return nil, fmt.Errorf("pkcs11: no %s: set it in the configuration", need.name)
		}
	}
	context, err := crypto11.Configure(&crypto11.Config{
		Path: c.Module, TokenLabel: c.Token, Pin: string(c.PIN),
		GCMIVLength: nonceSize, // the library's default of 16 is no GCM nonce
	})
	if err != nil {
		return nil, fmt.Errorf("%w: token %q of %s: %w", ErrModule, c.Token, c.Module, err)
	}
	return context, nil
}

func (w *Wrapper) find() error {
	keys, err := w.context.FindKeys(nil, []byte(w.label))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrModule, err)
	}
	switch len(keys) {
	case 0:
		return ErrNoKey
	case 1:
	default:
		return fmt.Errorf("pkcs11: the token holds %d keys of this label: which one is meant? give each its own label", len(keys))
	}
	if err := w.checkKey(keys[0]); err != nil {
		return err
	}
	if w.aead, err = keys[0].NewGCM(); err != nil {
		return fmt.Errorf("%w: %w", ErrModule, err)
	}
	if w.random, err = w.context.NewRandomReader(); err != nil {
		return fmt.Errorf("%w: %w", ErrModule, err)
	}
	return nil
}

// checkKey asks the module what the key may do. Booleans are one byte.
func (w *Wrapper) checkKey(key *crypto11.SecretKey) error {
	got, err := w.context.GetAttributes(key, []crypto11.AttributeType{
		crypto11.CkaSensitive, crypto11.CkaExtractable, crypto11.CkaValueLen,
	})
	if err != nil {
		return fmt.Errorf("%w: the key's attributes: %w", ErrModule, err)
	}
	is := func(a crypto11.AttributeType, want byte) bool {
		return got[a] != nil && bytes.Equal(got[a].Value, []byte{want})
	}
	// CKA_VALUE_LEN is a CK_ULONG in the machine's order: exactly one byte is set.
	length := got[crypto11.CkaValueLen]
	if !is(crypto11.CkaSensitive, 1) || !is(crypto11.CkaExtractable, 0) || key.Cipher != crypto11.CipherAES ||
		length == nil || slices.Max(length.Value) != 32 || bytes.Count(length.Value, []byte{0}) != len(length.Value)-1 {
		return ErrWeakKey
	}
	return nil
}

// NewSecret draws a secret inside the module and wraps it: a passphrase for
// keystore.Create, and what to keep on disk.
func (w *Wrapper) NewSecret() (secret, sealed []byte, err error) {
	secret = make([]byte, SecretSize)
	if _, err := io.ReadFull(w.random, secret); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrModule, err)
	}
	sealed, err = w.Wrap(secret)
	return secret, sealed, err
}

// Wrap encrypts a secret of SecretSize bytes under the key in the module.
func (w *Wrapper) Wrap(secret []byte) (sealed []byte, err error) {
	if len(secret) != SecretSize {
		return nil, fmt.Errorf("pkcs11: a secret of %d bytes is wrapped, got %d", SecretSize, len(secret))
	}
	nonce := make([]byte, nonceSize)
	if _, err := io.ReadFull(w.random, nonce); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrModule, err)
	}
	// Seal panics when the module fails.
	defer func() {
		if r := recover(); r != nil {
			sealed, err = nil, fmt.Errorf("%w: %v", ErrModule, r)
		}
	}()
	return w.aead.Seal(slices.Concat([]byte(magic), nonce), nonce, secret, w.associated()), nil
}

// Unwrap opens what Wrap made: ErrWrapped when it does not open.
func (w *Wrapper) Unwrap(sealed []byte) (secret []byte, err error) {
	if len(sealed) != wrapped || string(sealed[:len(magic)]) != magic {
		return nil, ErrWrapped
	}
	defer func() {
		if r := recover(); r != nil {
			secret, err = nil, fmt.Errorf("%w: %v", ErrModule, r)
		}
	}()
	body := sealed[len(magic):]
	secret, err = w.aead.Open(nil, body[:nonceSize], body[nonceSize:], w.associated())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrWrapped, err)
	}
	// A module may hand over the plaintext before it has looked at the tag;
	// what does not have the right length was never ours.
	if len(secret) != SecretSize {
		return nil, ErrWrapped
	}
	return secret, nil
}

func (w *Wrapper) associated() []byte { return []byte(magic + w.label) }

// Close logs out and lets the module go.
func (w *Wrapper) Close() error { return w.context.Close() }
