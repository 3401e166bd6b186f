package envelope

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
)

// A look into a file goes back and forth in it. Chunks are opened where they
// are asked for, some at once, and the last few stay open: what is held does not
// grow with the file, and no plaintext is anywhere else.
const (
	atChunks = 4  // opened at once
	atBlocks = 16 // of so many chunks, kept: 4 MiB
)

// At gives file i for reading at any place. It is for one goroutine. Errors are
// ErrOpen where the ciphertext does not open, or the source's own.
func (o *Opened) At(ctx context.Context, i int) (io.ReaderAt, error) {
	if i < 0 || i >= len(o.ends) {
		return nil, fmt.Errorf("envelope: there is no file %d", i)
	}
	size := o.Manifest.Files[i].Size
	if len(o.whole) > 0 {
		return bytes.NewReader(o.whole[o.ends[i]-size : o.ends[i]]), nil
	}
	return &fileAt{ctx: ctx, o: o, from: o.ends[i] - size, size: size}, nil
}

type fileAt struct {
	ctx        context.Context
	o          *Opened
	from, size int64
	kept       []openBlock // the last used first
}

type openBlock struct {
	index int64
	plain []byte
}

func (f *fileAt) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("envelope: a file has no byte %d", off)
	}
	n := 0
	for n < len(b) && off < f.size {
		plain, err := f.block((f.from + off) / (atChunks * sm.ChunkPlain))
		if err != nil {
			return n, err
		}
		skip := (f.from + off) % (atChunks * sm.ChunkPlain)
		if skip >= int64(len(plain)) {
			return n, ErrOpen
		}
		most := min(f.size-off, int64(len(plain))-skip)
		k := copy(b[n:], plain[skip:skip+most])
		n, off = n+k, off+int64(k)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *fileAt) block(index int64) ([]byte, error) {
	if i := slices.IndexFunc(f.kept, func(k openBlock) bool { return k.index == index }); i >= 0 {
		k := f.kept[i]
		copy(f.kept[1:i+1], f.kept[:i])
		f.kept[0] = k
		return k.plain, nil
	}
	plain, err := f.o.openAt(f.ctx, index*atChunks)
	if err != nil {
		return nil, err
	}
	if len(f.kept) == atBlocks {
		f.kept = f.kept[:atBlocks-1]
	}
	f.kept = slices.Insert(f.kept, 0, openBlock{index, plain})
	return plain, nil
}

// openAt opens a few chunks from one on.
func (o *Opened) openAt(ctx context.Context, first int64) ([]byte, error) {
	at := first * sm.ChunkSealed
	r, err := o.src.OpenAt(ctx, at)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	sealed := make([]byte, max(0, min(o.size-at, atChunks*sm.ChunkSealed)))
	if _, err := io.ReadFull(r, sealed); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = ErrOpen
		}
		return nil, err
	}
	plain := make([]byte, 0, len(sealed))
	for i := first; len(sealed) > 0; i++ {
		n := min(len(sealed), sm.ChunkSealed)
		if plain, err = o.sec.stream.OpenChunk(plain, sealed[:n], uint32(i), (i+1)*sm.ChunkSealed >= o.size); err != nil {
			return nil, ErrOpen
		}
		sealed = sealed[n:]
	}
	return plain, nil
}
