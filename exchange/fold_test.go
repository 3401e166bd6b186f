package exchange

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

const (
	jia  = "11520000000000001A"
	yi   = "11520000000000002B"
	bing = "11520000000000003C"
)

func said(stage Stage, at int64, recipients ...string) *Receipt {
	return &Receipt{Stage: stage, Time: strictjson.Time(at), Recipients: recipients}
}

func TestFoldTellsTheStateOfADocument(t *testing.T) {
	both := []string{jia, yi}
	for _, c := range []struct {
		name     string
		receipts []*Receipt
		state    State
		stages   []Stage
	}{
		{"nothing is known", nil, StateRegistered, []Stage{StagePending, StagePending}},
		{"accepted speaks of all", []*Receipt{said(StageAccepted, 1)}, StateInDelivery, []Stage{StageAccepted, StageAccepted}},
		{"one signed", []*Receipt{said(StageAccepted, 1), said(StageSignedFor, 2, jia)}, StatePartly, []Stage{StageSignedFor, StageAccepted}},
		{"all signed", []*Receipt{said(StageSignedFor, 3, yi), said(StageSignedFor, 2, jia)}, StateSignedFor, []Stage{StageSignedFor, StageSignedFor}},
		{"signed and returned", []*Receipt{said(StageReturned, 3, yi), said(StageSignedFor, 2, jia)}, StateEnded, []Stage{StageSignedFor, StageReturned}},
		{"rejected by a relay for all", []*Receipt{said(StageRejected, 3)}, StateEnded, []Stage{StageRejected, StageRejected}},
		{"an ending does not undo a signature", []*Receipt{said(StageSignedFor, 2, jia, yi), said(StageExpired, 9)}, StateSignedFor, []Stage{StageSignedFor, StageSignedFor}},
		{"a refused recall moves nothing", []*Receipt{said(StageDelivered, 2, jia, yi), said(StageRecallRefused, 9)}, StateInDelivery, []Stage{StageDelivered, StageDelivered}},
		{"a stranger's recipient is ignored", []*Receipt{said(StageSignedFor, 2, bing)}, StateInDelivery, []Stage{StagePending, StagePending}},
	} {
		t.Run(c.name, func(t *testing.T) {
			state, list := Fold(both, c.receipts)
			if state != c.state {
				t.Errorf("state %s, want %s", state, c.state)
			}
			for i, s := range list {
				if s.Stage != c.stages[i] {
					t.Errorf("recipient %d at %s, want %s", i, s.Stage, c.stages[i])
				}
			}
		})
	}
}

// Receipts may arrive in any order and twice: the state is the same.
func TestFoldIsOrderFreeAndIdempotent(t *testing.T) {
	var known []Stage
	for s := range stages {
		known = append(known, s)
	}
	all := []string{jia, yi, bing}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var list []*Receipt
		for range rng.IntN(12) {
			r := said(known[rng.IntN(len(known))], int64(rng.IntN(5)))
			if rng.IntN(3) > 0 {
				r.Recipients = []string{all[rng.IntN(3)]}
			}
			if rng.IntN(2) == 0 {
				r.Reason = "reason"
			}
			list = append(list, r)
		}
		state, recipients := Fold(all, list)
		shuffled := append([]*Receipt{}, list...)
		shuffled = append(shuffled, list[:rng.IntN(len(list)+1)]...)
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		state2, recipients2 := Fold(all, shuffled)
		if state != state2 || !reflect.DeepEqual(recipients, recipients2) {
			t.Fatalf("order changed the state: %s %v, then %s %v", state, recipients, state2, recipients2)
		}
	}
}

func TestStagesRankEndsAboveTransport(t *testing.T) {
	for s, f := range stages {
		if f.chinese == "" || f.english == "" {
			t.Errorf("%s has no words for a person", s)
		}
	}
	if !StageSignedFor.End() || StageDelivered.End() || !StageSignedFor.ByAgency() || StageDelivered.ByAgency() {
		t.Error("SIGNED_FOR is an agency's end, DELIVERED is a node's and no end")
	}
	if StagePending.Known() {
		t.Error("no receipt may say PENDING")
	}
}
