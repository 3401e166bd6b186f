package exchange

import (
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// State is where a document stands as a whole.
type State string

// The states of a document.
const (
	StateRegistered State = "REGISTERED"    // 已登记: no receipt yet
	StateInDelivery State = "IN_DELIVERY"   // 分送中
	StatePartly     State = "PARTLY_SIGNED" // 部分签收
	StateSignedFor  State = "SIGNED_FOR"    // 全部签收
	StateEnded      State = "ENDED"         // every delivery ended, not all signed for
)

// States lists the states in the order in which a document may pass them.
func States() []State {
	return []State{StateRegistered, StateInDelivery, StatePartly, StateSignedFor, StateEnded}
}

var stateNames = map[State]struct{ english, chinese string }{
	StateRegistered: {"registered", "已登记"},
	StateInDelivery: {"in delivery", "分送中"},
	StatePartly:     {"partly signed for", "部分签收"},
	StateSignedFor:  {"signed for by all", "全部签收"},
	StateEnded:      {"ended", "已办结"},
}

// Chinese gives the word for a person.
func (s State) Chinese() string { return stateNames[s].chinese }

// English gives the word for a person.
func (s State) English() string { return stateNames[s].english }

// StagePending is shown for a delivery of which no receipt speaks: unknown,
// never taken for delivered.
const StagePending Stage = "PENDING"

// RecipientState is where one delivery stands.
type RecipientState struct {
	Agency string          `json:"agency"`
	Name   string          `json:"name,omitempty"`
	Stage  Stage           `json:"stage"`
	At     strictjson.Time `json:"at,omitempty"`
	Reason string          `json:"reason,omitempty"`
}

// Fold computes a document's state from its receipts. The order of the
// receipts does not matter, nor does a receipt that is there twice: of the
// receipts that speak of a delivery the one of the highest stage counts, of
// those the earliest, of those the one with the smaller reason.
func Fold(recipients []string, receipts []*Receipt) (State, []RecipientState) {
	out := make([]RecipientState, len(recipients))
	index := make(map[string]int, len(recipients))
	for i, agency := range recipients {
		out[i] = RecipientState{Agency: agency, Stage: StagePending}
		index[agency] = i
	}
	for _, r := range receipts {
		for _, agency := range concerned(r, recipients) {
			if i, ok := index[agency]; ok {
				out[i].advance(r)
			}
		}
	}
	return overall(out, len(receipts) > 0), out
}

func concerned(r *Receipt, all []string) []string {
	if len(r.Recipients) == 0 {
		return all
	}
	return r.Recipients
}

func (s *RecipientState) advance(r *Receipt) {
	have, got := s.Stage.Rank(), r.Stage.Rank()
	later := got > have
	if got == have && s.Stage == r.Stage {
		later = r.Time < s.At || r.Time == s.At && r.Reason < s.Reason
	}
	if later {
		s.Stage, s.At, s.Reason = r.Stage, r.Time, r.Reason
	}
}

func overall(list []RecipientState, any bool) State {
	signed, ended := 0, 0
	for _, s := range list {
		if s.Stage.Rank() >= StageSignedFor.Rank() {
			signed++
		}
		if s.Stage.End() {
			ended++
		}
	}
	switch {
	case !any || len(list) == 0:
		return StateRegistered
	case signed == len(list):
		return StateSignedFor
	case ended == len(list):
		return StateEnded
	case signed > 0:
		return StatePartly
	}
	return StateInDelivery
}
