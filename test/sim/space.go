package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// Disks fill up and are emptied again: while the storm blows each node has no
// room for new work a tenth of the time. Which tenth follows from the seed and
// the clock alone, so that nothing is drawn for it.

// spaceFor is how long a disk stays full, or not.
const spaceFor = 500 * time.Millisecond

// room is the node's node.Config.Room.
func (h *host) room() error {
	if !h.w.faults.armed || h.w.roomy {
		return nil
	}
	in := binary.BigEndian.AppendUint64([]byte(h.id), h.w.seed)
	in = binary.BigEndian.AppendUint64(in, uint64(h.w.clock.UnixMilli()/spaceFor.Milliseconds()))
	if sha256.Sum256(in)[0] >= 26 {
		return nil
	}
	h.w.stats.Full++
	return exchange.Fail(exchange.CodeNoSpace, "")
}
