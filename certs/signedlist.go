package certs

import (
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// SignedList gives the signed list of a directory file as the CMS object that
// the authority made. Nothing about it is verified: that is LoadDirectory's.
func SignedList(file []byte) ([]byte, error) {
	f, err := parseFile(file)
	if err != nil {
		return nil, err
	}
	return f.List, nil
}

// SignedParts gives the signed objects that a directory file holds beside its
// list: the successions of the authority, oldest first, and the approvals by
// administrators. Nothing about them is verified.
func SignedParts(file []byte) (successions, approvals [][]byte, err error) {
	f, err := parseFile(file)
	if err != nil {
		return nil, nil, err
	}
	s, err := cms.Parse(f.List, MaxDirectory)
	if err != nil {
		return nil, nil, &Error{Code: codeSignature, Detail: "list", Err: err}
	}
	var l list
	if err := strictjson.Unmarshal(s.Content, &l); err != nil {
		return nil, nil, &Error{Code: codeContent, Detail: "list", Err: err}
	}
	return l.Succession, f.Approvals, nil
}
