package sm

import (
	"bytes"
	stdcipher "crypto/cipher"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/emmansun/gmsm/cipher"
	"github.com/emmansun/gmsm/sm4"
)

// The Wycheproof sets lie beside the checkout where they are present; every
// case of theirs counts, and each file says how many there must be.

// wycheproofFile is a set; the sizes are in bits.
type wycheproofFile struct {
	NumberOfTests int
	TestGroups    []wycheproofGroup
}

type wycheproofGroup struct {
	IVSize, TagSize int
	Tests           []wycheproofCase
}

type wycheproofCase struct {
	TcID                       int
	Key, IV, AAD, Msg, CT, Tag string
	Result                     string
}

// wycheproof runs each case of a set, or skips and says why.
func wycheproof(t *testing.T, name string, try func(t *testing.T, g *wycheproofGroup, c *wycheproofCase)) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "data", "wycheproof", name))
	if err != nil {
		t.Skipf("shared/data/wycheproof/%s is not beside the checkout; the Wycheproof vectors (C2SP/wycheproof, testvectors_v1) run where it is", name)
	}
	var f wycheproofFile
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	n := 0
	for i := range f.TestGroups {
		for k := range f.TestGroups[i].Tests {
			n++
			try(t, &f.TestGroups[i], &f.TestGroups[i].Tests[k])
		}
	}
	if n == 0 || n != f.NumberOfTests {
		t.Errorf("%d cases ran, the file says %d", n, f.NumberOfTests)
	}
	t.Logf("%s: %d vectors ran", name, n)
}

// aead tries one case on a mode of operation.
func (c *wycheproofCase) aead(t *testing.T, mode stdcipher.AEAD, err error) {
	t.Helper()
	valid := c.Result == "valid"
	if err != nil {
		if valid {
			t.Errorf("case %d is valid: %v", c.TcID, err)
		}
		return
	}
	sealed := append(unhex(t, c.CT), unhex(t, c.Tag)...)
	got, err := mode.Open(nil, unhex(t, c.IV), sealed, unhex(t, c.AAD))
	if (err == nil) != valid || valid && !bytes.Equal(got, unhex(t, c.Msg)) {
		t.Errorf("case %d is %s: %v", c.TcID, c.Result, err)
	}
	if valid && !bytes.Equal(mode.Seal(nil, unhex(t, c.IV), unhex(t, c.Msg), unhex(t, c.AAD)), sealed) {
		t.Errorf("case %d seals to something else", c.TcID)
	}
}

// This package fixes nonces of 12 bytes; the cases with others try the SM4
// below it.
func TestWycheproofGCM(t *testing.T) {
	ours := 0
	wycheproof(t, "sm4_gcm_test.json", func(t *testing.T, g *wycheproofGroup, c *wycheproofCase) {
		if g.IVSize == 96 && g.TagSize == 128 {
			ours++
			mode, err := NewGCM(unhex(t, c.Key))
			c.aead(t, mode, err)
			return
		}
		if g.TagSize != 128 {
			t.Errorf("case %d has a tag of %d bits: this test needs an extension", c.TcID, g.TagSize)
		}
		mode, err := stdcipher.NewGCMWithNonceSize(newSM4(t, c.Key), g.IVSize/8)
		c.aead(t, mode, err)
	})
	if ours == 0 {
		t.Error("no case had our sizes")
	}
}

// This package offers no CCM; the set tries the SM4 below it in a second mode.
func TestWycheproofCCM(t *testing.T) {
	wycheproof(t, "sm4_ccm_test.json", func(t *testing.T, g *wycheproofGroup, c *wycheproofCase) {
		mode, err := cipher.NewCCMWithNonceAndTagSize(newSM4(t, c.Key), g.IVSize/8, g.TagSize/8)
		c.aead(t, mode, err)
	})
}

func newSM4(t *testing.T, key string) stdcipher.Block {
	t.Helper()
	block, err := sm4.NewCipher(unhex(t, key))
	if err != nil {
		t.Fatal(err)
	}
	return block
}

func TestWycheproofHMAC(t *testing.T) {
	wycheproof(t, "hmac_sm3_test.json", func(t *testing.T, g *wycheproofGroup, c *wycheproofCase) {
		d := HMAC(unhex(t, c.Key), unhex(t, c.Msg))
		if same := bytes.Equal(d[:g.TagSize/8], unhex(t, c.Tag)); same != (c.Result == "valid") {
			t.Errorf("case %d is %s, equal %v", c.TcID, c.Result, same)
		}
	})
}
