package ferry

import (
	"context"

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
func (s *Spool) ExportAgain(ctx context.Context, medium string, from, to uint64) (link.Exported, *Manifest, error) {
	again := func(place placing) (link.Exported, error) { return s.f.ExportAgain(ctx, s.limits(), from, to, place) }
	if medium == "" {
		return s.exported(s.out, again)
	}
	return s.onto(medium, again)
}
