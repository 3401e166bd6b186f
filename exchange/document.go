// Package exchange is the vocabulary of document exchange: what a document,
// a label, a receipt and a stage are, how a document's state follows from its
// receipts, and the one error type whose codes users and programs see.
//
// It is pure: no store, no key, no clock. Everything that acts lives in the
// packages above it (node, link).
package exchange

import (
	"errors"
	"fmt"
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

// Span is a range of copies, both ends included.
type Span struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// Span gives the range of copies; nil when it is not stated.
func (a *Addressee) Span() *Span {
	if a.CopyFrom == 0 && a.CopyTo == 0 {
		return nil
	}
	return &Span{a.CopyFrom, a.CopyTo}
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
	UrgencyMark    string      `json:"urgency_mark,omitempty"` // the grade of a telegram, where Urgency does not say it
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

// Validate checks every member and names all that are wrong, see [Faults]. It is
// what a document must be wherever it comes from; what is asked of one that is
// handed in is more, see [Form].
func (d *Document) Validate() error {
	var f Faults
	d.validate(&f)
	return f.Err()
}

// validate adds what is wrong. A state-secret label is looked at first: nothing
// else about such a document matters.
func (d *Document) validate(f *Faults) {
	switch {
	case d.Label.Rank() >= len(labels):
		f.append(labelExpected())
	case d.Label.StateSecret():
		f.append(secretFault("label", d.Label))
	}
	if _, err := ParseUrgency(string(d.Urgency)); err != nil {
		f.append(urgencyExpected())
	}
	if _, err := ParseKind(string(d.Kind)); err != nil {
		f.append(kindExpected())
	}
	d.validateRecipients(f)
	d.validateTexts(f)
	for _, one := range []struct{ name, date string }{
		{"written_on", d.WrittenOn}, {"printed_on", d.PrintedOn}, {"due_at", d.DueAt},
	} {
		checkDate(f, one.name, one.date)
	}
}

func (d *Document) validateRecipients(f *Faults) {
	if len(d.To) == 0 {
		f.Add("to", CodeInvalidDocument, "at least one recipient is expected", "至少填写一个主送机关")
	}
	tooMany(f, len(d.To)+len(d.Cc))
	seen := make(map[string]bool)
	for _, group := range []struct {
		name string
		list []Addressee
	}{{"to", d.To}, {"cc", d.Cc}} {
		for i, a := range group.list {
			field := fmt.Sprintf("%s[%d]", group.name, i)
			if _, err := certs.ParseAgencyCode(a.Agency); err != nil {
				f.append(codeFault(field, a.Agency, err))
			} else if seen[a.Agency] {
				f.append(twiceFault(field, a.Agency))
			}
			seen[a.Agency] = true
		}
	}
}

func (d *Document) validateTexts(f *Faults) {
	if strings.TrimSpace(d.Title) == "" {
		f.Add("title", CodeInvalidDocument, "is missing", "不能为空")
	}
	checkText(f, "title", d.Title, MaxTitle)
	number := ""
	if d.Number != nil {
		number = d.Number.Display + d.Number.Prefix
	}
	for _, one := range []struct{ name, text string }{
		{"label_term", d.LabelTerm}, {"doc_type", d.DocType}, {"number", number},
		{"issuer_mark", d.IssuerMark}, {"signatory", d.Signatory}, {"signed_by", strings.Join(d.SignedBy, "")},
		{"attachment_note", d.AttachmentNote}, {"remark", d.Remark}, {"printed_by", d.PrintedBy},
		{"release_scope", d.ReleaseScope}, {"contact", d.Contact}, {"urgency_mark", d.UrgencyMark},
	} {
		checkText(f, one.name, one.text, MaxText)
	}
}

// CheckText refuses what a person cannot have meant: broken UTF-8 (U+FFFD is
// what a wrong decoding leaves behind), control characters, endless text.
func CheckText(name, s string, atMost int) *Error {
	var f Faults
	if checkText(&f, name, s, atMost); len(f) == 0 {
		return nil
	}
	return Fail(f[0].Code, "%s", name+": "+f[0].Detail)
}

func checkText(f *Faults, name, s string, atMost int) {
	if !utf8.ValidString(s) || strings.ContainsRune(s, utf8.RuneError) {
		f.Add(name, CodeInvalidDocument, "not valid UTF-8 text", "不是有效的 UTF-8 文本，请检查编码转换")
		return
	}
	if n := utf8.RuneCountInString(s); n > atMost {
		f.Add(name, CodeInvalidDocument, "%d characters, at most %d are possible", "共 %d 个字符，最多 %d 个", n, atMost)
		return
	}
	for _, r := range s {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			f.Add(name, CodeInvalidDocument, "holds a control character", "含有控制字符")
			return
		}
	}
}

func checkDate(f *Faults, name, s string) {
	if s == "" {
		return
	}
	if _, err := time.Parse(time.DateOnly, s); err == nil {
		return
	}
	if name == "due_at" {
		if _, err := time.Parse(time.RFC3339, s); err != nil {
			f.Add(name, CodeInvalidDocument, "a date like 2026-11-23 or a time like 2026-11-23T17:00:00+08:00 is expected",
				"应为日期（如 2026-11-23）或时间（如 2026-11-23T17:00:00+08:00）")
		}
		return
	}
	f.Add(name, CodeInvalidDocument, "a date like 2026-11-23 is expected", "应为日期，如 2026-11-23")
}

// The faults that are found in more than one place.

func labelExpected() Fault {
	return faultOf("label", CodeInvalidDocument, "one of public 公开, internal 内部, work_secret 工作秘密 is expected", "密级应为 公开、内部 或 工作秘密")
}

func urgencyExpected() Fault {
	return faultOf("urgency", CodeInvalidDocument, "one of normal, urgent 加急, very_urgent 特急, or of a telegram's grades 平急, 加急, 特急, 特提 is expected",
		"紧急程度应为 加急、特急，电报为 平急、加急、特急、特提；平件不填")
}

func kindExpected() Fault {
	return faultOf("kind", CodeInvalidDocument, "one of official 公文, information 政务信息, notice 通知, material 资料 is expected", "类别应为 公文、政务信息、通知 或 资料")
}

func secretFault(field string, l Label) Fault {
	return faultOf(field, CodeStateSecret, "%s %s: state secrets are not carried", "%[2]s：本系统不传输国家秘密", l, l.Chinese())
}

func codeFault(field, code string, err error) Fault {
	detail, hint := err.Error(), ""
	if known := (*certs.Error)(nil); errors.As(err, &known) {
		detail = known.Detail
	}
	if len(code) == 18 {
		if right, err := certs.MakeAgencyCode(code[:17]); err == nil {
			hint = fmt.Sprintf("；按前 17 位计算，末位应为 %c，请核对是否笔误", right[17])
		}
	}
	return faultOf(field, CodeAgencyCode, "%[1]s", "%[2]s", detail, "不是有效的统一社会信用代码（18 位，末位为校验码）"+hint)
}

func twiceFault(field, code string) Fault {
	return faultOf(field, CodeInvalidDocument, "%s is named twice", "单位 %s 重复", code)
}

func tooMany(f *Faults, n int) {
	if n > MaxRecipients {
		f.Add("to", CodeInvalidDocument, "%d recipients, at most %d are possible", "共 %d 个收文单位，最多 %d 个", n, MaxRecipients)
	}
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

// Lives says whether a document ends behind its beginning, and within MaxLife.
func (r *Routing) Lives() bool {
	life := r.Expires.Time().Sub(r.Created.Time())
	return life > 0 && life <= MaxLife
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
