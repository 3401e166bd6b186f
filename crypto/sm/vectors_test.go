package sm

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

var update = flag.Bool("update", false, "write testdata anew")

const (
	verifyFile    = "sm2-verify.json"
	decryptFile   = "sm2-decrypt.json"
	publicKeyFile = "sm2-publickey.json"
)

// vectorFile is one file of testdata; testdata/README.md says what its members
// mean to another implementation.
type vectorFile[V any] struct {
	About   string `json:"about"`
	UserID  string `json:"user_id,omitempty"`
	Vectors []V    `json:"vectors"`
}

// verdict is what every vector says besides its input.
type verdict struct {
	Result string `json:"result"` // valid or invalid
	Class  string `json:"class,omitempty"`
	// OnlyCheck: the arithmetic without the check that the class names accepts.
	OnlyCheck bool `json:"only_check,omitempty"`
}

func (v verdict) valid() bool { return v.Result == "valid" }

func accepted() verdict { return verdict{Result: "valid"} }

func refused(class string, only bool) verdict { return verdict{"invalid", class, only} }

// fixed is the number that this label always gives, in [1, n-2].
func fixed(label string) *big.Int {
	d := Sum([]byte("yizhan SM2 vectors: " + label))
	return plus(new(big.Int).Mod(numberOf(d[:]), minus(orderN, number(2))), number(1))
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func joined(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// tlv is one DER element.
func tlv(tag byte, parts ...[]byte) []byte {
	body := joined(parts...)
	head := []byte{tag}
	switch n := len(body); {
	case n < 0x80:
		head = append(head, byte(n))
	case n < 0x100:
		head = append(head, 0x81, byte(n))
	default:
		head = append(head, 0x82, byte(n>>8), byte(n))
	}
	return append(head, body...)
}

func sequence(parts ...[]byte) []byte { return tlv(0x30, parts...) }

func octets(b []byte) []byte { return tlv(0x04, b) }

// integer is a DER INTEGER, of a negative number too.
func integer(n *big.Int) []byte {
	if n.Sign() < 0 {
		bits := uint(n.BitLen()/8+1) * 8
		return tlv(0x02, plus(n, new(big.Int).Lsh(number(1), bits)).Bytes())
	}
	b := n.Bytes()
	if len(b) == 0 || b[0] >= 0x80 {
		b = append([]byte{0}, b...)
	}
	return tlv(0x02, b)
}

// longLength writes an element's length with a needless byte.
func longLength(element []byte) []byte {
	switch {
	case element[1] < 0x80:
		return joined(element[:1], []byte{0x81}, element[1:])
	case element[1] == 0x81:
		return joined(element[:1], []byte{0x82, 0}, element[2:])
	}
	return joined(element[:1], []byte{0x83, 0}, element[2:])
}

// indefinite writes a constructed element with BER's open length.
func indefinite(body []byte) []byte { return joined([]byte{0x30, 0x80}, body, []byte{0, 0}) }

// committed reads a file of testdata, after writing it when asked to, and
// fails when it is not what the generator gives.
func committed[V any](t *testing.T, name string, made vectorFile[V]) vectorFile[V] {
	t.Helper()
	b, err := json.MarshalIndent(made, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	b = append(b, '\n')
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, b) {
		t.Errorf("%s is not what the generator gives; run this test with -update and look at the difference", path)
	}
	var f vectorFile[V]
	if err := json.Unmarshal(have, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// covers fails unless every class is there, and those named with a ! at least
// once with nothing but its own check to refuse it.
func covers(t *testing.T, have []verdict, classes ...string) {
	t.Helper()
	seen := map[string]bool{}
	valid := 0
	for _, v := range have {
		if v.valid() {
			valid++
		}
		seen[v.Class] = true
		seen["!"+v.Class] = seen["!"+v.Class] || v.OnlyCheck
	}
	for _, c := range classes {
		if !seen[c] {
			t.Errorf("no vector of class %s", c)
		}
	}
	if valid < 5 {
		t.Errorf("%d vectors are valid", valid)
	}
}

// unique fails when a name does not name one vector.
func unique(t *testing.T, names []string) {
	t.Helper()
	seen := map[string]bool{}
	for _, n := range names {
		if n == "" || seen[n] {
			t.Errorf("the name %s stands twice or is empty", strconv.Quote(n))
		}
		seen[n] = true
	}
}
