package keystore

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"os"

	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// Object identifiers of password-based encryption with SM3 and SM4, as gmsm
// writes them.
var (
	oidPBES    = asn1.ObjectIdentifier{1, 2, 156, 10197, 6, 4, 1, 5, 2}
	oidPBKDF   = asn1.ObjectIdentifier{1, 2, 156, 10197, 6, 4, 1, 5, 1}
	oidHMACSM3 = asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 401, 2}
	oidSM4CBC  = asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 104, 2}
)

// maxIterations bounds how long a planted key file can keep the process busy.
const maxIterations = 10_000_000

// encryptedKey is an EncryptedPrivateKeyInfo under the one protection that is
// used here.
type encryptedKey struct {
	Algorithm struct {
		OID    asn1.ObjectIdentifier
		Params struct {
			KDF struct {
				OID    asn1.ObjectIdentifier
				Params struct {
					Salt       []byte
					Iterations int
					KeyLength  int `asn1:"optional"`
					PRF        pkix.AlgorithmIdentifier
				}
			}
			Cipher pkix.AlgorithmIdentifier
		}
	}
	Data []byte
}

// iterations gives the PBKDF2 iterations of an encrypted key, and refuses any
// protection but PBKDF2 with HMAC-SM3 and SM4-CBC with enough of them: a key
// file that was exchanged for a weaker one must not be taken for ours.
func iterations(der []byte) (int, error) {
	var k encryptedKey
	rest, err := asn1.Unmarshal(der, &k)
	if err != nil || len(rest) > 0 {
		return 0, errors.New("not PKCS#8 under PBKDF2 with HMAC-SM3 and SM4-CBC")
	}
	p := k.Algorithm.Params
	if !k.Algorithm.OID.Equal(oidPBES) || !p.KDF.OID.Equal(oidPBKDF) ||
		!p.KDF.Params.PRF.Algorithm.Equal(oidHMACSM3) || !p.Cipher.Algorithm.Equal(oidSM4CBC) {
		return 0, errors.New("not PKCS#8 under PBKDF2 with HMAC-SM3 and SM4-CBC")
	}
	n := p.KDF.Params.Iterations
	if n < Iterations || n > maxIterations {
		return 0, fmt.Errorf("%d PBKDF2 iterations, %d to %d are accepted", n, Iterations, maxIterations)
	}
	return n, nil
}

// private refuses a file that others than its owner may read or write.
func private(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("keystore: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("keystore: %s is open to others: chmod 600 it", path)
	}
	return nil
}

// Passphrase reads a passphrase from a file, which nobody else may read, or,
// when no file is named, from an environment variable. One line end at the end
// of the file is not part of it.
func Passphrase(file, env string) ([]byte, error) {
	if file == "" {
		if v := os.Getenv(env); v != "" {
			return []byte(v), nil
		}
		return nil, fmt.Errorf("keystore: there is no passphrase: name a file that holds it, or set the environment variable %s", env)
	}
	if err := private(file); err != nil {
		return nil, fmt.Errorf("passphrase: %w", err)
	}
	b, err := durable.ReadFile(durable.OS, file, maxPassphrase)
	if err != nil {
		return nil, fmt.Errorf("keystore: passphrase: %w", err)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 {
		return nil, fmt.Errorf("keystore: passphrase file %s is empty", file)
	}
	return b, nil
}

const maxPassphrase = 4 << 10
