package bench

import (
	"errors"
	"path/filepath"
	"sync"

	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// rawFile is the least that durable commits of many callers can cost: one
// preallocated file, appended to with one fdatasync for all that wait.
type rawFile struct {
	f     durable.File
	size  int64
	jobs  chan rawJob
	ended sync.WaitGroup
}

type rawJob struct {
	data []byte
	done chan error
}

// rawFileSize is large enough that a measurement wraps around seldom.
const rawFileSize = 256 << 20

func newRawFile(dir string) (*rawFile, error) {
	f, err := durable.OS.Create(filepath.Join(dir, "raw"))
	if err != nil {
		return nil, err
	}
	if err := f.Allocate(rawFileSize); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// The blocks are written once: what follows is a log that reuses its file.
	if err := writeThrough(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r := &rawFile{f: f, jobs: make(chan rawJob, 1024)}
	r.ended.Go(r.run)
	return r, nil
}

func writeThrough(f durable.File) error {
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < rawFileSize; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros, off); err != nil {
			return err
		}
	}
	return f.Sync()
}

func (r *rawFile) run() {
	var batch []rawJob
	var buffer []byte
	for first := range r.jobs {
		batch, buffer = append(batch[:0], first), append(buffer[:0], first.data...)
		for more := true; more && len(buffer) < 4<<20; {
			select {
			case j, ok := <-r.jobs:
				if more = ok; ok {
					batch, buffer = append(batch, j), append(buffer, j.data...)
				}
			default:
				more = false
			}
		}
		if r.size+int64(len(buffer)) > rawFileSize {
			r.size = 0
		}
		_, err := r.f.WriteAt(buffer, r.size)
		if err == nil {
			err = r.f.Datasync()
		}
		r.size += int64(len(buffer))
		for _, j := range batch {
			j.done <- err
		}
	}
}

// append returns when data is durable.
func (r *rawFile) append(data []byte) error {
	j := rawJob{data, make(chan error, 1)}
	r.jobs <- j
	return <-j.done
}

func (r *rawFile) close() error {
	close(r.jobs)
	r.ended.Wait()
	return r.f.Close()
}
