package sm

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whoever meets a class in a file finds it explained beside the files.
func TestTheReadmeExplainsEveryClassAndNamesEveryFile(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("testdata", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"crypto/sm/testdata/" + verifyFile, "crypto/sm/testdata/" + decryptFile, "crypto/sm/testdata/" + publicKeyFile,
		"crypto/envelope/testdata/envelope-v1.json",
	} {
		if !strings.Contains(string(readme), path) {
			t.Errorf("%s is not named", path)
		}
		b, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(path)))
		if err != nil {
			t.Fatal(err)
		}
		var f struct{ Vectors []verdict }
		if err := json.Unmarshal(b, &f); err != nil {
			t.Fatal(err)
		}
		for _, v := range f.Vectors {
			if v.valid() != (v.Class == "") || v.Class != "" && !strings.Contains(string(readme), "`"+v.Class+"`") {
				t.Errorf("%s: the class %q is not explained", path, v.Class)
			}
		}
	}
}

// TestTheReadmeExplainsTheClassesOfObjects: the same for the files of signed
// objects, whose vectors are in lists of several names.
func TestTheReadmeExplainsTheClassesOfObjects(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("testdata", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"crypto/merkle/testdata/ledger-v1.json", "exchange/evidence/testdata/receipt-v1.json", "exchange/evidence/testdata/evidence-v1.json",
	} {
		if !strings.Contains(string(readme), path) {
			t.Errorf("%s is not named", path)
		}
		b, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(path)))
		if err != nil {
			t.Fatal(err)
		}
		var f any
		if err := json.Unmarshal(b, &f); err != nil {
			t.Fatal(err)
		}
		n := 0
		eachClass(f, func(result, class string) {
			n++
			if (result == "valid") != (class == "") || class != "" && !strings.Contains(string(readme), "`"+class+"`") {
				t.Errorf("%s: the class %q of a vector that is %s is not explained", path, class, result)
			}
		})
		if n == 0 {
			t.Errorf("%s holds no vector", path)
		}
	}
}

// eachClass visits every object with a result, however deep.
func eachClass(v any, each func(result, class string)) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			eachClass(one, each)
		}
	case map[string]any:
		if result, ok := v["result"].(string); ok {
			class, _ := v["class"].(string)
			each(result, class)
		}
		for _, one := range v {
			eachClass(one, each)
		}
	}
}
