// Package pkcs11 lets a hardware security module guard a keystore: wrapped
// mode. The keystore's passphrase is 32 random bytes that lie on disk only
// encrypted (AES-256-GCM) under a key that never leaves the module. Whoever
// has the disk or a backup, but not the module and its PIN, has nothing.
//
// What this does not protect: a process that was taken over. Once unwrapped,
// the SM2 keys work in the process's memory; only keys inside the module
// (native mode) help there.
//
// PKCS#11 modules are C libraries. A build without cgo has the same functions,
// and each of them answers [ErrNoPKCS11].
package pkcs11

import "errors"

// SecretSize is the length of what is wrapped, bytes.
const SecretSize = 32

// Config says where the wrapping key is.
type Config struct {
	Module string // path of the vendor's PKCS#11 library
	Token  string // label of the token
	Key    string // label of the AES-256 key
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
	ErrWrapped = errors.New("pkcs11: the wrapped secret does not open: it is damaged, or was wrapped under another key")
	// ErrModule means that the module itself failed.
	ErrModule = errors.New("pkcs11: the module failed: see whether it is connected and its service runs")
)
