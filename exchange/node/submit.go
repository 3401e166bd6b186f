package node

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
	"github.com/yizhan-gateway/yizhan/queue"
)

// Submission is a document as an agency hands it in: a Document, or a Form of which
// one is made by the directory in force. Files are read once, in order, body first. Expires is when undelivered copies end; zero means 90
// days from now. IdempotencyKey may be empty for callers that never retry.
type Submission struct {
	Agency         string
	IdempotencyKey string
	Document       exchange.Document
	Form           *exchange.Form // counts instead of Document unless nil
	Expires        time.Time
	RelatesTo      string
	Trace          string
	Files          iter.Seq2[envelope.File, error]

	asked strictjson.Raw // what a repeat is told by
}

// Accepted says that a submission is durable. Receipt is the ACCEPTED receipt
// in CMS. Replayed: the same submission had been accepted before; then nothing is
// warned of once more.
type Accepted struct {
	ID       string
	Header   sm.Digest
	Receipt  []byte
	Replayed bool
	Warnings exchange.Faults
}

// Submit validates, seals and stores a document for all its recipients. When
// it returns without error the document is durable and will be delivered or
// end in a signed receipt. When it returns an error nothing is stored, except
// that after CodeTemporary the outcome may be unknown: repeat with the same
// IdempotencyKey.
func (n *Node) Submit(ctx context.Context, s Submission) (*Accepted, error) {
	s.Document.Sender = s.Agency
	if err := n.Alarm(); err != nil {
		return nil, err
	}
	release, err := n.enter(s.Agency, s.IdempotencyKey)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := s.ask(); err != nil {
		return nil, err
	}
	// What was accepted stays so, whatever has come to an end since.
	if done, err := n.replay(ctx, &s); done != nil || err != nil {
		return done, err
	}
	d := n.Directory()
	plan, warnings, err := n.plan(d, &s)
	if err != nil {
		return nil, err
	}
	if err := n.room(); err != nil {
		return nil, err
	}
	done, err := n.sealAndAccept(ctx, d, &s, plan)
	if err == nil && !done.Replayed {
		done.Warnings = warnings
	}
	return done, err
}

// ask notes what was asked for, in one encoding. A form that has none was never
// accepted: what is wrong with it is said when it is judged.
func (s *Submission) ask() (err error) {
	if s.Form != nil {
		s.asked, _ = s.Form.Asked(s.Agency)
		return nil
	}
	s.asked, err = describe(&s.Document)
	return err
}

// enter admits one submission per idempotency key at a time.
func (n *Node) enter(agency, key string) (release func(), err error) {
	if key == "" {
		return func() {}, nil
	}
	k := agency + "\x00" + key
	if _, busy := n.running.LoadOrStore(k, true); busy {
		return nil, exchange.Fail(exchange.CodeIdempotencyInUse, "")
	}
	return func() { n.running.Delete(k) }, nil
}

// describe gives the metadata in their one encoding.
func describe(d *exchange.Document) (strictjson.Raw, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	b, err := d.Marshal()
	if err != nil {
		return nil, exchange.Fail(exchange.CodeInvalidDocument, "not valid UTF-8 text")
	}
	return b, nil
}

// plan checks everything that can be known before the first file byte.
func (n *Node) plan(d *certs.Directory, s *Submission) (*envelope.Plan, exchange.Faults, error) {
	now := n.c.Now()
	j, err := n.judge(d, s, now)
	if err == nil {
		err = j.faults.Err()
	}
	if err != nil {
		return nil, nil, err
	}
	s.Document = j.document
	document, err := describe(&s.Document)
	if err != nil {
		return nil, nil, err
	}
	self, err := j.sender.Current("encrypt", now)
	if err != nil {
		return nil, nil, certificateError(err)
	}
	points, err := n.points(d, s.Document.Recipients(), now)
	if err != nil {
		return nil, nil, err
	}
	recipients := append(j.slots(), points...)
	recipients = append(recipients, envelope.Recipient{Agency: s.Agency, Role: envelope.RoleSelf, Certificate: self.DER})
	rawRouting, err := strictjson.Marshal(j.routing)
	if err != nil {
		return nil, nil, err
	}
	return &envelope.Plan{
		Domain: d.Domain(), ID: n.newID(), Sender: s.Agency, Directory: d.Version(),
		Recipients: recipients, Routing: rawRouting, Document: document, Files: unmarkedFiles(s.Files),
	}, j.warnings, nil
}

func routingOf(s *Submission, doc *exchange.Document, now time.Time) *exchange.Routing {
	expires := s.Expires
	if expires.IsZero() {
		expires = now.Add(exchange.DefaultLife)
	}
	return &exchange.Routing{
		Label: doc.Label, Urgency: doc.Urgency, Kind: doc.Kind,
		Created: strictjson.TimeOf(now), Expires: strictjson.TimeOf(expires),
		RelatesTo: s.RelatesTo, Trace: s.Trace,
	}
}

// fingerprint tells whether two submissions under one idempotency key are the
// same. It is keyed, so that a stolen disk cannot be searched for a text.
func (n *Node) fingerprint(s *Submission, files []envelope.FileInfo) (sm.Digest, error) {
	b, err := json.Marshal(struct {
		Expires          int64
		RelatesTo, Trace string
		Files            []envelope.FileInfo
	}{s.Expires.UnixMilli(), s.RelatesTo, "", files})
	if err != nil {
		return sm.Digest{}, err
	}
	return n.c.Keys.MAC([]byte("fingerprint"), s.asked, b), nil
}

func (n *Node) idempotencyIndex(key string) sm.Digest {
	return n.c.Keys.MAC([]byte("idempotency"), []byte(key))
}

// replay answers a submission whose key was used before: the files are read
// only to compare them.
func (n *Node) replay(ctx context.Context, s *Submission) (*Accepted, error) {
	if s.IdempotencyKey == "" {
		return nil, nil
	}
	var used *records.Idempotent
	err := n.view(ctx, func(tx queue.Tx) (err error) {
		used, err = records.Idempotency.Get(tx, s.Agency, n.idempotencyIndex(s.IdempotencyKey))
		return err
	})
	if used == nil || err != nil {
		return nil, err
	}
	files, err := hashFiles(s.Files)
	if err != nil {
		return nil, submissionError(err)
	}
	print, err := n.fingerprint(s, files)
	if err != nil {
		return nil, err
	}
	return n.sameSubmission(ctx, used, print)
}

func (n *Node) sameSubmission(ctx context.Context, used *records.Idempotent, print sm.Digest) (*Accepted, error) {
	if used.Fingerprint != print {
		return nil, exchange.Fail(exchange.CodeIdempotencyMismatch, "the key belongs to document %s", used.Document)
	}
	receipt, err := n.stageReceipt(ctx, used.Header, exchange.StageAccepted)
	if err != nil {
		return nil, err
	}
	return &Accepted{ID: used.Document, Header: used.Header, Receipt: receipt, Replayed: true}, nil
}

func hashFiles(files iter.Seq2[envelope.File, error]) ([]envelope.FileInfo, error) {
	var out []envelope.FileInfo
	for f, err := range files {
		if err != nil {
			return nil, err
		}
		h := sm.New()
		size, err := io.Copy(h, f.Content)
		if err != nil {
			return nil, err
		}
		info := envelope.FileInfo{Role: f.Role, Name: f.Name, Type: f.Type, Size: size}
		h.Sum(info.SM3[:0])
		out = append(out, info)
	}
	return out, nil
}

// staged is a sealed document whose payload is durable and whose record is
// not yet committed.
type staged struct {
	sealed *envelope.Sealed
	refs   []queue.Ref
	header records.Body
	slots  records.Body
	slotID sm.Digest
}

func (n *Node) sealAndAccept(ctx context.Context, d *certs.Directory, s *Submission, plan *envelope.Plan) (*Accepted, error) {
	st, err := n.seal(ctx, plan)
	if err == nil {
		err = n.sealedPasses(d, plan, st.sealed.Payload.Size)
	}
	if err != nil {
		n.discard(ctx, st)
		return nil, submissionError(err)
	}
	print, err := n.fingerprint(s, st.sealed.Manifest.Files)
	if err != nil {
		return nil, err
	}
	receipt, err := n.nodeReceipt(d, &exchange.Receipt{
		Stage: exchange.StageAccepted, Envelope: plan.ID, Header: st.sealed.Hash,
	})
	if err != nil {
		n.discard(ctx, st)
		return nil, err
	}
	won, err := n.accept(ctx, d, s, plan, st, print, receipt)
	switch {
	case errors.Is(err, queue.ErrUnknown):
		// The commit may yet stand: its blobs must stay. The sweep at the next
		// start removes them if it does not.
		return nil, &exchange.Error{Code: exchange.CodeTemporary, Temporary: true, Err: err}
	case err != nil:
		n.discard(ctx, st)
		return nil, err
	case won != nil:
		n.discard(ctx, st)
		return n.sameSubmission(ctx, won, print)
	}
	n.headers.put(st.sealed.Envelope, int64(len(st.sealed.Header)))
	return &Accepted{ID: plan.ID, Header: st.sealed.Hash, Receipt: receipt.cms}, nil
}

// seal makes every byte of the envelope durable. A crash in here leaves blobs
// that nothing refers to; the sweep at the next start removes them.
func (n *Node) seal(ctx context.Context, plan *envelope.Plan) (*staged, error) {
	st := new(staged)
	signer, err := n.agencySigner(plan.Sender)
	if err != nil {
		return st, err
	}
	put := func(ctx context.Context, _ int, r io.Reader) error {
		if err := n.room(); err != nil {
			return err
		}
		ref, err := n.c.Blobs.Put(ctx, r, envelope.PartSize)
		if err == nil {
			st.refs = append(st.refs, ref)
		}
		return err
	}
	if st.sealed, err = envelope.Seal(ctx, *plan, signer, n.c.Now(), n.c.Rand, put); err != nil {
		return st, err
	}
	if st.header, err = records.StoreBody(ctx, n.c.Blobs, st.sealed.Header); err != nil {
		return st, err
	}
	all := make([]int, len(plan.Recipients))
	for i := range all {
		all[i] = i
	}
	item := ConsignmentItem{Envelope: st.sealed.Hash, Parts: st.sealed.Parts, Slots: slotsOf(all, st.sealed.Slots)}
	b, err := item.Marshal()
	if err != nil {
		return st, err
	}
	st.slotID = sm.Sum(b)
	st.slots, err = records.StoreBody(ctx, n.c.Blobs, b)
	return st, err
}

func (n *Node) discard(ctx context.Context, st *staged) {
	refs := append([]queue.Ref{st.header.Ref, st.slots.Ref}, st.refs...)
	for _, ref := range refs {
		if ref != "" {
			// What stays behind is swept at the next start.
			_ = n.c.Blobs.Delete(context.WithoutCancel(ctx), ref)
		}
	}
}

// accept is the commit point of a submission. It returns the record of an
// earlier submission under the same idempotency key when there is one.
func (n *Node) accept(ctx context.Context, d *certs.Directory, s *Submission, plan *envelope.Plan, st *staged, print sm.Digest, receipt *signedReceipt) (*records.Idempotent, error) {
	hh := st.sealed.Hash
	if err := n.stageParts(ctx, hh, st.refs); err != nil {
		return nil, err
	}
	summary, err := n.sealSummary(hh, summaryOf(&s.Document, st.sealed.Manifest))
	if err != nil {
		return nil, err
	}
	routing, err := exchange.ParseRouting(plan.Routing)
	if err != nil {
		return nil, err
	}
	now := n.now()
	document := &records.Document{
		Header: hh, Created: now, Expires: routing.Expires,
		Recipients: len(s.Document.Recipients()), Sealed: summary,
	}
	env := &records.Envelope{
		ID: plan.ID, Sender: plan.Sender, Size: st.sealed.Payload.Size, Parts: len(st.refs), Have: fullBits(len(st.refs)),
		Header: st.header, Directory: d.Version(), At: now, Expires: routing.Expires, Complete: true,
	}
	idem := &records.Idempotent{Document: plan.ID, Header: hh, Fingerprint: print, At: now}
	away := n.away(d, plan, routing, env.Size)
	index := n.idempotencyIndex(s.IdempotencyKey)
	var earlier *records.Idempotent
	err = n.update(ctx, func(tx queue.Tx) error {
		earlier = nil
		if s.IdempotencyKey != "" {
			if err := records.Idempotency.Insert(tx, idem, s.Agency, index); errors.Is(err, queue.ErrExists) {
				earlier, err = records.Idempotency.Get(tx, s.Agency, index)
				return err
			} else if err != nil {
				return err
			}
		}
		if err := n.acceptRows(tx, plan, st, document, env, receipt); err != nil {
			return err
		}
		p := &parcel{hh: hh, id: st.slotID, env: env, routing: routing}
		return n.begin(tx, d, p, &records.Consignment{Body: st.slots}, away)
	})
	return earlier, err
}

func (n *Node) acceptRows(tx queue.Tx, plan *envelope.Plan, st *staged, document *records.Document, env *records.Envelope, receipt *signedReceipt) error {
	hh := st.sealed.Hash
	if err := records.Documents.Insert(tx, document, plan.Sender, plan.ID); err != nil {
		return err
	}
	if err := records.SentOrder.Insert(tx, &plan.ID, plan.Sender, newestFirst(document.Created), plan.ID); err != nil {
		return err
	}
	if err := records.FirstHeader.Insert(tx, &hh, plan.Sender, plan.ID); err != nil {
		return err
	}
	if err := n.putEnvelope(tx, hh, env); err != nil {
		return err
	}
	if err := records.Digests.Insert(tx, records.JoinDigests(st.sealed.Parts), hh); err != nil {
		return err
	}
	if len(st.refs) <= stageBatch {
		if err := putParts(tx, hh, 0, st.refs); err != nil {
			return err
		}
	}
	_, err := n.putReceipt(tx, hh, receipt, eventAccepted)
	return err
}

// stageBatch is how many part rows fit into the accepting transaction; more
// are written before it, in several. A crash in between leaves rows of an
// envelope that has no record; their blobs count as unreferenced.
const stageBatch = 200

func (n *Node) stageParts(ctx context.Context, hh sm.Digest, refs []queue.Ref) error {
	if len(refs) <= stageBatch {
		return nil
	}
	for from := 0; from < len(refs); from += stageBatch {
		batch := refs[from:min(from+stageBatch, len(refs))]
		err := n.c.Store.Update(ctx, func(tx queue.Tx) error { return putParts(tx, hh, from, batch) })
		if err != nil {
			return err
		}
	}
	return nil
}

func putParts(tx queue.Tx, hh sm.Digest, from int, refs []queue.Ref) error {
	for i, ref := range refs {
		if err := putPart(tx, hh, from+i, ref); err != nil {
			return err
		}
	}
	return nil
}

func putPart(tx queue.Tx, hh sm.Digest, i int, ref queue.Ref) error {
	if err := records.Parts.Insert(tx, &records.Part{Ref: ref}, hh, uint64(i)); err != nil {
		return err
	}
	return records.BlobOwners.Put(tx, &records.Owner{Envelope: hh}, string(ref))
}

// submissionError gives what went wrong while sealing a code of its own where
// the clerk can mend it.
func submissionError(err error) error {
	var known *exchange.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.Is(err, envelope.ErrEmptyFile):
		return &exchange.Error{Code: exchange.CodeEmptyFile, Err: err}
	case errors.Is(err, envelope.ErrNoBody):
		return &exchange.Error{Code: exchange.CodeMissingBody, Err: err}
	case errors.Is(err, envelope.ErrInvalid):
		// The envelope's words name a file by its number, never by its name.
		return &exchange.Error{Code: exchange.CodeInvalidDocument, Detail: strings.TrimPrefix(err.Error(), envelope.ErrInvalid.Error()+": ")}
	}
	return err
}
