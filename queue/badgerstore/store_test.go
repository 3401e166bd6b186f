package badgerstore

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/yizhan-gateway/yizhan/queue"
	"github.com/yizhan-gateway/yizhan/queue/storetest"
)

func open(t *testing.T, dir string) queue.Store {
	t.Helper()
	s, err := Open(dir, Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContract(t *testing.T) { storetest.Run(t, open) }

// TestOneProcessOnly: a second opener is told instead of harming the first.
func TestOneProcessOnly(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	defer s.Close()
	if _, err := Open(dir, Options{Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Fatalf("a second open: %v", err)
	}
}

// TestValueLogIsNeverUsed: the largest values stay in the tables, since the
// value log's collection reclaims nothing and its sync errors are only logged.
func TestValueLogIsNeverUsed(t *testing.T) {
	s, err := Open(t.TempDir(), Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := s.db.Opts(); got.ValueThreshold <= queue.MaxValue || !got.SyncWrites || got.DetectConflicts {
		t.Fatalf("threshold %d, sync %v, conflicts %v", got.ValueThreshold, got.SyncWrites, got.DetectConflicts)
	}
}

// TestBatchesShareOneCommit: updates that wait while one commits go together.
func TestBatchesShareOneCommit(t *testing.T) {
	s, err := Open(t.TempDir(), Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	begun, release := make(chan struct{}), make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := s.Update(t.Context(), func(queue.Tx) error { close(begun); <-release; return nil }); err != nil {
			t.Error(err)
		}
	})
	<-begun
	versions := make([]uint64, 50)
	for i := range versions {
		wait.Go(func() {
			if err := s.Update(t.Context(), func(tx queue.Tx) error { return tx.Put(queue.Key("k", uint64(i)), nil) }); err != nil {
				t.Error(err)
			}
		})
	}
	for len(s.jobs) < len(versions) {
		time.Sleep(time.Millisecond)
	}
	close(release)
	wait.Wait()
	err = s.View(t.Context(), func(q queue.Tx) error {
		for i := range versions {
			item, err := q.(*tx).txn.Get(queue.Key("k", uint64(i)))
			if err != nil {
				return err
			}
			versions[i] = item.Version()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range versions {
		if v != versions[0] {
			t.Fatalf("50 waiting updates were committed in several transactions: %v", versions)
		}
	}
}

// TestTheLargestBatchFits: as much as a batch may hold, and the largest update
// beyond it, are one transaction of Badger's, which refuses what is too large.
func TestTheLargestBatchFits(t *testing.T) {
	s, err := Open(t.TempDir(), Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	begun, release := make(chan struct{}), make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := s.Update(t.Context(), func(queue.Tx) error { close(begun); <-release; return nil }); err != nil {
			t.Error(err)
		}
	})
	<-begun
	update := func(name uint64, writes, bytes int) {
		n := len(s.jobs)
		wait.Go(func() {
			err := s.Update(t.Context(), func(tx queue.Tx) error {
				for i := range writes {
					k := queue.Key("k", name, uint64(i))
					if err := tx.Put(k, make([]byte, bytes/writes-len(k))); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Errorf("%d writes of %d bytes: %v", writes, bytes, err)
			}
		})
		for len(s.jobs) == n {
			time.Sleep(time.Millisecond)
		}
	}
	full := batchWrites/queue.MaxOps - 1
	for i := range full {
		update(uint64(i), queue.MaxOps, batchBytes/(full+1))
	}
	update(uint64(full), queue.MaxOps-1, batchBytes/(full+1)) // one write short of a full batch
	update(uint64(full+1), queue.MaxOps, queue.MaxTx)
	close(release)
	wait.Wait()
}

// TestAFailedCommitEndsTheStore: Fatal is called once, nothing is
// acknowledged, and every later update is refused.
func TestAFailedCommitEndsTheStore(t *testing.T) {
	fatal := make(chan error, 10)
	s, err := Open(t.TempDir(), Options{Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { fatal <- err }})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.db.Close(); err != nil { // every commit fails from here on
		t.Fatal(err)
	}
	err = s.Update(t.Context(), func(tx queue.Tx) error { return tx.Put([]byte("k"), []byte("v")) })
	if !errors.Is(err, queue.ErrUnknown) {
		t.Errorf("the failed commit gave %v", err)
	}
	if err := <-fatal; err == nil {
		t.Error("Fatal was called without the error")
	}
	err = s.Update(t.Context(), func(tx queue.Tx) error { return tx.Put([]byte("k"), []byte("v")) })
	if !errors.Is(err, queue.ErrUnknown) || len(fatal) != 0 {
		t.Errorf("afterwards: %v, Fatal %d times more", err, len(fatal))
	}
}

// held is a store whose commits write, and then wait to hear how their sync
// ended.
func held(t *testing.T) (s *Store, written chan struct{}, ends chan error) {
	t.Helper()
	s, err := Open(t.TempDir(), Options{Logger: slog.New(slog.DiscardHandler), Fatal: func(error) {}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.db.Close() })
	written, ends = make(chan struct{}), make(chan error)
	s.commitTxn = func(txn *badger.Txn) error {
		if err := txn.Commit(); err != nil {
			return err
		}
		written <- struct{}{}
		return <-ends
	}
	return s, written, ends
}

// TestNothingIsReadThatMayBeLost: what a commit wrote is in Badger before its
// sync has succeeded, and stays there when it failed; no View shows it.
func TestNothingIsReadThatMayBeLost(t *testing.T) {
	for name, sync := range map[string]error{"the sync succeeds": nil, "the sync fails": errors.New("input/output error")} {
		t.Run(name, func(t *testing.T) {
			s, written, ends := held(t)
			told := make(chan error, 1)
			go func() {
				told <- s.Update(t.Context(), func(tx queue.Tx) error { return tx.Put([]byte("k"), []byte("v")) })
			}()
			<-written
			if err := s.db.View(func(txn *badger.Txn) error { _, err := txn.Get([]byte("k")); return err }); err != nil {
				t.Fatalf("it is not in Badger, so this proves nothing: %v", err)
			}
			seen, failed := make(chan []byte, 1), make(chan error, 1)
			go func() {
				failed <- s.View(t.Context(), func(tx queue.Tx) error {
					v, err := tx.Get([]byte("k"))
					seen <- v
					return err
				})
			}()
			time.Sleep(20 * time.Millisecond)
			if len(seen) > 0 || len(told) > 0 {
				t.Error("somebody was told before the sync")
			}
			ends <- sync
			err := <-failed
			if (err == nil) != (sync == nil) || sync != nil && (len(seen) > 0 || !errors.Is(err, queue.ErrUnknown)) {
				t.Errorf("the View gave %v", err)
			}
			if err := <-told; (err == nil) != (sync == nil) {
				t.Errorf("the Update gave %v", err)
			}
		})
	}
}

// TestAFailureIsToldWithItsBatch: a closure that fails since it saw what another
// of its batch wrote is answered when that is durable, and not before.
func TestAFailureIsToldWithItsBatch(t *testing.T) {
	s, written, ends := held(t)
	begun, release := make(chan struct{}), make(chan struct{})
	told, failed := make(chan error, 2), make(chan error, 1)
	put := func(tx queue.Tx) error { return tx.Insert([]byte("k"), []byte("v")) }
	go func() {
		told <- s.Update(t.Context(), func(tx queue.Tx) error { close(begun); <-release; return put(tx) })
	}()
	<-begun
	go func() { failed <- s.Update(t.Context(), put) }()
	for len(s.jobs) == 0 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	<-written
	time.Sleep(20 * time.Millisecond)
	if len(failed) > 0 {
		t.Error("it was told before the batch was synced")
	}
	ends <- nil
	if err := <-failed; !errors.Is(err, queue.ErrExists) {
		t.Errorf("it gave %v", err)
	}
	if err := <-told; err != nil {
		t.Error(err)
	}
}

// TestAStartWritesAnew: what the log of a process that ended holds is in a table, with a
// sync of its own, before the next start tells anybody of it.
func TestAStartWritesAnew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "[store]")
	first := open(t, dir)
	err := first.Update(t.Context(), func(tx queue.Tx) error { return tx.Put([]byte("k"), []byte("v")) })
	if err != nil {
		t.Fatal(err)
	}
	after := filepath.Join(t.TempDir(), "after")
	if err := os.CopyFS(after, os.DirFS(dir)); err != nil { // as a kill -9 leaves it
		t.Fatal(err)
	}
	if err := rewritten(after, time.Millisecond); err != nil {
		t.Fatalf("one log is taken for two: %v", err)
	}
	if err := os.WriteFile(filepath.Join(after, "00009.mem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if rewritten(after, time.Millisecond) == nil {
		t.Error("the log of an earlier process is not waited for")
	}
	if err := os.Remove(filepath.Join(after, "00009.mem")); err != nil {
		t.Fatal(err)
	}
	second := open(t, after)
	tables, err := filepath.Glob(filepath.Join(after, "*.sst"))
	if logs, e := logsIn(after); logs != 1 || e != nil || err != nil || len(tables) == 0 {
		t.Errorf("after a start there are %d logs and %d tables: %v", logs, len(tables), errors.Join(e, err))
	}
	err = second.View(t.Context(), func(tx queue.Tx) error {
		v, err := tx.Get([]byte("k"))
		if string(v) != "v" {
			t.Errorf("the row is %q", v)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

const childEnv = "YIZHAN_STORE_CHILD"

// TestMain also is the process that TestKillNine kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

// child commits numbered rows from several goroutines and prints each number
// once it was acknowledged.
func child(dir string) {
	s, err := Open(dir, Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	base := rand.Uint64() >> 20
	for g := range 4 {
		go func() {
			for i := uint64(0); ; i++ {
				n := base + i*4 + uint64(g)
				err := s.Update(context.Background(), func(tx queue.Tx) error {
					return tx.Put(queue.Key("n", n), binary.BigEndian.AppendUint64(nil, n))
				})
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				mu.Lock()
				fmt.Println(n)
				mu.Unlock()
			}
		}()
	}
	select {}
}

// TestKillNine: what was acknowledged is there after kill -9, cycle after
// cycle in one directory.
func TestKillNine(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[uint64]bool{}
	cycles := 8
	if testing.Short() {
		cycles = 2
	}
	for range cycles {
		killOnce(t, dir, acknowledged)
		s := open(t, dir)
		for n := range acknowledged {
			err := s.View(t.Context(), func(tx queue.Tx) error {
				v, err := tx.Get(queue.Key("n", n))
				if err == nil && (len(v) != 8 || binary.BigEndian.Uint64(v) != n) {
					err = fmt.Errorf("row %d, acknowledged before kill -9, reads %x", n, v)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acknowledged) == 0 {
		t.Fatal("nothing was acknowledged in any cycle")
	}
	t.Logf("%d cycles, %d acknowledged rows, none lost", cycles, len(acknowledged))
}

func killOnce(t *testing.T, dir string, acknowledged map[uint64]bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	until := 20 + rand.IntN(300)
	for i := 0; ; i++ {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		n, err := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
		if err != nil {
			t.Fatalf("the child said %q", line)
		}
		acknowledged[n] = true
		if i == until {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // killed, as intended
}

// TestTablesWithoutManifest: Badger would take the directory for an empty one
// and remove the tables.
func TestTablesWithoutManifest(t *testing.T) {
	dir := t.TempDir()
	quiet := Options{Logger: slog.New(slog.DiscardHandler)}
	s, err := Open(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(t.Context(), func(tx queue.Tx) error { return tx.Insert([]byte("k"), []byte("v")) })
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(dir, "MANIFEST")
	if err := os.Rename(manifest, manifest+".away"); err != nil {
		t.Fatal(err)
	}
	before, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, quiet); !errors.Is(err, ErrDamaged) {
		t.Fatalf("got %v", err)
	}
	if after, err := filepath.Glob(filepath.Join(dir, "*.sst")); err != nil || len(after) != len(before) || len(before) == 0 {
		t.Fatalf("%v of %v are left, %v", after, before, err)
	}
	if err := os.Rename(manifest+".away", manifest); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, quiet); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestTablesThatEndWrongly: Badger would panic over lengths that cannot be, in a
// goroutine of its own.
func TestTablesThatEndWrongly(t *testing.T) {
	dir := t.TempDir()
	quiet := Options{Logger: slog.New(slog.DiscardHandler)}
	s, err := Open(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(t.Context(), func(tx queue.Tx) error { return tx.Insert([]byte("k"), []byte("v")) })
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatal(tables, err)
	}
	whole, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) {
		if err := os.WriteFile(tables[0], whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(dir, quiet); err == nil {
			s.Close()
			t.Fatalf("a table of %d bytes, cut at %d, was opened", len(whole), cut)
		}
	}
}
