// Package exchange is the vocabulary of document exchange: what a document,
// a label, a receipt and a stage are, how a document's state follows from its
// receipts, and the one error type whose codes users and programs see.
//
// It is pure: no store, no key, no clock. Everything that acts lives in the
// packages above it (node, link).
package exchange

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Limits of a document's metadata.
const (
	MaxTitle      = 500 // characters
	MaxRecipients = 3999
	MaxText       = 2000 // characters of every other free text
	MaxLife       = 366 * 24 * time.Hour
	DefaultLife   = 90 * 24 * time.Hour
)

// Addressee is one receiving agency as the sender writes it. Copies name the
// range of 份号 and the print quota meant for it; zero means not stated.
type Addressee struct {
	Agency   string `json:"agency"`
	Name     string `json:"name,omitempty"`
	CopyFrom int64  `json:"copy_from,omitempty"`
	CopyTo   int64  `json:"copy_to,omitempty"`
	Print    int64  `json:"print_quota,omitempty"`
	Extra    strictjson.Extra
}

// Number is 发文字号: 代字〔YYYY〕N号.
type Number struct {
	Prefix  string `json:"prefix,omitempty"`
	Year    int64  `json:"year,omitempty"`
	Serial  int64  `json:"serial,omitempty"`
	Display string `json:"display"`
	Extra   strictjson.Extra
}

// Document is the metadata of an official document as the manifest carries it
// (the 18 core elements of GB/T 33480, and what exchange needs). Only To,
// Label, Kind, Urgency and Title are required.
type Document struct {
	Type           string      `json:"type"`
	V              int         `json:"v"`
	Crit           []string    `json:"crit,omitempty"`
	Sender         string      `json:"sender"`
	To             []Addressee `json:"to"`
	Cc             []Addressee `json:"cc,omitempty"`
	Label          Label       `json:"label"`
	LabelTerm      string      `json:"label_term,omitempty"`
	Kind           Kind        `json:"kind"`
	Urgency        Urgency     `json:"urgency"`
	DocType        string      `json:"doc_type,omitempty"`
	Number         *Number     `json:"number,omitempty"`
	Title          string      `json:"title"`
	IssuerMark     string      `json:"issuer_mark,omitempty"`
	Signatory      string      `json:"signatory,omitempty"`
	SignedBy       []string    `json:"signed_by,omitempty"`
	WrittenOn      string      `json:"written_on,omitempty"`
	AttachmentNote string      `json:"attachment_note,omitempty"`
	Remark         string      `json:"remark,omitempty"`
	PrintedBy      string      `json:"printed_by,omitempty"`
	PrintedOn      string      `json:"printed_on,omitempty"`
	ReleaseScope   string      `json:"release_scope,omitempty"`
	Sealed         bool        `json:"sealed,omitempty"`
	Contact        string      `json:"contact,omitempty"`
	DueAt          string      `json:"due_at,omitempty"`
	Extra          strictjson.Extra
}

// DocumentType is the "type" member of a Document.
const DocumentType = "yizhan-document"

// Marshal gives the document's one encoding.
func (d *Document) Marshal() (strictjson.Raw, error) {
	d.Type, d.V = DocumentType, 1
	return strictjson.Marshal(d)
}

// ParseDocument reads the one encoding and validates it.
func ParseDocument(raw strictjson.Raw) (*Document, error) {
	var d Document
	if err := strictjson.Unmarshal(raw, &d); err != nil {
		return nil, err
	}
	if d.Type != DocumentType || d.V != 1 {
		return nil, Fail(CodeInvalidDocument, "type and v: %s version 1 is expected", DocumentType)
	}
	return &d, d.Validate()
}

// Recipients lists every receiving agency once, main recipients first.
func (d *Document) Recipients() []string {
	all := make([]string, 0, len(d.To)+len(d.Cc))
	for _, group := range [][]Addressee{d.To, d.Cc} {
		for _, a := range group {
			all = append(all, a.Agency)
		}
	}
	return all
}

// Validate checks every member. A state-secret label has its own code and is
// looked at first: nothing else about such a document matters.
func (d *Document) Validate() error {
	if d.Label.StateSecret() {
		if d.Label.Rank() >= len(labels) {
			return Fail(CodeInvalidDocument, "label: unknown")
		}
		return Fail(CodeStateSecret, "label: %s %s", d.Label, d.Label.Chinese())
	}
	if _, err := ParseUrgency(string(d.Urgency)); err != nil {
		return err
	}
	if _, err := ParseKind(string(d.Kind)); err != nil {
		return err
	}
	if err := d.validateRecipients(); err != nil {
		return err
	}
	return d.validateTexts()
}

func (d *Document) validateRecipients() error {
	if len(d.To) == 0 {
		return Fail(CodeInvalidDocument, "to: at least one recipient is expected")
	}
	if n := len(d.To) + len(d.Cc); n > MaxRecipients {
		return Fail(CodeInvalidDocument, "to, cc: %d recipients, at most %d are possible", n, MaxRecipients)
	}
	seen := make(map[string]bool)
	for _, code := range d.Recipients() {
		if _, err := certs.ParseAgencyCode(code); err != nil {
			return &Error{Code: CodeAgencyCode, Detail: "to, cc", Err: err}
		}
		if seen[code] {
			return Fail(CodeInvalidDocument, "to, cc: %s is named twice", code)
		}
		seen[code] = true
	}
	return nil
}

func (d *Document) validateTexts() error {
	if strings.TrimSpace(d.Title) == "" {
		return Fail(CodeInvalidDocument, "title: is missing")
	}
	if err := CheckText("title", d.Title, MaxTitle); err != nil {
		return err
	}
	display := ""
	if d.Number != nil {
		display = d.Number.Display + d.Number.Prefix
	}
	for name, text := range map[string]string{
		"label_term": d.LabelTerm, "doc_type": d.DocType, "number": display,
		"issuer_mark": d.IssuerMark, "signatory": d.Signatory, "signed_by": strings.Join(d.SignedBy, ""),
		"attachment_note": d.AttachmentNote, "remark": d.Remark, "printed_by": d.PrintedBy,
		"release_scope": d.ReleaseScope, "contact": d.Contact,
	} {
		if err := CheckText(name, text, MaxText); err != nil {
			return err
		}
	}
	for name, date := range map[string]string{"written_on": d.WrittenOn, "printed_on": d.PrintedOn, "due_at": d.DueAt} {
		if err := checkDate(name, date); err != nil {
			return err
		}
	}
	return nil
}

// CheckText refuses what a person cannot have meant: broken UTF-8 (U+FFFD is
// what a wrong decoding leaves behind), control characters, endless text.
func CheckText(name, s string, atMost int) *Error {
	if !utf8.ValidString(s) || strings.ContainsRune(s, utf8.RuneError) {
		return Fail(CodeInvalidDocument, "%s: not valid UTF-8 text", name)
	}
	if n := utf8.RuneCountInString(s); n > atMost {
		return Fail(CodeInvalidDocument, "%s: %d characters, at most %d are possible", name, n, atMost)
	}
	for _, r := range s {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return Fail(CodeInvalidDocument, "%s: holds a control character", name)
		}
	}
	return nil
}

func checkDate(name, s string) error {
	if s == "" {
		return nil
	}
	if _, err := time.Parse(time.DateOnly, s); err == nil {
		return nil
	}
	if _, err := time.Parse(time.RFC3339, s); err == nil && name == "due_at" {
		return nil
	}
	return Fail(CodeInvalidDocument, "%s: a date like 2026-11-23 is expected", name)
}

// Routing is what relays and guards may know of a document; it rides in the
// envelope's signed header.
type Routing struct {
	Label     Label           `json:"label"`
	Urgency   Urgency         `json:"urgency"`
	Kind      Kind            `json:"kind"`
	Created   strictjson.Time `json:"created"`
	Expires   strictjson.Time `json:"expires"`
	RelatesTo string          `json:"relates_to,omitempty"`
	Trace     string          `json:"trace,omitempty"`
	Extra     strictjson.Extra
}

// ParseRouting reads a header's routing facts.
func ParseRouting(raw strictjson.Raw) (*Routing, error) {
	var r Routing
	if err := strictjson.Unmarshal(raw, &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// Contradiction compares what the manifest says inside with what the signed
// header says outside and names the first member that differs; empty when
// they agree. A sender who shows relays one thing and the recipient another
// is refused.
func (d *Document) Contradiction(sender string, recipients []string, r *Routing) string {
	switch {
	case d.Sender != sender:
		return "sender"
	case d.Label != r.Label:
		return "label"
	case d.Kind != r.Kind:
		return "kind"
	case d.Urgency != r.Urgency:
		return "urgency"
	}
	mine := d.Recipients()
	if len(mine) != len(recipients) {
		return "recipients"
	}
	for i := range mine {
		if mine[i] != recipients[i] {
			return "recipients"
		}
	}
	return ""
}
