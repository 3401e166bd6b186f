package staging

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/internal/durable"
)

const (
	pieceSize   = 256 << 10 // plaintext of a piece
	nonceSize   = 12
	sealedPiece = nonceSize + pieceSize + 16
	// saveEvery is how many pieces come between two durable states of one call: what a
	// crash of the machine can take back. An interrupted caller loses none.
	saveEvery = 64
)

// Append adds what r has to the end of a file and says how much of it is durable,
// also after an error: when the caller goes away in the middle, what came stays.
func (s *Store) Append(ctx context.Context, owner, id string, offset int64, r io.Reader) (added int64, err error) {
	release, err := s.take(id)
	if err != nil {
		return 0, err
	}
	defer release()
	st, err := s.load(owner, id)
	if err != nil {
		return 0, err
	}
	if offset != st.offset() {
		return 0, ErrOffset
	}
	w, err := s.writer(id, st)
	if err != nil {
		return 0, err
	}
	err = w.copy(ctx, io.LimitReader(r, st.Size-offset))
	st.Expires = s.c.Now().Add(s.c.Keep)
	if saved := w.end(); saved != nil {
		return 0, errors.Join(err, saved)
	}
	return st.offset() - offset, err
}

// writer adds to one file.
type writer struct {
	s     *Store
	id    string
	st    *state
	out   *os.File
	aead  cipher.AEAD
	piece []byte // plaintext that is not sealed yet
	fresh int    // pieces since the last state
}

func (s *Store) writer(id string, st *state) (*writer, error) {
	aead, err := sm.NewGCM(st.Key)
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile(filepath.Join(s.path(id), "data"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	w := &writer{s: s, id: id, st: st, out: out, aead: aead, piece: append(make([]byte, 0, pieceSize), st.Tail...)}
	// What lies behind the state was never acknowledged. Its name is synced here, so
	// that no later state speaks of a file that a crash takes back.
	err = errors.Join(out.Truncate(st.Pieces*sealedPiece), durable.OS.SyncDir(s.path(id)))
	if err == nil {
		_, err = out.Seek(st.Pieces*sealedPiece, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return w, nil
}

func (w *writer) copy(ctx context.Context, r io.Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(w.piece[len(w.piece):pieceSize])
		w.piece = w.piece[:len(w.piece)+n]
		if len(w.piece) == pieceSize {
			if err := w.flush(); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// flush seals a whole piece under a nonce of its own: a piece may be written anew
// after a crash, with other bytes.
func (w *writer) flush() error {
	sealed := make([]byte, nonceSize, sealedPiece)
	if _, err := rand.Read(sealed); err != nil {
		return err
	}
	sealed = w.aead.Seal(sealed, sealed[:nonceSize], w.piece, place(w.st.Pieces))
	if _, err := w.out.Write(sealed); err != nil {
		return err
	}
	w.piece = w.piece[:0]
	w.st.Pieces++
	w.st.Tail = nil
	if w.fresh++; w.fresh < saveEvery {
		return nil
	}
	return w.keep()
}

// keep makes durable what is written: the pieces, then the state that counts them.
func (w *writer) keep() error {
	if err := w.s.c.Room(); err != nil {
		return err
	}
	w.fresh = 0
	if err := w.out.Sync(); err != nil {
		return err
	}
	return w.s.save(w.id, w.st)
}

// end makes durable what came. A piece that could not be written is left out; it was
// not acknowledged.
func (w *writer) end() error {
	if len(w.piece) < pieceSize {
		w.st.Tail = w.piece
	}
	err := w.out.Sync()
	if err == nil {
		err = w.s.save(w.id, w.st)
	}
	return errors.Join(err, w.out.Close())
}

func place(piece int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(piece)) }

// Open reads a whole file from its beginning.
func (s *Store) Open(owner, id string) (*Info, io.ReadCloser, error) {
	st, err := s.load(owner, id)
	if err != nil {
		return nil, nil, err
	}
	if st.offset() != st.Size {
		return nil, nil, fmt.Errorf("%w: %d of %d bytes are there", ErrUnfinished, st.offset(), st.Size)
	}
	aead, err := sm.NewGCM(st.Key)
	if err != nil {
		return nil, nil, err
	}
	in, err := os.Open(filepath.Join(s.path(id), "data"))
	if err != nil {
		return nil, nil, err
	}
	return st.info(id), &reader{st: st, in: in, aead: aead, buf: make([]byte, sealedPiece)}, nil
}

type reader struct {
	st   *state
	in   *os.File
	aead cipher.AEAD
	buf  []byte
	have []byte // plaintext to be read
	next int64
	done bool // the tail was read
}

func (r *reader) Read(p []byte) (int, error) {
	for len(r.have) == 0 {
		if r.done {
			return 0, io.EOF
		}
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.have)
	r.have = r.have[n:]
	return n, nil
}

func (r *reader) fill() error {
	if r.next == r.st.Pieces {
		r.have, r.done = r.st.Tail, true
		return nil
	}
	if _, err := io.ReadFull(r.in, r.buf); err != nil {
		return fmt.Errorf("%w: piece %d: %w", ErrDamaged, r.next, err)
	}
	plain, err := r.aead.Open(r.buf[nonceSize:nonceSize], r.buf[:nonceSize], r.buf[nonceSize:], place(r.next))
	if err != nil {
		return fmt.Errorf("%w: piece %d does not open", ErrDamaged, r.next)
	}
	r.have = plain
	r.next++
	return nil
}

func (r *reader) Close() error { return r.in.Close() }
