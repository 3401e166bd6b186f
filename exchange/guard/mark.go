package guard

import (
	"strings"
	"unicode"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// Marked says whether a title, a document number or a file name carries a mark of
// a state secret: 绝密, 机密 or 秘密
//
//   - with a star before or behind it, as in 机密★10年 or 绝密级★;
//   - alone in brackets, or with a term: （绝密）, 【机密】, [秘密 长期];
//   - or set apart by the ends of the text, _ or -: 机密.docx, 名单_机密.xlsx, 机密10年.
//
// White space, and what cannot be seen, does not count, nor does the writing: star,
// brackets and characters may be full or half width, simplified or traditional.
// The words inside other words or sentences are none (保守秘密, 国家秘密保护), and
// those of 工作秘密 and 商业秘密 are marks of what is no state secret.
func Marked(text string) bool {
	s := []rune(exchange.Folded(text))
	for i := 0; i+1 < len(s); i++ {
		if s[i+1] == '密' && (s[i] == '绝' || s[i] == '机' || s[i] == '秘') && !otherSecret(s[:i+1]) && isMark(s[:i], s[i+2:]) {
			return true
		}
	}
	return false
}

// otherSecret says whether what ends here is 工作秘 or 商业秘.
func otherSecret(s []rune) bool {
	at := string(s[max(0, len(s)-3):])
	return at == "工作秘" || at == "商业秘"
}

func isMark(before, behind []rune) bool {
	first, last := rune(0), rune(0) // the neighbours of the word; 0 is the text's end
	if len(before) > 0 {
		first = before[len(before)-1]
	}
	if len(behind) > 0 && behind[0] == '级' {
		behind = behind[1:]
	}
	rest := withoutTerm(behind)
	if len(rest) > 0 {
		last = rest[0]
	}
	if first == '★' || len(behind) > 0 && behind[0] == '★' {
		return true
	}
	return first == '[' && last == ']' || apart(first) && apart(last)
}

func apart(r rune) bool { return r == 0 || r == '_' || r == '-' || r == '.' }

// withoutTerm takes a term of secrecy away that stands at the beginning.
func withoutTerm(s []rune) []rune {
	if len(s) >= 2 && string(s[:2]) == "长期" {
		return s[2:]
	}
	n := 0
	for n < len(s) && (unicode.IsDigit(s[n]) || strings.ContainsRune("一二三四五六七八九十", s[n])) {
		n++
	}
	if n == 0 || n == len(s) {
		return s
	}
	if s[n] == '个' && n+1 < len(s) {
		n++
	}
	if strings.ContainsRune("年月日天", s[n]) {
		return s[n+1:]
	}
	return s
}
