package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/merkle"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/records"
	"github.com/yizhan-gateway/yizhan/queue"
)

// checker looks at one row; what says what does not fit, err is trouble with
// the store, or records.ErrUnreadable of the row or one it needs.
type checker func(c *check, tx queue.Tx, k *keyReader, value []byte) (what string, err error)

var checkers map[string]checker

func init() {
	checkers = map[string]checker{
		"doc": checkDocument, "dix": checkSentOrder, "env": checkEnvelope, "hdr": checkHeader, "pdg": checkDigests, "part": checkPart,
		"blob": checkOwner, "cin": checkConsignment, "fan": checkFan, "out": checkOutbound, "rcp": checkReceipt,
		"ddp": checkDelivered, "box": checkInbox, "inx": checkInboxOrder, "inw": checkInboxWaiting, "bid": checkInboxByID,
		"inc":  decodes[uint64](aString),
		"cfl":  decodes[sm.Digest](aString, aString),
		"idm":  decodes[records.Idempotent](aString, aDigest),
		"ask":  decodes[sm.Digest](aString, aDigest, aNumber),
		"head": decodes[records.Head](aString), "fork": decodes[records.Fork](aString, aDigest),
		"bok": checkBooks, "obk": checkOutBook, "qua": decodes[records.Quarantined](aNumber), "quc": decodes[uint64](),
		"dfr": decodes[records.DeferredItem](aString, aDigest), "dfw": decodes[records.Waiting](aString),
		"node": decodes[records.NodeIdentity](), "nbr": decodes[records.Neighbour](aString), "dirv": decodes[uint64](),
		"hold": decodes[records.Hold](aString), "act": decodes[records.OperatorAct](aNumber),
		"off": decodes[uint64](aString), "exp": decodes[records.Expiry](aNumber, aDigest),
		"fro": checkFerryOut, "frb": checkFerryBundle, "fri": decodes[records.FerryIn](aString),
		"frs": decodes[records.FerrySecret](aString, aString, aNumber), "nwb": decodes[records.NoWayBack](aString),
		"req": checkRequest, "gap": checkApproval, "ans": decodes[sm.Digest](aDigest, aString),
		"isp": decodes[records.Inspection](aDigest, aString),
		"rst": decodes[records.Restored](), "rsh": decodes[records.LedgerEnd](aString), "rpl": decodes[records.Replay](aString), "rpg": decodes[records.GivenOnceMore](aString, aDigest, aDigest),
		"stw": decodes[records.UnstampedRow](aString, aNumber), "stp": decodes[records.Stamp](aString, aNumber),
		"sts":  checkStatus,
		"stb":  decodes[records.StampCount](aString),
		"lane": checkEntry, "lane#": checkLane, "lane^": checkFront, "ledger": checkLedgerRow,
	}
}

func value[T any](b []byte) (*T, error) {
	v := new(T)
	if json.Unmarshal(b, v) != nil {
		return nil, records.ErrUnreadable
	}
	return v, nil
}

// missingRow says what is missing, when a look-up gave nothing.
func missingRow[T any](what string, v *T, err error) (string, error) {
	if err == nil && v == nil {
		return what + " is missing", nil
	}
	return "", err
}

func checkDocument(_ *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	agency, id := k.str(), k.str()
	d, err := value[records.Document](b)
	if err != nil {
		return "", err
	}
	env, err := records.Envelopes.Get(tx, d.Header)
	if what, err := missingRow("its envelope", env, err); what != "" || err != nil {
		return what, err
	}
	order, err := records.SentOrder.Get(tx, agency, newestFirst(d.Created), id)
	return missingRow("its place in the sent list", order, err)
}

func checkSentOrder(_ *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	agency := k.str()
	k.num()
	id := k.str()
	if _, err := value[string](b); err != nil {
		return "", err
	}
	d, err := records.Documents.Get(tx, agency, id)
	return missingRow("its document", d, err)
}

func checkEnvelope(c *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	hh := k.digest()
	env, err := value[records.Envelope](b)
	if err != nil {
		return "", err
	}
	verify := func(r io.Reader) error {
		data, err := io.ReadAll(io.LimitReader(r, envelope.MaxHeader+1))
		if err != nil {
			return err
		}
		e, err := envelope.ParseHeader(data)
		if err == nil && e.Hash != hh {
			err = errors.New("the header is of another envelope")
		}
		return err
	}
	body := env.Header
	if body.Ref == "" && len(body.Inline) == 0 {
		if body.Inline, err = records.Headers.Get(tx, hh); err != nil || body.Inline == nil {
			return "its header is missing", err
		}
	}
	if what := c.body("env", k, body, verify); what != "" {
		return what, nil
	}
	if c.n.c.Now().Before(env.Expires.Time()) { // afterwards the entry goes
		due, err := records.Expiries.Get(tx, uint64(env.Expires), hh)
		if what, err := missingRow("the entry of its end", due, err); what != "" || err != nil {
			return what, err
		}
	}
	if !env.Deferred {
		first, err := records.FirstHeader.Get(tx, env.Sender, env.ID)
		if what, err := missingRow("the entry of its id", first, err); what != "" || err != nil {
			return what, err
		}
	}
	for i := range env.Parts {
		have := hasBit(env.Have, i)
		if !have && env.Complete {
			return fmt.Sprintf("part %d is missing of a complete one", i), nil
		}
		if !have {
			continue
		}
		part, err := records.Parts.Get(tx, hh, uint64(i))
		if what, err := missingRow(fmt.Sprintf("part %d", i), part, err); what != "" || err != nil {
			return what, err
		}
	}
	return "", nil
}

// body checks a body now when it lies in the row, else later.
func (c *check) body(table string, k *keyReader, body records.Body, verify func(io.Reader) error) string {
	if body.Ref != "" {
		c.blobs = append(c.blobs, blobToRead{table, k.shown(), body.Ref, verify})
		return ""
	}
	if err := verify(&sliceReader{body.Inline}); err != nil {
		return err.Error()
	}
	return ""
}

type sliceReader struct{ b []byte }

func (r *sliceReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

func checkHeader(_ *check, tx queue.Tx, k *keyReader, _ []byte) (string, error) {
	env, err := records.Envelopes.Get(tx, k.digest())
	return missingRow("its envelope", env, err)
}

func checkDigests(_ *check, _ queue.Tx, k *keyReader, b []byte) (string, error) {
	k.digest()
	d, err := value[records.PartDigests](b)
	if err == nil && len(d.Digests)%sm.Size != 0 {
		return "not a list of digests", nil
	}
	return "", err
}

// checkPart: a part may stand without an envelope when a submission was
// interrupted; then its blob is swept, and nobody misses it.
func checkPart(c *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	hh, i := k.digest(), k.num()
	part, err := value[records.Part](b)
	if err != nil {
		return "", err
	}
	env, err := records.Envelopes.Get(tx, hh)
	if env == nil || err != nil {
		return "", err
	}
	owner, err := records.BlobOwners.Get(tx, string(part.Ref))
	if what, err := missingRow("the owner of its blob", owner, err); what != "" || err != nil {
		return what, err
	}
	digests, err := records.Digests.Get(tx, hh)
	if err != nil {
		return "", err
	}
	job := blobToRead{table: "part", key: k.shown(), ref: part.Ref}
	if c.o.ReadData && digests != nil && int(i) < digests.Len() {
		job.verify = func(r io.Reader) error {
			h := merkle.NewPayloadHash()
			if _, err := io.Copy(h, r); err != nil {
				return err
			}
			if h.Sum() != digests.At(int(i)) {
				return errors.New("its bytes are not those that were signed")
			}
			return nil
		}
	}
	c.blobs = append(c.blobs, job)
	return "", nil
}

func checkOwner(c *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	ref := queue.Ref(k.str())
	o, err := value[records.Owner](b)
	if err != nil {
		return "", err
	}
	env, err := records.Envelopes.Get(tx, o.Envelope)
	if env != nil && err == nil {
		c.blobs = append(c.blobs, blobToRead{table: "blob", key: k.shown(), ref: ref})
	}
	return "", err
}

func checkConsignment(c *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	hh, id := k.digest(), k.digest()
	con, err := value[records.Consignment](b)
	if err != nil {
		return "", err
	}
	env, err := records.Envelopes.Get(tx, hh)
	if what, err := missingRow("its envelope", env, err); what != "" || err != nil {
		return what, err
	}
	return c.body("cin", k, con.Body, func(r io.Reader) error {
		data, err := io.ReadAll(io.LimitReader(r, MaxConsignment+1))
		if err != nil {
			return err
		}
		item, err := ParseConsignment(data)
		if err == nil && (item.Envelope != hh || sm.Sum(data) != id) {
			err = errors.New("it is another consignment")
		}
		return err
	}), nil
}

func checkFan(_ *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	hh, id := k.digest(), k.digest()
	fan, err := value[records.Fan](b)
	if err != nil {
		return "", err
	}
	con, err := records.Incoming.Get(tx, hh, id)
	if what, err := missingRow("its consignment", con, err); what != "" || err != nil || fan.Work == 0 {
		return what, err
	}
	return entryMissing(tx, laneWork, fan.Work)
}

func entryMissing(tx queue.Tx, lane string, seq uint64) (string, error) {
	row, err := tx.Get(queue.Key("lane", lane, seq))
	if err == nil && row == nil {
		return fmt.Sprintf("entry %d of lane %s is missing", seq, lane), nil
	}
	return "", err
}

func checkOutbound(_ *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	hh := k.digest()
	k.str()
	id := k.digest()
	out, err := value[records.Outbound](b)
	if err != nil {
		return "", err
	}
	con, err := records.Incoming.Get(tx, hh, id)
	if what, err := missingRow("its consignment", con, err); what != "" || err != nil {
		return what, err
	}
	// Recipients are gathered before the entry is made.
	if out.Lane == "" || out.State != records.StateQueued && out.State != records.StateParked && out.State != records.StateGuarded {
		return "", nil
	}
	return entryMissing(tx, out.Lane, out.Seq)
}

func checkRequest(_ *check, _ queue.Tx, k *keyReader, b []byte) (string, error) {
	hh, id := k.digest(), k.digest()
	row, err := value[records.Request](b)
	if err != nil {
		return "", err
	}
	r, err := openRequest(row)
	switch {
	case err != nil:
		return "not a request: " + exchange.CodeOf(err), nil
	case r.id != id || r.body.Header != hh:
		return "it is another request", nil
	}
	return "", nil
}

func checkApproval(c *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	hh, link, who := k.digest(), k.str(), k.str()
	row, err := value[records.Approval](b)
	if err != nil {
		return "", err
	}
	s, a, err := openApproval(row.CMS)
	switch {
	case err != nil:
		return "not an approval: " + exchange.CodeOf(err), nil
	case a.Header != hh || a.Link != link || a.Administrator != who:
		return "it is another approval", nil
	case !s.Holds():
		return "its signature does not hold", nil
	}
	raw, err := c.n.ledger.Leaf(tx, row.Leaf)
	if err != nil {
		return "its leaf is missing", nil
	}
	if leaf, err := merkle.ParseLeaf(raw); err == nil && (leaf.Object != s.ID() || leaf.Envelope != hh.String()) {
		return fmt.Sprintf("leaf %d does not speak of it", row.Leaf), nil
	}
	return "", nil
}

func checkReceipt(c *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	hh, id := k.digest(), k.digest()
	row, err := value[records.Receipt](b)
	if err != nil {
		return "", err
	}
	s, err := openStored(row)
	switch {
	case err != nil:
		return "not a receipt: " + exchange.CodeOf(err), nil
	case s.id != id || s.body.Header != hh:
		return "it is another receipt", nil
	case !s.signed.Holds():
		return "its signature does not hold", nil
	}
	raw, err := c.n.ledger.Leaf(tx, row.Leaf)
	if err != nil {
		return "its leaf is missing", nil
	}
	leaf, err := merkle.ParseLeaf(raw)
	if err != nil { // said of the leaf itself
		return "", nil
	}
	if leaf.Object != id || leaf.Envelope != hh.String() {
		return fmt.Sprintf("leaf %d does not speak of it", row.Leaf), nil
	}
	return "", nil
}

func checkDelivered(_ *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	hh := k.digest()
	k.str()
	mark, err := value[records.Dedup](b)
	if err != nil {
		return "", err
	}
	if mark.Pending() {
		row, err := records.Requests.Get(tx, hh, mark.Request)
		return missingRow("its request", row, err)
	}
	row, err := records.Receipts.Get(tx, hh, mark.Receipt)
	return missingRow("its receipt", row, err)
}

func checkInbox(_ *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	agency, hh := k.str(), k.digest()
	row, err := value[records.InboxRow](b)
	if err != nil {
		return "", err
	}
	order, err := records.InboxOrder.Get(tx, agency, row.Seq)
	if err != nil || order == nil || *order != hh {
		return "its place in the inbox is missing", err
	}
	waiting, err := records.InboxWaiting.Get(tx, agency, row.Seq)
	if err != nil || (waiting == nil) != row.Stage.End() {
		return "its place among what waits does not fit its stage", err
	}
	named, err := records.InboxByID.Get(tx, agency, row.ID)
	if err != nil || named == nil || *named != hh {
		return "the entry of its id is missing", err
	}
	con, err := records.Incoming.Get(tx, hh, row.Consignment)
	if what, err := missingRow("its consignment", con, err); what != "" || err != nil {
		return what, err
	}
	for _, id := range []sm.Digest{row.Delivered, row.Collected, row.Acted, row.Adopted, row.Completed} {
		if id.IsZero() {
			continue
		}
		receipt, err := records.Receipts.Get(tx, hh, id)
		if what, err := missingRow("receipt "+id.String(), receipt, err); what != "" || err != nil {
			return what, err
		}
	}
	return "", nil
}

func checkInboxOrder(_ *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	agency, seq := k.str(), k.num()
	hh, err := value[sm.Digest](b)
	if err != nil {
		return "", err
	}
	row, err := records.Inbox.Get(tx, agency, *hh)
	if err == nil && row != nil && row.Seq != seq {
		return "the document stands at another place", nil
	}
	return missingRow("its document", row, err)
}

func checkInboxByID(_ *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	agency, id := k.str(), k.str()
	hh, err := value[sm.Digest](b)
	if err != nil {
		return "", err
	}
	row, err := records.Inbox.Get(tx, agency, *hh)
	if err == nil && row != nil && row.ID != id {
		return "the document has another id", nil
	}
	return missingRow("its document", row, err)
}

func checkInboxWaiting(_ *check, tx queue.Tx, k *keyReader, b []byte) (string, error) {
	agency := k.str()
	k.num()
	hh, err := value[sm.Digest](b)
	if err != nil {
		return "", err
	}
	row, err := records.Inbox.Get(tx, agency, *hh)
	return missingRow("its document", row, err)
}
