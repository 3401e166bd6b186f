//go:build cgo

package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	p11 "github.com/miekg/pkcs11"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/keystore/pkcs11"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// softHSM is where distributions put the module.
var softHSM = []string{
	"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so",
}

// wrappedMode measures a keystore whose files are under a key of a SoftHSM2
// token that is made for it, and thrown away with the directory.
func wrappedMode(ctx context.Context, r *runner, dir string) ([]Result, error) {
	config, err := makeToken(filepath.Join(dir, "hsm"))
	if err != nil {
		return nil, err
	}
	if config == nil {
		return notMeasured("SoftHSM 2 is missing: install the Debian package softhsm2"), nil
	}
	if err := pkcs11.GenerateKey(*config); err != nil {
		return nil, err
	}
	guard, err := pkcs11.OpenGuard(*config)
	if err != nil {
		return nil, err
	}
	store, err := keystore.CreateWrapped(filepath.Join(dir, "keys"), guard, rand.Reader)
	if err != nil {
		return nil, errors.Join(err, guard.Close())
	}
	results, err := measureWrapped(ctx, r, store, config)
	return results, errors.Join(err, store.Close())
}

// makeToken makes a token of its own; nil when the module is not installed.
func makeToken(dir string) (*pkcs11.Config, error) {
	module := ""
	for _, path := range softHSM {
		if _, err := os.Stat(path); err == nil {
			module = path
			break
		}
	}
	util, err := exec.LookPath("softhsm2-util")
	if err != nil || module == "" {
		return nil, nil
	}
	if err := os.MkdirAll(filepath.Join(dir, "tokens"), 0o700); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "softhsm2.conf")
	text := "directories.tokendir = " + filepath.Join(dir, "tokens") + "\nobjectstore.backend = file\nlog.level = ERROR\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if err := os.Setenv("SOFTHSM2_CONF", conf); err != nil {
		return nil, err
	}
	pin := rand.Text()
	out, err := exec.Command(util, "--init-token", "--free", "--label", "bench", "--pin", pin, "--so-pin", pin).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("bench: softhsm2-util: %w: %s", err, out)
	}
	return &pkcs11.Config{Module: module, Token: "bench", Key: "kek", PIN: []byte(pin)}, nil
}

func measureWrapped(ctx context.Context, r *runner, store *keystore.Store, config *pkcs11.Config) ([]Result, error) {
	pub, err := store.Generate()
	if err != nil {
		return nil, err
	}
	id, msg := sm.KeyID(pub), make([]byte, 256)
	slot, err := sm.Encrypt(rand.Reader, pub, make([]byte, 32))
	if err != nil {
		return nil, err
	}
	raw, err := openRaw(config)
	if err != nil {
		return nil, err
	}
	defer raw.close()
	key, err := sm.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	theirs, err := sm.Encrypt(rand.Reader, &key.PublicKey, make([]byte, 32))
	if err != nil {
		return nil, err
	}
	r.primitives[opHSMSign] = raw.then(key, func(key *sm.PrivateKey) error { _, err := sm.Sign(rand.Reader, key, msg); return err })
	r.primitives[opHSMUnwrap] = raw.then(key, func(key *sm.PrivateKey) error { _, err := sm.Decrypt(key, theirs); return err })
	var results []Result
	for _, f := range []figure{
		{hsmSign, "signatures/s", 1, false, false, []pass{{opHSMSign, 1, ""}},
			func(context.Context) error { _, err := store.Sign(id, msg); return err }},
		{hsmUnwrap, "file keys/s", 1, false, false, []pass{{opHSMUnwrap, 1, ""}},
			func(context.Context) error { _, err := store.Unwrap(id, slot); return err }},
	} {
		some, err := r.measure(ctx, f)
		if err != nil {
			return nil, err
		}
		results = append(results, some...)
	}
	return results, nil
}

// raw is the token without anything of ours: sessions of the module itself,
// one for each processor, and a key file's bytes encrypted in it.
type raw struct {
	ctx      *p11.Ctx
	sessions chan p11.SessionHandle
	key      p11.ObjectHandle
	sealed   []byte
}

// As long as those of a key file, bytes.
var (
	rawNonce      = make([]byte, 12)
	rawAssociated = make([]byte, 72)
	rawKeyFile    = make([]byte, 150)
)

func rawParams() (*p11.GCMParams, []*p11.Mechanism) {
	params := p11.NewGCMParams(rawNonce, rawAssociated, 128)
	return params, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_GCM, params)}
}

// openRaw uses the login of the guard: PKCS#11 has one for each process.
func openRaw(c *pkcs11.Config) (*raw, error) {
	r := &raw{ctx: p11.New(c.Module), sessions: make(chan p11.SessionHandle, runtime.GOMAXPROCS(0))}
	slots, err := r.ctx.GetSlotList(true)
	if err != nil {
		return nil, err
	}
	for _, slot := range slots {
		info, err := r.ctx.GetTokenInfo(slot)
		if err != nil || info.Label != c.Token {
			continue
		}
		for range cap(r.sessions) {
			s, err := r.ctx.OpenSession(slot, p11.CKF_SERIAL_SESSION)
			if err != nil {
				return nil, err
			}
			r.sessions <- s
		}
		return r, r.prepare(c.Key)
	}
	return nil, errors.New("bench: the token is gone")
}

func (r *raw) prepare(label string) error {
	s := <-r.sessions
	defer func() { r.sessions <- s }()
	err := r.ctx.FindObjectsInit(s, []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, p11.CKO_SECRET_KEY), p11.NewAttribute(p11.CKA_LABEL, label)})
	if err != nil {
		return err
	}
	found, _, err := r.ctx.FindObjects(s, 1)
	if err = errors.Join(err, r.ctx.FindObjectsFinal(s)); err != nil || len(found) != 1 {
		return errors.Join(err, errors.New("bench: the wrapping key is gone"))
	}
	r.key = found[0]
	params, mechanism := rawParams()
	defer params.Free()
	if err := r.ctx.EncryptInit(s, mechanism, r.key); err != nil {
		return err
	}
	r.sealed, err = r.ctx.Encrypt(s, rawKeyFile)
	return err
}

func (r *raw) decrypt() error {
	s := <-r.sessions
	defer func() { r.sessions <- s }()
	params, mechanism := rawParams()
	defer params.Free()
	if err := r.ctx.DecryptInit(s, mechanism, r.key); err != nil {
		return err
	}
	_, err := r.ctx.Decrypt(s, r.sealed)
	return err
}

// then is a decryption in the token and an operation with a key that, as the
// mode demands, was not there before.
func (r *raw) then(key *sm.PrivateKey, fn func(*sm.PrivateKey) error) primitive {
	return primitive{1, func() error {
		if err := r.decrypt(); err != nil {
			return err
		}
		once := new(sm.PrivateKey)
		once.PublicKey, once.D = key.PublicKey, new(big.Int).Set(key.D)
		return fn(once)
	}}
}

// close leaves the module to the guard, which logs out.
func (r *raw) close() {
	for range cap(r.sessions) {
		_ = r.ctx.CloseSession(<-r.sessions) // nothing depends on it any more
	}
	r.ctx.Destroy()
}
