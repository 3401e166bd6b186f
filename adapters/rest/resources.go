package rest

import (
	"context"
	"strconv"
	"time"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// DocumentPath names one document of the caller.
type DocumentPath struct {
	ID string `path:"id" minLength:"26" maxLength:"26" doc:"Document id"`
}

// Sent is one line of the list of sent documents.
type Sent struct {
	Document   string           `json:"document" example:"01ARZ3NDEKTSV4RRFFQ69G5FAV"`
	Title      string           `json:"title" example:"关于开展公文交换试点工作的通知"`
	Number     string           `json:"number,omitempty" example:"示范办发〔2026〕1号"`
	Kind       exchange.Kind    `json:"kind"`
	Urgency    exchange.Urgency `json:"urgency"`
	Created    time.Time        `json:"created"`
	State      exchange.State   `json:"state"`
	StateZH    string           `json:"state_zh" example:"已登记"`
	Recipients int              `json:"recipients"`
	SignedFor  int              `json:"signed_for"`
}

// Status is how a sent or received document stands.
type Status struct {
	Document   string                    `json:"document" example:"01ARZ3NDEKTSV4RRFFQ69G5FAV"`
	State      exchange.State            `json:"state"`
	StateZH    string                    `json:"state_zh" example:"已登记"`
	Recipients []exchange.RecipientState `json:"recipients"`
	Receipts   int                       `json:"receipts"`
	Requests   int                       `json:"requests" doc:"Recalls and reminders"`
}

// Received is one document in the inbox.
type Received struct {
	Seq        uint64             `json:"seq"`
	Document   string             `json:"document" example:"01ARZ3NDEKTSV4RRFFQ69G5FAV"`
	Header     sm.Digest          `json:"header" doc:"SM3 of the envelope's header, hex"`
	Sender     string             `json:"sender" example:"11520000000000001X"`
	SenderName string             `json:"sender_name" example:"示范单位甲"`
	Title      string             `json:"title" example:"关于开展公文交换试点工作的通知"`
	Number     string             `json:"number,omitempty" example:"示范办发〔2026〕1号"`
	Label      exchange.Label     `json:"label"`
	LabelZH    string             `json:"label_zh" example:"公开"`
	Urgency    exchange.Urgency   `json:"urgency"`
	Mark       string             `json:"urgency_mark,omitempty" doc:"The grade of a telegram, where urgency does not say it: 特提, 平急"`
	Kind       exchange.Kind      `json:"kind"`
	DueAt      string             `json:"due_at,omitempty" example:"2026-12-01"`
	Copies     *exchange.Span     `json:"copies,omitempty" doc:"份号 meant for this agency, both ends included"`
	Print      int64              `json:"print_quota,omitempty" doc:"打印份数"`
	Received   time.Time          `json:"received"`
	Stage      exchange.Stage     `json:"stage"`
	StageZH    string             `json:"stage_zh" example:"待交换"`
	RelatesTo  string             `json:"relates_to,omitempty" doc:"An earlier document that this one belongs to"`
	Reminders  int                `json:"reminders,omitempty" doc:"How often the sender reminded of it (催办)"`
	Reminded   *time.Time         `json:"reminded,omitempty" doc:"When it last did"`
	Files      []node.FileSummary `json:"files"`
}

// Person is who acts for the agency.
type Person struct {
	Name string `json:"name" example:"王伟" minLength:"1" maxLength:"100"`
	Role string `json:"role,omitempty" example:"机要员" maxLength:"100"`
}

// ActRequest signs for or returns a document.
type ActRequest struct {
	Actor   Person `json:"actor"`
	Opinion string `json:"opinion,omitempty" example:"已阅，请办公室阅处" maxLength:"2000"`
	Number  string `json:"number,omitempty" example:"收文〔2026〕1号" maxLength:"200" doc:"收文号"`
	Reason  string `json:"reason,omitempty" example:"主送单位有误" maxLength:"2000" doc:"Why it is returned; required for that"`
}

// ActResult is the receipt that an act made, the same at every repetition.
type ActResult struct {
	Document string         `json:"document" example:"01ARZ3NDEKTSV4RRFFQ69G5FAV"`
	Stage    exchange.Stage `json:"stage"`
	StageZH  string         `json:"stage_zh" example:"待交换"`
	Receipt  []byte         `json:"receipt" doc:"The receipt's CMS, base64"`
}

// AgencyLine is one agency of the directory.
type AgencyLine struct {
	Code    string   `json:"code" example:"11520000000000002X"`
	Name    string   `json:"name" example:"示范单位乙"`
	Aliases []string `json:"aliases"`
	Node    string   `json:"node" example:"n2"`
	Zone    string   `json:"zone" example:"政务外网"`
}

// ReceiptLine names one receipt of a document.
type ReceiptLine struct {
	Receipt  sm.Digest      `json:"receipt"`
	Stage    exchange.Stage `json:"stage"`
	StageZH  string         `json:"stage_zh" example:"待交换"`
	Time     time.Time      `json:"time"`
	Verified bool           `json:"verified"`
}

type body[T any] struct{ Body T }

type list[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty" doc:"Ask again with this as after: there may be more, also when items is empty; absent: that is all" example:"01ARZ3NDEKTSV4RRFFQ69G5FAV"`
}

type page struct {
	Filters
	State string `query:"state" enum:"REGISTERED,IN_DELIVERY,PARTLY_SIGNED,SIGNED_FOR,ENDED" doc:"State of the document"`
	After string `query:"after" maxLength:"26" doc:"Continue behind this document"`
	Limit int    `query:"limit" minimum:"1" maximum:"500" default:"50"`
}

type inboxQuery struct {
	Filters
	State  string `query:"state" maxLength:"20" doc:"waiting: neither signed for nor returned 待签收; or a stage: DELIVERED, COLLECTED, SIGNED_FOR, RETURNED, RECALLED, ADOPTED, COMPLETED"`
	Sender string `query:"sender" maxLength:"18" doc:"Code of the sending agency"`
	After  uint64 `query:"after" doc:"Continue behind this seq"`
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50"`
	Wait   int    `query:"wait" minimum:"0" maximum:"25" default:"0" doc:"Seconds to wait for a document when none is there"`
}

type actInput struct {
	DocumentPath
	Unless
	Body ActRequest
}

func (s *Server) register() {
	get(s, "/v1/documents", about{
		id: "listSent", tag: tagSent, en: "Sent documents, newest first", zh: "已发公文", scopes: []string{ScopeSend},
		codes: []string{exchange.CodeNotFound},
	}, s.listSent)
	get(s, "/v1/documents/{id}", either("getDocument", "State of a document", "公文状态"), s.status)
	get(s, "/v1/documents/{id}/trace", either("getTrace", "Every stage of a document with its receipts", "流转轨迹"), s.trace)
	get(s, "/v1/documents/{id}/receipts", either("listReceipts", "Receipts of a document", "回执列表"), s.receipts)
	get(s, "/v1/documents/{id}/events", either("listEvents", "What happened to a document, in the order of time", "流转事件"), s.events)
	get(s, "/v1/inbox", about{
		id: "listInbox", tag: tagInbox, en: "Received documents, oldest first", zh: "收文列表", scopes: []string{ScopeReceive},
	}, s.inbox)
	get(s, "/v1/inbox/count", about{
		id: "countInbox", tag: tagInbox, en: "How much waits for a signature", zh: "待签收数", scopes: []string{ScopeReceive},
	}, s.count)
	get(s, "/v1/inbox/{id}", about{
		id: "getReceived", tag: tagInbox, en: "A received document", zh: "收文", scopes: []string{ScopeReceive}, codes: []string{exchange.CodeNotFound},
	}, s.inboxOne)
	get(s, "/v1/directory/agencies", about{
		id: "searchAgencies", tag: tagDirectory, en: "Search agencies by code, name or alias", zh: "查找单位",
	}, s.agencies)
	post(s, "/v1/inbox/{id}/accept", action("acceptDocument", "Sign for a document", "签收"), s.act(exchange.StageSignedFor))
	post(s, "/v1/inbox/{id}/return", action("returnDocument", "Return a document, with the reason", "退文"), s.act(exchange.StageReturned))
	post(s, "/v1/inbox/{id}/adopt", action("adoptDocument", "Say that a document that was signed for is used", "采用", exchange.CodeNotSignedFor, exchange.CodeRecalled), s.act(exchange.StageAdopted))
	post(s, "/v1/inbox/{id}/complete", action("completeDocument", "Say that a document that was signed for is dealt with", "办结", exchange.CodeNotSignedFor, exchange.CodeRecalled), s.act(exchange.StageCompleted))
	several := action("acceptDocuments", "Sign for up to 500 documents, each by itself", "批量签收")
	several.notes = "Each has its own outcome: a receipt, or the problem that it would have had alone. A repeat gives the same receipts."
	post(s, "/v1/inbox/accept", several, s.batch)
	post(s, "/v1/inbox/lease", about{
		id: "leaseDocuments", tag: tagInbox, en: "Take documents that wait, so that no other worker takes them", zh: "领取待签收", scopes: []string{ScopeReceive},
		notes: "A lease ends when the document is signed for, returned or released, or when its time is over. It is kept in memory.",
	}, s.lease)
	post(s, "/v1/inbox/release", about{
		id: "releaseDocuments", tag: tagInbox, en: "Give leased documents back", zh: "放回待签收", scopes: []string{ScopeReceive},
	}, s.release)
	s.registerRequests()
	s.registerPreview()
	if s.c.Webhooks != nil {
		s.registerWebhooks()
	}
}

// either describes what both the sender and a recipient of a document may see.
func either(id, en, zh string) about {
	return about{id: id, tag: tagSent, en: en, zh: zh, scopes: []string{ScopeSend, ScopeReceive}, codes: []string{exchange.CodeNotFound}}
}

// action describes what an agency does with a document that it received.
func action(id, en, zh string, codes ...string) about {
	return about{
		id: id, tag: tagInbox, en: en, zh: zh, scopes: []string{ScopeReceive},
		notes: "Signed with the agency's key. A repeat gives the same receipt.",
		codes: append([]string{
			exchange.CodeNotFound, exchange.CodeConflict, exchange.CodePrecondition, exchange.CodeCertificateExpired, exchange.CodeCertificateRevoked,
			exchange.CodeUnknownRecipient,
		}, codes...),
	}
}

func (s *Server) listSent(ctx context.Context, in *page) (*body[list[Sent]], error) {
	f, err := in.filter(in.State)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	lines, next, err := s.c.Node.SentBy(ctx, caller(ctx).Agency, in.After, in.Limit, f)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	out := &body[list[Sent]]{list[Sent]{Items: []Sent{}, Next: next}}
	for _, l := range lines {
		out.Body.Items = append(out.Body.Items, Sent{
			Document: l.ID, Title: l.Title, Number: l.Number, Created: l.Created.Time(), Kind: l.Kind, Urgency: l.Urgency,
			State: l.State, StateZH: l.State.Chinese(), Recipients: l.Recipients, SignedFor: l.SignedFor,
		})
	}
	return out, nil
}

func (s *Server) trace(ctx context.Context, in *DocumentPath) (*body[*node.Trace], error) {
	t, err := s.c.Node.Trace(ctx, caller(ctx).Agency, in.ID)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &body[*node.Trace]{t}, nil
}

func (s *Server) status(ctx context.Context, in *DocumentPath) (*tagged[Status], error) {
	t, err := s.c.Node.Trace(ctx, caller(ctx).Agency, in.ID)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return withTag(statusOfTrace(t)), nil
}

func statusOfTrace(t *node.Trace) Status {
	return Status{
		Document: t.Document, State: t.State, StateZH: t.StateChinese, Recipients: t.Recipients, Receipts: t.Receipts, Requests: len(t.Requests),
	}
}

func (s *Server) receipts(ctx context.Context, in *DocumentPath) (*body[list[ReceiptLine]], error) {
	t, err := s.c.Node.Trace(ctx, caller(ctx).Agency, in.ID)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	out := &body[list[ReceiptLine]]{list[ReceiptLine]{Items: []ReceiptLine{}}}
	for _, e := range t.Events {
		out.Body.Items = append(out.Body.Items, ReceiptLine{
			Receipt: e.Receipt, Stage: e.Stage, StageZH: e.Chinese, Time: e.Time.Time(), Verified: e.Verified,
		})
	}
	return out, nil
}

func (s *Server) events(ctx context.Context, in *DocumentPath) (*body[list[node.Event]], error) {
	t, err := s.c.Node.Trace(ctx, caller(ctx).Agency, in.ID)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &body[list[node.Event]]{list[node.Event]{Items: append([]node.Event{}, t.Events...)}}, nil
}

func received(i *node.InboxItem) Received {
	var last *time.Time
	if i.Reminders > 0 {
		last = &i.Reminded
	}
	return Received{
		Seq: i.Seq, Document: i.ID, Header: i.Header, Sender: i.Sender, SenderName: i.SenderName,
		Title: i.Title, Number: i.Number, Label: i.Label, LabelZH: i.Label.Chinese(),
		Urgency: i.Urgency, Kind: i.Kind, DueAt: i.DueAt, Received: i.Received,
		Stage: i.Stage, StageZH: i.Stage.Chinese(), Files: append([]node.FileSummary{}, i.Files...),
		RelatesTo: i.RelatesTo, Reminders: i.Reminders, Reminded: last,
		Mark: i.Mark, Copies: i.Copies, Print: i.Print,
	}
}

// inbox waits for a first document when it is asked to and none is there.
func (s *Server) inbox(ctx context.Context, in *inboxQuery) (*body[list[Received]], error) {
	f, err := in.filter(in.State)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	f.Sender = in.Sender
	deadline := time.NewTimer(min(time.Duration(in.Wait)*time.Second, maxWait))
	defer deadline.Stop()
	for {
		arrivals := s.arrivals(ctx)
		items, next, err := s.c.Node.InboxBy(ctx, caller(ctx).Agency, in.After, in.Limit, f)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		out := &body[list[Received]]{list[Received]{Items: []Received{}}}
		for i := range items {
			out.Body.Items = append(out.Body.Items, received(&items[i]))
		}
		if next > 0 {
			out.Body.Next = strconv.FormatUint(next, 10)
		}
		if len(items) > 0 || in.Wait == 0 || next > 0 {
			return out, nil
		}
		if more, err := arrivals(deadline.C); !more {
			return out, err
		}
	}
}

// arrivals is taken before the inbox is looked at: what it gives waits until
// something came since. It says no more when the time is over, or the caller gone.
func (s *Server) arrivals(ctx context.Context) func(<-chan time.Time) (more bool, err error) {
	agency := caller(ctx).Agency
	changed, there := s.c.Node.Changed(), s.c.Node.Arrivals(agency)
	return func(late <-chan time.Time) (bool, error) {
		for s.c.Node.Arrivals(agency) == there { // most commits are about none of those who wait
			select {
			case <-changed:
				changed = s.c.Node.Changed()
			case <-late:
				return false, nil
			case <-s.c.Ending:
				return false, nil
			case <-ctx.Done():
				return false, ctx.Err()
			}
		}
		return true, nil
	}
}

func (s *Server) inboxOne(ctx context.Context, in *DocumentPath) (*tagged[Received], error) {
	item, err := s.c.Node.InboxItem(ctx, caller(ctx).Agency, in.ID)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return withTag(received(item)), nil
}

func (s *Server) act(stage exchange.Stage) func(context.Context, *actInput) (*body[ActResult], error) {
	return func(ctx context.Context, in *actInput) (*body[ActResult], error) {
		if err := in.met(s.itemNow(ctx, in.ID)); err != nil {
			return nil, s.problem(ctx, err)
		}
		act := s.c.Node.Act
		if stage.Rank() > exchange.StageSignedFor.Rank() {
			act = s.c.Node.Follow
		}
		receipt, err := act(ctx, caller(ctx).Agency, in.ID, node.Action{
			Stage: stage, Actor: exchange.Actor{Name: in.Body.Actor.Name, Role: in.Body.Actor.Role},
			Opinion: in.Body.Opinion, Number: in.Body.Number, Reason: in.Body.Reason,
		})
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		return &body[ActResult]{ActResult{Document: in.ID, Stage: stage, StageZH: stage.Chinese(), Receipt: receipt}}, nil
	}
}

func (s *Server) agencies(ctx context.Context, in *struct {
	Q     string `query:"q" maxLength:"200"`
	Limit int    `query:"limit" minimum:"1" maximum:"500" default:"50"`
}) (*body[list[AgencyLine]], error) {
	d := s.c.Node.Directory()
	out := &body[list[AgencyLine]]{list[AgencyLine]{Items: []AgencyLine{}}}
	for _, a := range d.Search(in.Q, in.Limit) {
		line := AgencyLine{Code: a.Code, Name: a.Name, Aliases: append([]string{}, a.Aliases...), Node: a.Node}
		if n, ok := d.Node(a.Node); ok {
			line.Zone = n.Zone
		}
		out.Body.Items = append(out.Body.Items, line)
	}
	return out, nil
}
