package bench

import (
	"context"
	"fmt"
	"time"
)

// FerrySite is a site whose nodes are neighbours over a ferry. Carry is one export of
// all that waits at the sender, or one import of it at the receiver.
type FerrySite interface {
	Site
	Export(ctx context.Context) (Exported, error)
	Import(ctx context.Context) error
}

// Exported says what an export wrote.
type Exported struct {
	Files int
	Bytes int64
}

// FerryNames are the figures of Ferry.
var FerryNames = []string{"ferry_packing", "ferry_export", "ferry_import"}

const (
	ferryDocuments      = 10_000
	ferryDocumentsQuick = 2000
	ferryFile           = 50 << 20
)

// Ferry measures how documents of 10 KB are packed into files of 50 MiB, and taken out
// of them.
func Ferry(ctx context.Context, o Options, site FerrySite, say func(string, ...any)) (report *Report, err error) {
	e, end, err := newEngine(o, site, say)
	if err != nil {
		return nil, err
	}
	defer end(&err)
	documents := ferryDocuments
	if o.Quick {
		documents = ferryDocumentsQuick
	}
	if o.Documents > 0 {
		documents = o.Documents
	}
	if err := e.ferry(ctx, site, documents); err != nil {
		return nil, fmt.Errorf("bench: ferry: %w", err)
	}
	return e.report, nil
}

func (e *engine) ferry(ctx context.Context, site FerrySite, documents int) error {
	from, form, err := e.from(ctx)
	if err != nil {
		return err
	}
	if _, err := site.Start(ctx, Receiver); err != nil {
		return err
	}
	e.say("submitting %d documents …\n", documents)
	if _, err := from.submitMany(ctx, form, documents); err != nil {
		return err
	}
	sizes := fmt.Sprintf("; %d documents of 10 KB", documents)
	var got Exported
	out, err := e.against("ferry_export", "documents/s", sizes, exportPasses(), func() (float64, error) {
		begin := time.Now()
		got, err = site.Export(ctx)
		return float64(documents) / time.Since(begin).Seconds(), err
	})
	if err != nil {
		return err
	}
	least := float64(documents*smallDocument) / ferryFile
	e.add(Result{"ferry_packing", float64(got.Files), "files", max(1, least), fmt.Sprintf("files of 50 MiB that the plaintext alone would fill%s; %d MB", sizes, got.Bytes/1e6), max(1, least) / float64(got.Files)})
	e.add(out)
	in, err := e.against("ferry_import", "documents/s", sizes, importPasses(), func() (float64, error) {
		begin := time.Now()
		err := site.Import(ctx)
		return float64(documents) / time.Since(begin).Seconds(), err
	})
	if err == nil {
		e.add(in)
	}
	return err
}

// exportPasses are what packing a document needs. Its payload is ciphertext already,
// and is sealed once more with the bundle it is in, whose digest is signed.
func exportPasses() []pass {
	return []pass{
		{opSeal, smallDocument, "the bundle"}, {opSM3, smallDocument, "the bundle"},
		{opBlob, 2, "the copy that is kept, and the file"},
	}
}

// importPasses are what taking it out and delivering it needs.
func importPasses() []pass {
	return []pass{
		{opSM3, smallDocument, "the bundle"}, {opOpen, smallDocument, "the bundle"}, {opVerify, 1, "header"}, {opSM3, smallDocument, "the part"},
		{opUnwrap, 1, ""}, {opOpen, smallDocument, ""}, {opSM3, smallDocument, "what was opened"}, {opSign, 1, "DELIVERED"},
		{opBlob, 1, "the part"}, {opRecord, 1, "the delivery"},
	}
}
