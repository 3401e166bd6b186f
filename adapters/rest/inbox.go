package rest

import (
	"context"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// Filters are what both lists can be narrowed by.
type Filters struct {
	Kind    string `query:"kind" maxLength:"20" doc:"official 公文, information 政务信息, notice 通知, material 资料"`
	Urgency string `query:"urgency" maxLength:"20" doc:"normal 平件, urgent 加急, very_urgent 特急"`
	From    string `query:"from" maxLength:"40" doc:"Not before this date or time: 2026-11-27, 2026-11-27T08:00:00+08:00"`
	To      string `query:"to" maxLength:"40" doc:"Before this time, or not after this date"`
	Q       string `query:"q" maxLength:"100" doc:"Part of the document number (文号)"`
}

// filter reads them. Kinds and urgencies are known by both their names.
func (f *Filters) filter(state string) (out node.Filter, err error) {
	out.State, out.Number = state, f.Q
	if f.Kind != "" {
		if out.Kind, err = exchange.ParseKind(f.Kind); err != nil {
			return out, badQuery(err)
		}
	}
	if f.Urgency != "" {
		if out.Urgency, err = exchange.ParseUrgency(f.Urgency); err != nil {
			return out, badQuery(err)
		}
	}
	if out.From, err = moment("from", f.From, 0); err != nil {
		return out, err
	}
	out.To, err = moment("to", f.To, 1)
	return out, err
}

func badQuery(err error) error {
	return exchange.Fail(exchange.CodeBadRequest, "%s", exchange.Known(err).Detail)
}

// moment reads a time, or a date, which is one of China.
func moment(name, text string, days int) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if day, err := time.ParseInLocation(time.DateOnly, text, time.FixedZone("UTC+8", 8*60*60)); err == nil {
		return day.AddDate(0, 0, days), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, exchange.Fail(exchange.CodeBadRequest, "%s: a date like 2026-11-27 or a time like 2026-11-27T08:00:00+08:00 is expected", name)
	}
	return at, nil
}

// InboxCount says how much waits in the inbox.
type InboxCount struct {
	Waiting int                      `json:"waiting" doc:"待签收: neither signed for nor returned" example:"3"`
	Urgency map[exchange.Urgency]int `json:"by_urgency"`
	Overdue int                      `json:"overdue" doc:"超期未签收: of them, those whose due_at is over" example:"1"`
	More    bool                     `json:"more" doc:"There are more than are counted here"`
}

func (s *Server) count(ctx context.Context, _ *struct{}) (*body[InboxCount], error) {
	c, err := s.c.Node.CountInbox(ctx, caller(ctx).Agency)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	out := &body[InboxCount]{InboxCount{Waiting: c.Waiting, Urgency: map[exchange.Urgency]int{}, Overdue: c.Overdue, More: c.More}}
	for _, u := range []exchange.Urgency{exchange.Normal, exchange.Urgent, exchange.VeryUrgent} {
		out.Body.Urgency[u] = c.Urgency[u]
	}
	return out, nil
}

// maxBatch bounds the documents of one batch.
const maxBatch = 500

// BatchRequest signs for several documents, each by itself.
type BatchRequest struct {
	Documents []string `json:"documents" minItems:"1" maxItems:"500" doc:"Document ids"`
	Actor     Person   `json:"actor"`
	Opinion   string   `json:"opinion,omitempty" maxLength:"2000" example:"已阅"`
}

// BatchOutcome is what became of one of them: a receipt or a problem.
type BatchOutcome struct {
	Document string         `json:"document" example:"01ARZ3NDEKTSV4RRFFQ69G5FAV"`
	Done     bool           `json:"done"`
	Stage    exchange.Stage `json:"stage,omitempty"`
	StageZH  string         `json:"stage_zh,omitempty" example:"签收"`
	Receipt  []byte         `json:"receipt,omitempty" doc:"The receipt's CMS, base64"`
	Problem  *Problem       `json:"problem,omitempty"`
}

// BatchResult has the outcomes in the order of the documents.
type BatchResult struct {
	Done   int            `json:"done"`
	Failed int            `json:"failed"`
	Items  []BatchOutcome `json:"items"`
}

type batchInput struct {
	Body BatchRequest
}

// batch signs for documents side by side. One that fails stops no other; a repeat
// of the whole gives those that were done the same receipts.
func (s *Server) batch(ctx context.Context, in *batchInput) (*body[BatchResult], error) {
	lang, _ := ctx.Value(languageKey{}).(string)
	out := BatchResult{Items: make([]BatchOutcome, len(in.Body.Documents))}
	action := node.Action{
		Stage: exchange.StageSignedFor, Opinion: in.Body.Opinion,
		Actor: exchange.Actor{Name: in.Body.Actor.Name, Role: in.Body.Actor.Role},
	}
	s.c.Node.Together(len(out.Items), func(i int) {
		one := &out.Items[i]
		one.Document = in.Body.Documents[i]
		receipt, err := s.c.Node.Act(ctx, caller(ctx).Agency, one.Document, action)
		if err != nil {
			one.Problem = problemOf(err, lang)
			return
		}
		one.Done, one.Stage, one.StageZH, one.Receipt = true, action.Stage, action.Stage.Chinese(), receipt
	})
	for _, one := range out.Items {
		if one.Done {
			out.Done++
		} else {
			out.Failed++
		}
	}
	return &body[BatchResult]{out}, nil
}
