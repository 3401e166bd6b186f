package exchange

import (
	"fmt"
	"strings"
	"unicode"
)

// Bounds of a 发文字号.
const (
	maxPrefix   = 40 // characters
	firstYear   = 1900
	lastYear    = 2099
	maxSerial   = 9_999_999
	yearLength  = 6 // [2026]
	maxNumberAt = 200
)

// ParseNumber reads a 发文字号 as people write it, 代字〔YYYY〕N号: in any brackets,
// in digits of any width, with zeros or 第 before the serial number, with or
// without 号. Its Display is the one form that the rules ask for. What is no such
// number gives ok false: nothing of it is guessed, not a century and not an issuer.
func ParseNumber(text string) (n Number, ok bool) {
	if len(text) > 4*maxNumberAt || strings.ContainsAny(strings.TrimSpace(text), "\r\n") {
		return Number{}, false
	}
	var written, folded []rune
	for _, r := range text {
		if !invisible(r) {
			written, folded = append(written, r), append(folded, fold(r))
		}
	}
	at := lastYearIn(folded)
	if at < 1 || lastYearIn(folded[:at]) >= 0 {
		return Number{}, false
	}
	n.Prefix, n.Year = string(written[:at]), decimal(folded[at+1:at+5])
	n.Serial, ok = serial(string(folded[at+yearLength:]))
	if !ok || !isPrefix(written[:at], folded[:at]) || n.Year < firstYear || n.Year > lastYear {
		return Number{}, false
	}
	n.Display = n.String()
	return n, true
}

// String gives the form 代字〔YYYY〕N号.
func (n *Number) String() string { return fmt.Sprintf("%s〔%d〕%d号", n.Prefix, n.Year, n.Serial) }

// lastYearIn gives where the last [YYYY] begins, -1 for nowhere.
func lastYearIn(s []rune) int {
	for i := len(s) - yearLength; i >= 0; i-- {
		if s[i] == '[' && s[i+5] == ']' && allDigits(s[i+1:i+5]) {
			return i
		}
	}
	return -1
}

func allDigits(s []rune) bool {
	for _, r := range s {
		if r < '0' || r > '9' {
			return false
		}
	}
	return len(s) > 0
}

func decimal(digits []rune) (n int64) {
	for _, r := range digits {
		n = 10*n + int64(r-'0')
	}
	return n
}

func serial(s string) (int64, bool) {
	digits := []rune(strings.TrimSuffix(strings.TrimPrefix(s, "第"), "号"))
	if !allDigits(digits) || len(digits) > 12 {
		return 0, false
	}
	n := decimal(digits)
	return n, n > 0 && n <= maxSerial
}

// isPrefix says whether a text can be the 代字 of an issuer: it has letters, and
// nothing but them, digits, brackets, dots and strokes.
func isPrefix(written, folded []rune) bool {
	letters := 0
	for i, r := range folded {
		switch {
		case unicode.IsLetter(written[i]):
			letters++
		case !unicode.IsDigit(r) && !strings.ContainsRune("[]-_.·、", r):
			return false
		}
	}
	return letters > 0 && len(written) <= maxPrefix
}
