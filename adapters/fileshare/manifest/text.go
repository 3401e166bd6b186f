package manifest

import (
	"bytes"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"
)

// ErrEncoding: bytes that are no text without loss.
var ErrEncoding = errors.New("neither UTF-8 nor GB18030")

// Text decodes bytes that are UTF-8, else GB18030. U+FFFD is what a wrong decoding
// left behind, and is refused in either. Some short words are both, 通知 in GBK among
// them: then the reading counts that is made of characters as Chinese is written with.
func Text(b []byte) (string, error) {
	if !utf8.Valid(b) {
		return gb18030(b)
	}
	if !chinese(string(b)) {
		if s, err := gb18030(b); err == nil && chinese(s) {
			return s, nil
		}
	}
	if bytes.ContainsRune(b, utf8.RuneError) {
		return "", ErrEncoding
	}
	return string(b), nil
}

// chinese says whether all of a text may stand in a Chinese one.
func chinese(s string) bool {
	for _, r := range s {
		ok := r < utf8.RuneSelf || unicode.Is(unicode.Han, r) || r >= 0x2010 && r <= 0x203b || r >= 0x2160 && r <= 0x24ff ||
			r >= 0x3000 && r <= 0x303f || r >= 0xff01 && r <= 0xff65 || r == '·' || r == '×'
		if !ok {
			return false
		}
	}
	return true
}

// gb18030 decodes. The decoder itself says nothing about what it cannot decode.
func gb18030(b []byte) (string, error) {
	out, err := simplifiedchinese.GB18030.NewDecoder().Bytes(b)
	if err != nil || bytes.ContainsRune(out, utf8.RuneError) {
		return "", ErrEncoding
	}
	return string(out), nil
}

// GB18030 gives text as old systems write the names of files; false when it has no
// such form.
func GB18030(s string) (string, bool) {
	out, err := simplifiedchinese.GB18030.NewEncoder().String(s)
	return out, err == nil
}

var (
	markUTF8 = []byte("\xef\xbb\xbf")
	marks16  = [][]byte{[]byte("\xff\xfe"), []byte("\xfe\xff")}
)

// decode decodes a list, and names the first line that cannot be. It is of one
// encoding as a whole; no byte of a character in GB18030 looks like the end of a line.
func decode(b []byte) (string, error) {
	b, marked := bytes.CutPrefix(b, markUTF8)
	for _, m := range marks16 {
		if bytes.HasPrefix(b, m) {
			return "", fault(CodeEncoding, 0, "the file is UTF-16")
		}
	}
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return "", fault(CodeEncoding, lineAt(b, i), "a zero byte: this is no text")
	}
	if i := bytes.IndexRune(b, utf8.RuneError); utf8.Valid(b) && i >= 0 {
		return "", fault(CodeEncoding, lineAt(b, i), "U+FFFD: the file was converted wrongly before")
	}
	if s, err := Text(b); utf8.Valid(b) && (marked || err == nil) {
		if marked {
			s = string(b)
		}
		return s, nil
	}
	if marked {
		return "", fault(CodeEncoding, lineAt(b, invalidAt(b)), "not UTF-8, as the file says it is")
	}
	var out strings.Builder
	line, bad := 0, 0
	for text := range bytes.Lines(b) {
		line++
		s, err := gb18030(text)
		if err != nil && !utf8.Valid(text) {
			return "", fault(CodeEncoding, line, "%v", ErrEncoding)
		}
		if err != nil && bad == 0 {
			bad = line
		}
		out.WriteString(s)
	}
	if bad > 0 {
		return "", fault(CodeEncoding, bad, "some lines are UTF-8 and others GB18030")
	}
	return out.String(), nil
}

func lineAt(b []byte, i int) int { return 1 + bytes.Count(b[:i], []byte("\n")) }

func invalidAt(b []byte) int {
	at := 0
	for at < len(b) {
		r, n := utf8.DecodeRune(b[at:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		at += n
	}
	return at
}
