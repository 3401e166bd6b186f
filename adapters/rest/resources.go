package rest

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

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
	Document   string    `json:"document"`
	Title      string    `json:"title"`
	Number     string    `json:"number,omitempty"`
	Created    time.Time `json:"created"`
	State      string    `json:"state"`
	StateZH    string    `json:"state_zh"`
	Recipients int       `json:"recipients"`
	SignedFor  int       `json:"signed_for"`
}

// Status is how a sent or received document stands.
type Status struct {
	Document   string                    `json:"document"`
	State      string                    `json:"state"`
	StateZH    string                    `json:"state_zh"`
	Recipients []exchange.RecipientState `json:"recipients"`
	Receipts   int                       `json:"receipts"`
}

// Received is one document in the inbox.
type Received struct {
	Seq        uint64             `json:"seq"`
	Document   string             `json:"document"`
	Header     sm.Digest          `json:"header" doc:"SM3 of the envelope's header, hex"`
	Sender     string             `json:"sender"`
	SenderName string             `json:"sender_name"`
	Title      string             `json:"title"`
	Number     string             `json:"number,omitempty"`
	Label      string             `json:"label"`
	LabelZH    string             `json:"label_zh"`
	Urgency    string             `json:"urgency"`
	Kind       string             `json:"kind"`
	DueAt      string             `json:"due_at,omitempty"`
	Received   time.Time          `json:"received"`
	Stage      string             `json:"stage"`
	StageZH    string             `json:"stage_zh"`
	RelatesTo  string             `json:"relates_to,omitempty" doc:"An earlier document that this one belongs to"`
	Reminders  int                `json:"reminders,omitempty" doc:"How often the sender reminded of it (催办)"`
	Reminded   *time.Time         `json:"reminded,omitempty" doc:"When it last did"`
	Files      []node.FileSummary `json:"files"`
}

// Person is who acts for the agency.
type Person struct {
	Name string `json:"name" minLength:"1" maxLength:"100"`
	Role string `json:"role,omitempty" maxLength:"100"`
}

// ActRequest signs for or returns a document.
type ActRequest struct {
	Actor   Person `json:"actor"`
	Opinion string `json:"opinion,omitempty" maxLength:"2000"`
	Number  string `json:"number,omitempty" maxLength:"200" doc:"收文号"`
	Reason  string `json:"reason,omitempty" maxLength:"2000" doc:"Why it is returned; required for that"`
}

// ActResult is the receipt that an act made, the same at every repetition.
type ActResult struct {
	Document string `json:"document"`
	Stage    string `json:"stage"`
	StageZH  string `json:"stage_zh"`
	Receipt  []byte `json:"receipt" doc:"The receipt's CMS, base64"`
}

// AgencyLine is one agency of the directory.
type AgencyLine struct {
	Code    string   `json:"code"`
	Name    string   `json:"name"`
	Aliases []string `json:"aliases"`
	Node    string   `json:"node"`
	Zone    string   `json:"zone"`
}

// ReceiptLine names one receipt of a document.
type ReceiptLine struct {
	Receipt  sm.Digest `json:"receipt"`
	Stage    string    `json:"stage"`
	StageZH  string    `json:"stage_zh"`
	Time     time.Time `json:"time"`
	Verified bool      `json:"verified"`
}

type body[T any] struct{ Body T }

type list[T any] struct {
	Items []T `json:"items"`
}

type page struct {
	After string `query:"after" maxLength:"26" doc:"Continue behind this document"`
	Limit int    `query:"limit" minimum:"1" maximum:"500" default:"50"`
}

type inboxQuery struct {
	After uint64 `query:"after" doc:"Continue behind this seq"`
	Limit int    `query:"limit" minimum:"1" maximum:"500" default:"50"`
	Wait  int    `query:"wait" minimum:"0" maximum:"25" default:"0" doc:"Seconds to wait for a document when none is there"`
}

type actInput struct {
	DocumentPath
	Body ActRequest
}

func (s *Server) register() {
	get(s, "/v1/documents", "Sent documents, newest first", s.listSent, ScopeSend)
	get(s, "/v1/documents/{id}", "State of a document", s.status, ScopeSend, ScopeReceive)
	get(s, "/v1/documents/{id}/trace", "Every stage of a document with its receipts", s.trace, ScopeSend, ScopeReceive)
	get(s, "/v1/documents/{id}/receipts", "Receipts of a document", s.receipts, ScopeSend, ScopeReceive)
	get(s, "/v1/inbox", "Received documents, oldest first", s.inbox, ScopeReceive)
	get(s, "/v1/inbox/{id}", "A received document", s.inboxOne, ScopeReceive)
	get(s, "/v1/directory/agencies", "Search agencies by code, name or alias", s.agencies)
	post(s, "/v1/inbox/{id}/accept", "Sign for a document (签收)", s.act(exchange.StageSignedFor), ScopeReceive)
	post(s, "/v1/inbox/{id}/return", "Return a document (退文)", s.act(exchange.StageReturned), ScopeReceive)
	s.registerRequests()
	s.registerPreview()
}

func security(scopes []string) []map[string][]string {
	return []map[string][]string{{"key": scopes}}
}

func get[I, O any](s *Server, path, summary string, fn func(context.Context, *I) (*O, error), scopes ...string) {
	huma.Register(s.api, huma.Operation{
		Method: http.MethodGet, Path: path, Summary: summary, OperationID: "get" + operation(path), Security: security(scopes),
	}, fn)
}

func post[I, O any](s *Server, path, summary string, fn func(context.Context, *I) (*O, error), scopes ...string) {
	huma.Register(s.api, huma.Operation{
		Method: http.MethodPost, Path: path, Summary: summary, OperationID: "post" + operation(path),
		Security: security(scopes), MaxBodyBytes: maxJSON,
	}, fn)
}

func operation(path string) string {
	var b bytes.Buffer
	for _, c := range []byte(path) {
		if c == '/' || c == '{' {
			b.WriteByte('-')
		} else if c != '}' {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func (s *Server) listSent(ctx context.Context, in *page) (*body[list[Sent]], error) {
	lines, err := s.c.Node.Sent(ctx, caller(ctx).Agency, in.After, in.Limit)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	out := &body[list[Sent]]{list[Sent]{Items: []Sent{}}}
	for _, l := range lines {
		out.Body.Items = append(out.Body.Items, Sent{
			Document: l.ID, Title: l.Title, Number: l.Number, Created: l.Created.Time(),
			State: string(l.State), StateZH: l.State.Chinese(), Recipients: l.Recipients, SignedFor: l.SignedFor,
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

func (s *Server) status(ctx context.Context, in *DocumentPath) (*body[Status], error) {
	t, err := s.c.Node.Trace(ctx, caller(ctx).Agency, in.ID)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &body[Status]{Status{
		Document: t.Document, State: string(t.State), StateZH: t.StateChinese, Recipients: t.Recipients, Receipts: t.Receipts,
	}}, nil
}

func (s *Server) receipts(ctx context.Context, in *DocumentPath) (*body[list[ReceiptLine]], error) {
	t, err := s.c.Node.Trace(ctx, caller(ctx).Agency, in.ID)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	out := &body[list[ReceiptLine]]{list[ReceiptLine]{Items: []ReceiptLine{}}}
	for _, e := range t.Events {
		out.Body.Items = append(out.Body.Items, ReceiptLine{
			Receipt: e.Receipt, Stage: string(e.Stage), StageZH: e.Chinese, Time: e.Time.Time(), Verified: e.Verified,
		})
	}
	return out, nil
}

func received(i *node.InboxItem) Received {
	var last *time.Time
	if i.Reminders > 0 {
		last = &i.Reminded
	}
	return Received{
		Seq: i.Seq, Document: i.ID, Header: i.Header, Sender: i.Sender, SenderName: i.SenderName,
		Title: i.Title, Number: i.Number, Label: string(i.Label), LabelZH: i.Label.Chinese(),
		Urgency: string(i.Urgency), Kind: string(i.Kind), DueAt: i.DueAt, Received: i.Received,
		Stage: string(i.Stage), StageZH: i.Stage.Chinese(), Files: i.Files,
		RelatesTo: i.RelatesTo, Reminders: i.Reminders, Reminded: last,
	}
}

// inbox waits for a first document when it is asked to and none is there.
func (s *Server) inbox(ctx context.Context, in *inboxQuery) (*body[list[Received]], error) {
	deadline := time.NewTimer(min(time.Duration(in.Wait)*time.Second, maxWait))
	defer deadline.Stop()
	for {
		changed, there := s.c.Node.Changed(), s.c.Node.Arrivals(caller(ctx).Agency)
		items, err := s.c.Node.Inbox(ctx, caller(ctx).Agency, in.After, in.Limit)
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		out := &body[list[Received]]{list[Received]{Items: []Received{}}}
		for i := range items {
			out.Body.Items = append(out.Body.Items, received(&items[i]))
		}
		if len(items) > 0 || in.Wait == 0 {
			return out, nil
		}
		for s.c.Node.Arrivals(caller(ctx).Agency) == there { // most commits are about none of those who wait
			select {
			case <-changed:
				changed = s.c.Node.Changed()
			case <-deadline.C:
				return out, nil
			case <-s.c.Ending:
				return out, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
}

func (s *Server) inboxOne(ctx context.Context, in *DocumentPath) (*body[Received], error) {
	item, err := s.c.Node.InboxItem(ctx, caller(ctx).Agency, in.ID)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &body[Received]{received(item)}, nil
}

func (s *Server) act(stage exchange.Stage) func(context.Context, *actInput) (*body[ActResult], error) {
	return func(ctx context.Context, in *actInput) (*body[ActResult], error) {
		receipt, err := s.c.Node.Act(ctx, caller(ctx).Agency, in.ID, node.Action{
			Stage: stage, Actor: exchange.Actor{Name: in.Body.Actor.Name, Role: in.Body.Actor.Role},
			Opinion: in.Body.Opinion, Number: in.Body.Number, Reason: in.Body.Reason,
		})
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		return &body[ActResult]{ActResult{Document: in.ID, Stage: string(stage), StageZH: stage.Chinese(), Receipt: receipt}}, nil
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
