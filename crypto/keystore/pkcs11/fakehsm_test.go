//go:build cgo

package pkcs11

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"github.com/emmansun/gmsm/sm2"
	p11 "github.com/miekg/pkcs11"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// fakeHSM is a module that signs and decrypts SM2 inside, by vendor numbers:
// no open software token does. It holds sessions, logins and objects apart as
// PKCS#11 does, and forgets them when it is lost.
type fakeHSM struct {
	n Numbers

	mu              sync.Mutex
	down            bool
	vague           bool // answers a bad ciphertext with a code that says nothing
	loads, releases int
	most            int           // sessions, 0 is no bound
	tells           bool          // that bound
	full            int           // how often it was met
	hang            chan struct{} // operations wait for it
	hangLoad        chan struct{} // loading does
	objects         map[p11.ObjectHandle]*fakeObject
	next            uint
	sessions        map[p11.SessionHandle]*fakeSession
	loggedIn        bool
}

type fakeObject struct {
	class   uint
	label   string
	id      []byte
	key     *sm.PrivateKey
	sign    bool
	decrypt bool
	derive  bool
}

type fakeSession struct {
	found     []p11.ObjectHandle
	operation *fakeObject
}

func newFakeHSM(n Numbers) *fakeHSM {
	return &fakeHSM{n: n, objects: map[p11.ObjectHandle]*fakeObject{}}
}

// set changes what the others read under the lock.
func (f *fakeHSM) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// wait hangs as long as the test wants.
func (f *fakeHSM) wait(gate *chan struct{}) {
	f.mu.Lock()
	g := *gate
	f.mu.Unlock()
	if g != nil {
		<-g
	}
}

func (f *fakeHSM) load() (module, func(), error) {
	f.wait(&f.hangLoad)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, nil, errors.New("no device")
	}
	// As several processes may: the sessions of one outlive another's.
	if f.loads++; f.loads == f.releases+1 {
		f.sessions, f.loggedIn = map[p11.SessionHandle]*fakeSession{}, false
	}
	return f, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.releases++
	}, nil
}

func (f *fakeHSM) setDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down = down; down {
		f.sessions, f.loggedIn = map[p11.SessionHandle]*fakeSession{}, false
	}
}

func code(c uint) error { return p11.Error(c) }

// in gives a session of a logged-in user; the lock is held until done.
func (f *fakeHSM) in(s p11.SessionHandle) (*fakeSession, error) {
	if f.down {
		return nil, code(p11.CKR_DEVICE_REMOVED)
	}
	one := f.sessions[s]
	if one == nil {
		return nil, code(p11.CKR_SESSION_HANDLE_INVALID)
	}
	if !f.loggedIn {
		return nil, code(p11.CKR_USER_NOT_LOGGED_IN)
	}
	return one, nil
}

func (f *fakeHSM) GetSlotList(bool) ([]uint, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, code(p11.CKR_DEVICE_REMOVED)
	}
	return []uint{7}, nil
}

func (f *fakeHSM) GetTokenInfo(uint) (p11.TokenInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info := p11.TokenInfo{Label: "hsm", MaxSessionCount: p11.CK_UNAVAILABLE_INFORMATION}
	if f.tells {
		info.MaxSessionCount = uint(f.most)
	}
	return info, nil
}

func (f *fakeHSM) OpenSession(uint, uint) (p11.SessionHandle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return 0, code(p11.CKR_DEVICE_REMOVED)
	}
	if f.most > 0 && len(f.sessions) >= f.most {
		f.full++
		return 0, code(p11.CKR_SESSION_COUNT)
	}
	f.next++
	f.sessions[p11.SessionHandle(f.next)] = new(fakeSession)
	return p11.SessionHandle(f.next), nil
}

func (f *fakeHSM) CloseSession(s p11.SessionHandle) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sessions, s)
	return nil
}

func (f *fakeHSM) Login(_ p11.SessionHandle, user uint, pin string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case user != p11.CKU_USER || pin != "1234":
		return code(p11.CKR_PIN_INCORRECT)
	case f.loggedIn:
		return code(p11.CKR_USER_ALREADY_LOGGED_IN)
	}
	f.loggedIn = true
	return nil
}

func attributeOf(list []*p11.Attribute, kind uint) []byte {
	for _, a := range list {
		if a.Type == kind {
			return a.Value
		}
	}
	return nil
}

func number(b []byte) uint {
	if len(b) != 8 {
		return 0
	}
	return uint(binary.NativeEndian.Uint64(b))
}

func (f *fakeHSM) FindObjectsInit(s p11.SessionHandle, template []*p11.Attribute) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	one, err := f.in(s)
	if err != nil {
		return err
	}
	one.found = nil
	for h, o := range f.objects {
		if o.class == number(attributeOf(template, p11.CKA_CLASS)) && o.label == string(attributeOf(template, p11.CKA_LABEL)) {
			one.found = append(one.found, h)
		}
	}
	return nil
}

func (f *fakeHSM) FindObjects(s p11.SessionHandle, most int) ([]p11.ObjectHandle, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one, err := f.in(s)
	if err != nil {
		return nil, false, err
	}
	n := min(most, len(one.found), 2)
	out := one.found[:n]
	one.found = one.found[n:]
	return out, false, nil
}

func (f *fakeHSM) FindObjectsFinal(p11.SessionHandle) error { return nil }

func (f *fakeHSM) GetAttributeValue(s p11.SessionHandle, h p11.ObjectHandle, list []*p11.Attribute) ([]*p11.Attribute, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.in(s); err != nil {
		return nil, err
	}
	o := f.objects[h]
	if o == nil {
		return nil, code(p11.CKR_OBJECT_HANDLE_INVALID)
	}
	switch {
	case list[0].Type == p11.CKA_ID:
		return []*p11.Attribute{p11.NewAttribute(p11.CKA_ID, o.id)}, nil
	case list[0].Type == p11.CKA_EC_POINT && o.class == p11.CKO_PUBLIC_KEY:
		point := sm.PublicKeyBytes(&o.key.PublicKey)
		if f.n.RawSig { // such modules write bare points, too
			return []*p11.Attribute{p11.NewAttribute(p11.CKA_EC_POINT, point)}, nil
		}
		return []*p11.Attribute{p11.NewAttribute(p11.CKA_EC_POINT, octets(point))}, nil
	}
	return nil, code(p11.CKR_ATTRIBUTE_SENSITIVE)
}

func (f *fakeHSM) SetAttributeValue(s p11.SessionHandle, h p11.ObjectHandle, list []*p11.Attribute) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.in(s); err != nil {
		return err
	}
	f.objects[h].id = attributeOf(list, p11.CKA_ID)
	return nil
}

func (f *fakeHSM) GenerateKeyPair(s p11.SessionHandle, m []*p11.Mechanism, public, private []*p11.Attribute) (p11.ObjectHandle, p11.ObjectHandle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.in(s); err != nil {
		return 0, 0, err
	}
	if m[0].Mechanism != f.n.Generate || number(attributeOf(public, p11.CKA_KEY_TYPE)) != f.n.KeyType {
		return 0, 0, code(p11.CKR_MECHANISM_INVALID)
	}
	if !slices.Equal(attributeOf(private, p11.CKA_EXTRACTABLE), []byte{0}) || !slices.Equal(attributeOf(private, p11.CKA_SENSITIVE), []byte{1}) {
		return 0, 0, errors.New("a private key that could leave the module was asked for")
	}
	key, err := sm.GenerateKey(rand.Reader)
	if err != nil {
		return 0, 0, err
	}
	may := func(kind uint) bool { return slices.Equal(attributeOf(private, kind), []byte{1}) }
	label := string(attributeOf(private, p11.CKA_LABEL))
	pub := f.put(&fakeObject{class: p11.CKO_PUBLIC_KEY, label: label, key: key})
	return pub, f.put(&fakeObject{class: p11.CKO_PRIVATE_KEY, label: label, key: key, sign: may(p11.CKA_SIGN), decrypt: may(p11.CKA_DECRYPT), derive: may(p11.CKA_DERIVE)}), nil
}

func (f *fakeHSM) put(o *fakeObject) p11.ObjectHandle {
	f.next++
	f.objects[p11.ObjectHandle(f.next)] = o
	return p11.ObjectHandle(f.next)
}

// begin starts an operation with a key in a session.
func (f *fakeHSM) begin(s p11.SessionHandle, m []*p11.Mechanism, want uint, h p11.ObjectHandle, may func(*fakeObject) bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	one, err := f.in(s)
	if err != nil {
		return err
	}
	o := f.objects[h]
	switch {
	case m[0].Mechanism != want:
		return code(p11.CKR_MECHANISM_INVALID)
	case o == nil:
		return code(p11.CKR_KEY_HANDLE_INVALID)
	case !may(o):
		return code(p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
	}
	one.operation = o
	return nil
}

func (f *fakeHSM) end(s p11.SessionHandle) (*fakeObject, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	one, err := f.in(s)
	if err != nil {
		return nil, err
	}
	o := one.operation
	if o == nil {
		return nil, code(p11.CKR_OPERATION_NOT_INITIALIZED)
	}
	one.operation = nil
	return o, nil
}

func (f *fakeHSM) SignInit(s p11.SessionHandle, m []*p11.Mechanism, h p11.ObjectHandle) error {
	return f.begin(s, m, f.n.Sign, h, func(o *fakeObject) bool { return o.sign })
}

func (f *fakeHSM) Sign(s p11.SessionHandle, data []byte) ([]byte, error) {
	f.wait(&f.hang)
	o, err := f.end(s)
	if err != nil {
		return nil, err
	}
	var sig []byte
	if f.n.SignsWhole {
		sig, err = sm.Sign(rand.Reader, o.key, data)
	} else if len(data) != 32 {
		return nil, code(p11.CKR_DATA_LEN_RANGE)
	} else {
		sig, err = sm2.SignASN1(rand.Reader, o.key, data, nil)
	}
	if err == nil && f.n.RawSig {
		return rawOf(panicT{}, sig), nil
	}
	return sig, err
}

type panicT struct{}

func (panicT) Fatal(args ...any) { panic(args) }

func (f *fakeHSM) DecryptInit(s p11.SessionHandle, m []*p11.Mechanism, h p11.ObjectHandle) error {
	return f.begin(s, m, f.n.Decrypt, h, func(o *fakeObject) bool { return o.decrypt })
}

func (f *fakeHSM) Decrypt(s p11.SessionHandle, data []byte) ([]byte, error) {
	o, err := f.end(s)
	if err != nil {
		return nil, err
	}
	var plain []byte
	if f.n.RawCipher {
		plain, err = sm2.Decrypt(o.key, data) // raw C1C3C2
	} else {
		plain, err = sm.Decrypt(o.key, data)
	}
	if err != nil && f.vague {
		return nil, code(p11.CKR_FUNCTION_FAILED)
	}
	if err != nil {
		return nil, code(p11.CKR_ENCRYPTED_DATA_INVALID)
	}
	return plain, nil
}

// DeriveX gives the x coordinate of [d]point.
func (f *fakeHSM) DeriveX(s p11.SessionHandle, point []byte, h p11.ObjectHandle) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.in(s); err != nil {
		return nil, err
	}
	o := f.objects[h]
	if o == nil || !o.derive {
		return nil, code(p11.CKR_KEY_FUNCTION_NOT_PERMITTED)
	}
	pub, err := sm.ParsePublicKey(point)
	if err != nil {
		return nil, code(p11.CKR_MECHANISM_PARAM_INVALID)
	}
	theirs, err := sm2.PublicKeyToECDH(pub)
	if err != nil {
		return nil, err
	}
	ours, err := o.key.ECDH()
	if err != nil {
		return nil, err
	}
	return ours.ECDH(theirs)
}
