//go:build cgo

package pkcs11

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// module is what of a PKCS#11 library is used: *pkcs11.Ctx and, because its
// mechanism parameters cannot be read by a double, one call more.
type module interface {
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
	OpenSession(slot uint, flags uint) (pkcs11.SessionHandle, error)
	CloseSession(pkcs11.SessionHandle) error
	Login(s pkcs11.SessionHandle, user uint, pin string) error
	FindObjectsInit(pkcs11.SessionHandle, []*pkcs11.Attribute) error
	FindObjects(s pkcs11.SessionHandle, max int) ([]pkcs11.ObjectHandle, bool, error)
	FindObjectsFinal(pkcs11.SessionHandle) error
	GetAttributeValue(pkcs11.SessionHandle, pkcs11.ObjectHandle, []*pkcs11.Attribute) ([]*pkcs11.Attribute, error)
	SetAttributeValue(pkcs11.SessionHandle, pkcs11.ObjectHandle, []*pkcs11.Attribute) error
	GenerateKeyPair(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (pkcs11.ObjectHandle, pkcs11.ObjectHandle, error)
	SignInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error
	Sign(pkcs11.SessionHandle, []byte) ([]byte, error)
	DecryptInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error
	Decrypt(pkcs11.SessionHandle, []byte) ([]byte, error)
	// DeriveX gives the x coordinate of the point multiplied with the key.
	DeriveX(s pkcs11.SessionHandle, point []byte, key pkcs11.ObjectHandle) ([]byte, error)
}

// library loads and lets go of a module; tests bring their own.
type library func() (m module, release func(), err error)

// native is the custody of mode native.
type native struct {
	c     Config
	n     Numbers
	load  library
	login *holder[*login]

	mu     sync.Mutex
	public map[sm.Digest]*ecdsa.PublicKey
}

// login is one initialised module with its sessions and key handles.
type login struct {
	m       module
	release func()
	slot    uint
	first   pkcs11.SessionHandle // stays open, because a login ends with its last session
	// Sessions are taken from idle, or opened with a place from places; the two
	// and those in use are never more than maxSessions.
	idle   chan pkcs11.SessionHandle
	places chan struct{}

	mu   sync.RWMutex
	keys map[sm.Digest]pkcs11.ObjectHandle
}

// OpenNative logs in and lists the SM2 keys of the configured label.
func OpenNative(c Config, n Numbers) (keystore.Custody, error) {
	var mu sync.Mutex
	loaded := 0 // while an operation hangs there are two
	return openNative(c, n, func() (module, func(), error) {
		mu.Lock()
		defer mu.Unlock()
		ctx := pkcs11.New(c.Module)
		if ctx == nil {
			return nil, nil, fmt.Errorf("%s is no PKCS#11 library", c.Module)
		}
		if err := ctx.Initialize(); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
			ctx.Destroy()
			return nil, nil, err
		}
		loaded++
		return libraryModule{ctx}, func() {
			mu.Lock()
			defer mu.Unlock()
			if loaded--; loaded == 0 {
				_ = ctx.Finalize()
			}
			ctx.Destroy()
		}, nil
	})
}

func openNative(c Config, n Numbers, load library) (*native, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	k := &native{c: c, n: n, load: load, public: map[sm.Digest]*ecdsa.PublicKey{}}
	h, err := hold(&holder[*login]{logIn: k.logIn, release: (*login).letGo, lost: isLoss})
	if err != nil {
		return nil, err
	}
	k.login = h
	return k, nil
}

// isLoss says whether a failed call means that the module is lost.
func isLoss(err error) bool {
	return !errors.Is(err, keystore.ErrNoKey) && !isNumbers(err) && !isFull(err)
}

func (l *login) letGo() error {
	l.release()
	return nil
}

func (k *native) logIn() (*login, error) {
	m, release, err := k.load()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrModule, err)
	}
	l := &login{m: m, release: release, keys: map[sm.Digest]pkcs11.ObjectHandle{},
		idle: make(chan pkcs11.SessionHandle, maxSessions), places: make(chan struct{}, maxSessions)}
	public, err := l.open(k.c)
	if err != nil {
		release()
		return nil, loginError(k.c, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.Copy(k.public, public)
	return l, nil
}

func (l *login) open(c Config) (public map[sm.Digest]*ecdsa.PublicKey, err error) {
	most := 0
	if l.slot, most, err = l.find(c.Token); err != nil {
		return nil, err
	}
	for range most {
		l.places <- struct{}{}
	}
	if l.first, err = l.session(); err != nil {
		return nil, err
	}
	err = l.m.Login(l.first, pkcs11.CKU_USER, string(c.PIN))
	if err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
		return nil, err
	}
	return l.list(l.first, c.Key)
}

// find gives the token's slot, and how many sessions may be used beside first.
func (l *login) find(token string) (slot uint, most int, err error) {
	slots, err := l.m.GetSlotList(true)
	if err != nil {
		return 0, 0, err
	}
	for _, slot := range slots {
		if info, err := l.m.GetTokenInfo(slot); err == nil && info.Label == token {
			return slot, min(sessionsOf(info.MaxSessionCount), sessionsOf(info.MaxRwSessionCount)), nil
		}
	}
	return 0, 0, errors.New("there is no such token")
}

func (l *login) session() (pkcs11.SessionHandle, error) {
	return l.m.OpenSession(l.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
}

// maxKeys bounds what is listed of a token.
const maxKeys = 100_000

// list finds the key pairs of a label: private keys whose CKA_ID is the key
// id, and the public point beside each.
func (l *login) list(s pkcs11.SessionHandle, label string) (map[sm.Digest]*ecdsa.PublicKey, error) {
	public, keys := map[sm.Digest]*ecdsa.PublicKey{}, map[sm.Digest]pkcs11.ObjectHandle{}
	private, err := l.objects(s, pkcs11.CKO_PRIVATE_KEY, label)
	if err != nil {
		return nil, err
	}
	points, err := l.objects(s, pkcs11.CKO_PUBLIC_KEY, label)
	if err != nil {
		return nil, err
	}
	for _, key := range private {
		id, err := l.attribute(s, key, pkcs11.CKA_ID)
		if err != nil {
			return nil, err
		}
		if len(id) == sm.Size { // else one whose making was interrupted
			keys[sm.Digest(id)] = key
		}
	}
	for _, object := range points {
		pub, err := l.point(s, object)
		if err != nil {
			return nil, err
		}
		if id := sm.KeyID(pub); keys[id] != 0 {
			public[id] = pub
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.Copy(l.keys, keys)
	return public, nil
}

func (l *login) objects(s pkcs11.SessionHandle, class uint, label string) (list []pkcs11.ObjectHandle, err error) {
	err = l.m.FindObjectsInit(s, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
	})
	if err != nil {
		return nil, err
	}
	for err == nil && len(list) < maxKeys {
		var some []pkcs11.ObjectHandle
		if some, _, err = l.m.FindObjects(s, 100); len(some) == 0 {
			break
		}
		list = append(list, some...)
	}
	return list, errors.Join(err, l.m.FindObjectsFinal(s))
}

func (l *login) attribute(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, kind uint) ([]byte, error) {
	got, err := l.m.GetAttributeValue(s, o, []*pkcs11.Attribute{pkcs11.NewAttribute(kind, nil)})
	if err != nil || len(got) != 1 {
		return nil, fmt.Errorf("attribute %#x: %w", kind, errors.Join(err, absentIf(len(got) != 1)))
	}
	return got[0].Value, nil
}

func absentIf(absent bool) error {
	if absent {
		return errors.New("absent")
	}
	return nil
}

// point reads a public key; CKA_EC_POINT is the point in an OCTET STRING, and
// of some modules the bare point.
func (l *login) point(s pkcs11.SessionHandle, o pkcs11.ObjectHandle) (*ecdsa.PublicKey, error) {
	b, err := l.attribute(s, o, pkcs11.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	return parsePoint(b)
}

// parsePoint reads CKA_EC_POINT: the standard wraps the point in an OCTET
// STRING, some modules do not. The length tells which: a bare point begins with
// 04, as an OCTET STRING does, and one in 256 is the encoding of one.
func parsePoint(b []byte) (*ecdsa.PublicKey, error) {
	var inner cryptobyte.String
	if in := cryptobyte.String(b); len(b) != barePoint && in.ReadASN1(&inner, asn1.OCTET_STRING) && in.Empty() {
		b = inner
	}
	return sm.ParsePublicKey(b)
}

// barePoint is the length of 04 ‖ x ‖ y, bytes.
const barePoint = 65

// oidSM2Curve is the curve of GB/T 32918.5 as DER: 1.2.156.10197.1.301.
var oidSM2Curve = []byte{0x06, 0x08, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 0x01, 0x82, 0x2d}

// Generate implements keystore.Custody: the key is made in the module and
// never leaves it. A crash before CKA_ID is set leaves a key that nothing
// names.
func (k *native) Generate(io.Reader) (pub *ecdsa.PublicKey, err error) {
	pub, err = useLogin(k, func(l *login, s pkcs11.SessionHandle) (*ecdsa.PublicKey, error) {
		params := k.n.ECParams
		if params == nil {
			params = oidSM2Curve
		}
		public, private, err := l.m.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(k.n.Generate, nil)},
			[]*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, k.c.Key),
				pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, k.n.KeyType), pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, params),
			},
			[]*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, k.c.Key),
				pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, k.n.KeyType), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
				pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
				pkcs11.NewAttribute(pkcs11.CKA_SIGN, k.n.Sign != 0), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, k.n.Decrypt != 0),
				pkcs11.NewAttribute(pkcs11.CKA_DERIVE, k.n.Decrypt == 0),
			})
		if err != nil {
			return nil, err
		}
		pub, err := l.point(s, public)
		if err != nil {
			return nil, err
		}
		id := sm.KeyID(pub)
		for _, o := range []pkcs11.ObjectHandle{public, private} {
			if err := l.m.SetAttributeValue(s, o, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, id[:])}); err != nil {
				return nil, err
			}
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.keys[id] = private
		return pub, nil
	})
	if err == nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.public[sm.KeyID(pub)] = pub
	}
	return pub, err
}

// Import implements keystore.Custody: a key that was outside does not go in.
func (*native) Import(*sm.PrivateKey) error {
	return errors.New("pkcs11: in mode native keys are made inside the HSM and none is imported: deliver an outside key with the vendor's tool, or use mode wrapped")
}

// Public implements keystore.Custody.
func (k *native) Public() []*ecdsa.PublicKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Values(k.public))
}

// Reload implements keystore.Custody.
func (k *native) Reload() error {
	found, err := useLogin(k, func(l *login, s pkcs11.SessionHandle) (map[sm.Digest]*ecdsa.PublicKey, error) {
		return l.list(s, k.c.Key)
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.Copy(k.public, found)
	return err
}

// Signs implements keystore.Custody.
func (k *native) Signs() bool { return k.n.Sign != 0 }

// Sign implements keystore.Custody. The randomness is the module's.
func (k *native) Sign(_ io.Reader, id sm.Digest, msg []byte) (sig []byte, err error) {
	if k.n.Sign == 0 {
		return nil, fmt.Errorf("%w: no mechanism to sign with is configured", ErrNumbers)
	}
	pub, err := k.publicKey(id)
	if err != nil {
		return nil, err
	}
	input := msg
	if !k.n.SignsWhole {
		if input, err = sm.SignatureDigest(pub, msg); err != nil {
			return nil, err
		}
	}
	sig, err = useKey(k, id, func(l *login, s pkcs11.SessionHandle, key pkcs11.ObjectHandle) ([]byte, error) {
		if err := l.m.SignInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(k.n.Sign, nil)}, key); err != nil {
			return nil, err
		}
		return l.m.Sign(s, input)
	})
	if err == nil && k.n.RawSig {
		sig, err = sm.SignatureFromRaw(sig)
	}
	return sig, err
}

func (k *native) publicKey(id sm.Digest) (*ecdsa.PublicKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if pub := k.public[id]; pub != nil {
		return pub, nil
	}
	return nil, fmt.Errorf("%w: %s", keystore.ErrNoKey, id)
}

// Unwrap implements keystore.Custody.
func (k *native) Unwrap(id sm.Digest, sealed []byte) (plain []byte, err error) {
	pub, err := k.publicKey(id)
	if err != nil {
		return nil, err
	}
	if _, err := sm.ParseCiphertext(sealed); err != nil {
		return nil, sm.ErrDecrypt
	}
	type answer struct {
		plain []byte
		bad   bool
	}
	got, err := useKey(k, id, func(l *login, s pkcs11.SessionHandle, key pkcs11.ObjectHandle) (answer, error) {
		plain, err := l.unseal(s, key, k.n, sealed)
		if err != nil && (isBadData(err) || !isNumbers(err) && l.works(s, key, k.n, pub)) {
			return answer{bad: true}, nil
		}
		return answer{plain: plain}, err
	})
	if got.bad {
		return nil, sm.ErrDecrypt
	}
	return got.plain, err
}

func (l *login) unseal(s pkcs11.SessionHandle, key pkcs11.ObjectHandle, n Numbers, sealed []byte) ([]byte, error) {
	c, err := sm.ParseCiphertext(sealed)
	if err != nil {
		return nil, err
	}
	if n.Decrypt == 0 {
		return l.decryptByPoint(s, key, c)
	}
	if n.RawCipher {
		sealed = c.C1C3C2()
	}
	if err := l.m.DecryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(n.Decrypt, nil)}, key); err != nil {
		return nil, err
	}
	return l.m.Decrypt(s, sealed)
}

// works says whether the module opens what was sealed to the key just now.
// Modules answer a wrong ciphertext and a lost token with whatever code they
// like; without this question a neighbour could cost us the login with every
// broken ciphertext, and have it tried for ever.
func (l *login) works(s pkcs11.SessionHandle, key pkcs11.ObjectHandle, n Numbers, pub *ecdsa.PublicKey) bool {
	probe := []byte("probe")
	sealed, err := sm.Encrypt(rand.Reader, pub, probe)
	if err != nil {
		return false
	}
	plain, err := l.unseal(s, key, n, sealed)
	return err == nil && bytes.Equal(plain, probe)
}

// decryptByPoint has the module multiply the point C1 with the private key.
// PKCS#11 gives the x coordinate alone: of the two points with it, C3 tells
// which was meant.
func (l *login) decryptByPoint(s pkcs11.SessionHandle, key pkcs11.ObjectHandle, c *sm.Ciphertext) ([]byte, error) {
	x, err := l.m.DeriveX(s, c.C1(), key)
	if err != nil {
		return nil, err
	}
	return c.OpenWithX(x)
}

// libraryModule is a real module.
type libraryModule struct{ *pkcs11.Ctx }

// DeriveX is CKM_ECDH1_DERIVE without a key derivation function. The shared
// value is an object of the session for as long as it takes to read it.
func (m libraryModule) DeriveX(s pkcs11.SessionHandle, point []byte, key pkcs11.ObjectHandle) ([]byte, error) {
	params := pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, point)
	shared, err := m.DeriveKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDH1_DERIVE, params)}, key, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
	})
	if err != nil {
		return nil, err
	}
	got, err := m.GetAttributeValue(s, shared, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
	if err = errors.Join(err, m.DestroyObject(s, shared)); err != nil {
		return nil, err
	}
	if len(got) != 1 {
		return nil, errors.New("CKA_VALUE is absent")
	}
	return got[0].Value, nil
}

// isBadData says whether it is the ciphertext that is wrong: such an answer
// must not cost the login.
func isBadData(err error) bool {
	if errors.Is(err, sm.ErrDecrypt) {
		return true
	}
	for _, code := range []pkcs11.Error{
		pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_DATA_INVALID, pkcs11.CKR_DATA_LEN_RANGE,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// isNumbers says whether the module does not know what it was asked for: to
// log in again would not help.
func isNumbers(err error) bool {
	for _, code := range []pkcs11.Error{
		pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID,
		pkcs11.CKR_KEY_TYPE_INCONSISTENT, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_TEMPLATE_INCONSISTENT,
		pkcs11.CKR_CURVE_NOT_SUPPORTED,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// Close implements keystore.Custody.
func (k *native) Close() error { return k.login.close() }
