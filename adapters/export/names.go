package export

import (
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// The names of our own files in a document's folder.
const (
	documentFile = "document.json"
	manifestFile = "manifest.csv"
	evidenceFile = "evidence.json"
)

// maxName leaves room for a number within the 255 bytes of a name.
const maxName = 240

// savedName is the name that a file gets in the folder: the sender's where any
// system can have it, else with what Windows refuses replaced, as many folders are
// shares. Two names that differ in case only are one there.
func savedName(name string, taken map[string]bool) string {
	base := strings.Map(func(c rune) rune {
		if c < 0x20 || c == 0x7f || strings.ContainsRune(`<>:"/\|?*`, c) {
			return '_'
		}
		return c
	}, name)
	base = strings.TrimRight(base, ". ")
	if base == "" || strings.HasPrefix(base, ".") || reserved(base) {
		base = "_" + base
	}
	ext := path.Ext(base)
	if len(ext) > 20 {
		ext = ""
	}
	stem := shorten(strings.TrimSuffix(base, ext), maxName-len(ext))
	saved := stem + ext
	for n := 2; taken[strings.ToLower(saved)]; n++ {
		saved = fmt.Sprintf("%s (%d)%s", stem, n, ext)
	}
	taken[strings.ToLower(saved)] = true
	return saved
}

// reserved tells the names of devices of Windows, with any extension.
func reserved(name string) bool {
	stem, _, _ := strings.Cut(strings.ToUpper(name), ".")
	switch stem = strings.TrimRight(stem, " "); stem {
	case "CON", "PRN", "AUX", "NUL":
		return true
	}
	return len(stem) == 4 && (strings.HasPrefix(stem, "COM") || strings.HasPrefix(stem, "LPT")) && stem[3] >= '0' && stem[3] <= '9'
}

// shorten cuts between characters.
func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
