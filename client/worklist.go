package client

import (
	"context"
	"net/http"
	"time"
)

// Adopt tells the sender that a document that was signed for is used (采用).
func (c *Client) Adopt(ctx context.Context, document string, a Act) (*Acted, error) {
	return c.act(ctx, document, "adopt", a)
}

// Complete tells the sender that a document that was signed for is dealt with (办结).
func (c *Client) Complete(ctx context.Context, document string, a Act) (*Acted, error) {
	return c.act(ctx, document, "complete", a)
}

// Outcome is what became of one document of several: a receipt, or the problem that
// it would have had alone.
type Outcome struct {
	Document string   `json:"document"`
	Done     bool     `json:"done"`
	Stage    string   `json:"stage"`
	StageZH  string   `json:"stage_zh"`
	Receipt  []byte   `json:"receipt"`
	Problem  *Problem `json:"problem"`
}

// AcceptAll signs for up to 500 documents, each by itself: look at each outcome.
func (c *Client) AcceptAll(ctx context.Context, documents []string, by Person, opinion string) ([]Outcome, error) {
	in := struct {
		Documents []string `json:"documents"`
		Actor     Person   `json:"actor"`
		Opinion   string   `json:"opinion,omitempty"`
	}{documents, by, opinion}
	var out struct {
		Items []Outcome `json:"items"`
	}
	err := c.json(ctx, &call{method: http.MethodPost, path: "/v1/inbox/accept"}, in, &out)
	return out.Items, err
}

// Waiting is how much waits for a signature (待签收). With More it is at least that.
type Waiting struct {
	Waiting int            `json:"waiting"`
	Urgency map[string]int `json:"by_urgency"`
	Overdue int            `json:"overdue"`
	More    bool           `json:"more"`
}

// Waiting counts what waits for a signature.
func (c *Client) Waiting(ctx context.Context) (*Waiting, error) {
	out := new(Waiting)
	return out, c.json(ctx, &call{method: http.MethodGet, path: "/v1/inbox/count"}, nil, out)
}

// Leased are documents that no other worker takes until then.
type Leased struct {
	Items []Received `json:"items"`
	Until time.Time  `json:"until"`
}

// Lease takes documents that wait, at most limit (1 to 100), for a while (1 second to
// an hour), so that several workers share an inbox. A lease ends when its document is
// signed for, returned or released; the node forgets it when it is started again.
func (c *Client) Lease(ctx context.Context, limit int, d time.Duration) (*Leased, error) {
	in := struct {
		Limit   int `json:"limit"`
		Seconds int `json:"seconds"`
	}{limit, int(d / time.Second)}
	out := new(Leased)
	return out, c.json(ctx, &call{method: http.MethodPost, path: "/v1/inbox/lease"}, in, out)
}

// Release gives leased documents back, and says how many were.
func (c *Client) Release(ctx context.Context, documents ...string) (int, error) {
	in := struct {
		Documents []string `json:"documents"`
	}{documents}
	var out struct {
		Released int `json:"released"`
	}
	err := c.json(ctx, &call{method: http.MethodPost, path: "/v1/inbox/release"}, in, &out)
	return out.Released, err
}
