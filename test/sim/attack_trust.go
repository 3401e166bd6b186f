package sim

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/cms"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// The attacks of this file are on who may say what: with a key that was stolen
// and revoked, and on the directory itself.

// thief signs with the revoked key of an agency.
func (w *world) thief(agency string) cms.Signer {
	return certs.Signer(w.cast.keys[w.hostOf(agency).id].WithRandom(w.stream), w.cast.stolen[agency])
}

// longAgo is the time that a thief writes into what it signs.
func (w *world) longAgo() time.Time { return w.cast.effective.Add(-time.Hour) }

// claimed is the directory version that a thief names: an old one, or one that
// is not there yet, so that the judgement is put off.
func (w *world) claimed(to *host) uint64 {
	if w.rng.IntN(3) == 0 {
		return to.version() + 1
	}
	return versionFirst
}

// stolenKey: whoever stole an agency's signing key sends a header in its name,
// dated before the key was revoked. It passes as long as nobody knows better,
// and is refused, with a receipt, from then on.
func (w *world) stolenKey(from, to *host) {
	victim := w.cast.agencies[from.id][0]
	sender, _ := from.shelf.Current().Agency(victim)
	receiver, _ := from.shelf.Current().Agency(w.cast.agencies[to.id][1])
	plan := envelope.Plan{
		Domain: w.cast.directory.Domain(), ID: w.freshID(), Sender: victim, Directory: w.claimed(to),
		Routing: w.routing(), Document: strictjson.Raw(`{"title":"stolen"}`), Files: oneFile([]byte("a thief's words")),
	}
	sealed := w.seal(plan, receiver, sender, w.thief(victim), w.longAgo())
	out, ok := w.intake(to, node.Item{Kind: node.KindHeader, ID: sealed.Hash.String()}, sealed.Header)
	w.stats.Stolen++
	want := node.Outcome{Status: node.Taken}
	switch {
	case plan.Directory > to.version():
		want.Status = node.Postponed
	case w.mayBeRefused(to, w.cast.stolen[victim].DER):
		want = node.Outcome{Status: node.Refused, Reason: exchange.CodeCertificateRevoked}
	}
	if ok && out != want {
		w.fail("a header signed with a stolen key was %+v, want %+v", out, want)
	}
}

// freshID is an id that no document of this run has.
func (w *world) freshID() string {
	const digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	id := []byte("01ZZ0000000000000000000000")
	for i := 4; i < len(id); i++ {
		id[i] = digits[w.rng.IntN(len(digits))]
	}
	return string(id)
}

// stolenVoice: once its key is revoked, a thief says of a document that the
// agency has done the reverse of what it means to do. It must be refused, at
// once or when the directory it names is here.
func (w *world) stolenVoice(d *submission) {
	i := slices.IndexFunc(d.recipients, func(a string) bool { return w.cast.stolen[a] != nil && w.hostOf(a) != d.host })
	if i < 0 || !w.mayBeRefused(d.host, w.cast.stolen[d.recipients[i]].DER) {
		return
	}
	agency := d.recipients[i]
	e, err := envelope.ParseHeader(w.parsed(w.evidence(d)).Header)
	w.must(err, "header")
	r := &exchange.Receipt{
		Stage: exchange.StageSignedFor, Envelope: d.id, Header: e.Hash, Recipients: []string{agency}, Agency: agency,
		Domain: w.cast.directory.Domain(), Node: w.hostOf(agency).id, Directory: w.claimed(d.host),
		Time: strictjson.TimeOf(w.longAgo()), Clock: "sim", Reason: w.freshID(),
	}
	if intent(agency, d.id) == r.Stage {
		r.Stage = exchange.StageReturned
	}
	content, err := r.Marshal()
	w.must(err, "receipt")
	signed, err := cms.Sign(w.thief(agency), content, w.longAgo())
	w.must(err, "sign")
	item, err := (&node.ReceiptItem{Receipt: signed}).Marshal()
	w.must(err, "receipt item")
	out, ok := w.intake(d.host, node.Item{Kind: node.KindReceipt, ID: sm.Sum(content).String()}, item)
	w.stats.Stolen++
	want := node.Outcome{Status: node.Refused, Reason: exchange.CodeCertificateRevoked}
	if r.Directory > d.host.version() {
		want = node.Outcome{Status: node.Postponed}
	}
	if ok && out != want {
		w.fail("a receipt signed with a stolen key was %+v, want %+v", out, want)
	}
}

var listOf = regexp.MustCompile(`"list":"([^"]*)"`)

// wrongDirectory: a neighbour brings a directory that was put back, that it
// signed itself, in which it exchanged an entry, or all of its own making.
func (w *world) wrongDirectory(to *host) {
	have := to.version()
	id, delta := have+1, []byte(nil)
	switch kind := w.rng.IntN(4); {
	case kind == 0 && have > versionFirst:
		delta = w.cast.deltas[w.rng.IntN(int(have)-1)]
	case kind == 3:
		id, delta = versionRogue, w.cast.rogue
	case have == versionLast:
		return
	case kind == 1:
		delta = w.selfSigned(w.cast.deltas[have-1])
	default:
		delta = exchanged(w.cast.deltas[have-1])
	}
	out, ok := w.intake(to, node.Item{Kind: node.KindDirectory, ID: strconv.FormatUint(id, 10)}, delta)
	if ok && out.Status != node.Refused && out.Status != node.Duplicate {
		w.fail("a directory that the authority did not sign, or not last, was %s", out.Status)
	}
	if to.version() != have {
		w.fail("node %s went from directory %d to %d by an attack", to.id, have, to.version())
	}
	w.checkDirectory(to)
}

// selfSigned puts the signature of an agency in the place of the authority's.
func (w *world) selfSigned(delta []byte) []byte {
	list := listOf.FindSubmatch(delta)[1]
	der, err := base64.StdEncoding.DecodeString(string(list))
	w.must(err, "list")
	signed, err := cms.Parse(der, certs.MaxDirectory)
	w.must(err, "list")
	forged, err := cms.Sign(w.thief(w.cast.agencies["jia"][0]), signed.Content, w.clock)
	w.must(err, "sign")
	return bytes.Replace(delta, list, []byte(base64.StdEncoding.EncodeToString(forged)), 1)
}

// exchanged changes one entry and leaves the signed list as it is.
func exchanged(delta []byte) []byte {
	for _, c := range [][2]string{{"示范单位", "示范单元"}, {"key_compromise", "cessation"}, {`"ceiling":"work_secret"`, `"ceiling":"internal"`}} {
		if bytes.Contains(delta, []byte(c[0])) {
			return bytes.Replace(delta, []byte(c[0]), []byte(c[1]), 1)
		}
	}
	return delta[:len(delta)-1]
}

// checkDirectory: what is in force is what the authority published, byte for
// byte.
func (w *world) checkDirectory(h *host) {
	d := h.shelf.Current()
	if !bytes.Equal(d.Raw(), w.cast.files[d.Version()-1]) {
		w.fail("node %s has a directory %d that was never published", h.id, d.Version())
	}
}
