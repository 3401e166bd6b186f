package envelope

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Manifest lies encrypted behind the files: the whole metadata of the document
// and what each file is.
type Manifest struct {
	Type     string         `json:"type"`
	V        int            `json:"v"`
	Crit     []string       `json:"crit,omitempty"`
	Domain   string         `json:"domain"`
	Envelope string         `json:"envelope"`
	Document strictjson.Raw `json:"document"`
	Files    []FileInfo     `json:"files"`
	Extra    strictjson.Extra
}

// FileInfo describes one file; the body is the first.
type FileInfo struct {
	Role  string    `json:"role"`
	Name  string    `json:"name"`
	Type  string    `json:"type"`
	Size  int64     `json:"size"`
	SM3   sm.Digest `json:"sm3"`
	Extra strictjson.Extra
}

// The roles of files.
const (
	RoleBody       = "body"
	RoleAttachment = "attachment"
)

func parseManifest(b []byte) (*Manifest, error) {
	var m Manifest
	if err := strictjson.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	if m.Type != manifestType || m.V != 1 {
		return nil, fmt.Errorf("not a %s of version 1", manifestType)
	}
	return &m, m.check()
}

func (m *Manifest) check() error {
	if len(m.Document) == 0 || m.Document[0] != '{' {
		return errors.New("document is not an object")
	}
	if len(m.Files) == 0 || len(m.Files) > MaxFiles {
		return fmt.Errorf("%d files, 1 to %d are possible", len(m.Files), MaxFiles)
	}
	for i, f := range m.Files {
		if (i == 0) != (f.Role == RoleBody) || i > 0 && f.Role != RoleAttachment {
			return ErrNoBody
		}
		if f.Size <= 0 {
			return fmt.Errorf("%w: file %d", ErrEmptyFile, i)
		}
		if err := checkName(i, f.Name, f.Type); err != nil {
			return err
		}
	}
	return nil
}

// checkName refuses names that a receiving disk or screen would trip over.
// The name itself is content and stays out of the error.
func checkName(i int, name, mediaType string) error {
	switch {
	case name == "" || name == "." || name == ".." || len(name) > maxFileName || len(mediaType) > maxFileName:
		return fmt.Errorf("%w: file %d: its name has 1 to %d bytes", ErrInvalid, i, maxFileName)
	case !utf8.ValidString(name) || strings.ContainsRune(name, utf8.RuneError):
		return fmt.Errorf("%w: file %d: its name is not valid UTF-8", ErrInvalid, i)
	case strings.ContainsAny(name, `/\`) || strings.ContainsFunc(name+mediaType, unicode.IsControl):
		return fmt.Errorf("%w: file %d: its name holds a path separator or control character", ErrInvalid, i)
	}
	return nil
}

// Leaf is one field of the document, or one file, disclosed: enough to prove
// it against the header without the rest.
type Leaf struct {
	Name  string
	Salt  sm.Digest
	Value strictjson.Raw
}

// leaves lists what the header commits to: the members of the document in
// their order, then the files.
func (m *Manifest) leaves(s *secrets) ([]Leaf, error) {
	members, err := strictjson.ObjectMembers(m.Document)
	if err != nil {
		return nil, err
	}
	salt := s.fieldSalts()
	out := make([]Leaf, 0, len(members)+len(m.Files))
	for _, member := range members {
		out = append(out, Leaf{"document/" + member.Name, salt(len(out)), member.Value})
	}
	for i := range m.Files {
		value, err := strictjson.Marshal(&m.Files[i])
		if err != nil {
			return nil, err
		}
		out = append(out, Leaf{"files/" + strconv.Itoa(i), salt(len(out)), value})
	}
	return out, nil
}

func (l *Leaf) hash() sm.Digest {
	size := binary.BigEndian.AppendUint16(nil, uint16(len(l.Name)))
	return merkle.LeafHash(l.Salt[:], size, []byte(l.Name), l.Value)
}

func commitFields(leaves []Leaf) (sm.Digest, error) {
	hashes := make([]sm.Digest, len(leaves))
	for i := range leaves {
		if len(leaves[i].Name) > 0xffff {
			return sm.Digest{}, fmt.Errorf("%w: a member's name is too long", ErrInvalid)
		}
		hashes[i] = leaves[i].hash()
	}
	return merkle.Root(hashes), nil
}

// VerifyDisclosure checks that these are all fields and files the header
// commits to, in their order.
func VerifyDisclosure(h *Header, leaves []Leaf) error {
	root, err := commitFields(leaves)
	if err != nil || root != h.Fields {
		return fmt.Errorf("%w: the fields are not those the header commits to", ErrMalformed)
	}
	return nil
}
