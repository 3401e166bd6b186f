package node

import (
	"errors"
	"testing"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/keystore"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// answers are keys that answer every Unwrap with one error.
type answers struct {
	Keys
	by map[sm.Digest]error
}

func (a answers) Has(id sm.Digest) bool { _, here := a.by[id]; return here }

func (a answers) Unwrap(id sm.Digest, _ []byte) ([]byte, error) {
	if err := a.by[id]; err != nil {
		return nil, err
	}
	return []byte("secret"), nil
}

// TestLostKeyIsNotAWrongKey: among several keys, in any order, one that could
// not be asked may be the right one.
func TestLostKeyIsNotAWrongKey(t *testing.T) {
	one, two := sm.Sum([]byte("1")), sm.Sum([]byte("2"))
	list := []certs.Certificate{{Use: "encrypt", KeyID: one}, {Use: "encrypt", KeyID: two}}
	for _, tt := range []struct{ first, second, want error }{
		{sm.ErrDecrypt, sm.ErrDecrypt, sm.ErrDecrypt},
		{keystore.ErrUnavailable, sm.ErrDecrypt, keystore.ErrUnavailable},
		{sm.ErrDecrypt, keystore.ErrUnavailable, keystore.ErrUnavailable},
		{keystore.ErrUnavailable, nil, nil},
		{sm.ErrDecrypt, nil, nil},
	} {
		n := &Node{c: Config{Keys: answers{by: map[sm.Digest]error{one: tt.first, two: tt.second}}}}
		if _, err := n.unwrapAny(list, nil); !errors.Is(err, tt.want) {
			t.Errorf("%v, then %v: got %v", tt.first, tt.second, err)
		}
	}
	n := &Node{c: Config{Keys: answers{}}}
	if _, err := n.unwrapAny(list, nil); !errors.Is(err, sm.ErrDecrypt) {
		t.Errorf("no key here: %v", err)
	}
}
