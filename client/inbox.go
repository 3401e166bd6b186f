package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Received is one document in the inbox. Seq is its place there: who remembers the
// last one goes on behind it.
type Received struct {
	Seq        uint64         `json:"seq"`
	Document   string         `json:"document"`
	Header     string         `json:"header"`
	Sender     string         `json:"sender"`
	SenderName string         `json:"sender_name"`
	Title      string         `json:"title"`
	Number     string         `json:"number"`
	Label      string         `json:"label"`
	LabelZH    string         `json:"label_zh"`
	Urgency    string         `json:"urgency"`
	Mark       string         `json:"urgency_mark"` // the grade of a telegram, where Urgency does not say it
	Kind       string         `json:"kind"`
	DueAt      string         `json:"due_at"`
	Copies     *Copies        `json:"copies"` // 份号 meant for this agency
	Print      int64          `json:"print_quota"`
	Received   time.Time      `json:"received"`
	Stage      string         `json:"stage"`
	StageZH    string         `json:"stage_zh"`
	RelatesTo  string         `json:"relates_to"`
	Reminders  int            `json:"reminders"`
	Reminded   *time.Time     `json:"reminded"`
	Files      []ReceivedFile `json:"files"`
}

// ReceivedFile describes one file of a received document.
type ReceivedFile struct {
	Index int    `json:"index"`
	Role  string `json:"role"`
	Name  string `json:"name"`
	Type  string `json:"type"`
	Size  int64  `json:"size"`
	SM3   string `json:"sm3"`
}

// The longest that a node waits for a document, and how many it gives at once.
const (
	longestPoll = 25 * time.Second
	pollBatch   = 100
)

// Inbox gives received documents in their order, behind the place after (0: from the
// first on), and waits for further ones until the context ends, which ends it
// without an error. An error that stays after all tries is given last.
func (c *Client) Inbox(ctx context.Context, after uint64) iter.Seq2[*Received, error] {
	return func(yield func(*Received, error) bool) {
		for {
			list, err := c.InboxPage(ctx, after, pollBatch, longestPoll)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range list {
				after = list[i].Seq
				if !yield(&list[i], nil) {
					return
				}
			}
		}
	}
}

// InboxPage gives at most limit documents (1 to 500) behind a place. When there is
// none it waits for one, at most 25 seconds.
func (c *Client) InboxPage(ctx context.Context, after uint64, limit int, wait time.Duration) ([]Received, error) {
	wait = min(max(wait, 0), longestPoll).Truncate(time.Second)
	var out struct {
		Items []Received `json:"items"`
	}
	q := &call{method: http.MethodGet, path: "/v1/inbox", timeout: wait + answerTime, query: url.Values{
		"after": {strconv.FormatUint(after, 10)}, "limit": {number(limit)}, "wait": {number(int(wait / time.Second))},
	}}
	err := c.json(ctx, q, nil, &out)
	return out.Items, err
}

// Get gives one received document.
func (c *Client) Get(ctx context.Context, document string) (*Received, error) {
	out := new(Received)
	return out, c.json(ctx, &call{method: http.MethodGet, path: inboxPath(document)}, nil, out)
}

func inboxPath(document string, more ...string) string {
	path := "/v1/inbox/" + url.PathEscape(document)
	for _, m := range more {
		path += "/" + m
	}
	return path
}

// Act is signing for a document or returning it.
type Act struct {
	Actor   Person `json:"actor"`
	Opinion string `json:"opinion,omitempty"` // only the sender can read it
	Number  string `json:"number,omitempty"`  // 收文号
	Reason  string `json:"reason,omitempty"`  // why it is returned
}

// Acted is the receipt that an act made: the same bytes at every repetition.
type Acted struct {
	Document string `json:"document"`
	Stage    string `json:"stage"`
	StageZH  string `json:"stage_zh"`
	Receipt  []byte `json:"receipt"`
}

// Accept signs for a document (签收).
func (c *Client) Accept(ctx context.Context, document string, a Act) (*Acted, error) {
	return c.act(ctx, document, "accept", a)
}

// Return returns a document (退文); Reason is needed.
func (c *Client) Return(ctx context.Context, document string, a Act) (*Acted, error) {
	return c.act(ctx, document, "return", a)
}

func (c *Client) act(ctx context.Context, document, what string, a Act) (*Acted, error) {
	out := new(Acted)
	return out, c.json(ctx, &call{method: http.MethodPost, path: inboxPath(document, what)}, a, out)
}
