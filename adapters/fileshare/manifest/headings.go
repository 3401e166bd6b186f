package manifest

import (
	"strings"
	"unicode"
)

// none is a column that is there for people.
const none Field = -1

// headings are the words that agencies write above their columns. The first of each
// is the one that we write.
var headings = map[Field][]string{
	Title:          {"标题", "公文标题", "文件标题", "题名", "公文名称", "title", "subject"},
	Number:         {"发文字号", "文号", "发文文号", "文件号", "公文文号", "文件编号", "number", "doc_number", "document_number"},
	To:             {"主送", "主送机关", "主送单位", "收文单位", "收文机关", "接收单位", "接收机关", "收件单位", "接收方", "to", "recipients", "recipient", "receiver", "receivers"},
	Cc:             {"抄送", "抄送机关", "抄送单位", "cc"},
	Label:          {"密级", "秘密等级", "涉密等级", "label", "secrecy", "classification", "secret_level", "secrecy_level"},
	LabelTerm:      {"保密期限", "label_term", "secrecy_term"},
	Urgency:        {"紧急程度", "紧急度", "缓急", "缓急程度", "urgency", "urgent_level"},
	DocType:        {"文种", "公文种类", "doc_type"},
	Kind:           {"类别", "公文类别", "kind"},
	WrittenOn:      {"成文日期", "发文日期", "成文时间", "written_on", "date"},
	Signatory:      {"签发人", "signatory"},
	SignedBy:       {"署名", "发文机关署名", "发文机关", "发文单位", "signed_by"},
	IssuerMark:     {"发文机关标志", "issuer_mark"},
	Body:           {"正文", "正文文件", "正文文件名", "正文路径", "主文件", "文件", "文件名", "文件名称", "文件路径", "body", "body_file", "file", "filename", "path"},
	Attachments:    {"附件", "附件文件", "附件文件名", "附件列表", "附件路径", "attachments", "attachment"},
	AttachmentNote: {"附件说明", "attachment_note"},
	DueAt:          {"签收时限", "签收期限", "签收截止", "due", "due_at", "deadline"},
	Remark:         {"附注", "备注", "remark"},
	ReleaseScope:   {"发布层次", "release_scope"},
	Contact:        {"联系人", "联系方式", "contact"},
	none:           {"", "序号", "编号", "no", "no.", "#", "index"},
}

var fieldOf = func() map[string]Field {
	all := map[string]Field{}
	for f, words := range headings {
		for _, w := range words {
			all[w] = f
		}
	}
	return all
}()

// Heading is the word that we write for a field.
func (f Field) Heading() string { return headings[f][0] }

// FieldOf finds the field of a heading. What people add to one does not count: space,
// stars, and what stands in brackets.
func FieldOf(heading string) (Field, bool) {
	heading = strings.ToLower(strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || r == '*' || r == '＊' || r == '\ufeff' {
			return -1
		}
		return r
	}, heading))
	if i := strings.IndexAny(heading, "（("); i > 0 {
		heading = heading[:i]
	}
	f, known := fieldOf[heading]
	if !known {
		return none, false
	}
	return f, true
}
