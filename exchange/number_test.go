package exchange

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseNumber(t *testing.T) {
	for text, want := range map[string]string{
		"遵府办发〔2026〕12号":                      "遵府办发〔2026〕12号",
		"遵府办发[2026]12号":                      "遵府办发〔2026〕12号",
		"遵府办发(2026)12号":                      "遵府办发〔2026〕12号",
		"遵府办发（2026）12号":                      "遵府办发〔2026〕12号",
		"遵府办发【2026】12号":                      "遵府办发〔2026〕12号",
		"遵府办发［２０２６］１２号":                      "遵府办发〔2026〕12号",
		"遵府办发〔2026〕第012号":                    "遵府办发〔2026〕12号",
		"遵府办发〔2026〕0012":                     "遵府办发〔2026〕12号",
		" 遵府办发 〔2026〕 12 號 ":                 "遵府办发〔2026〕12号",
		"遵府办发〔2026】12号":                      "遵府办发〔2026〕12号", // a slip that leaves no doubt
		"黔府办函（督）〔2026〕3号":                    "黔府办函（督）〔2026〕3号",
		"x2-y.z〔1900〕9999999号":               "x2-y.z〔1900〕9999999号",
		"":                                   "",
		"〔2026〕12号":                          "", // no issuer
		"遵府办发〔26〕12号":                        "", // no century is guessed
		"遵府办发〔二〇二六〕12号":                      "",
		"遵府办发2026年12号":                       "",
		"遵府办发〔2026〕号":                        "",
		"遵府办发〔2026〕0号":                       "",
		"遵府办发〔2026〕12-1号":                    "",
		"遵府办发〔2026〕12号（附）":                   "",
		"遵府办发〔2026〕99999999号":                "",
		"遵府办发〔1899〕1号":                       "",
		"遵府办发〔2100〕1号":                       "",
		"遵府〔2026〕12号黔府〔2026〕3号":              "", // two numbers
		"遵府〔2026〕12号\n黔府〔2026〕3号":            "",
		"情况通报第12期":                           "",
		"★机密〔2026〕1号":                        "",
		strings.Repeat("长", 41) + "〔2026〕1号": "",
		"遵\uFFFD〔2026〕1号":                    "",
	} {
		n, ok := ParseNumber(text)
		if ok != (want != "") || n.Display != want {
			t.Errorf("%q: %+v %v, want %q", text, n, ok, want)
		}
	}
	n, _ := ParseNumber("遵府办发[2026]第012号")
	if n.Prefix != "遵府办发" || n.Year != 2026 || n.Serial != 12 {
		t.Errorf("parts %+v", n)
	}
}

// FuzzParseNumber: what is read gives one form, which is read as itself, and never
// parts that the text does not have.
func FuzzParseNumber(f *testing.F) {
	for _, s := range []string{"遵府办发〔2026〕12号", "a[2026]1", "黔（督）（2026）第００３號", "〔2026〕1号", "x\n〔2026〕1号", strings.Repeat("[2026]", 20)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, ok := ParseNumber(text)
		if !ok {
			if n.Display != "" || n.Prefix != "" {
				t.Fatalf("refused, and gives %+v", n)
			}
			return
		}
		if n.Year < firstYear || n.Year > lastYear || n.Serial < 1 || n.Serial > maxSerial || utf8.RuneCountInString(n.Prefix) > maxPrefix {
			t.Fatalf("%q: %+v", text, n)
		}
		if !strings.Contains(strings.Map(func(r rune) rune {
			if invisible(r) {
				return -1
			}
			return r
		}, text), n.Prefix) {
			t.Fatalf("%q has no %q", text, n.Prefix)
		}
		if again, ok := ParseNumber(n.Display); !ok || again.String() != n.String() || again.Display != n.Display {
			t.Fatalf("%q: %+v, and again %+v", text, n, again)
		}
	})
}
