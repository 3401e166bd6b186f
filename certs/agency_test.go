package certs

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

func TestBranches(t *testing.T) {
	for stored, chinese := range map[string]string{"party": "党委", "congress": "人大", "government": "政府", "cppcc": "政协"} {
		for _, s := range []string{stored, chinese} {
			if got, err := ParseBranch(s); err != nil || got != stored {
				t.Errorf("%s: %q, %v", s, got, err)
			}
		}
		if BranchName(stored) != chinese {
			t.Errorf("%s: %q", stored, BranchName(stored))
		}
	}
	if _, err := ParseBranch("军队"); err == nil || BranchName("") != "" {
		t.Error("a branch that is none")
	}
}

func TestRefusedPlaces(t *testing.T) {
	f := newForge(t, "places")
	usual := f.usual()
	at := func(i int) *agencyEntry { e := *usual[i].(*agencyEntry); return &e }
	jia, yi, bing := at(3), at(4), at(5)
	stray, err := MakeAgencyCode("11520300000000999")
	f.must(err)
	for _, tt := range []struct {
		name   string
		change func(jia, yi, bing *agencyEntry)
		says   string
	}{
		{"a tree", func(jia, yi, bing *agencyEntry) { yi.Parent, bing.Parent, jia.Branch = jia.Code, jia.Code, BranchParty }, ""},
		{"a chain of successors", func(jia, yi, bing *agencyEntry) { jia.Successor, yi.Successor = yi.Code, bing.Code }, ""},
		{"from and until", func(jia, _, _ *agencyEntry) {
			jia.From, jia.Until = strictjson.TimeOf(testNow), strictjson.TimeOf(testNow)+1
		}, ""},
		{"a parent that is not there", func(jia, _, _ *agencyEntry) { jia.Parent = string(stray) }, "not in the directory"},
		{"a successor that is not there", func(jia, _, _ *agencyEntry) { jia.Successor = string(stray) }, "not in the directory"},
		{"a parent that is no code", func(jia, _, _ *agencyEntry) { jia.Parent = "上级" }, "codes of other agencies"},
		{"its own parent", func(jia, _, _ *agencyEntry) { jia.Parent = jia.Code }, "codes of other agencies"},
		{"its own successor", func(jia, _, _ *agencyEntry) { jia.Successor = jia.Code }, "codes of other agencies"},
		{"parents in a circle", func(jia, yi, bing *agencyEntry) { jia.Parent, yi.Parent, bing.Parent = yi.Code, bing.Code, yi.Code }, "circle"},
		{"successors in a circle", func(jia, yi, _ *agencyEntry) { jia.Successor, yi.Successor = yi.Code, jia.Code }, "circle"},
		{"an unknown branch", func(jia, _, _ *agencyEntry) { jia.Branch = "军队" }, "branch"},
		{"a branch in Chinese", func(jia, _, _ *agencyEntry) { jia.Branch = "党委" }, "branch"},
		{"an end before the beginning", func(jia, _, _ *agencyEntry) {
			jia.From, jia.Until = strictjson.TimeOf(testNow), strictjson.TimeOf(testNow)
		}, "ends before"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b, c := *jia, *yi, *bing
			tt.change(&a, &b, &c)
			list := append([]any{}, usual...)
			list[3], list[4], list[5] = &a, &b, &c
			_, err := f.load(f.draft(list...))
			if tt.says == "" {
				f.must(err)
				return
			}
			wantCode(t, err, "directory_content")
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v does not say %q", err, tt.says)
			}
		})
	}
}

func TestExistsAt(t *testing.T) {
	a := &Agency{Code: "A", From: strictjson.TimeOf(testNow), Until: strictjson.TimeOf(testNow.AddDate(1, 0, 0)), Successor: "B"}
	for _, tt := range []struct {
		at   time.Time
		ok   bool
		says string
	}{
		{testNow.Add(-time.Millisecond), false, "begins on 2026-11-23"},
		{testNow, true, ""},
		{testNow.AddDate(1, 0, 0).Add(-time.Millisecond), true, ""},
		{testNow.AddDate(1, 0, 0), false, "its successor is B"},
	} {
		if ok, why := a.ExistsAt(tt.at); ok != tt.ok || !strings.Contains(why, tt.says) {
			t.Errorf("%s: %v, %q", tt.at, ok, why)
		}
	}
	a.Successor = ""
	if ok, why := a.ExistsAt(testNow.AddDate(2, 0, 0)); ok || !strings.Contains(why, "no successor") {
		t.Errorf("%v, %q", ok, why)
	}
	if ok, _ := new(Agency).ExistsAt(testNow); !ok {
		t.Error("an agency without bounds does not exist")
	}
}

func TestResolve(t *testing.T) {
	f := newForge(t, "resolve")
	usual := f.usual()
	for i, change := range map[int]func(*agencyEntry){
		3: func(e *agencyEntry) {
			e.Name, e.Aliases, e.Groups = "甲县人民政府", []string{"甲县政府", "甲"}, []string{"各县区政府"}
		},
		4: func(e *agencyEntry) {
			e.Name, e.Aliases, e.Groups = "乙县人民政府", []string{"甲"}, []string{"各县区政府", "甲县政府"}
		},
		5: func(e *agencyEntry) { e.Name = "甲" },
	} {
		change(usual[i].(*agencyEntry))
	}
	d, err := f.load(f.draft(usual...))
	f.must(err)
	code := func(i int) string { return usual[i].(*agencyEntry).Code }
	for _, tt := range []struct {
		text, by string
		want     []string
	}{
		{code(3), ByCode, []string{code(3)}},
		{" " + strings.ToLower(code(4)) + " ", ByCode, []string{code(4)}},
		{"甲县人民政府", ByName, []string{code(3)}},
		{"甲", ByName, []string{code(5)}},     // a name before aliases
		{"甲县政府", ByAlias, []string{code(3)}}, // an alias before groups
		{"各县区政府", ByGroup, []string{code(3), code(4)}},
		{"甲县", "", nil}, // part of a name is not the name
		{"", "", nil}, {"  ", "", nil},
	} {
		found, by := d.Resolve(tt.text)
		var got []string
		for _, a := range found {
			got = append(got, a.Code)
		}
		if by != tt.by || fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%q: %v by %q, want %v by %q", tt.text, got, by, tt.want, tt.by)
		}
	}
}

func TestChangeAgency(t *testing.T) {
	a, _ := newAuthority(t)
	f := newForge(t, "change")
	jia, yi := agencySpec(t, "11520300000000001", "示范单位甲"), agencySpec(t, "11520300000000002", "示范单位乙")
	request := parsed(t, f.request("jia", jia, yi))
	f.must(a.Admit(request, testNow))
	text := func(s string) *string { return &s }
	list := func(s ...string) *[]string { return &s }
	until := testNow.AddDate(1, 0, 0)
	f.must(a.ChangeAgency(string(yi.Code), AgencyChange{
		Name: text("新名"), Parent: text(string(jia.Code)), Branch: text(BranchGovernment), Successor: text(string(jia.Code)),
		Aliases: list("乙", "乙单位"), Groups: list("各县区政府"), From: &testNow, Until: &until,
	}))
	got, _ := published(t, a, 1).Agency(string(yi.Code))
	if got.Name != "新名" || got.Parent != string(jia.Code) || got.Branch != BranchGovernment || got.Successor != string(jia.Code) ||
		len(got.Aliases) != 2 || len(got.Groups) != 1 || got.From.Time() != testNow || got.Until.Time() != until || len(got.Certificates) != 2 {
		t.Errorf("got %+v", got)
	}
	// What is not named stays, also when the node asks anew without aliases.
	f.must(a.ChangeAgency(string(yi.Code), AgencyChange{Groups: list(), Until: new(time.Time)}))
	bare := yi
	bare.Aliases = nil
	replace(t, a, parsed(t, f.request("jia", jia, bare)), testNow)
	got, _ = published(t, a, 2).Agency(string(yi.Code))
	if got.Parent != string(jia.Code) || len(got.Aliases) != 2 || len(got.Groups) != 0 || got.Until != 0 || got.From.Time() != testNow {
		t.Errorf("got %+v", got)
	}
	for name, c := range map[string]AgencyChange{
		"a branch that is none": {Branch: text("x")}, "no name": {Name: text("")}, "its own parent": {Parent: text(string(yi.Code))},
	} {
		err := a.ChangeAgency(string(yi.Code), c)
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else {
			wantCode(t, err, "request_content")
		}
	}
	wantCode(t, a.ChangeAgency("x", AgencyChange{}), "agency_code")
	wantCode(t, a.ChangeAgency("91350100M000100Y43", AgencyChange{}), "request_content")
}
