package exchange

import (
	"fmt"
	"slices"
	"strings"
)

// Fault is what is wrong with one member of a document, or strange about it, for
// whoever filled it in. Field is the member's name in the interface, as in title
// or to[2]. The details name codes and agencies, never a title or document text.
type Fault struct {
	Field    string `json:"field"`
	Code     string `json:"code"`
	Detail   string `json:"detail"`
	DetailZH string `json:"detail_zh"`
}

// Faults are all that is wrong with a document, in the order in which a person
// would mend them, one for each field.
type Faults []Fault

// maxFaults bounds what is told at once.
const maxFaults = 100

// Error implements error.
func (f Faults) Error() string {
	if len(f) == 1 {
		return "1 fault"
	}
	return fmt.Sprintf("%d faults", len(f))
}

// Add notes a fault; both details take the same arguments. Of a field only the
// first counts: what follows from it is no news.
func (f *Faults) Add(field, code, en, zh string, args ...any) {
	f.append(faultOf(field, code, en, zh, args...))
}

func faultOf(field, code, en, zh string, args ...any) Fault {
	if len(args) > 0 {
		en, zh = fmt.Sprintf(en, args...), fmt.Sprintf(zh, args...)
	}
	return Fault{Field: field, Code: code, Detail: en, DetailZH: zh}
}

func (f *Faults) append(one Fault) {
	if len(*f) < maxFaults && !f.about(one.Field) {
		*f = append(*f, one)
	}
}

func (f Faults) about(field string) bool {
	return slices.ContainsFunc(f, func(one Fault) bool { return one.Field == field })
}

// Refuse notes that what a field says was refused for a reason that has a code of
// its own.
func (f *Faults) Refuse(field string, err *Error, about string) {
	zh := Explain(err.Code, "zh").Title
	if about != "" {
		zh += "：" + about
	}
	en := err.Detail
	if en == "" {
		en = Explain(err.Code, "en").Title
	}
	f.append(Fault{Field: field, Code: err.Code, Detail: en, DetailZH: zh})
}

// Told gives what may be said of a document. That it is a state secret is all that
// matters about one, and nothing else is said of it.
func (f Faults) Told() Faults {
	if i := slices.IndexFunc(f, func(one Fault) bool { return one.Code == CodeStateSecret }); i >= 0 {
		return f[i : i+1]
	}
	return f
}

// Err gives the faults as the error of a submission, with the code of the first; nil
// when there are none.
func (f Faults) Err() error {
	if f = f.Told(); len(f) == 0 {
		return nil
	}
	const shown = 5
	var all []string
	for _, one := range f[:min(len(f), shown)] {
		all = append(all, one.Field+": "+one.Detail)
	}
	if more := len(f) - shown; more > 0 {
		all = append(all, fmt.Sprintf("and %d more", more))
	}
	return &Error{Code: f[0].Code, Detail: strings.Join(all, "; "), Err: f}
}
