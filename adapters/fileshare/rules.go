package fileshare

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// Rules make documents of files in folders that never had a list. Files of one folder
// belong together when one is named after the other: 关于….ofd, 关于…-附件1.xlsx; what is
// named 附件1 alone belongs to the only body of its folder.
type Rules struct {
	On bool
	// Folder: the first folder below the share is the recipient's name.
	Folder bool
	// Pattern says more of a body, by groups of these names: title, number, to, label,
	// urgency. It is matched with the path below the share, without the ending.
	Pattern string
}

// attachmentName finds what stands before 附件 and its number at the end of a name, or
// at its beginning.
var (
	attachmentEnd   = regexp.MustCompile(`^(.*?)[\s_\-—－–.·]*[（(【\[]?\s*附\s*件\s*[:：]?\s*[0-9０-９一二三四五六七八九十]*\s*(?:[）)】\]].*|[\s_\-—－–.、:：].*)?$`)
	numberAtTheHead = regexp.MustCompile(`^(\S{1,30}?[〔\[［(（]\d{4}[〕\]］)）]\s*\d{1,5}\s*号)[\s_\-—－–]*(.*)$`)
)

// attachmentOf says whether a name is that of an attachment, and of which body; empty
// is the only one of the folder.
func attachmentOf(stem string) (of string, is bool) {
	m := attachmentEnd.FindStringSubmatch(stem)
	if m == nil {
		return "", false
	}
	return strings.TrimSpace(m[1]), true
}

// named is a file of a folder, as it is and as it is shown.
type named struct{ raw, text string }

// group makes items of the files of a folder, and gives those that belong to none.
func (i *Import) group(dir string, files []named) (items []*item, rest []named) {
	bodies := map[string]*item{}
	var attachments []named
	slices.SortFunc(files, func(a, b named) int { return cmp.Compare(a.text, b.text) })
	for _, f := range files {
		if _, is := attachmentOf(stem(f.text)); is {
			attachments = append(attachments, f)
			continue
		}
		it := &item{mark: path.Join(dir, f.raw)}
		it.add(roleBody, path.Join(dir, f.raw), "", false)
		items = append(items, it)
		if bodies[stem(f.text)] != nil { // 通知.ofd beside 通知.docx: nobody knows which has the attachment
			bodies[stem(f.text)] = nil
			continue
		}
		bodies[stem(f.text)] = it
	}
	for _, f := range attachments {
		of, _ := attachmentOf(stem(f.text))
		it := bodies[of]
		if of == "" && len(items) == 1 {
			it = items[0]
		}
		if it == nil {
			rest = append(rest, f)
			continue
		}
		it.add(roleAttachment, path.Join(dir, f.raw), "", false)
	}
	for _, it := range items {
		i.byRules(it)
	}
	return items, rest
}

// byRules says of an item what its names say.
func (i *Import) byRules(it *item) {
	at := it.files[0].at
	it.place = sm.Sum([]byte("file\x00" + at))
	text, _ := shown(at)
	said := i.said(stem(text))
	title, number := cmp.Or(said["title"], stem(it.files[0].name)), said["number"]
	if m := numberAtTheHead.FindStringSubmatch(title); m != nil && number == "" && m[2] != "" {
		number, title = m[1], m[2]
	}
	it.name(title, number)
	d := i.c.Defaults
	it.words(cmp.Or(said["label"], d.Label), cmp.Or(said["urgency"], d.Urgency), d.Kind, 0)
	it.to, it.cc = d.To, d.Cc
	first, _, below := strings.Cut(text, "/")
	switch {
	case said["to"] != "":
		it.to = split(said["to"], strongMarks+weakMarks)
	case i.c.Rules.Folder && below:
		it.to = []string{first}
	}
}

// said are the groups of the pattern that matched.
func (i *Import) said(text string) map[string]string {
	out := map[string]string{}
	if i.pattern == nil {
		return out
	}
	m := i.pattern.FindStringSubmatch(text)
	for n, name := range i.pattern.SubexpNames() {
		if m != nil && name != "" {
			out[name] = strings.TrimSpace(m[n])
		}
	}
	return out
}
