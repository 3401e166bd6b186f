//go:build cgo

package pkcs11

import (
	"bytes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
)

// The wrapped form: magic ‖ nonce ‖ AES-256-GCM(secret), with the magic, the
// key's label and the secret's name as associated data.
const (
	magic     = "YZW1"
	nonceSize = 12
	tagSize   = 16
	maxSecret = 4 << 10
)

// guard is a wrapping key inside a module. A key may wrap 2^32 secrets in its
// life; a node needs one for each of its keys.
type guard struct {
	c     Config
	login *holder[*session]
}

// session is one login.
type session struct {
	context *crypto11.Context
	aead    cipher.AEAD
	random  io.Reader
}

// OpenGuard logs in to the token and finds the wrapping key by its label. A
// key that could be read out of the module is refused: ErrWeakKey.
func OpenGuard(c Config) (keystore.Guard, error) { return openGuard(c) }

func openGuard(c Config) (*guard, error) {
	g := &guard{c: c}
	h, err := hold(&holder[*session]{
		logIn:   func() (*session, error) { return logIn(g.c) },
		release: func(s *session) error { return s.context.Close() },
		lost:    func(err error) bool { return !isFull(err) },
	})
	if err != nil {
		return nil, err
	}
	g.login = h
	return g, nil
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

// check refuses a configuration with holes before the module sees it.
func (c Config) check() error {
	for _, need := range []struct{ name, value string }{{"module", c.Module}, {"token", c.Token}, {"key", c.Key}, {"PIN", string(c.PIN)}} {
		if need.value == "" {
			return fmt.Errorf("pkcs11: no %s: set it in the configuration", need.name)
		}
	}
	return nil
}

func configure(c Config) (*crypto11.Context, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	context, err := crypto11.Configure(&crypto11.Config{
		Path: c.Module, TokenLabel: c.Token, Pin: string(c.PIN),
		GCMIVLength: nonceSize, // the library's default of 16 is no GCM nonce
		// The pool hands out its sessions in turn, so that many cost as many
		// openings and keep none of them warm; and modules have few.
		MaxSessions:     maxSessions + 1, // one keeps the login
		PoolWaitTimeout: patience,
	})
	if err != nil {
		return nil, loginError(c, err)
	}
	return context, nil
}

// loginError is ErrPIN when it is the PIN that was refused, else ErrModule.
func loginError(c Config, err error) error {
	kind := ErrModule
	for _, code := range []pkcs11.Error{
		pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_EXPIRED,
		pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_USER_PIN_NOT_INITIALIZED,
	} {
		if errors.Is(cause(err), code) {
			kind = ErrPIN
		}
	}
	return fmt.Errorf("%w: token %q of %s: %w", kind, c.Token, c.Module, err)
}

// cause goes through the wrapping of crypto11, which is older than that of
// package errors.
func cause(err error) error {
	for {
		wrapped, ok := err.(interface{ Cause() error })
		if !ok {
			return err
		}
		err = wrapped.Cause()
	}
}

func logIn(c Config) (s *session, err error) {
	// crypto11 panics when a token has fewer sessions than its pool needs.
	defer func() {
		if r := recover(); r != nil {
			s, err = nil, fmt.Errorf("%w: %w", ErrModule, panicError(r))
		}
	}()
	context, err := configure(c)
	if err != nil {
		return nil, err
	}
	s = &session{context: context}
	if err := s.find(c.Key); err != nil {
		return nil, errors.Join(err, context.Close())
	}
	return s, nil
}

func (s *session) find(label string) error {
	keys, err := s.context.FindKeys(nil, []byte(label))
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
	if err := s.checkKey(keys[0]); err != nil {
		return err
	}
	if s.aead, err = keys[0].NewGCM(); err != nil {
		return fmt.Errorf("%w: %w", ErrModule, err)
	}
	if s.random, err = s.context.NewRandomReader(); err != nil {
		return fmt.Errorf("%w: %w", ErrModule, err)
	}
	return nil
}

// checkKey asks the module what the key may do. Booleans are one byte.
func (s *session) checkKey(key *crypto11.SecretKey) error {
	got, err := s.context.GetAttributes(key, []crypto11.AttributeType{
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

// Wrap implements keystore.Guard.
func (g *guard) Wrap(name string, secret []byte) (sealed []byte, err error) {
	if len(secret) == 0 || len(secret) > maxSecret {
		return nil, fmt.Errorf("pkcs11: 1 to %d bytes are wrapped, got %d", maxSecret, len(secret))
	}
	return useSession(g, func(s *session) ([]byte, error) {
		own := bytes.Clone(secret) // the caller wipes his, also when the module hangs
		defer clear(own)
		return s.seal(g.associated(name), own)
	})
}

func (s *session) seal(associated, secret []byte) (sealed []byte, err error) {
	nonce := make([]byte, nonceSize)
	if _, err := io.ReadFull(s.random, nonce); err != nil {
		return nil, err
	}
	// Seal panics when the module fails.
	defer func() {
		if r := recover(); r != nil {
			sealed, err = nil, panicError(r)
		}
	}()
	return s.aead.Seal(slices.Concat([]byte(magic), nonce), nonce, secret, associated), nil
}

// panicError keeps the module's code, when it was one.
func panicError(r any) error {
	if err, ok := r.(error); ok {
		return err
	}
	return fmt.Errorf("%v", r)
}

// Unwrap implements keystore.Guard: ErrWrapped when it does not open.
func (g *guard) Unwrap(name string, sealed []byte) (secret []byte, err error) {
	if len(sealed) <= len(magic)+nonceSize+tagSize || len(sealed) > len(magic)+nonceSize+maxSecret+tagSize || string(sealed[:len(magic)]) != magic {
		return nil, ErrWrapped
	}
	want := len(sealed) - len(magic) - nonceSize - tagSize
	secret, err = useSession(g, func(s *session) ([]byte, error) {
		secret, err := s.open(g.associated(name), sealed[len(magic):])
		if err == nil || isFull(err) || !s.works() {
			return secret, err
		}
		// The module opens what it has just sealed: the bytes are at fault.
		return nil, nil
	})
	// A module may hand over the plaintext before it has looked at the tag;
	// what does not have the right length was never ours.
	if err == nil && len(secret) != want {
		return nil, ErrWrapped
	}
	return secret, err
}

func (s *session) open(associated, body []byte) (secret []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			secret, err = nil, panicError(r)
		}
	}()
	return s.aead.Open(nil, body[:nonceSize], body[nonceSize:], associated)
}

// works says whether the module does anything at all. Modules answer a wrong
// tag and a lost token with whatever code they like.
func (s *session) works() bool {
	probe := []byte("probe")
	sealed, err := s.seal(probe, probe)
	if err != nil {
		return false
	}
	_, err = s.open(probe, sealed[len(magic):])
	return err == nil
}

func (g *guard) associated(name string) []byte {
	return []byte(magic + g.c.Key + "\x00" + name)
}

// fullPause is how long the next try waits when the token had no session to
// give. The pool of crypto11 hands out its places in turn, so that the next one
// may be a session that is open.
const fullPause = 5 * time.Millisecond

// useSession runs fn with a login. When fn fails the login is thrown away and
// everybody gets ErrModule until a new one works. A token without a free
// session is asked again.
func useSession[T any](g *guard, fn func(*session) (T, error)) (out T, err error) {
	enough := time.Now().Add(g.login.patience)
	for {
		l, err := g.login.enter()
		if err != nil {
			return out, err
		}
		out, err = call(g.login, l, fn)
		switch {
		case err == nil:
			return out, nil
		case !isFull(err) || time.Now().After(enough):
			return out, fmt.Errorf("%w: %w", ErrModule, err)
		}
		time.Sleep(fullPause)
	}
}

// Close logs out and lets the module go.
func (g *guard) Close() error { return g.login.close() }
