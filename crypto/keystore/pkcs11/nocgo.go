//go:build !cgo

package pkcs11

import "github.com/yizhan-gateway/yizhan/crypto/keystore"

// OpenGuard answers ErrNoPKCS11.
func OpenGuard(Config) (keystore.Guard, error) { return nil, ErrNoPKCS11 }

// GenerateKey answers ErrNoPKCS11.
func GenerateKey(Config) error { return ErrNoPKCS11 }

// OpenNative answers ErrNoPKCS11.
func OpenNative(Config, Numbers) (keystore.Custody, error) { return nil, ErrNoPKCS11 }
