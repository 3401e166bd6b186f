// Package pkcs11 puts a hardware security module behind a keystore, through the
// vendor's PKCS#11 library.
//
// [OpenGuard] is for mode wrapped: an AES-256 key that never leaves the module
// encrypts the key files of a node (AES-256-GCM). Whoever has the disk or a
// backup, but not the module and its PIN, has nothing. What this does not
// protect: a process that was taken over sees the SM2 keys while it uses them.
//
// [OpenNative] is for mode native: SM2 keys are made, sign and decrypt inside
// the module, by the vendor's numbers for key types and mechanisms, which come
// from the configuration ([Numbers]).
//
// A module that fails is temporary (keystore.ErrUnavailable): its sessions are
// thrown away, and the next use, after at least a second, logs in again. So is
// one that does not answer within 30 seconds. One that has no free session is
// waited for, as long.
//
// PKCS#11 modules are C libraries. A build without cgo has the same functions,
// and each of them answers [ErrNoPKCS11].
package pkcs11

import (
	"errors"
	"fmt"

	"github.com/yizhan-gateway/yizhan/crypto/keystore"
)

// Config says where the module is and how to log in.
type Config struct {
	Module string // path of the vendor's PKCS#11 library
	Token  string // label of the token
	Key    string // label of the AES-256 key (wrapped), or of this node's SM2 keys (native)
	PIN    []byte // of the token's user
}

// The errors a caller can act on.
var (
	// ErrNoPKCS11 is the answer of a build without cgo.
	ErrNoPKCS11 = errors.New("pkcs11: this program was built without PKCS#11, because C libraries need cgo: use the build for HSMs, or build with CGO_ENABLED=1 and a C compiler")
	// ErrNoKey means that the token holds no such key.
	ErrNoKey = errors.New("pkcs11: the token holds no AES key of this label: make one, or correct the label in the configuration")
	// ErrKeyExists means that a key was to be made and is there already.
	ErrKeyExists = errors.New("pkcs11: the token holds a key of this label already")
	// ErrWeakKey means that the key could leave the module, or is not AES-256.
	ErrWeakKey = errors.New("pkcs11: the wrapping key must be AES-256, sensitive and not extractable: make a new one")
	// ErrWrapped means that wrapped bytes do not open under this key.
	ErrWrapped = errors.New("pkcs11: the wrapped secret does not open: it is damaged, or was wrapped under another key or name")
	// ErrModule means that the module itself failed; it is
	// keystore.ErrUnavailable.
	ErrModule = fmt.Errorf("pkcs11: the module failed: see whether it is connected and its service runs: %w", keystore.ErrUnavailable)
	// ErrPIN means that the token refuses the PIN; it is keystore.ErrPIN. Since
	// tokens lock after a few wrong ones, a running node does not offer it
	// again; there, where the login once worked, it is ErrModule, too: nothing
	// is refused because of it.
	ErrPIN = fmt.Errorf("pkcs11: %w: correct it and start again; it is not offered again, because tokens lock after a few wrong ones", keystore.ErrPIN)
	// ErrNumbers means that the module does not do what the configured numbers
	// promise.
	ErrNumbers = errors.New("pkcs11: the module refuses the configured key type or mechanism: compare the numbers with the vendor's manual")
)

// Numbers are what vendors disagree about: key types and mechanisms for SM2
// are vendor-defined in PKCS#11, and so is how signatures and ciphertexts are
// written. The zero value of Decrypt means CKM_ECDH1_DERIVE, which standard
// modules offer: the module computes the shared point, and the rest is done
// here.
type Numbers struct {
	KeyType    uint   // CKA_KEY_TYPE of SM2 keys
	Generate   uint   // mechanism of C_GenerateKeyPair
	Sign       uint   // mechanism of C_Sign
	SignsWhole bool   // C_Sign is given the message; else SM3(Z ‖ message)
	RawSig     bool   // signatures are r ‖ s; else DER
	Decrypt    uint   // mechanism of C_Decrypt
	RawCipher  bool   // ciphertexts are 04 ‖ x ‖ y ‖ C3 ‖ C2; else DER (GB/T 35276)
	ECParams   []byte // CKA_EC_PARAMS of C_GenerateKeyPair; nil is the OID of the SM2 curve
}

// Profiles are numbers of modules in the field, to start from; what the
// vendor's manual says goes before.
var Profiles = map[string]Numbers{
	"tass":   {KeyType: 0x80000004, Generate: 0x80008001, Sign: 0x80008104, Decrypt: 0x80008000},
	"sansec": {KeyType: 0x80000004, Generate: 0x80008001, Sign: 0x80008105, RawSig: true, Decrypt: 0x80008000, RawCipher: true},
	"ep11":   {KeyType: 0x80050002, Generate: 0x8005000A, Sign: 0x8005000B, RawSig: true, Decrypt: 0x8005000D},
	"ecdh":   {KeyType: 0x3, Generate: 0x1040},
}
