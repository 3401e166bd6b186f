package link

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
)

const codeVectorFile = "testdata/ferry-code-v1.json"

// codeVectors are chains of secrets with the codes that they give, and texts that are
// none (docs/spec/bundle-v1.md, "The code").
type codeVectors struct {
	About  string        `json:"about"`
	Chains []chainVector `json:"chains"`
	Texts  []textVector  `json:"texts"`
}

type chainVector struct {
	Domain string       `json:"domain"`
	Link   string       `json:"link"`
	From   string       `json:"from"`
	To     string       `json:"to"`
	Epoch  string       `json:"epoch"`
	Steps  []stepVector `json:"steps"`
}

type stepVector struct {
	N      uint64 `json:"n"`
	Secret string `json:"secret"`
	Chain  string `json:"chain"`
	Code   string `json:"code"`
}

// textVector: N is 0 for what is refused.
type textVector struct {
	Text string `json:"text"`
	N    uint64 `json:"n"`
	Why  string `json:"why"`
}

func makeCodeVectors() *codeVectors {
	v := &codeVectors{About: "chains of bundle secrets, the codes that a person reads, and texts with the number that they stand for, 0 for those that are refused; docs/spec/bundle-v1.md"}
	for i, c := range []course{
		{"示范域", "jia-yi", "jia", "yi", "0000019e0000000000112233445566ff"},
		{"示范域", "jia-yi", "jia", "yi", "0000019e0000000100112233445566ff"}, // another epoch
		{"示范域", "jia-yi", "yi", "jia", "0000019e0000000000112233445566ff"}, // the other direction
	} {
		one := chainVector{Domain: c.domain, Link: c.link, From: c.from, To: c.to, Epoch: c.epoch}
		var chain []byte
		for n := range uint64(12) {
			secret := sm.Sum([]byte(fmt.Sprint("secret ", n)))
			chain = c.next(chain, n+1, secret[:])
			one.Steps = append(one.Steps, stepVector{n + 1, hex.EncodeToString(secret[:]), hex.EncodeToString(chain), c.code(chain, n+1).String()})
		}
		if v.Chains = append(v.Chains, one); i > 0 {
			continue
		}
		good := one.Steps[11].Code // of bundle 12
		swapped := []byte(good)
		swapped[3], swapped[4] = swapped[4], swapped[3]
		if swapped[3] == swapped[4] {
			panic("choose other secrets")
		}
		digit := []byte(good)
		digit[10] = '0' + (digit[10]-'0'+1)%10
		wide := strings.NewReplacer("0", "０", "1", "１", "2", "２", "-", "　").Replace(good)
		v.Texts = []textVector{
			{good, 12, "as it is shown"},
			{strings.ReplaceAll(good, "-", ""), 12, "without hyphens"},
			{" " + strings.ReplaceAll(good, "-", " · ") + " ", 12, "with other blanks"},
			{wide, 12, "full-width digits and blanks"},
			{string(swapped), 0, "two digits that changed places"},
			{string(digit), 0, "a wrong digit"},
			{"0" + good, 0, "a leading zero"},
			{good[1:], 0, "a digit is missing"},
			{good + "0", 0, "a digit too many"},
			{strings.Replace(good, "-", "/", 1), 0, "another separator"},
			{"l" + good[1:], 0, "a letter"},
			{"", 0, "nothing"},
		}
	}
	return v
}

// TestCodeVectors: the derivation of version 1 does not drift, and texts stand for
// what they stand for.
func TestCodeVectors(t *testing.T) {
	want, err := json.MarshalIndent(makeCodeVectors(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile(codeVectorFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(codeVectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Error("the code is another one than that of the vectors")
	}
	var v codeVectors
	if err := json.Unmarshal(have, &v); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, c := range v.Chains {
		for _, s := range c.Steps {
			if secret := s.Code[strings.Index(s.Code, "-")+3:]; seen[secret] {
				t.Errorf("%s has digits of another link, direction, epoch or number", s.Code)
			} else {
				seen[secret] = true
			}
		}
	}
	for _, x := range v.Texts {
		c, err := ParseCode(x.Text)
		if c.N != x.N && err == nil || (err == nil) != (x.N > 0) || err != nil && exchange.CodeOf(err) != exchange.CodeFerryCode {
			t.Errorf("%s: %q stands for %d, %v", x.Why, x.Text, c.N, err)
		}
	}
}

// TestCheckDigits find every single wrong digit, and every two digits that changed
// places, wherever they stand.
func TestCheckDigits(t *testing.T) {
	for _, n := range []uint64{1, 12, 98, 1000, 987_654_321_012} {
		c := Code{N: n, mark: "07", secret: "482155309276"}
		good := strings.ReplaceAll(c.String(), "-", "")
		if got, err := ParseCode(good); err != nil || !got.same(c) || got.mark != c.mark {
			t.Fatalf("%s: %+v, %v", good, got, err)
		}
		for i := range good {
			for d := byte('0'); d <= '9'; d++ {
				bad := []byte(good)
				if bad[i] == d {
					continue
				}
				bad[i] = d
				if _, err := ParseCode(string(bad)); err == nil {
					t.Errorf("%s for %s", bad, good)
				}
			}
			for j := range i {
				bad := []byte(good)
				if bad[i], bad[j] = bad[j], bad[i]; string(bad) == good {
					continue
				}
				if _, err := ParseCode(string(bad)); err == nil {
					t.Errorf("%s for %s", bad, good)
				}
			}
		}
	}
}

// TestOneSecretLess: whoever lacks one of the secrets of a prefix has another code.
func TestOneSecretLess(t *testing.T) {
	c := course{"d", "l", "a", "b", "e"}
	code := func(lacks int) string {
		var chain []byte
		for n := range 5 {
			secret := sm.Sum([]byte{byte(n)})
			if n == lacks {
				secret = sm.Digest{}
			}
			chain = c.next(chain, uint64(n+1), secret[:])
		}
		return c.code(chain, 5).secret
	}
	good := code(-1)
	for n := range 5 {
		if code(n) == good {
			t.Errorf("without secret %d it is the same code", n+1)
		}
	}
}

// FuzzParseCode: what is read as a code is shown as one that reads the same.
func FuzzParseCode(f *testing.F) {
	for _, x := range makeCodeVectors().Texts {
		f.Add(x.Text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCode(text)
		if err != nil {
			if exchange.CodeOf(err) != exchange.CodeFerryCode {
				t.Fatal(err)
			}
			return
		}
		again, err := ParseCode(c.String())
		if err != nil || again != c || c.N == 0 {
			t.Fatalf("%q is %+v, shown as %s and read as %+v, %v", text, c, c, again, err)
		}
	})
}
