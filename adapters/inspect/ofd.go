package inspect

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"io"
	"path"
	"strings"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// maxReferences bounds how many places a package names, so that none is
// followed without end.
const maxReferences = 100_000

// ofd follows the structure of a package (GB/T 33190) from OFD.xml on: every
// page, template, resource, annotation and attachment that it names is there, and
// every file that a signature in it names still has the digest that was signed.
// The seals themselves are not verified: that is for who receives the document.
func (p *pack) ofd() error {
	o := &ofd{pack: p, read: map[string]bool{}, folded: map[string]string{}}
	for name := range p.files {
		o.folded[strings.ToLower(name)] = name
	}
	documents := 0
	var signatures []string
	err := o.walk("OFD.xml", "OFD", func(e *element) error {
		switch {
		case e.is("OFD", "DocBody", "DocRoot"):
			documents++
			return o.document(o.place("OFD.xml", string(e.text)))
		case e.is("OFD", "DocBody", "Signatures"):
			signatures = append(signatures, o.place("OFD.xml", string(e.text)))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if documents == 0 {
		return refuse(exchange.CodeContentDamaged, "OFD.xml names no document")
	}
	for _, s := range signatures {
		if err := o.signatures(s); err != nil {
			return err
		}
	}
	return nil
}

type ofd struct {
	*pack
	read   map[string]bool   // files that were walked: a package may name one twice
	folded map[string]string // names by their lower case: no two are the same in it
	refs   int
}

// place resolves a location that a file names: from the root of the package, or
// from the file's own folder; some makers write the former without the slash.
func (o *ofd) place(from, loc string) string {
	loc = strings.TrimSpace(loc)
	if strings.HasPrefix(loc, "/") {
		return o.named(strings.TrimPrefix(path.Clean(loc), "/"))
	}
	near := o.named(path.Join(path.Dir(from), loc))
	if far := o.named(path.Clean(loc)); o.files[near] == nil && o.files[far] != nil {
		return far
	}
	return near
}

// named gives the name as the package writes it: makers mix upper and lower case,
// and readers on Windows never tell them.
func (o *ofd) named(name string) string {
	if o.files[name] == nil {
		if other, ok := o.folded[strings.ToLower(name)]; ok {
			return other
		}
	}
	return name
}

// exists refuses a location that is not in the package.
func (o *ofd) exists(name, what string) error {
	if o.refs++; o.refs > maxReferences {
		return refuse(exchange.CodeContentTooLarge, "an OFD with more than %d references", maxReferences)
	}
	if o.files[name] == nil {
		return refuse(exchange.CodeContentDamaged, "an OFD that names a %s which is not in it", what)
	}
	return nil
}

// walk reads one file of the structure, once.
func (o *ofd) walk(name, root string, visit func(*element) error) error {
	if err := o.exists(name, "file"); err != nil {
		return err
	}
	if o.read[name] {
		return nil
	}
	o.read[name] = true
	r, err := o.files[name].Open()
	if err != nil {
		return damagedBy(err, "an entry that cannot be unpacked")
	}
	defer r.Close()
	right := false
	err = o.walkXML(r, func(e *element) error {
		right = right || root == "" || e.path[0] == root
		if visit == nil {
			return nil
		}
		return visit(e)
	})
	if err == nil && !right {
		return refuse(exchange.CodeContentDamaged, "an OFD whose %s is something else", root)
	}
	return err
}

// document follows Document.xml.
func (o *ofd) document(name string) error {
	if o.read[name] {
		return nil
	}
	pages := 0
	err := o.walk(name, "Document", func(e *element) error {
		at := o.place(name, string(e.text))
		switch {
		case e.is("Document", "Pages", "Page"):
			pages++
			return o.walk(o.place(name, e.attr("BaseLoc")), "Page", nil)
		case e.is("Document", "CommonData", "TemplatePage"):
			return o.walk(o.place(name, e.attr("BaseLoc")), "Page", nil)
		case e.is("CommonData", "PublicRes"), e.is("CommonData", "DocumentRes"):
			return o.resources(at)
		case e.is("Document", "Annotations"):
			return o.listed(at, "Annotations", "annotation")
		case e.is("Document", "Attachments"):
			return o.listed(at, "Attachments", "attachment")
		case e.is("Document", "CustomTags"):
			return o.listed(at, "CustomTags", "tag")
		}
		return nil
	})
	if err == nil && pages == 0 {
		return refuse(exchange.CodeContentDamaged, "an OFD without a page")
	}
	return err
}

// resources follows a file of resources: fonts, images, profiles.
func (o *ofd) resources(name string) error {
	base := name
	var found []string
	err := o.walk(name, "Res", func(e *element) error {
		switch {
		case e.is("MultiMedia", "MediaFile"), e.is("Font", "FontFile"):
			found = append(found, string(e.text))
		case e.is("ColorSpaces", "ColorSpace") && e.attr("Profile") != "":
			found = append(found, e.attr("Profile"))
		case len(e.path) == 1 && e.attr("BaseLoc") != "": // the root ends last
			base = path.Join(o.place(name, e.attr("BaseLoc")), "x")
		}
		if len(found) > maxReferences {
			return refuse(exchange.CodeContentTooLarge, "an OFD with more than %d references", maxReferences)
		}
		return nil
	})
	for _, loc := range found {
		if err == nil {
			err = o.exists(o.place(base, loc), "resource")
		}
	}
	return err
}

// listed follows a file that names others by FileLoc.
func (o *ofd) listed(name, root, what string) error {
	return o.walk(name, root, func(e *element) error {
		if !e.is("FileLoc") {
			return nil
		}
		return o.exists(o.place(name, string(e.text)), what)
	})
}

func (o *ofd) signatures(name string) error {
	return o.walk(name, "Signatures", func(e *element) error {
		if !e.is("Signatures", "Signature") {
			return nil
		}
		return o.signature(o.place(name, e.attr("BaseLoc")))
	})
}

// methods are the digests that are trusted to show a change. The standard also
// has MD5 and SHA-1, by which one file can be exchanged for another.
var methods = map[string]func() hash.Hash{
	"SM3": sm.New, "1.2.156.10197.1.401": sm.New,
	"SHA256": sha256.New, "SHA-256": sha256.New, "2.16.840.1.101.3.4.2.1": sha256.New,
}

// signature compares the files that one signature names with their digests. The
// method is an attribute of an element that ends behind them.
func (o *ofd) signature(name string) error {
	type reference struct {
		file string
		want []byte
	}
	var refs []reference
	var check, value string
	method := "MD5" // what the standard takes when none is named
	err := o.walk(name, "Signature", func(e *element) error {
		switch {
		case e.is("Reference", "CheckValue"):
			check = string(e.text)
		case e.is("References", "Reference"):
			want, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(check), ""))
			if err != nil {
				return refuse(exchange.CodeContentDamaged, "a signature with a digest that is none")
			}
			refs, check = append(refs, reference{o.place(name, e.attr("FileRef")), want}), ""
			return o.exists(refs[len(refs)-1].file, "signed file")
		case e.is("SignedInfo", "References") && e.attr("CheckMethod") != "":
			method = strings.ToUpper(e.attr("CheckMethod"))
		case e.is("Signature", "SignedValue"):
			value = o.place(name, string(e.text))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if value != "" {
		if err := o.exists(value, "signature"); err != nil {
			return err
		}
	}
	newHash := methods[method]
	if newHash == nil && len(refs) > 0 {
		return refuse(exchange.CodeContentDigest, "a signature whose digests are neither SM3 nor SHA-256")
	}
	for _, r := range refs {
		if err := o.digest(o.files[r.file], newHash(), r.want); err != nil {
			return err
		}
	}
	return nil
}

func (o *ofd) digest(f *zip.File, h hash.Hash, want []byte) error {
	r, err := f.Open()
	if err != nil {
		return damagedBy(err, "an entry that cannot be unpacked")
	}
	defer r.Close()
	n, err := io.Copy(h, io.LimitReader(r, o.unpacked+1))
	if err != nil {
		return damagedBy(err, "an entry that is damaged")
	}
	// Many signatures over one large file are work without end.
	if err := o.spend(n); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), want) {
		return refuse(exchange.CodeContentDigest, "a signed file in it was changed after it was signed")
	}
	return nil
}
