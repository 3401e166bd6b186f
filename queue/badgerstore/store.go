// Package badgerstore is queue.Store over Badger v4, for a node on one
// machine.
//
// Badger alone syncs once per transaction. Here one committer drains the
// waiting updates without lingering, runs their closures one after the other,
// each over its own discardable overlay, and commits all of them in one Badger
// transaction with one sync: the longer the disk takes, the larger the batch.
// A closure that fails leaves the batch untouched.
//
// Badger shows what a commit writes before its sync is known to have succeeded.
// Nobody may act on that, for who is told of it takes it for durable: a View
// waits until every commit that it may see has succeeded, and a closure that
// failed, after it saw what others of its batch wrote, is answered with them.
//
// Values stay below the value log's threshold, so that it is never used. Any
// commit error ends the process: after a failed sync nobody knows what the
// disk holds. The system's cache may still have what the disk has not, so the
// next start serves only when all that it read is written anew (ADR 38).
package badgerstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/yizhan-gateway/yizhan/queue"
)

// Options of Open. Fatal is called once with the error of a failed commit and
// must not return to serving; nil logs it and exits with status 1.
type Options struct {
	Logger *slog.Logger
	Fatal  func(error)
}

// memTable is a memtable's size. Badger takes 15 % of it in one transaction, 12
// bytes for each write besides keys and values among them: the batch limits, and
// one more update of at most queue.MaxTx beyond them, stay below that.
const memTable = 48 << 20

// Batch limits.
const (
	batchBytes   = 3 << 20
	batchWrites  = 8000
	batchUpdates = 1024
	waiting      = 4096
)

// Store is an open database. Its methods are safe for concurrent use.
type Store struct {
	db    *badger.DB
	fatal func(error)
	jobs  chan *job
	done  chan struct{}

	mu     sync.RWMutex // guards closed against sends on jobs
	closed bool

	commits   commits
	commitTxn func(*badger.Txn) error
}

type job struct {
	fn     func(queue.Tx) error
	result chan outcome
}

type outcome struct {
	err   error
	panic any
}

func (o *outcome) ok() bool { return o.err == nil && o.panic == nil }

// Open opens or makes the database in dir. A directory that another process
// has open is refused.
func Open(dir string, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) {
			o.Logger.Error("the store cannot be written; the process ends and reads what is on disk when it starts again", "error", err)
			os.Exit(1)
		}
	}
	if err := sound(dir); err != nil {
		return nil, err
	}
	db, err := badger.Open(settings(dir, o.Logger))
	if err != nil {
		return nil, fmt.Errorf("badgerstore: cannot open %s (is another process using it?): %w", dir, err)
	}
	if !db.Opts().SyncWrites {
		return nil, errors.Join(errors.New("badgerstore: SyncWrites is off: acknowledged documents would be lost in a power cut"), db.Close())
	}
	if err := rewritten(dir, rewriteMost); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s := &Store{db: db, fatal: o.Fatal, jobs: make(chan *job, waiting), done: make(chan struct{}), commitTxn: (*badger.Txn).Commit}
	go s.commitLoop()
	return s, nil
}

// rewriteMost is how long a start waits for a disk to take 100 MiB.
const rewriteMost = time.Minute

// rewritten waits until the logs of earlier processes are gone: Badger writes what is
// in them into tables, with a sync, and then removes them. One log is its own.
func rewritten(dir string, most time.Duration) error {
	for began := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		logs, err := logsIn(dir)
		if err != nil || logs <= 1 {
			return err
		}
		if time.Since(began) > most {
			return fmt.Errorf("badgerstore: what was committed before cannot be written to %s; look at the disk and the system's log", dir)
		}
	}
}

func logsIn(dir string) (n int, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".mem" {
			n++
		}
	}
	return n, err
}

func settings(dir string, log *slog.Logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithSyncWrites(true).
		WithDetectConflicts(false). // there is one writer
		WithNumVersionsToKeep(1).
		WithValueThreshold(1 << 20). // above any value: the value log stays empty
		WithMemTableSize(memTable).
		WithNumMemtables(2).
		// What lies in rows is ciphertext, digests and signatures for the most part,
		// and merged again less often when ten tables come down at a time into a
		// level of half a gigabyte: half the processor time for a document, and a
		// third of the memory, since a table is built in buffers of its own.
		WithCompression(options.None).
		WithNumLevelZeroTables(10).
		WithNumLevelZeroTablesStall(30).
		WithBaseLevelSize(512 << 20).
		WithBlockCacheSize(64 << 20).
		WithNumCompactors(2).
		WithLogger(logger{log})
}

// logger passes Badger's warnings on and drops its chatter.
type logger struct{ l *slog.Logger }

func (l logger) Errorf(f string, a ...any)   { l.l.Error("badger: " + fmt.Sprintf(f, a...)) }
func (l logger) Warningf(f string, a ...any) { l.l.Warn("badger: " + fmt.Sprintf(f, a...)) }
func (l logger) Infof(string, ...any)        {}
func (l logger) Debugf(string, ...any)       {}

// Update implements queue.Store.
func (s *Store) Update(ctx context.Context, fn func(queue.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j := &job{fn: fn, result: make(chan outcome, 1)}
	if err := s.submit(ctx, j); err != nil {
		return err
	}
	select {
	case o := <-j.result:
		if o.panic != nil {
			panic(o.panic)
		}
		return o.err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", queue.ErrUnknown, ctx.Err())
	}
}

func (s *Store) submit(ctx context.Context, j *job) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return queue.ErrClosed
	}
	select {
	case s.jobs <- j:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// View implements queue.Store.
func (s *Store) View(ctx context.Context, fn func(queue.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return queue.ErrClosed
	}
	txn := s.db.NewTransaction(false)
	defer txn.Discard()
	if err := s.commits.settle(); err != nil {
		return err
	}
	return fn(&tx{txn: txn, readonly: true})
}

// Close waits for what is queued and closes the database.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.jobs)
	s.mu.Unlock()
	<-s.done
	return s.db.Close()
}

func (s *Store) commitLoop() {
	defer close(s.done)
	var failed error
	for first := range s.jobs {
		if failed != nil {
			first.result <- outcome{err: failed}
			continue
		}
		if err := s.commit(first); err != nil {
			failed = fmt.Errorf("%w: the store failed: %w", queue.ErrUnknown, err)
			s.commits.fail(failed)
			s.fatal(err)
		}
	}
}

// commit runs one batch: the first job and whatever waits behind it.
func (s *Store) commit(first *job) error {
	txn := s.db.NewTransaction(true)
	defer txn.Discard()
	var jobs []*job
	var outcomes []outcome
	size, writes := 0, 0
	for j := first; j != nil; j = s.waitingJob(len(jobs), size, writes) {
		t := &tx{txn: txn, writes: map[string][]byte{}}
		o := run(t, j)
		if o.ok() {
			size, writes = size+t.bytes, writes+t.ops
		}
		jobs, outcomes = append(jobs, j), append(outcomes, o)
	}
	s.commits.begin()
	err := s.commitTxn(txn)
	if err == nil {
		s.commits.succeed()
	} else {
		err = fmt.Errorf("badgerstore: commit: %w", err)
	}
	for i, j := range jobs {
		if err != nil && outcomes[i].panic == nil {
			outcomes[i].err = fmt.Errorf("%w: %w", queue.ErrUnknown, err)
		}
		j.result <- outcomes[i]
	}
	return err
}

// waitingJob gives the next job if one waits already and the batch has room.
func (s *Store) waitingJob(updates, size, writes int) *job {
	if updates >= batchUpdates || size >= batchBytes || writes >= batchWrites {
		return nil
	}
	select {
	case j := <-s.jobs:
		return j // nil when closed and drained
	default:
		return nil
	}
}

// run executes one closure over its own overlay and, if it succeeds, moves
// the overlay into the batch.
func run(t *tx, j *job) outcome {
	o := call(j.fn, t)
	if o.ok() {
		o.err = t.failed
	}
	if o.ok() {
		o.err = t.flush()
	}
	return o
}

func call(fn func(queue.Tx) error, t *tx) (o outcome) {
	defer func() {
		if p := recover(); p != nil {
			o.panic = p
		}
	}()
	return outcome{err: fn(t)}
}

// now is a variable of the engine, not of the caller: leases of several
// processes would need one clock.
func now() time.Time { return time.Now() }
