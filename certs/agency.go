package certs

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// The branches of organisations.
const (
	BranchParty      = "party"      // 党委
	BranchCongress   = "congress"   // 人大
	BranchGovernment = "government" // 政府
	BranchCPPCC      = "cppcc"      // 政协
)

// branches in their customary order, with their Chinese names.
var branches = []struct{ stored, chinese string }{
	{BranchParty, "党委"}, {BranchCongress, "人大"}, {BranchGovernment, "政府"}, {BranchCPPCC, "政协"},
}

// ParseBranch reads a branch in its stored form or by its Chinese name.
func ParseBranch(s string) (string, error) {
	for _, b := range branches {
		if s == b.stored || s == b.chinese {
			return b.stored, nil
		}
	}
	return "", fail(codeContent, "a branch is one of party 党委, congress 人大, government 政府, cppcc 政协")
}

// BranchName gives the Chinese name of a branch; empty for none.
func BranchName(stored string) string {
	for _, b := range branches {
		if stored == b.stored {
			return b.chinese
		}
	}
	return ""
}

// checkPlace looks at what an agency's entry says of its place and its time.
func (e *agencyEntry) checkPlace() error {
	if e.Branch != "" && BranchName(e.Branch) == "" {
		return fail(codeContent, "its branch is none of party, congress, government, cppcc")
	}
	if e.From != 0 && e.Until != 0 && e.From >= e.Until {
		return fail(codeContent, "it ends before it begins")
	}
	for _, code := range []string{e.Parent, e.Successor} {
		if code == "" {
			continue
		}
		if _, err := ParseAgencyCode(code); err != nil || code == e.Code {
			return fail(codeContent, "its parent and its successor are codes of other agencies")
		}
	}
	return nil
}

// checkPlaces refuses parents and successors that are not there, and such that
// lead in a circle.
func (d *Directory) checkPlaces() error {
	for _, way := range []struct {
		what string
		of   func(*Agency) string
	}{
		{"parent", func(a *Agency) string { return a.Parent }},
		{"successor", func(a *Agency) string { return a.Successor }},
	} {
		what, of := way.what, way.of
		// Each agency is walked over once: those known to lead to an end are
		// not walked from again.
		ends := make(map[*Agency]bool, len(d.sorted))
		for _, a := range d.sorted {
			walked := map[*Agency]bool{}
			for at := a; !ends[at]; {
				if walked[at] {
					return fail(codeContent, "agency %s: its %s leads in a circle", a.Code, what)
				}
				walked[at] = true
				if of(at) == "" {
					break
				}
				next := d.agencies[of(at)]
				if next == nil {
					return fail(codeContent, "agency %s: its %s %s is not in the directory", at.Code, what, of(at))
				}
				at = next
			}
			for w := range walked {
				ends[w] = true
			}
		}
	}
	return nil
}

// ExistsAt says whether the agency exists at a time. If it does not, the text
// says since or until when, and who took its place.
func (a *Agency) ExistsAt(at time.Time) (ok bool, why string) {
	switch now := strictjson.TimeOf(at); {
	case a.From != 0 && now < a.From:
		return false, fmt.Sprintf("agency %s begins on %s", a.Code, moment(a.From))
	case a.Until != 0 && now >= a.Until && a.Successor != "":
		return false, fmt.Sprintf("agency %s ended on %s; its successor is %s", a.Code, moment(a.Until), a.Successor)
	case a.Until != 0 && now >= a.Until:
		return false, fmt.Sprintf("agency %s ended on %s and has no successor", a.Code, moment(a.Until))
	}
	return true, ""
}

func moment(t strictjson.Time) string { return t.Time().Format(time.RFC3339) }

// How [Directory.Resolve] found something.
const (
	ByCode  = "code"
	ByName  = "name"
	ByAlias = "alias"
	ByGroup = "group"
)

// Resolve finds the agencies that a person means by a text: the one with that
// code, else those with exactly that name, else those with exactly that alias,
// else the members of the group of that name; by code. Several that are not
// members of one group are an ambiguity, for that person to settle.
func (d *Directory) Resolve(text string) (found []*Agency, by string) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, ""
	}
	if a, ok := d.agencies[strings.ToUpper(text)]; ok {
		return []*Agency{a}, ByCode
	}
	words := d.words()
	for _, by := range []string{ByName, ByAlias, ByGroup} {
		if found := words[by][text]; len(found) > 0 {
			return slices.Clone(found), by
		}
	}
	return nil, ""
}

// wording finds agencies, by code, for what they are called in each way: a document
// may name thousands.
func (d *Directory) wording() map[string]map[string][]*Agency {
	words := map[string]map[string][]*Agency{ByName: {}, ByAlias: {}, ByGroup: {}}
	for _, a := range d.sorted {
		for by, texts := range map[string][]string{ByName: {a.Name}, ByAlias: a.Aliases, ByGroup: a.Groups} {
			for _, text := range texts {
				if all := words[by][text]; len(all) == 0 || all[len(all)-1] != a {
					words[by][text] = append(all, a)
				}
			}
		}
	}
	return words
}

// AgencyChange is what an authority may say of an agency beyond its request;
// nil leaves a member as it is, empty takes it away.
type AgencyChange struct {
	Name, Parent, Branch, Successor *string
	Aliases, Groups                 *[]string
	From, Until                     *time.Time // zero: no bound
}

// ChangeAgency notes it for the next publication. Parent and successor are
// looked for when that is made.
func (a *Authority) ChangeAgency(code string, c AgencyChange) error {
	if _, err := ParseAgencyCode(code); err != nil {
		return err
	}
	var e agencyEntry
	if err := a.entry(agencyFile(code), &e); err != nil {
		return err
	}
	if e.Code == "" {
		return fail(codeRequest, "agency %s was not admitted: admit its node first", code)
	}
	set(&e.Name, c.Name)
	set(&e.Parent, c.Parent)
	set(&e.Branch, c.Branch)
	set(&e.Successor, c.Successor)
	set(&e.Aliases, c.Aliases)
	set(&e.Groups, c.Groups)
	for _, t := range []struct {
		member *strictjson.Time
		to     *time.Time
	}{{&e.From, c.From}, {&e.Until, c.Until}} {
		if t.to != nil && t.to.IsZero() {
			*t.member = 0
		} else if t.to != nil {
			*t.member = strictjson.TimeOf(*t.to)
		}
	}
	if err := e.check(); err != nil {
		return asRequest(within("agency "+code, err))
	}
	return a.putEntry(agencyFile(code), &e)
}

func set[T any](member, to *T) {
	if to != nil {
		*member = *to
	}
}
