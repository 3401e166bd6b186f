package exchange

import (
	"cmp"
	"maps"
	"slices"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// Stage is what a receipt says has happened.
type Stage string

// The stages. Agency stages are signed by the agency's signing key, the
// others by the node's.
const (
	StageImported      Stage = "IMPORTED"
	StageAccepted      Stage = "ACCEPTED"
	StageRelayed       Stage = "RELAYED"
	StageInspected     Stage = "INSPECTED"
	StageFerried       Stage = "FERRIED"
	StageConfirmed     Stage = "CONFIRMED"
	StageDelivered     Stage = "DELIVERED"
	StageCollected     Stage = "COLLECTED"
	StageSignedFor     Stage = "SIGNED_FOR"
	StageReturned      Stage = "RETURNED"
	StageRejected      Stage = "REJECTED"
	StageRecalled      Stage = "RECALLED"
	StageRecallRefused Stage = "RECALL_REFUSED"
	StageExpired       Stage = "EXPIRED"
	StageFailed        Stage = "FAILED"
	StageAdopted       Stage = "ADOPTED"
	StageCompleted     Stage = "COMPLETED"
	StageVoided        Stage = "VOIDED"
)

type stageFacts struct {
	chinese string
	english string
	rank    int  // where two receipts disagree the higher one is the state
	agency  bool // signed by the agency
	end     bool // nothing more is owed to the sender
}

// RECALL_REFUSED and VOIDED say something about a document without moving a
// delivery, hence rank 0.
var stages = map[Stage]stageFacts{
	StageImported:      {"入库", "archived", 5, false, true},
	StageAccepted:      {"受理", "accepted", 10, false, false},
	StageRelayed:       {"中转", "relayed", 20, false, false},
	StageInspected:     {"已检查", "inspected", 25, false, false},
	StageFerried:       {"已摆渡", "ferried", 30, false, false},
	StageConfirmed:     {"到达（人工确认）", "confirmed by an operator", 35, false, false},
	StageDelivered:     {"到达", "delivered", 40, false, false},
	StageCollected:     {"已取件", "collected", 50, true, false},
	StageFailed:        {"投递失败", "failed", 60, false, true},
	StageExpired:       {"逾期", "expired", 61, false, true},
	StageRejected:      {"拒收", "rejected", 62, false, true},
	StageRecalled:      {"已撤回", "recalled", 63, false, true},
	StageReturned:      {"退文", "returned", 70, true, true},
	StageSignedFor:     {"签收", "signed for", 80, true, true},
	StageAdopted:       {"采用", "adopted", 85, true, true},
	StageCompleted:     {"办结", "completed", 90, true, true},
	StageRecallRefused: {"撤回被拒", "recall refused", 0, false, false},
	StageVoided:        {"作废", "voided", 0, true, false},
}

// Stages lists the stages of version 1 in the order of their ranks, behind
// StagePending.
func Stages() []Stage {
	all := slices.SortedFunc(maps.Keys(stages), func(a, b Stage) int {
		return cmp.Or(cmp.Compare(a.Rank(), b.Rank()), cmp.Compare(a, b))
	})
	return append([]Stage{StagePending}, all...)
}

// Known says whether the stage is one of version 1.
func (s Stage) Known() bool { _, ok := stages[s]; return ok }

// Chinese gives the official word.
func (s Stage) Chinese() string {
	if s == StagePending {
		return "待交换"
	}
	return stages[s].chinese
}

// English gives the word for a person.
func (s Stage) English() string {
	if s == StagePending {
		return "pending"
	}
	return stages[s].english
}

// ReasonNoWayBack is the reason of FERRIED and CONFIRMED over a link from which no
// receipt of the other side can come.
const ReasonNoWayBack = "no_way_back"

// ChineseFor and EnglishFor give the words for a stage that was reached for a reason.
func (s Stage) ChineseFor(reason string) string {
	if s == StageFerried && reason == ReasonNoWayBack {
		return s.Chinese() + "（无回执通道）"
	}
	return s.Chinese()
}

// EnglishFor is ChineseFor in English.
func (s Stage) EnglishFor(reason string) string {
	if s == StageFerried && reason == ReasonNoWayBack {
		return s.English() + " (no way back)"
	}
	return s.English()
}

// ByAgency says whether the agency itself signs this stage.
func (s Stage) ByAgency() bool { return stages[s].agency }

// End says whether a delivery at this stage owes the sender nothing more.
func (s Stage) End() bool { return stages[s].end }

// Rank orders stages of one delivery.
func (s Stage) Rank() int { return stages[s].rank }

// Actor is the person who acted for an agency.
type Actor struct {
	Role  string           `json:"role,omitempty"`
	Name  string           `json:"name"`
	Extra strictjson.Extra `json:"-"` // strictjson keeps it; no JSON for people shows it
}

// Receipt is one signed statement about a document. It is stored and carried
// as the exact bytes that were signed, never rebuilt.
type Receipt struct {
	Type       string          `json:"type"`
	V          int             `json:"v"`
	Crit       []string        `json:"crit,omitempty"`
	Domain     string          `json:"domain"`
	Stage      Stage           `json:"stage"`
	Envelope   string          `json:"envelope"`
	Header     sm.Digest       `json:"header"`
	Recipients []string        `json:"recipients,omitempty"` // absent: all that the header names
	Agency     string          `json:"agency,omitempty"`     // who speaks, for agency stages
	Node       string          `json:"node"`
	Actor      *Actor          `json:"actor,omitempty"`
	Time       strictjson.Time `json:"time"`
	Clock      string          `json:"clock"`
	Directory  uint64          `json:"directory"`
	Reason     string          `json:"reason,omitempty"`
	Form       string          `json:"form,omitempty"`
	Detail     string          `json:"detail,omitempty"`
	After      []sm.Digest     `json:"after,omitempty"`
	Extra      strictjson.Extra
}

// ReceiptType is the "type" member of a Receipt; MaxReceipt bounds its JSON.
const (
	ReceiptType          = "yizhan-receipt"
	MaxReceipt           = 48 << 10
	MaxReceiptRecipients = 1000
)

// FormOpened and FormSealed say how DELIVERED was reached: the node opened
// the document and compared it with its header, or has no key to do so.
const (
	FormOpened = "opened"
	FormSealed = "sealed"
)

// Marshal gives the receipt's one encoding.
func (r *Receipt) Marshal() ([]byte, error) {
	r.Type, r.V = ReceiptType, 1
	return strictjson.Marshal(r)
}

// ParseReceipt reads the one encoding. Who may sign what is judged by
// [Receipt.Speaker] and the directory.
func ParseReceipt(b []byte) (*Receipt, error) {
	var r Receipt
	if len(b) > MaxReceipt {
		return nil, Fail(CodeTooLarge, "receipt: %d bytes, at most %d are possible", len(b), MaxReceipt)
	}
	if err := strictjson.Unmarshal(b, &r); err != nil {
		return nil, err
	}
	switch {
	case r.Type != ReceiptType || r.V != 1:
		return nil, Fail(CodeBadRequest, "receipt: type %s version 1 is expected", ReceiptType)
	case !r.Stage.Known():
		return nil, Fail(CodeBadRequest, "receipt: unknown stage")
	case len(r.Recipients) > MaxReceiptRecipients:
		return nil, Fail(CodeTooLarge, "receipt: too many recipients")
	case r.Stage.ByAgency() != (r.Agency != ""):
		return nil, Fail(CodeBadRequest, "receipt: agency is for agency stages only")
	case r.Node == "":
		return nil, Fail(CodeBadRequest, "receipt: node is missing")
	}
	return &r, nil
}

// Concerns says whether the receipt speaks of this recipient.
func (r *Receipt) Concerns(agency string) bool {
	if len(r.Recipients) == 0 {
		return true
	}
	for _, a := range r.Recipients {
		if a == agency {
			return true
		}
	}
	return false
}
