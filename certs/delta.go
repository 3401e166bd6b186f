package certs

import (
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

const deltaType = "yizhan-directory-delta"

// delta is an update: a newer signed list and the entries that version From
// lacks. It is trusted like the directory file that it makes, so nothing in it
// is signed besides the list and the approvals.
type delta struct {
	Type      string           `json:"type"`
	V         int              `json:"v"`
	Crit      []string         `json:"crit,omitempty"`
	From      uint64           `json:"from"`
	List      []byte           `json:"list"`
	Approvals [][]byte         `json:"approvals,omitempty"`
	Entries   []strictjson.Raw `json:"entries"` // in the order of the list
	Extra     strictjson.Extra
}

// parseDelta reads a delta; nothing of it is trusted yet.
func parseDelta(b []byte) (*delta, error) {
	if len(b) > MaxDirectory {
		return nil, fail(codeDelta, "%d bytes, at most %d are possible", len(b), MaxDirectory)
	}
	var d delta
	if err := strictjson.Unmarshal(b, &d); err != nil {
		return nil, &Error{Code: codeDelta, Detail: "not an update of a directory", Err: err}
	}
	if d.Type != deltaType || d.V != 1 {
		return nil, fail(codeDelta, "not a %s of version 1", deltaType)
	}
	if len(d.Entries) > maxEntries {
		return nil, fail(codeDelta, "%d entries, at most %d are possible", len(d.Entries), maxEntries)
	}
	return &d, nil
}

// listed gives the hashes of the entries of a directory file without judging
// who signed it.
func listed(file []byte) ([]sm.Digest, error) {
	f, err := parseFile(file)
	if err != nil {
		return nil, err
	}
	s, err := cms.Parse(f.List, MaxDirectory)
	if err == nil {
		err = s.Verify(s.Certificate)
	}
	var l list
	if err == nil {
		err = strictjson.Unmarshal(s.Content, &l)
	}
	if err != nil {
		return nil, &Error{Code: codeSignature, Detail: "list", Err: err}
	}
	return l.Entries, nil
}

// deltaFrom makes the update from a version, whose entries have these hashes,
// to a directory.
func (d *Directory) deltaFrom(from uint64, had []sm.Digest) ([]byte, error) {
	f, err := parseFile(d.raw)
	if err != nil {
		return nil, err
	}
	known := make(map[sm.Digest]bool, len(had))
	for _, id := range had {
		known[id] = true
	}
	out := &delta{Type: deltaType, V: 1, From: from, List: f.List, Approvals: f.Approvals}
	for i, id := range d.list.Entries {
		if !known[id] {
			out.Entries = append(out.Entries, f.Entries[i])
		}
	}
	return strictjson.Marshal(out)
}

// assemble makes the directory file that a delta leads to, from its entries and
// those of this directory. The list's signature is verified before its entries
// are gathered; the file is then to be judged like any other.
func (d *Directory) assemble(u *delta) ([]byte, error) {
	next, err := openList(u.List, d.authority)
	if err != nil {
		return nil, err
	}
	f, err := parseFile(d.raw)
	if err != nil {
		return nil, err
	}
	have := make(map[sm.Digest]strictjson.Raw, len(f.Entries)+len(u.Entries))
	for i, raw := range f.Entries {
		have[d.list.Entries[i]] = raw
	}
	fresh := make(map[sm.Digest]bool, len(u.Entries))
	for _, raw := range u.Entries {
		id := sm.Sum(raw)
		if fresh[id] {
			return nil, fail(codeDelta, "the update has entry %s twice", id)
		}
		fresh[id], have[id] = true, raw
	}
	out := &directoryFile{Type: fileType, V: 1, List: u.List, Approvals: u.Approvals}
	for _, id := range next.list.Entries {
		raw, ok := have[id]
		if !ok {
			return nil, fail(codeDelta, "the update from version %d to %d lacks an entry that version %d here does not have: get the whole directory", u.From, next.Version(), d.Version())
		}
		out.Entries = append(out.Entries, raw)
		delete(fresh, id)
	}
	if len(fresh) > 0 {
		return nil, fail(codeDelta, "the update has %d entries that its list does not name", len(fresh))
	}
	return strictjson.Marshal(out)
}
