package crashfs

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestSyncedBytesStay: whatever is written, allocated or cut off afterwards
// without a sync, each sector is then as it was synced or as it was written
// last, and both happen within one file.
func TestSyncedBytesStay(t *testing.T) {
	mixed := false
	for seed := range uint64(400) {
		disk := New(rand.New(rand.NewPCG(seed, 1)))
		f, err := disk.Create("f")
		if err != nil {
			t.Fatal(err)
		}
		old, young := bytes.Repeat([]byte{1}, 3*sector), bytes.Repeat([]byte{2}, 5*sector)
		if _, err := f.Write(old); err != nil {
			t.Fatal(err)
		}
		if err := f.Datasync(); err != nil {
			t.Fatal(err)
		}
		if err := disk.SyncDir("."); err != nil {
			t.Fatal(err)
		}
		if err := f.Allocate(8 * sector); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(young, 2*sector); err != nil {
			t.Fatal(err)
		}
		disk.Crash()
		data := disk.dirs["."].now["f"].data
		if len(data) < 3*sector || !bytes.Equal(data[:2*sector], old[:2*sector]) {
			t.Fatalf("seed %d: synced bytes are lost", seed)
		}
		seen := map[byte]bool{}
		for i := 2 * sector; i+sector <= len(data); i += sector {
			whole := bytes.Count(data[i:i+sector], data[i:i+1]) == sector
			if was := data[i]; !whole || (was == 1) != (i == 2*sector && was != 2) || was > 2 {
				t.Fatalf("seed %d: sector %d holds %d", seed, i/sector, was)
			}
			seen[data[i]] = true
		}
		mixed = mixed || seen[2] && (seen[0] || seen[1])
	}
	if !mixed {
		t.Error("no file was written in part")
	}
}

// TestTruncationMayBeTakenBack: an unsynced truncation leaves the old bytes or
// none, never others.
func TestTruncationMayBeTakenBack(t *testing.T) {
	for seed := range uint64(200) {
		disk := New(rand.New(rand.NewPCG(seed, 1)))
		n := &inode{}
		n.writeAt(bytes.Repeat([]byte{7}, 3000), 0)
		n.sync()
		n.resize(100)
		n.forget(disk.rng)
		if len(n.data) < 100 || bytes.Count(n.data, []byte{7}) != len(n.data) {
			t.Fatalf("seed %d: %d bytes, %d of them old", seed, len(n.data), bytes.Count(n.data, []byte{7}))
		}
	}
}
