package node

import (
	"bytes"
	"errors"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// One recipient may be named by several consignments of one document: a neighbour
// that was restored distributes once more along other ways, and nothing stops a
// hostile one, for consignments are not signed. Whoever ends a delivery must know
// that none of them has left this node.

// carriedOn are the recipients of a document that another consignment than one has
// handed over, or may have.
func carriedOn(tx queue.Tx, hh, except sm.Digest, locks bool) (map[int]bool, error) {
	type row struct {
		link string
		id   sm.Digest
	}
	var rows []row
	prefix := len(records.Outgoing.Key(hh))
	err := records.Outgoing.Each(tx, 0, func(key []byte, _ *records.Outbound) bool {
		if id := lastDigest(key); id != except {
			rows = append(rows, row{linkOf(key[prefix:]), id})
		}
		return true
	}, hh)
	if err != nil {
		return nil, err
	}
	carried := map[int]bool{}
	for _, r := range rows {
		out, err := read(tx, records.Outgoing, locks, hh, r.link, r.id)
		if err != nil {
			return nil, err
		}
		if out == nil {
			continue
		}
		left := out.State == records.StateHanded || out.State == records.StateUnconfirmed
		if !left {
			if left, err = mayHaveLeftBy(tx, out, locks); err != nil {
				return nil, err
			}
		}
		for _, i := range out.Recipients {
			carried[i] = carried[i] || left
		}
	}
	return carried, nil
}

// linkOf reads the name of a link at the beginning of the rest of a key.
func linkOf(key []byte) string {
	name, _, _ := bytes.Cut(key, []byte{0, 1}) // none holds a zero byte
	return string(name)
}

// mayHaveLeftBy is mayHaveLeft, in a View as well.
func mayHaveLeftBy(tx queue.Tx, out *records.Outbound, locks bool) (bool, error) {
	if out.Left && !out.Declined || out.Header || out.Slots {
		return true, nil
	}
	if out.State != records.StateQueued {
		return false, nil // no bundle is filled from where it stands
	}
	mark, err := read(tx, records.Offered, locks, out.Lane)
	if errors.Is(err, records.ErrUnreadable) {
		return true, nil
	}
	if err != nil || mark == nil {
		return false, err
	}
	return out.Seq <= *mark, nil
}
