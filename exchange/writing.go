package exchange

import (
	"strings"
	"unicode"
)

// forms are ways to write one thing.
var forms = waysToWrite()

func waysToWrite() map[rune]rune {
	forms := map[rune]rune{}
	for one, others := range map[rune]string{
		'★': "☆✩✪✫✬✭✮✯✰⭐🌟*＊﹡∗⋆✱✲✳✦✧✴✵✶✷✸✹✺⍟⭑⭒🟉🟊",
		'[': "（(【［〔〖{｛〈<＜", ']': "）)】］〕〗}｝〉>＞",
		'-': "－—–‐−", '_': "＿", '.': "．。", ':': "：",
		'绝': "絕絶", '机': "機", '秘': "祕", '业': "業", '长': "長", '个': "個", '级': "級",
		'内': "內", '开': "開", '号': "號", '国': "國",
	} {
		for _, r := range others {
			forms[r] = one
		}
	}
	return forms
}

// Folded is a text without white space and what cannot be seen, in one way of
// writing: stars, brackets, digits and some characters may be full or half width,
// simplified or traditional. It is for comparing, not for showing.
func Folded(text string) string { return strings.Map(fold, text) }

func fold(r rune) rune {
	if one, known := forms[r]; known {
		return one
	}
	if invisible(r) {
		return -1
	}
	if r > '！' && r <= '～' {
		return r - '！' + '!'
	}
	return r
}

// blanks are letters and symbols that show nothing: the fillers of Hangul and the empty
// pattern of Braille.
const blanks = "\u115f\u1160\u3164\uffa0\u2800"

func invisible(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Mn) || strings.ContainsRune(blanks, r)
}

// isBlank says whether nothing can be seen of a text.
func isBlank(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !invisible(r) }) < 0
}
