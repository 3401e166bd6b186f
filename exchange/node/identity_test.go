package node

import (
	"strings"
	"testing"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// TestAStoreIsOfOneNode: another name over the same store is another setup.
func TestAStoreIsOfOneNode(t *testing.T) {
	s := newStation(t)
	c := s.node.c
	if again, err := New(s.ctx, c); err != nil || again.LedgerID() != s.node.LedgerID() {
		t.Errorf("the same node again: %v", err)
	}
	c.ID = "yi"
	_, err := New(s.ctx, c)
	if exchange.CodeOf(err) != exchange.CodeSetupConflict || !strings.Contains(err.Error(), `belongs to node "jia"`) {
		t.Errorf("another node: %v", err)
	}
}
