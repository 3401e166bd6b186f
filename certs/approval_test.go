package certs

import (
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

func TestApprovals(t *testing.T) {
	f := newForge(t, "approvals")
	zhang, byZhang := f.person("zhang-san")
	li, byLi := f.person("li-si")
	wang, byWang := f.person("wang-wu")
	_, byNobody := f.person("nobody")
	with := func(n int, by ...approver) *draft {
		d := f.draft(append(f.usual(), zhang, li, wang, policy(n))...)
		d.approve = by
		return d
	}
	misplaced := func(change func(*approval)) *draft {
		d := with(2, byZhang, byLi)
		d.misplace = change
		return d
	}
	tests := []struct {
		name  string
		draft *draft
		code  string
		says  string
	}{
		{"two of two", with(2, byZhang, byLi), "", ""},
		{"three of two", with(2, byZhang, byLi, byWang), "", ""},
		{"none of none", with(0), "", ""},
		{"one of none", with(0, byZhang), "", ""},
		{"none of two", with(2), "directory_approval", "missing are 2 of: zhang-san, li-si, wang-wu"},
		{"one of two", with(2, byZhang), "directory_approval", "missing are 1 of: li-si, wang-wu"},
		{"one of two and somebody unknown", with(2, byZhang, byNobody), "directory_approval", "missing"},
		{"somebody unknown besides", with(2, byZhang, byLi, byNobody), "", ""},
		{"one twice", with(2, byZhang, byZhang), "directory_approval", "twice"},
		{"one in another's name", with(2, byZhang, approver{"li-si", byZhang.by}), "directory_approval", "missing are 1 of: li-si"},
		{"by the authority in their names", with(2, approver{"zhang-san", f.self()}, approver{"li-si", f.self()}), "directory_approval", "missing are 2"},
		{"by a stolen certificate", with(1, approver{"zhang-san", keySigner{f, f.newKey(), byZhang.by.Certificate()}}), "directory_approval", ""},
		{"of another domain", misplaced(func(a *approval) { a.Domain = "x" }), "directory_approval", "another list"},
		{"of another version", misplaced(func(a *approval) { a.Version++ }), "directory_approval", "another list"},
		{"of another list", misplaced(func(a *approval) { a.List[0]++ }), "directory_approval", "another list"},
		{"of another type", misplaced(func(a *approval) { a.Type = listType }), "directory_approval", "not a"},
		{"by nobody", misplaced(func(a *approval) { a.Administrator = "" }), "directory_approval", "not a"},
		{"must be understood", misplaced(func(a *approval) {
			a.Crit, a.Extra = []string{"later"}, strictjson.Extra{{Name: "later", Value: raw("1")}}
		}), "directory_approval", "later"},
		{"with a note", misplaced(func(a *approval) { a.Extra = strictjson.Extra{{Name: "note", Value: raw("1")}} }), "", ""},
		{"by one who is revoked", func() *draft {
			d := with(2, byZhang, byLi)
			d.add(t, revocation(byLi.by.Certificate(), testNow.Add(-time.Hour)))
			return d
		}(), "directory_approval", "missing are 1 of: li-si"},
		{"by one who is revoked later", func() *draft {
			d := with(2, byZhang, byLi)
			d.add(t, revocation(byLi.by.Certificate(), testNow.Add(time.Hour)))
			return d
		}(), "", ""},
		{"issued when their certificates have ended", func() *draft {
			d := with(2, byZhang, byLi)
			d.list.Issued = strictjson.TimeOf(testNow.AddDate(9, 0, 0))
			return d
		}(), "directory_approval", "missing are 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := f.load(tt.draft)
			wantCode(t, err, tt.code)
			if err != nil && (!strings.Contains(err.Error(), tt.says) || d != nil) {
				t.Errorf("%v does not say %q", err, tt.says)
			}
			if err == nil && len(d.Approvals()) != len(tt.draft.approve) {
				t.Errorf("approvals: %v", d.Approvals())
			}
		})
	}
	many := with(0)
	for i := range maxIssuers + 1 {
		many.approve = append(many.approve, approver{"a" + strings.Repeat("0", i%30), byZhang.by})
	}
	_, err := f.load(many)
	wantCode(t, err, "directory_approval")
}

// TestPolicyOfTheVersionBefore: who holds the authority's key alone cannot
// publish to a reader that knows the policy, neither by leaving it out nor by
// naming administrators of his own.
func TestPolicyOfTheVersionBefore(t *testing.T) {
	f := newForge(t, "policy before")
	zhang, byZhang := f.person("zhang-san")
	li, byLi := f.person("li-si")
	mine, byMine := f.person("mine")
	two, byTwo := f.person("two")
	h := newHistory(f)
	s := openShelf(t, emptyDisk(1))
	_, err := s.Trust(f.root.Raw, h.next())
	f.must(err)
	h.approve = []approver{byZhang, byLi}
	h.entries = append(h.entries, zhang, li, policy(2))
	_, err = s.Install(h.next())
	f.must(err)

	saved := *h
	with := func(by []approver, people ...any) []byte {
		*h = saved
		h.approve, h.entries = by, append(f.usual(), people...)
		return h.next()
	}
	for _, tt := range []struct {
		name string
		file []byte
		code string
	}{
		{"without policy and administrators", with(nil), "directory_approval"},
		{"with a policy of none", with(nil, zhang, li, policy(0)), "directory_approval"},
		{"with administrators of his own", with([]approver{byMine, byTwo}, mine, two, policy(2)), "directory_approval"},
		{"with one of his own", with([]approver{byZhang, byMine}, zhang, li, mine, policy(2)), "directory_approval"},
		{"with keys of his own in their names", with([]approver{{"zhang-san", byMine.by}, {"li-si", byTwo.by}},
			func() any { e := *mine; e.ID = "zhang-san"; return &e }(), func() any { e := *two; e.ID = "li-si"; return &e }(), policy(2)), "directory_approval"},
		{"approved by those before alone, while the new ones do not", with([]approver{byZhang, byLi}, mine, two, policy(2)), "directory_approval"},
		{"approved by both", with([]approver{byZhang, byLi, byMine}, mine, zhang, policy(2)), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.code != "" {
				in := s.Current()
				_, err := s.Install(tt.file)
				wantCode(t, err, tt.code)
				u := deltaOf(t, s, tt.file)
				_, err = s.Take(u)
				wantCode(t, err, tt.code)
				if s.Current() != in {
					t.Error("the refused one is in force")
				}
				return
			}
			_, err := s.Install(tt.file)
			wantCode(t, err, "")
		})
	}
	if got := s.Current().Approvals(); len(got) != 3 {
		t.Errorf("approved by %v", got)
	}
}

// deltaOf makes an update out of a directory file, whatever is wrong with it.
func deltaOf(t *testing.T, s *Shelf, file []byte) []byte {
	t.Helper()
	f, err := parseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	u := &delta{Type: deltaType, V: 1, From: versionOf(s), List: f.List, Approvals: f.Approvals, Entries: f.Entries}
	b, err := strictjson.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzReadApproval: what is read is one encoding, signed by the certificate it
// carries, and everything else an error with a class.
func FuzzReadApproval(f *testing.F) {
	g := newForge(f, "fuzz")
	entry, person := g.person("zhang-san")
	d := g.draft(append(g.usual(), entry)...)
	d.approve = []approver{person}
	file, err := parseFile(g.sign(d))
	g.must(err)
	f.Add(file.Approvals[0])
	f.Add(file.List)
	f.Add(file.Approvals[0][:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readApproval(b)
		if err != nil {
			wantSome(t, err)
			return
		}
		if !nameForm.MatchString(got.Administrator) || len(got.cert) == 0 {
			t.Fatalf("an approval by nobody: %+v", got.approval)
		}
		s, err := cms.Parse(b, maxSmallCMS)
		if err != nil || s.Verify(got.cert) != nil {
			t.Fatalf("an approval that is not signed: %v", err)
		}
		if again, err := strictjson.Marshal(&got.approval); err != nil || string(again) != string(s.Content) {
			t.Fatalf("parse then marshal gives other bytes, %v", err)
		}
	})
}
