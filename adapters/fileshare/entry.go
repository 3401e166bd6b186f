package fileshare

import (
	"fmt"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/fileshare/manifest"
)

// Fault is what keeps a document from being submitted.
type Fault struct {
	Code   string
	Row    int
	Column string
	Detail string // for the agency's own eyes
	cause  error
}

// Entry is a line of the report. Names of files are shown as text.
type Entry struct {
	Outcome   Outcome   `json:"outcome"`
	OutcomeZH string    `json:"outcome_zh,omitempty"`
	Manifest  string    `json:"manifest,omitempty"`
	Row       int       `json:"row,omitempty"`
	Column    string    `json:"column,omitempty"`
	Files     []string  `json:"files,omitempty"`
	Document  string    `json:"document,omitempty"`
	Code      string    `json:"code,omitempty"`
	Detail    string    `json:"detail,omitempty"`
	Cause     string    `json:"cause_zh,omitempty"`
	Remedy    string    `json:"remedy_zh,omitempty"`
	CauseEN   string    `json:"cause,omitempty"`
	RemedyEN  string    `json:"remedy,omitempty"`
	At        time.Time `json:"at"`
}

// Summary counts outcomes.
type Summary struct {
	Submitted   int `json:"submitted"`
	Done        int `json:"done"` // submitted by an earlier run
	Duplicates  int `json:"duplicates"`
	Quarantined int `json:"quarantined"`
	Waiting     int `json:"waiting"`
	Held        int `json:"held"`
	Undecided   int `json:"undecided"`
	Unmatched   int `json:"unmatched"`
	Ready       int `json:"ready"`
	Documents   int `json:"documents"` // that were dealt with
	Expected    int `json:"-"`         // that are known to be there, so far
}

func (s *Summary) count(o Outcome) {
	switch o {
	case Submitted:
		s.Submitted++
	case Done:
		s.Done++
	case Duplicate:
		s.Duplicates++
	case Quarantined:
		s.Quarantined++
	case Waiting:
		s.Waiting++
	case Held:
		s.Held++
	case Undecided:
		s.Undecided++
	case Unmatched:
		s.Unmatched++
	case Ready:
		s.Ready++
	}
}

// became is the entry with an outcome.
func (e Entry) became(o Outcome, f *Fault, at time.Time) Entry {
	e.Outcome, e.At = o, at.UTC().Truncate(time.Millisecond)
	if f != nil {
		e.Code, e.Column, e.Detail = f.Code, f.Column, f.Detail
		if f.Row > 0 {
			e.Row = f.Row
		}
	}
	return e
}

// Words gives the entry with the words of its codes.
func (e Entry) Words() Entry {
	e.OutcomeZH = e.Outcome.Chinese()
	if e.Code != "" {
		zh, en := Explain(e.Code, "zh"), Explain(e.Code, "en")
		e.Cause, e.Remedy, e.CauseEN, e.RemedyEN = zh.Title, zh.Fix, en.Title, en.Fix
	}
	return e
}

// Place names what an entry is about.
func (e Entry) Place() string {
	switch {
	case e.Manifest != "" && e.Row > 0:
		return fmt.Sprintf("%s 第 %d 行", e.Manifest, e.Row)
	case e.Manifest != "" || len(e.Files) == 0:
		return e.Manifest
	}
	return e.Files[0]
}

func ofManifest(f *manifest.Fault) *Fault {
	return &Fault{Code: f.Code, Row: f.Row, Column: f.Column, Detail: f.Detail}
}
