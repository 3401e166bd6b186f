package node

import (
	"errors"
	"fmt"
	"time"

	"github.com/yizhan-gateway/yizhan/certs"
	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/guard"
)

// judged is what can be known of a submission before the first byte of a file: what
// it means, whom it reaches and how. Everything that is wrong with it is found at
// once, so that a clerk mends it once.
type judged struct {
	sender     *certs.Agency
	document   exchange.Document
	routing    *exchange.Routing
	recipients []exchange.Reached
	reached    []reached
	warnings   exchange.Faults
	faults     exchange.Faults
}

// reached is what is between this node and one recipient.
type reached struct {
	name     string
	node     string
	zone     string
	route    []Hop
	cert     []byte // to encrypt to
	approval int
	refused  *exchange.Error
}

// judge never fails for what the submission says: that is in the faults. An error
// is for a caller that may not send at all.
func (n *Node) judge(d *certs.Directory, s *Submission, now time.Time) (*judged, error) {
	sender, ok := d.Agency(s.Agency)
	if !ok || sender.Node != n.c.ID {
		return nil, exchange.Fail(exchange.CodeForbidden, "agency %s is not served by this node", s.Agency)
	}
	if ok, why := sender.ExistsAt(now); !ok {
		return nil, exchange.Fail(exchange.CodeAgencyNotActive, "%s", why)
	}
	j := &judged{sender: sender}
	err := j.read(d, s, now)
	if faults := (exchange.Faults)(nil); errors.As(err, &faults) {
		j.faults = faults
	} else if err != nil {
		return nil, err
	}
	marked(&j.document, &j.faults)
	j.routing = routingOf(s, &j.document, now)
	if !j.routing.Lives() {
		j.faults.Add("expires", exchange.CodeInvalidDocument, "must lie in the future, at most 366 days ahead", "应晚于当前时间，且不超过 366 天")
	}
	if !j.document.Label.StateSecret() && j.document.Kind != "" && j.routing.Lives() {
		n.reachAll(d, j, now)
	}
	return j, nil
}

// read makes a document of the form, or takes the one that was made already.
func (j *judged) read(d *certs.Directory, s *Submission, now time.Time) error {
	if s.Form == nil {
		j.document = s.Document
		j.written("to", s.Document.To)
		j.written("cc", s.Document.Cc)
		return j.document.Validate()
	}
	resolved, err := s.Form.Resolve(d, s.Agency, now)
	j.document, j.recipients, j.warnings = resolved.Document, resolved.Recipients, resolved.Warnings
	return err
}

func (j *judged) written(field string, list []exchange.Addressee) {
	for i, a := range list {
		j.recipients = append(j.recipients, exchange.Reached{Addressee: a, Field: fmt.Sprintf("%s[%d]", field, i), By: certs.ByCode})
	}
}

// reachAll finds the way to every recipient, and its certificate, so that a mistake
// is told to the clerk now and not found on the road later.
func (n *Node) reachAll(d *certs.Directory, j *judged, now time.Time) {
	for _, to := range j.recipients {
		r := n.reach(d, to.Agency, j.routing, j.sender.Code, now)
		j.reached = append(j.reached, r)
		if r.refused != nil {
			j.faults.Refuse(to.Field, r.refused, to.Agency)
		}
	}
}

func (n *Node) reach(d *certs.Directory, code string, routing *exchange.Routing, sender string, now time.Time) (r reached) {
	agency, ok := d.Agency(code)
	if !ok {
		r.refused = exchange.Fail(exchange.CodeUnknownRecipient, "%s", code)
		return r
	}
	r.name, r.node = agency.Name, agency.Node
	if at, ok := d.Node(agency.Node); ok {
		r.zone = at.Zone
	}
	r.route = n.route(d, code)
	if ok, why := agency.ExistsAt(now); !ok {
		r.refused = exchange.Fail(exchange.CodeAgencyNotActive, "%s", why)
		return r
	}
	cert, err := agency.Current("encrypt", now)
	if err != nil {
		r.refused = exchange.Known(certificateError(err))
		return r
	}
	r.cert = cert.DER
	decision := n.passable(d, sender, code, routing, 0) // what it weighs is known when it is sealed
	r.refused, r.approval = decision.Refused, decision.Administrators
	return r
}

// slots are the recipients as the envelope needs them, when nothing is wrong.
func (j *judged) slots() (out []envelope.Recipient) {
	for i, to := range j.recipients {
		out = append(out, envelope.Recipient{Agency: to.Agency, Role: envelope.RoleRecipient, Certificate: j.reached[i].cert})
	}
	return out
}

// passable asks the guard of the first link towards an agency; that there is no way
// is a refusal, too.
func (n *Node) passable(d *certs.Directory, sender, agency string, r *exchange.Routing, size int64) guard.Decision {
	link, node, err := d.NextHop(n.c.ID, agency)
	if err != nil {
		return guard.Decision{Refused: exchange.Fail(exchange.CodeNoRoute, "%s", agency)}
	}
	policy := guard.Policy{Ceiling: exchange.WorkSecret}
	if node != n.c.ID {
		policy = n.policy(link, guard.Out)
	}
	return policy.Decide(guard.FactsOf(r, sender, agency, size), n.c.Now())
}

// marked refuses metadata with a mark of a state secret. What is marked is not
// named: it may be one.
func marked(doc *exchange.Document, faults *exchange.Faults) {
	if guard.Marked(doc.Title) {
		faults.Refuse("title", exchange.Fail(exchange.CodeClassificationMark, ""), "")
	}
	if no := doc.Number; no != nil && (guard.Marked(no.Display) || guard.Marked(no.Prefix)) {
		faults.Refuse("number", exchange.Fail(exchange.CodeClassificationMark, ""), "")
	}
}
