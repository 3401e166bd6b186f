package ferry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/yizhan-gateway/yizhan/exchange/link"
)

// Code gives what is read to the other side of a link without a way back.
func (s *Spool) Code(ctx context.Context) (*link.CodeReport, error) { return s.f.Code(ctx) }

// Confirm takes a code that was read to us, and what the operator signed.
func (s *Spool) Confirm(ctx context.Context, code, operator string, signed [][]byte) (*link.Confirmation, error) {
	return s.f.Confirm(ctx, code, operator, signed)
}

// ExportAgain lets bundles leave once more, into out/ or onto a medium: the numbers
// from to to, or with 0 and 0 all that wait for a code.
func (s *Spool) ExportAgain(ctx context.Context, medium string, from, to uint64) (got link.Exported, sheets []Sheet, err error) {
	if medium == "" {
		got, err = s.f.ExportAgain(ctx, s.limits, from, to, func(name string, write func(io.Writer) error) error {
			return place(s.root, filepath.Join(outFolder, name), write)
		})
		return got, nil, err
	}
	root, err := os.OpenRoot(medium)
	if err != nil {
		return got, nil, fmt.Errorf("ferry: the medium: %w", err)
	}
	defer root.Close()
	got, err = s.f.ExportAgain(ctx, s.limits, from, to, onto(root, &sheets))
	return got, sheets, err
}

// onto places files on a medium, and notes each.
func onto(root *os.Root, sheets *[]Sheet) func(name string, write func(io.Writer) error) error {
	return func(name string, write func(io.Writer) error) error {
		sum, n := sha256.New(), int64(0)
		err := place(root, name, func(w io.Writer) error {
			sum.Reset()
			n = 0
			return write(io.MultiWriter(w, sum, counter{&n}))
		})
		if err == nil {
			*sheets = append(*sheets, Sheet{name, n, hex.EncodeToString(sum.Sum(nil))})
		}
		return err
	}
}
