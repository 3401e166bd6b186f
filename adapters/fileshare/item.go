package fileshare

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/fileshare/manifest"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// item is one document that the share seems to hold.
type item struct {
	place  digest
	entry  Entry
	doc    exchange.Document
	to, cc []string // recipients as they are named
	files  []piece  // the body first
	fault  *Fault
	list   *list // nil: by rules
	batch  *batch
	mark   string // what a marker stands for: its list or its body
}

// piece is one file of an item.
type piece struct {
	role   string
	at     string // its raw path
	name   string // as it is shown
	absent bool
	file   bool // it is one, and may be moved
	size   int64
	sum    digest
	small  []byte // what was read, if it is short
}

// The parts of a submission.
const (
	roleBody       = "body"
	roleAttachment = "attachment"
)

const (
	maxAttachments = 500
	shownFiles     = 20 // names in an entry
)

// add takes a file into the item, and into what the entry shows. name is what a list
// calls it; without one its bytes are decoded.
func (it *item) add(role, at, name string, absent bool) {
	name, ok := path.Base(strings.ReplaceAll(name, `\`, "/")), name != ""
	if !ok {
		name, ok = shown(path.Base(at))
	}
	if !ok && it.fault == nil {
		it.fault = &Fault{Code: CodeName, Detail: name}
	}
	if len(it.files) > maxAttachments && it.fault == nil {
		it.fault = &Fault{Code: CodeField, Column: manifest.Attachments.Heading(), Detail: fmt.Sprintf("> %d", maxAttachments)}
	}
	if len(it.files) < shownFiles {
		dir, _ := shown(path.Dir(at))
		it.entry.Files = append(it.entry.Files, path.Join(dir, name))
	}
	it.files = append(it.files, piece{role: role, at: at, name: name, absent: absent})
}

// blame keeps the first thing that is wrong.
func (it *item) blame(f *Fault, row int, column string) {
	if f == nil || it.fault != nil {
		return
	}
	f.Row = row
	if f.Column == "" {
		f.Column = column
	}
	it.fault = f
}

// fromRow makes an item of a row of a list.
func (s *share) fromRow(l *list, r *manifest.Row, d Defaults) *item {
	it := &item{list: l, batch: l.batch, entry: Entry{Manifest: l.shown, Row: r.Line}, mark: l.at}
	it.place = sm.Sum([]byte("row\x00" + l.dir + "\x00" + r.Cells()))
	if r.Fault != nil {
		it.fault = ofManifest(r.Fault)
	}
	it.rowFiles(s, l, r)
	it.rowMetadata(r, d)
	if it.fault != nil && it.fault.Row == 0 {
		it.fault.Row = r.Line
	}
	return it
}

func (it *item) rowFiles(s *share, l *list, r *manifest.Row) {
	column := func(f manifest.Field) string { return l.table.Headings[f] }
	body := r.Get(manifest.Body)
	if body == "" {
		it.blame(&Fault{Code: CodeNoBody}, r.Line, column(manifest.Body))
		return
	}
	at, absent, fault := s.resolve(l.dir, body)
	if it.blame(fault, r.Line, column(manifest.Body)); fault != nil {
		return
	}
	it.add(roleBody, at, body, absent)
	for _, name := range split(r.Get(manifest.Attachments), strongMarks) {
		for _, f := range s.attachments(l.dir, name) {
			if it.blame(f.fault, r.Line, column(manifest.Attachments)); f.fault == nil {
				it.add(roleAttachment, f.at, f.name, f.absent)
			}
		}
	}
	// First, as the other row may have moved the file away meanwhile.
	for n, f := range it.files {
		if l.twice[spotOf(f.at)] || slices.ContainsFunc(it.files[:n], func(p piece) bool { return p.at == f.at }) {
			it.blame(&Fault{Code: CodeTwice, Detail: f.name}, r.Line, "")
		}
	}
	for _, f := range it.files {
		if f.absent {
			it.blame(&Fault{Code: CodeMissing, Detail: f.name}, r.Line, column(map[string]manifest.Field{roleBody: manifest.Body, roleAttachment: manifest.Attachments}[f.role]))
		}
	}
}

// What separates names in a cell. Names of files hold the weak ones now and then.
const (
	strongMarks = ";；\n\r|｜"
	weakMarks   = "、，,"
)

func split(s, marks string) (out []string) {
	for _, part := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(marks, r) }) {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

type resolved struct {
	name   string
	at     string
	absent bool
	fault  *Fault
}

// attachments are the files that a text names: one, if there is one of that name, else
// what stands between commas in it.
func (s *share) attachments(dir, text string) []resolved {
	at, absent, fault := s.resolve(dir, text)
	parts := split(text, weakMarks)
	if fault == nil && !absent || len(parts) < 2 {
		return []resolved{{text, at, absent, fault}}
	}
	var out []resolved
	for _, p := range parts {
		at, absent, fault := s.resolve(dir, p)
		out = append(out, resolved{p, at, absent, fault})
	}
	return out
}

func (it *item) rowMetadata(r *manifest.Row, d Defaults) {
	or := func(f manifest.Field, or string) string {
		if v := r.Get(f); v != "" {
			return v
		}
		return or
	}
	it.doc = exchange.Document{
		LabelTerm: r.Get(manifest.LabelTerm), DocType: r.Get(manifest.DocType), Signatory: r.Get(manifest.Signatory),
		IssuerMark: r.Get(manifest.IssuerMark), AttachmentNote: r.Get(manifest.AttachmentNote), Remark: r.Get(manifest.Remark),
		ReleaseScope: r.Get(manifest.ReleaseScope), Contact: r.Get(manifest.Contact),
		SignedBy: split(r.Get(manifest.SignedBy), strongMarks+weakMarks),
	}
	it.name(or(manifest.Title, ""), r.Get(manifest.Number))
	it.words(or(manifest.Label, d.Label), or(manifest.Urgency, d.Urgency), or(manifest.Kind, d.Kind), r.Line)
	it.to, it.cc = split(r.Get(manifest.To), strongMarks+weakMarks), split(r.Get(manifest.Cc), strongMarks+weakMarks)
	if len(it.to) == 0 {
		it.to = d.To
	}
	if r.Get(manifest.Cc) == "" {
		it.cc = d.Cc
	}
	var fault *Fault
	it.doc.WrittenOn, fault = date(r.Get(manifest.WrittenOn), false)
	it.blame(fault, r.Line, manifest.WrittenOn.Heading())
	it.doc.DueAt, fault = date(r.Get(manifest.DueAt), true)
	it.blame(fault, r.Line, manifest.DueAt.Heading())
}

// name gives the document a title, that of its body if there is no other, and a number.
func (it *item) name(title, number string) {
	if title == "" && len(it.files) > 0 {
		title = stem(it.files[0].name)
	}
	it.doc.Title = title
	if number != "" {
		it.doc.Number = &exchange.Number{Display: number}
	}
}

func stem(name string) string { return strings.TrimSuffix(name, path.Ext(name)) }

// words reads what comes from closed sets.
func (it *item) words(label, urgency, kind string, row int) {
	var ok bool
	if it.doc.Label, it.doc.LabelTerm, ok = exchange.ReadLabel(label); !ok {
		it.blame(&Fault{Code: CodeField, Detail: "公开、内部、工作秘密"}, row, manifest.Label.Heading())
	}
	if it.doc.Label.StateSecret() && ok {
		it.blame(&Fault{Code: exchange.CodeStateSecret, Detail: it.doc.Label.Chinese()}, row, manifest.Label.Heading())
	}
	if it.doc.Urgency, it.doc.UrgencyMark, ok = exchange.ReadUrgency(urgency); !ok {
		it.blame(&Fault{Code: CodeField, Detail: "平件、加急、特急"}, row, manifest.Urgency.Heading())
	}
	if it.doc.Kind, ok = exchange.ReadKind(kind); !ok {
		it.blame(&Fault{Code: CodeField, Detail: "公文、政务信息、通知、资料"}, row, manifest.Kind.Heading())
	}
}

var china = time.FixedZone("CST", 8*60*60)

var (
	dateForms = []string{"2006-1-2", "2006/1/2", "2006.1.2", "2006年1月2日", "20060102"}
	timeForms = []string{"2006-1-2 15:04", "2006-1-2 15:04:05", "2006/1/2 15:04", "2006/1/2 15:04:05", "2006年1月2日 15:04", "2006年1月2日15时", "2006年1月2日15时04分"}
)

// date reads a day as people write it; with an hour where one may be, in the time of
// China. A workbook gives midnight to a day.
func date(s string, hour bool) (string, *Fault) {
	if s == "" {
		return "", nil
	}
	for _, form := range dateForms {
		if t, err := time.Parse(form, s); err == nil {
			return t.Format(time.DateOnly), nil
		}
	}
	for _, form := range timeForms {
		t, err := time.ParseInLocation(form, s, china)
		if err != nil {
			continue
		}
		if hour {
			return t.Format(time.RFC3339), nil
		}
		return t.Format(time.DateOnly), nil
	}
	if _, err := time.Parse(time.RFC3339, s); err == nil && hour {
		return s, nil
	}
	return "", &Fault{Code: CodeField, Detail: "2026-11-23、2026年11月23日"}
}

// metadata is SM3 of all that a submission says besides the contents of its files.
func (it *item) metadata() (digest, error) {
	names := make([]string, len(it.files))
	for n, f := range it.files {
		names[n] = f.role + " " + f.name
	}
	b, err := json.Marshal(struct {
		Document *exchange.Document
		Names    []string
	}{&it.doc, names})
	return sm.Sum(b), err
}

// key is what makes two items the same: contents, recipients and number. The order of
// recipients and of attachments says nothing.
func (it *item) key() digest {
	var recipients, contents []string
	for _, a := range it.doc.To {
		recipients = append(recipients, "to "+a.Agency)
	}
	for _, a := range it.doc.Cc {
		recipients = append(recipients, "cc "+a.Agency)
	}
	for _, f := range it.files {
		contents = append(contents, f.role+" "+f.sum.String())
	}
	slices.Sort(recipients)
	slices.Sort(contents)
	number := ""
	if it.doc.Number != nil {
		number = it.doc.Number.Display
	}
	all := append([]string{"yizhan-import-1", number}, recipients...)
	all = append(append(all, ""), contents...)
	return sm.Sum([]byte(strings.Join(all, "\x00")))
}
