package ferry

import (
	"hash/maphash"
	"time"
)

// inbound is a folder of files that come: how far the last look at it went, and what
// is remembered of the files that stay.
type inbound struct {
	folder
	next string // where the next look begins
	pass uint64 // counts the looks that began at the beginning
	room int    // files that are remembered
	seed maphash.Seed
	seen map[uint64]sight // by the hash of the path
}

// sight is a file as it was seen, and since when it stands still.
type sight struct {
	size    int64
	mod     time.Time
	since   time.Time
	pass    uint64 // when it was last seen
	tried   bool   // it was read, and something in it could not be
	taken   bool   // and the gate keeps us from removing it
	foreign bool   // it was looked into under a name that leaves open what it is, and is none of ours
	denied  bool   // we may not read it, which was said
}

func newInbound(f folder) *inbound {
	return &inbound{folder: f, room: maxSeen, seed: maphash.MakeSeed(), seen: map[uint64]sight{}}
}

// look compares a file with what was seen the last time.
func (in *inbound) look(f found, now time.Time) sight {
	last, known := in.seen[in.key(f)]
	if !known || last.size != f.info.Size() || !last.mod.Equal(f.info.ModTime()) {
		last = sight{size: f.info.Size(), mod: f.info.ModTime(), since: now}
	}
	last.pass = in.pass
	return last
}

// remember keeps what was seen, while there is room. A file that is not remembered is
// taken when it is whole, and never judged by how long it stands still.
func (in *inbound) remember(f found, s sight) {
	key := in.key(f)
	if _, known := in.seen[key]; known || len(in.seen) < in.room {
		in.seen[key] = s
	}
}

func (in *inbound) forget(f found) { delete(in.seen, in.key(f)) }

func (in *inbound) key(f found) uint64 { return maphash.String(in.seed, f.path) }

// went notes how far a look went. At the end what is not there any more is forgotten.
func (in *inbound) went(next string) {
	if in.next = next; next != "" {
		return
	}
	for key, s := range in.seen {
		if s.pass < in.pass {
			delete(in.seen, key)
		}
	}
	in.pass++
}
