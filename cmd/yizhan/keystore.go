package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/keystore/pkcs11"
	"github.com/yizhan-gateway/yizhan/internal/config"
)

// The modes of a keystore.
const (
	modeFile    = "file"
	modeWrapped = "wrapped"
	modeNative  = "native"
)

// keystoreSettings is section [keystore] of config.toml: where the private
// keys are. Without the section they are in files under the passphrase. With
// an HSM the passphrase is the PIN of the token's user.
//
// The numbers after profile go before those of the profile; they are what the
// vendor's manual says (mode native).
type keystoreSettings struct {
	Mode    string `toml:"mode" comment:"where private keys are: file, wrapped (files under a key in an HSM) or native (inside the HSM); docs/hsm.md"`
	Module  string `toml:"module,omitempty" comment:"path of the HSM's PKCS#11 library"`
	Token   string `toml:"token,omitempty" comment:"label of the token"`
	Key     string `toml:"key,omitempty" comment:"label of the wrapping key, or of this node's SM2 keys"`
	Profile string `toml:"profile,omitempty" comment:"numbers of the vendor to start from"`

	KeyType      *uint `toml:"key_type,omitempty" comment:"CKA_KEY_TYPE of SM2 keys"`
	Generate     *uint `toml:"generate,omitempty" comment:"mechanism that makes key pairs"`
	Sign         *uint `toml:"sign,omitempty" comment:"mechanism that signs"`
	SignsWhole   *bool `toml:"signs_whole,omitempty" comment:"it is given the message, not SM3(Z, message)"`
	RawSignature *bool `toml:"raw_signature,omitempty" comment:"signatures are r, s; else DER"`
	Decrypt      *uint `toml:"decrypt,omitempty" comment:"mechanism that decrypts; 0 is CKM_ECDH1_DERIVE"`
	RawCipher    *bool `toml:"raw_cipher,omitempty" comment:"ciphertexts are C1 C3 C2; else DER"`
}

// keystoreFlags are those of the commands that make a keystore.
type keystoreFlags struct {
	keystoreSettings
	set []string
}

func (f *keystoreFlags) register(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.Mode, "keystore", modeFile, "where private keys are: file, wrapped or native · 密钥存放方式")
	fl.StringVar(&f.Module, "hsm-module", "", "path of the HSM's PKCS#11 library")
	fl.StringVar(&f.Token, "hsm-token", "", "label of the token; the passphrase is its user's PIN")
	fl.StringVar(&f.Key, "hsm-key", "", "label of the wrapping key (made when absent), or of this node's SM2 keys")
	fl.StringVar(&f.Profile, "hsm-profile", "", "mode native: the vendor's numbers, one of "+strings.Join(profiles(), ", "))
	fl.StringArrayVar(&f.set, "hsm-set", nil, "mode native: NAME=VALUE of [keystore], over the profile's (repeatable)")
}

// settings gives what the flags say, as it is written to config.toml.
func (f *keystoreFlags) settings() (*keystoreSettings, error) {
	k := f.keystoreSettings
	if err := config.Parse("--hsm-set", []byte(strings.Join(f.set, "\n")), &k); err != nil {
		return nil, usageError{err}
	}
	if err := k.check(); err != nil {
		return nil, usageError{err}
	}
	return &k, nil
}

func profiles() []string { return slices.Sorted(maps.Keys(pkcs11.Profiles)) }

func (k *keystoreSettings) mode() string { return or(k.Mode, modeFile) }

// numbered says whether anything is set that only mode native reads.
func (k *keystoreSettings) numbered() bool {
	return k.Profile != "" || k.KeyType != nil || k.Generate != nil || k.Sign != nil || k.SignsWhole != nil ||
		k.RawSignature != nil || k.Decrypt != nil || k.RawCipher != nil
}

// check finds what is missing or would be ignored.
func (k *keystoreSettings) check() error {
	hsm := k.Module != "" || k.Token != "" || k.Key != ""
	switch k.mode() {
	case modeFile:
		if hsm || k.numbered() {
			return fmt.Errorf("keystore: an HSM is named, but the mode is %q: say wrapped or native", modeFile)
		}
		return nil
	case modeWrapped:
		if k.numbered() {
			return fmt.Errorf("keystore: a profile and numbers are for mode native; mode wrapped needs none")
		}
	case modeNative:
		if _, err := k.numbers(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("keystore: mode %q: file, wrapped or native is expected", k.Mode)
	}
	for _, need := range []struct{ name, value string }{{"module", k.Module}, {"token", k.Token}, {"key", k.Key}} {
		if need.value == "" {
			return fmt.Errorf("keystore: mode %s needs %s (--hsm-%s, or %s in [keystore])", k.Mode, need.name, need.name, need.name)
		}
	}
	return nil
}

// numbers are those of the profile with what is set beside it.
func (k *keystoreSettings) numbers() (n pkcs11.Numbers, err error) {
	if k.Profile != "" {
		var known bool
		if n, known = pkcs11.Profiles[k.Profile]; !known {
			return n, fmt.Errorf("keystore: profile %q is none of %s", k.Profile, strings.Join(profiles(), ", "))
		}
	}
	put(&n.KeyType, k.KeyType)
	put(&n.Generate, k.Generate)
	put(&n.Sign, k.Sign)
	put(&n.SignsWhole, k.SignsWhole)
	put(&n.RawSig, k.RawSignature)
	put(&n.Decrypt, k.Decrypt)
	put(&n.RawCipher, k.RawCipher)
	if n.KeyType == 0 || n.Generate == 0 {
		return n, fmt.Errorf("keystore: mode native needs the vendor's numbers: a profile, or key_type and generate")
	}
	if n.Sign == 0 {
		return n, fmt.Errorf("keystore: a node signs, and no mechanism is named for it: set sign, or use mode wrapped")
	}
	return n, nil
}

func put[T any](into *T, set *T) {
	if set != nil {
		*into = *set
	}
}

func (k *keystoreSettings) config(pin []byte) pkcs11.Config {
	return pkcs11.Config{Module: k.Module, Token: k.Token, Key: k.Key, PIN: pin}
}

// create makes a keystore in dir. made says whether the wrapping key had to be
// made, too.
func (k *keystoreSettings) create(dir string, secret []byte) (s *keystore.Store, made bool, err error) {
	if err := k.check(); err != nil {
		return nil, false, err
	}
	if k.mode() == modeWrapped {
		switch err := pkcs11.GenerateKey(k.config(secret)); {
		case err == nil:
			made = true
		case !errors.Is(err, pkcs11.ErrKeyExists):
			return nil, false, err
		}
	}
	s, err = k.with(dir, secret, backends{keystore.Create, keystore.CreateWrapped, keystore.CreateNative})
	return s, made, err
}

// open opens the keystore in dir, of whatever mode.
func (k *keystoreSettings) open(dir string, secret []byte) (*keystore.Store, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	return k.with(dir, secret, backends{keystore.Open, keystore.OpenWrapped, keystore.OpenNative})
}

// with logs in to the HSM when the mode has one, and lets it go again when
// the store cannot be had.
func (k *keystoreSettings) with(dir string, secret []byte, use backends) (*keystore.Store, error) {
	switch k.mode() {
	case modeWrapped:
		guard, err := pkcs11.OpenGuard(k.config(secret))
		if err != nil {
			return nil, err
		}
		s, err := use.wrapped(dir, guard, rand.Reader)
		return letGo(s, err, guard)
	case modeNative:
		n, err := k.numbers()
		if err != nil {
			return nil, err
		}
		custody, err := pkcs11.OpenNative(k.config(secret), n)
		if err != nil {
			return nil, err
		}
		s, err := use.native(dir, custody, rand.Reader)
		return letGo(s, err, custody)
	}
	return use.file(dir, secret, rand.Reader)
}

func letGo(s *keystore.Store, err error, hsm io.Closer) (*keystore.Store, error) {
	if err != nil {
		return nil, errors.Join(err, hsm.Close())
	}
	return s, nil
}

// backends are how a store of each mode is made, or opened.
type backends struct {
	file    func(dir string, passphrase []byte, rand io.Reader) (*keystore.Store, error)
	wrapped func(dir string, guard keystore.Guard, rand io.Reader) (*keystore.Store, error)
	native  func(dir string, c keystore.Custody, rand io.Reader) (*keystore.Store, error)
}

// openKeys opens a node's keystore as its config.toml says; the passphrase (or
// PIN) comes from the file, or from the environment. The caller closes it.
func (d dataDir) openKeys(passFile string) (*keystore.Store, error) {
	s, err := d.settings()
	if err != nil {
		return nil, err
	}
	secret, err := keystore.Passphrase(passFile, passphraseEnv)
	if err != nil {
		return nil, err
	}
	return s.Keystore.open(d.path(keysDir), secret)
}
