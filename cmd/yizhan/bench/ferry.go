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
	passes := exportPasses(smallDocument)
	out, err := e.against("ferry_export", "documents/s", sizes, passes, func() (float64, error) {
		begin := time.Now()
		got, err = site.Export(ctx)
		took := time.Since(begin)
		copy(passes, exportPasses(got.Bytes/int64(documents))) // what a document takes in a file is known only then
		return float64(documents) / took.Seconds(), err
	})
	if err != nil {
		return err
	}
	least := float64(documents*smallDocument) / ferryFile
	e.add(Result{"ferry_packing", float64(got.Files), "files", max(1, least), fmt.Sprintf("files of 50 MiB that the plaintext alone would fill%s; %d MB", sizes, got.Bytes/1e6), max(1, least) / float64(got.Files)})
	e.add(out)
	in, err := e.against("ferry_import", "documents/s", sizes, importPasses(got.Bytes/int64(documents)), func() (float64, error) {
		begin := time.Now()
		err := site.Import(ctx)
		return float64(documents) / time.Since(begin).Seconds(), err
	})
	if err == nil {
		e.add(in)
	}
	return err
}

// exportPasses are what packing a document needs that takes so many bytes in a file.
// Its payload is ciphertext already, and is sealed once more with the bundle it is in,
// whose digest is signed. The digest of its part is known; those of header and slots
// are not.
func exportPasses(bytes int64) []pass {
	n := float64(bytes)
	return []pass{
		{opSeal, n, "the bundle"}, {opSM3, n, "the bundle"}, {opSM3, n - smallDocument, "header and slots"},
		{opSM3, n, "the file, for the courier's list"}, {opBlob, 2, "the copy that is kept, and the file"},
	}
}

// importPasses are what taking it out and delivering it needs.
func importPasses(bytes int64) []pass {
	n := float64(bytes)
	return []pass{
		{opSM3, n, "the bundle"}, {opOpen, n, "the bundle"}, {opVerify, 1, "header"}, {opSM3, n, "header, slots and the part"},
		{opUnwrap, 1, ""}, {opOpen, smallDocument, ""}, {opSM3, smallDocument, "what was opened"}, {opSign, 1, "DELIVERED"},
		{opBlob, 1, "the part"}, {opRecord, 1, "the delivery"},
	}
}
