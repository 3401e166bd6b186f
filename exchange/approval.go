package exchange

import (
	"regexp"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// GuardApproval is what an administrator signs of one document that is to go over
// one link from one node: that it may, or that it may not.
type GuardApproval struct {
	Type          string          `json:"type"`
	V             int             `json:"v"`
	Crit          []string        `json:"crit,omitempty"`
	Domain        string          `json:"domain"`
	Node          string          `json:"node"`
	Link          string          `json:"link"`
	Header        sm.Digest       `json:"header"`
	Verdict       string          `json:"verdict"`
	Administrator string          `json:"administrator"`
	Reason        string          `json:"reason,omitempty"`
	Time          strictjson.Time `json:"time"`
	Extra         strictjson.Extra
}

// GuardApprovalType is the "type" member of a GuardApproval, MaxGuardApproval bounds
// its JSON, MaxGuardApprovalCMS the signed form.
const (
	GuardApprovalType   = "yizhan-guard-approval"
	MaxGuardApproval    = 4 << 10
	MaxGuardApprovalCMS = MaxGuardApproval + 4<<10
	maxApprovalReason   = 500 // characters
)

// The verdicts.
const (
	VerdictApprove = "approve"
	VerdictRefuse  = "refuse"
)

var (
	administratorForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	nameOfLinkForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
)

// Marshal gives the approval's one encoding.
func (a *GuardApproval) Marshal() ([]byte, error) {
	a.Type, a.V = GuardApprovalType, 1
	return strictjson.Marshal(a)
}

// ParseGuardApproval reads the one encoding. Whether it counts is asked of the
// directory.
func ParseGuardApproval(b []byte) (*GuardApproval, error) {
	var a GuardApproval
	if len(b) > MaxGuardApproval {
		return nil, Fail(CodeTooLarge, "approval: %d bytes, at most %d are possible", len(b), MaxGuardApproval)
	}
	if err := strictjson.Unmarshal(b, &a); err != nil {
		return nil, &Error{Code: CodeGuardApproval, Detail: "it cannot be read", Err: err}
	}
	switch {
	case a.Type != GuardApprovalType || a.V != 1:
		return nil, Fail(CodeGuardApproval, "type %s version 1 is expected", GuardApprovalType)
	case a.Verdict != VerdictApprove && a.Verdict != VerdictRefuse:
		return nil, Fail(CodeGuardApproval, "verdict: %s or %s is expected", VerdictApprove, VerdictRefuse)
	case !administratorForm.MatchString(a.Administrator) || !nameOfLinkForm.MatchString(a.Link):
		return nil, Fail(CodeGuardApproval, "administrator or link is none that there can be")
	case a.Verdict == VerdictRefuse && a.Reason == "":
		return nil, Fail(CodeGuardApproval, "a refusal has a reason, for the sender")
	}
	if err := CheckText("reason", a.Reason, maxApprovalReason); err != nil {
		return nil, Fail(CodeGuardApproval, "%s", err.Detail)
	}
	return &a, nil
}
