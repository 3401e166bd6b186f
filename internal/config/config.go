// Package config reads configuration files: TOML, strictly. A key that no
// field takes is refused, because a misspelt option that is silently ignored
// is an option the operator believes to be set. Every error names file, line
// and column, says what is wrong and what to do, and never shows a value: a
// configuration may hold what must not reach a log.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
)

// MaxSize bounds a configuration file, bytes.
const MaxSize = 1 << 20

// Error is one thing wrong with a configuration file. Line and Column count
// from 1 and are 0 when the whole file is meant; Key is the dotted name of the
// option, if it is about one.
type Error struct {
	File    string
	Line    int
	Column  int
	Key     string
	Problem string
	Hint    string // what to do
}

// Error gives file:line:column: problem (hint).
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": " + e.Problem)
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

// Load reads the file at path into the struct that into points to. Fields
// keep the values they had where the file does not name them, so defaults are
// set before. Errors are *Error, joined when there are several; a file that
// cannot be read gives the error of the file system.
func Load(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return Parse(path, b, into)
}

// Parse is Load for bytes at hand; name stands for the file in errors.
func Parse(name string, b []byte, into any) error {
	if len(b) > MaxSize {
		return &Error{File: name, Problem: fmt.Sprintf("larger than %d bytes", MaxSize), Hint: "is this the right file?"}
	}
	if err := checkText(name, b); err != nil {
		return err
	}
	err := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields().Decode(into)
	if err == nil {
		return nil
	}
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) {
		var list []error
		for i := range unknown.Errors {
			list = append(list, unknownKey(name, &unknown.Errors[i], into))
		}
		return errors.Join(list...)
	}
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		return wrongValue(name, wrong)
	}
	return &Error{File: name, Problem: plain(err.Error())}
}

// checkText finds what editors on other systems do to a file before the TOML
// parser says something less helpful about it.
func checkText(name string, b []byte) error {
	if bytes.HasPrefix(b, []byte("\xef\xbb\xbf")) {
		return &Error{File: name, Line: 1, Column: 1, Problem: "begins with a byte order mark", Hint: "save the file as UTF-8 without BOM"}
	}
	for line, at := 1, 0; at < len(b); {
		if b[at] == '\n' {
			line++
		}
		r, size := utf8.DecodeRune(b[at:])
		if r == utf8.RuneError && size == 1 {
			return &Error{
				File: name, Line: line, Column: at - bytes.LastIndexByte(b[:at], '\n'),
				Problem: "is not UTF-8", Hint: "save the file as UTF-8; it may be GBK now",
			}
		}
		at += size
	}
	return nil
}

func unknownKey(name string, e *toml.DecodeError, into any) *Error {
	line, column := e.Position()
	key := strings.Join(e.Key(), ".")
	out := &Error{
		File: name, Line: line, Column: column, Key: key,
		Problem: fmt.Sprintf("%q is not an option", clip(key)), Hint: "remove it, or see the reference for the options there are",
	}
	if near := nearest(e.Key(), into); near != "" {
		out.Hint = fmt.Sprintf("did you mean %q?", near)
	}
	return out
}

func wrongValue(name string, e *toml.DecodeError) *Error {
	line, column := e.Position()
	out := &Error{File: name, Line: line, Column: column, Key: strings.Join(e.Key(), "."), Problem: plain(e.Error())}
	if _, said, refused := strings.Cut(e.Error(), refusalMark); refused {
		problem, hint, _ := strings.Cut(said, refusalMark)
		out.Problem, out.Hint = fmt.Sprintf("%q: %s", clip(out.Key), problem), hint
		return out
	}
	out.Hint = "check quotes, brackets and the = sign on this line"
	if out.Key != "" {
		out.Problem = fmt.Sprintf("%q has a value of the wrong kind", clip(out.Key))
		out.Hint = "text stands in double quotes, numbers and true/false without; durations are text like \"30s\""
	}
	return out
}

// Refuse is what a value that reads itself (encoding.TextUnmarshaler) says when it
// does not like what is written: the problem and what to do. Neither may show the
// value. The parser keeps of an error its text alone, hence the marks in it.
func Refuse(problem, hint string) error { return refusal{problem, hint} }

type refusal struct{ problem, hint string }

const refusalMark = "\x00"

func (r refusal) Error() string { return refusalMark + r.problem + refusalMark + r.hint }

// plain cuts the parser's message where it might quote the file.
func plain(message string) string {
	message = strings.TrimPrefix(message, "toml: ")
	if i := strings.IndexAny(message, "\n:\"'`"); i >= 0 {
		message = message[:i]
	}
	if message = strings.TrimSpace(message); message == "" {
		message = "is not TOML"
	}
	return clip(message)
}

func clip(s string) string {
	if len(s) <= 80 {
		return s
	}
	return strings.ToValidUTF8(s[:80], "") + "…"
}
