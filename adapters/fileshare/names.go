package fileshare

import (
	"errors"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"unicode"

	"github.com/yizhan-gateway/yizhan/adapters/fileshare/manifest"
)

// Names on a share are bytes: UTF-8 from one system, GBK from another, in one folder.
// They are used as they are, and decoded for people and for the node.

// shown decodes a name or a path. One that cannot be is shown with its bytes quoted,
// and ok is false: no document is made of it.
func shown(raw string) (text string, ok bool) {
	if ascii(raw) {
		return raw, true
	}
	parts, ok := strings.Split(raw, "/"), true
	for n, part := range parts { // each may be of another system
		text, err := manifest.Text([]byte(part))
		if err != nil || strings.ContainsFunc(text, unprintable) {
			text, ok = strconv.QuoteToASCII(part), false
		}
		parts[n] = text
	}
	return strings.Join(parts, "/"), ok
}

func ascii(s string) bool {
	for n := range len(s) {
		if s[n] < ' ' || s[n] > '~' {
			return false
		}
	}
	return true
}

// unprintable are controls, and what makes a name look like another one.
func unprintable(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// resolve finds the file that a cell of a list names, below a folder. Each part of the
// path may be there as UTF-8 or as GBK; in both, nobody knows which is meant. Absent
// is true when it is not there.
func (s *share) resolve(dir, text string) (at string, absent bool, err *Fault) {
	text = strings.ReplaceAll(text, `\`, "/")
	if !inside(text) || strings.Contains(text, ":") || strings.ContainsFunc(text, unprintable) {
		return "", false, &Fault{Code: CodePath, Detail: text}
	}
	at = dir
	for part := range strings.SplitSeq(text, "/") {
		next, n, err := s.either(at, part)
		switch {
		case err != nil:
			return "", false, unreadable(text, err)
		case n == 0:
			return path.Join(at, part), true, nil
		case n > 1:
			return "", false, &Fault{Code: CodePath, Detail: text + ": UTF-8 + GBK"}
		}
		at = path.Join(at, next)
	}
	for _, r := range s.reserved {
		if at == r || strings.HasPrefix(at, r+"/") {
			return "", false, &Fault{Code: CodePath, Detail: text}
		}
	}
	return at, false, nil
}

// either looks for a name in both encodings.
func (s *share) either(dir, name string) (raw string, n int, err error) {
	forms := []string{name}
	if old, ok := manifest.GB18030(name); ok && old != name {
		forms = append(forms, old)
	}
	d, done, err := s.dir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	defer done()
	for _, form := range forms {
		_, err := d.Lstat(form)
		switch {
		case err == nil:
			raw = form
			n++
		case !errors.Is(err, fs.ErrNotExist):
			return "", 0, err
		}
	}
	return raw, n, nil
}

func unreadable(what string, err error) *Fault {
	code := CodeUnreadable
	if errors.Is(err, errLink) {
		code = CodeIrregular
	}
	return &Fault{Code: code, Detail: what, cause: err}
}

// matches says whether a name is like one of the patterns, whatever its case.
func matches(patterns []string, name string) bool {
	name = strings.ToLower(name)
	for _, p := range patterns {
		if ok, err := path.Match(strings.ToLower(p), name); ok && err == nil {
			return true
		}
	}
	return false
}
