//go:build !cgo

package pkcs11

// Wrapper is a wrapping key inside a module; there is none in this build.
type Wrapper struct{}

// Open answers ErrNoPKCS11.
func Open(Config) (*Wrapper, error) { return nil, ErrNoPKCS11 }

// GenerateKey answers ErrNoPKCS11.
func GenerateKey(Config) error { return ErrNoPKCS11 }

// NewSecret answers ErrNoPKCS11.
func (*Wrapper) NewSecret() (secret, wrapped []byte, err error) { return nil, nil, ErrNoPKCS11 }

// Wrap answers ErrNoPKCS11.
func (*Wrapper) Wrap([]byte) ([]byte, error) { return nil, ErrNoPKCS11 }

// Unwrap answers ErrNoPKCS11.
func (*Wrapper) Unwrap([]byte) ([]byte, error) { return nil, ErrNoPKCS11 }

// Close does nothing.
func (*Wrapper) Close() error { return nil }
