package trust

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

// maxAnswers bounds the answers of one responder on disk, bytes: about 10,000
// certificates.
const maxAnswers = 32 << 20

// A file in the cache begins with the time it was fetched, eight bytes,
// seconds since 1970, big-endian; the rest is the CRL, or the answers in JSON.
const stampSize = 8

// toDisk replaces what is kept of a source as a whole: after a crash it is the
// old or the new, and both were verified.
func (w *Watcher) toDisk(k key, b []byte) error {
	file := binary.BigEndian.AppendUint64(make([]byte, 0, stampSize+len(b)), uint64(w.cfg.Now().Unix()))
	if err := durable.WriteFile(w.cfg.FS, filepath.Join(w.cfg.Dir, k.file()), append(file, b...)); err != nil {
		return fmt.Errorf("trust: an answer cannot be kept: %w", err)
	}
	return nil
}

// readCache gives nothing, and no error, when nothing is kept.
func (w *Watcher) readCache(k key) ([]byte, time.Time, error) {
	b, err := durable.ReadFile(w.cfg.FS, filepath.Join(w.cfg.Dir, k.file()), stampSize+max(certs.MaxCRL, maxAnswers))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	if len(b) < stampSize {
		return nil, time.Time{}, errors.New("too short")
	}
	return b[stampSize:], time.Unix(int64(binary.BigEndian.Uint64(b)), 0).UTC(), nil
}

func (w *Watcher) keepAnswers(issuer certs.IssuerID, list answers) error {
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if len(b) > maxAnswers {
		return fmt.Errorf("trust: the answers of one responder have %d bytes, at most %d are kept", len(b), maxAnswers)
	}
	return w.toDisk(key{issuer, certs.SourceOCSP}, b)
}

func readAnswers(b []byte, issuer []byte) (answers, error) {
	var list answers
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, err
	}
	for id, a := range list {
		if err := a.verify(issuer, nil); err != nil {
			return nil, err
		}
		list[id] = a
	}
	return list, nil
}
