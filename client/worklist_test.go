package client_test

import (
	"slices"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/client"
)

// TestWorklist: an inbox that several workers share, signed for in one call, and what
// comes of it told to the sender. Its receiver is nobody else's.
func TestWorklist(t *testing.T) {
	s, ctx := start(), t.Context()
	jia, c := s.as("甲"), s.as("辛")
	var ids []string
	for range 3 {
		d := notice("示范辛")
		d.Urgency = "加急"
		ids = append(ids, submit(t, jia, d, "x").Document)
	}
	for _, id := range ids {
		arrival(t, c, id)
	}
	waiting, err := c.Waiting(ctx)
	if err != nil || waiting.Waiting != 3 || waiting.Urgency["urgent"] != 3 || waiting.More {
		t.Errorf("waiting %+v, %v", waiting, err)
	}
	one, err := c.Lease(ctx, 2, time.Minute)
	if err != nil || len(one.Items) != 2 || one.Until.IsZero() {
		t.Fatalf("leased %+v, %v", one, err)
	}
	other, err := c.Lease(ctx, 2, time.Minute)
	if err != nil || len(other.Items) != 1 || slices.ContainsFunc(one.Items, func(r client.Received) bool { return r.Document == other.Items[0].Document }) {
		t.Fatalf("leased then %+v, %v", other, err)
	}
	if n, err := c.Release(ctx, other.Items[0].Document); n != 1 || err != nil {
		t.Errorf("released %d, %v", n, err)
	}
	outcomes, err := c.AcceptAll(ctx, append(ids[:2:2], "01ARZ3NDEKTSV4RRFFQ69G5FAV"), clerk, "已阅")
	if err != nil || len(outcomes) != 3 || !outcomes[0].Done || !outcomes[1].Done || len(outcomes[0].Receipt) == 0 ||
		outcomes[2].Done || outcomes[2].Problem.Code != "not_found" {
		t.Errorf("outcomes %+v, %v", outcomes, err)
	}
	if _, err := c.Complete(ctx, ids[2], client.Act{Actor: clerk}); !client.IsCode(err, "not_signed_for") {
		t.Errorf("dealt with before it was signed for: %v", err)
	}
	adopted, err := c.Adopt(ctx, ids[0], client.Act{Actor: clerk, Opinion: "已采用"})
	if err != nil || adopted.Stage != "ADOPTED" {
		t.Errorf("adopted %+v, %v", adopted, err)
	}
	completed, err := c.Complete(ctx, ids[1], client.Act{Actor: clerk})
	if err != nil || completed.Stage != "COMPLETED" {
		t.Errorf("completed %+v, %v", completed, err)
	}
	status, err := jia.Status(ctx, ids[1])
	if err != nil || status.Recipients[0].Stage != "COMPLETED" {
		t.Errorf("the sender sees %+v, %v", status, err)
	}
}
