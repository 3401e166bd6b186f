package node

import (
	"context"
	"slices"

	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// FerryDocuments names the documents that something in a bundle is about, each once,
// for lists that people read. What has left its lane is not known any more.
func (n *Node) FerryDocuments(ctx context.Context, link string, b NumberedBundle) (ids []string, err error) {
	seen := map[string]bool{}
	for step := range slices.Chunk(b.Row.Entries, fanStep) {
		var some []string
		err := n.view(ctx, func(tx queue.Tx) error {
			some = nil
			for _, e := range step {
				id, err := documentOf(tx, link, e)
				if err != nil {
					return err
				}
				some = append(some, id)
			}
			return nil
		})
		if err != nil {
			return ids, err
		}
		for _, id := range some {
			if id != "" && !seen[id] {
				seen[id], ids = true, append(ids, id)
			}
		}
	}
	return ids, nil
}

// documentOf is empty when it cannot be said.
func documentOf(tx queue.Tx, link string, e records.FerryEntry) (string, error) {
	if e.Rank < 0 { // the directory
		return "", nil
	}
	list, err := readLane(tx, laneName(link, e.Rank), e.Seq-1, 1)
	if err != nil || len(list) == 0 || list[0].seq != e.Seq || list[0].Kind == kindUnreadable {
		return "", err
	}
	env, err := records.Envelopes.Get(tx, list[0].Envelope)
	if env == nil || err != nil {
		return "", err
	}
	return env.ID, nil
}
