package exchange

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Bounds of what a form may say for one recipient.
const (
	MaxCopy       = 999_999 // 份号 has six digits
	MaxPrintQuota = 9_999
	maxIssuers    = 50
	maxIssuer     = 200 // characters of a name
)

// Form is a document's metadata as an agency writes it: words as they stand on
// paper, recipients by code, name, alias or group. [Form.Resolve] makes a Document
// of it.
type Form struct {
	Title          string
	To, Cc         []Named
	Label          string
	LabelTerm      string
	Kind           string
	Urgency        string
	DocType        string
	Number         string
	IssuerMark     string
	Signatory      string
	SignedBy       []string // of a joint issue (联合发文) the main issuer first, whose number it bears
	WrittenOn      string
	AttachmentNote string
	Remark         string
	PrintedBy      string
	PrintedOn      string
	ReleaseScope   string
	Sealed         bool
	Contact        string
	DueAt          string
}

// Named is a recipient as it is written: an agency's code, name or alias, or a
// group. Copies are the range of 份号 and the print quota meant for it; zero means
// not stated. What is said for a group is said for each of its members, and so a
// range cannot be.
type Named struct {
	Text             string
	CopyFrom, CopyTo int64
	Print            int64
}

// Resolved is what a form means, by one version of the directory.
type Resolved struct {
	Document   Document
	Recipients []Reached
	Warnings   Faults // what does not keep it from being sent
}

// Reached is one recipient of the Document, in its order, and how it was found:
// by code, name, alias or group (certs.ByCode and so on), with the group's name.
// Field is where the form names it.
type Reached struct {
	Addressee
	Field string
	By    string
	Group string
}

// Asked gives the form in the encoding of a document, with recipients as they are
// written: what tells a repeated submission from another one, whatever the
// directory has become since. Nothing of it is validated; what has no such form
// was never accepted.
func (f *Form) Asked(sender string) (strictjson.Raw, error) {
	label, _, known := ReadLabel(f.Label)
	urgency, mark, ok := ReadUrgency(f.Urgency)
	kind, also := ReadKind(f.Kind)
	if !known || !ok || !also {
		return nil, Fail(CodeInvalidDocument, "label, urgency or kind: unknown")
	}
	d := f.plain()
	d.Sender, d.Label, d.Kind, d.Urgency, d.UrgencyMark = sender, label, kind, urgency, mark
	d.To, d.Cc = asked(f.To), asked(f.Cc)
	if f.Number != "" {
		d.Number = &Number{Display: f.Number}
	}
	return d.Marshal()
}

func asked(list []Named) (out []Addressee) {
	for _, a := range list {
		out = append(out, Addressee{Agency: a.Text, CopyFrom: a.CopyFrom, CopyTo: a.CopyTo, Print: a.Print})
	}
	return out
}

// plain is what is taken over as it is written.
func (f *Form) plain() *Document {
	return &Document{
		LabelTerm: f.LabelTerm, DocType: f.DocType, Title: f.Title, IssuerMark: f.IssuerMark, Signatory: f.Signatory,
		SignedBy: f.SignedBy, WrittenOn: f.WrittenOn, AttachmentNote: f.AttachmentNote, Remark: f.Remark,
		PrintedBy: f.PrintedBy, PrintedOn: f.PrintedOn, ReleaseScope: f.ReleaseScope, Sealed: f.Sealed,
		Contact: f.Contact, DueAt: f.DueAt,
	}
}

// Resolve reads every member and finds the recipients in a directory as it is at a
// time. All that is wrong is named at once, in the error's [Faults]; what was
// understood until then is given with it.
func (f *Form) Resolve(d *certs.Directory, sender string, now time.Time) (*Resolved, error) {
	r := &Resolved{Document: *f.plain()}
	doc := &r.Document
	doc.Sender = sender
	var faults Faults
	f.readWords(doc, &faults)
	r.find(d, f, now, &faults)
	f.readNumber(doc, &faults, &r.Warnings)
	f.readDocType(doc, &faults, &r.Warnings)
	f.readDates(doc, now, &faults, &r.Warnings)
	f.readIssuers(&faults)
	f.readCopies(&faults)
	if !faults.about("to") && !faults.within("to[") && !faults.within("cc[") {
		doc.validate(&faults)
		return r, faults.Err()
	}
	// The recipients have been judged where they are written.
	rest := *doc
	rest.To, rest.Cc = nil, nil
	var others Faults
	rest.validate(&others)
	for _, one := range others {
		if one.Field != "to" {
			faults.append(one)
		}
	}
	return r, faults.Err()
}

func (f Faults) within(prefix string) bool {
	for _, one := range f {
		if strings.HasPrefix(one.Field, prefix) {
			return true
		}
	}
	return false
}

func (f *Form) readWords(doc *Document, faults *Faults) {
	label, term, ok := ReadLabel(f.Label)
	switch {
	case !ok:
		faults.append(labelExpected())
	case label.StateSecret():
		faults.append(secretFault("label", label))
	case term != "" && doc.LabelTerm == "":
		doc.LabelTerm = term
	}
	doc.Label = label
	if secret, _, found := ReadLabel(f.LabelTerm); found && secret.StateSecret() {
		faults.append(secretFault("label_term", secret))
	}
	if doc.Kind, ok = ReadKind(f.Kind); !ok {
		faults.append(kindExpected())
	}
	if doc.Urgency, doc.UrgencyMark, ok = ReadUrgency(f.Urgency); !ok {
		faults.append(urgencyExpected())
	}
}

// readNumber keeps a number that is none of the usual form as it is written, and
// says so. It is no reason to refuse: those of telegrams, bulletins and former
// times are of other forms, and nothing depends on its parts.
func (f *Form) readNumber(doc *Document, faults, warnings *Faults) {
	if f.Number == "" {
		return
	}
	n, ok := ParseNumber(f.Number)
	if !ok {
		n = Number{Display: f.Number}
		warnings.Add("number", CodeInvalidDocument, "not of the form 代字〔2026〕12号: kept as it is written, without issuer, year and serial number",
			"不是“代字〔2026〕12号”的形式：按原样保留，未拆分代字、年份与序号")
	}
	doc.Number = &n
	if strings.ContainsAny(strings.TrimSpace(f.Number), "\r\n") {
		faults.Add("number", CodeInvalidDocument, "one number is expected; a joint issue bears that of the main issuer",
			"只填写一个发文字号；联合发文标注主办机关的发文字号")
	}
}

func (f *Form) readDocType(doc *Document, faults, warnings *Faults) {
	if isBlank(f.DocType) {
		return
	}
	one, known := docTypeIn(docTypes, f.DocType)
	if !known {
		if one, known = docTypeIn(formerDocTypes, f.DocType); known {
			warnings.Add("doc_type", CodeInvalidDocument, "of the rules before 2012", "2012 年以前的文种")
		}
	}
	switch {
	case known:
		doc.DocType = one
	case doc.Kind == Official:
		faults.Add("doc_type", CodeInvalidDocument,
			"for an official document one of 决议 决定 命令 公报 公告 通告 意见 通知 通报 报告 请示 批复 议案 函 纪要 (or formerly 指示 条例 规定 会议纪要) is expected; other papers are of another kind",
			"公文的文种应为：决议、决定、命令（令）、公报、公告、通告、意见、通知、通报、报告、请示、批复、议案、函、纪要（旧文种：指示、条例、规定、会议纪要）；其他材料请改用其他类别")
	}
}

func (f *Form) readDates(doc *Document, now time.Time, faults, warnings *Faults) {
	for _, one := range []struct {
		name    string
		written string
		date    *string
	}{{"written_on", f.WrittenOn, &doc.WrittenOn}, {"printed_on", f.PrintedOn, &doc.PrintedOn}} {
		if one.written == "" {
			continue
		}
		var ok bool
		if *one.date, ok = ReadDate(one.written); !ok {
			*one.date = one.written
			faults.Add(one.name, CodeInvalidDocument, "a date like 2026-11-23 is expected", "应为日期，如 2026-11-23")
		}
	}
	if doc.WrittenOn != "" && doc.PrintedOn != "" && doc.PrintedOn < doc.WrittenOn {
		faults.Add("printed_on", CodeInvalidDocument, "is before written_on", "印发日期早于成文日期")
	}
	if f.DueAt == "" {
		return
	}
	due, ends, ok := readDue(f.DueAt)
	if !ok {
		return // validate says so
	}
	if doc.DueAt = due; !ends.After(now) {
		warnings.Add("due_at", CodeInvalidDocument, "has passed already", "签收时限已过")
	}
}

// readIssuers looks at those who issue and sign; several make it a joint issue.
func (f *Form) readIssuers(faults *Faults) {
	if len(f.SignedBy) > maxIssuers {
		faults.Add("signed_by", CodeInvalidDocument, "%d names, at most %d are possible", "共 %d 个署名，最多 %d 个", len(f.SignedBy), maxIssuers)
		return
	}
	seen := map[string]bool{}
	for i, name := range f.SignedBy {
		field, folded := fmt.Sprintf("signed_by[%d]", i), Folded(name)
		switch {
		case folded == "":
			faults.Add(field, CodeInvalidDocument, "is empty", "不能为空")
		case utf8.RuneCountInString(name) > maxIssuer:
			faults.Add(field, CodeInvalidDocument, "at most %d characters are possible", "最多 %d 个字符", maxIssuer)
		case seen[folded]:
			faults.Add(field, CodeInvalidDocument, "is there twice", "署名重复")
		}
		seen[folded] = true
	}
}

// readCopies sees that ranges of 份号 are ranges and that none is given out twice.
func (f *Form) readCopies(faults *Faults) {
	type taken struct {
		field    string
		from, to int64
	}
	var ranges []taken
	for _, g := range []struct {
		name string
		list []Named
	}{{"to", f.To}, {"cc", f.Cc}} {
		for i, a := range g.list {
			field := fmt.Sprintf("%s[%d].copies", g.name, i)
			if a.Print < 0 || a.Print > MaxPrintQuota {
				faults.Add(fmt.Sprintf("%s[%d].print_quota", g.name, i), CodeInvalidDocument, "0 to %d are possible", "打印份数应为 0 至 %d", MaxPrintQuota)
			}
			if a.CopyFrom == 0 && a.CopyTo == 0 {
				continue
			}
			if a.CopyFrom < 1 || a.CopyTo < a.CopyFrom || a.CopyTo > MaxCopy {
				faults.Add(field, CodeInvalidDocument, "a range from 1 on, its end not before its beginning and at most %d, is expected",
					"份号范围应从 1 开始，止号不小于起号，且不超过 %d", MaxCopy)
				continue
			}
			ranges = append(ranges, taken{field, a.CopyFrom, a.CopyTo})
		}
	}
	// By their beginnings, each can only meet the one that reached furthest before it.
	slices.SortFunc(ranges, func(a, b taken) int { return cmp.Compare(a.from, b.from) })
	var last taken
	for _, r := range ranges {
		if r.from <= last.to {
			faults.Add(r.field, CodeInvalidDocument, "%d to %d is also in %s", "%d 至 %d 与 %s 重叠", r.from, min(r.to, last.to), last.field)
		}
		if r.to > last.to {
			last = r
		}
	}
}
