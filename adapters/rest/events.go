package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// The event stream is the node's ledger, as far as it concerns an agency. An id is a
// place in it, so a client that comes back with Last-Event-ID misses nothing,
// whatever ended in between. After a node was restored comes "reset", and what came
// since the copy.
const (
	streamsPerAgency = 8
	streamsInAll     = 512
	heartbeat        = 15 * time.Second
	gather           = 50 * time.Millisecond // of commits before the next look
	eventsAtOnce     = 500
)

// EventData is what an event says.
type EventData struct {
	Document string         `json:"document"`
	Stage    exchange.Stage `json:"stage,omitempty"`
	StageZH  string         `json:"stage_zh,omitempty"`
	Receipt  sm.Digest      `json:"receipt,omitzero"`
	Kind     exchange.Wish  `json:"kind,omitempty"`
	KindZH   string         `json:"kind_zh,omitempty"`
	Request  sm.Digest      `json:"request,omitzero"`
	Time     time.Time      `json:"time"`
}

func eventOf(h *node.Happening) (name string, d EventData) {
	d = EventData{Document: h.Document, Time: h.Time}
	if h.Kind == node.HappenedRequest {
		d.Kind, d.KindZH, d.Request = h.Wish, h.Wish.Chinese(), h.Object
		return "request", d
	}
	d.Stage, d.StageZH, d.Receipt = h.Stage, h.Stage.Chinese(), h.Object
	if h.Kind == node.HappenedReceived {
		return "arrived", d
	}
	return "receipt", d
}

// openStreams counts the streams of each agency.
type openStreams struct {
	mu  sync.Mutex
	all int
	of  map[string]int
}

func (o *openStreams) enter(agency string) (leave func(), err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.of[agency] >= streamsPerAgency {
		return nil, exchange.Fail(exchange.CodeRateLimited, "an agency may hold %d event streams", streamsPerAgency)
	}
	if o.all >= streamsInAll {
		return nil, exchange.Fail(exchange.CodeTemporary, "too many event streams are open")
	}
	if o.of == nil {
		o.of = map[string]int{}
	}
	o.all++
	o.of[agency]++
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.all--
		if o.of[agency]--; o.of[agency] == 0 {
			delete(o.of, agency)
		}
	}, nil
}

// stream is one open event stream.
type stream struct {
	w     http.ResponseWriter
	flush func() error
}

func (t *stream) write(format string, args ...any) error {
	if _, err := fmt.Fprintf(t.w, format, args...); err != nil {
		return err
	}
	return t.flush()
}

func (t *stream) send(h *node.Happening) error {
	name, data := eventOf(h)
	b, err := json.Marshal(data)
	if err != nil {
		return err
	}
	return t.write("id: %s\nevent: %s\ndata: %s\n\n", h.At, name, b)
}

// follow streams what happens until the caller or the node goes.
func (s *Server) follow(w http.ResponseWriter, r *http.Request) error {
	agency := caller(r.Context()).Agency
	from, reset, err := s.resume(r)
	if err != nil {
		return err
	}
	leave, err := s.open.enter(agency)
	if err != nil {
		return err
	}
	defer leave()
	conn := http.NewResponseController(w)
	t := &stream{&patient{w, conn.SetWriteDeadline, s.c.Silence}, conn.Flush}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy before the node passes events on as they come
	first := ": yizhan\n\n"
	if reset {
		first = "event: reset\ndata: {}\n\n"
	}
	if t.write("%s", first) != nil {
		return nil // the client is gone
	}
	if err := s.tail(r.Context(), t, agency, from); err != nil {
		s.c.Logger.Error("an event stream was cut off", "error", err)
	}
	return nil
}

// resume says where a stream begins: behind the last event that the client saw, else
// at the end.
func (s *Server) resume(r *http.Request) (from node.Position, reset bool, err error) {
	last := r.Header.Get("Last-Event-ID")
	if last == "" {
		last = r.URL.Query().Get("after")
	}
	if last == "" {
		from, err = s.c.Node.Newest(r.Context())
		return from, false, err
	}
	from, err = node.ParsePosition(last)
	return from, from.Ledger != s.c.Node.LedgerID(), err
}

func (s *Server) tail(ctx context.Context, t *stream, agency string, from node.Position) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		changed := s.c.Node.Changed()
		list, upto, err := s.c.Node.Happenings(ctx, agency, from, eventsAtOnce)
		if err != nil {
			return err
		}
		for i := range list {
			if t.send(&list[i]) != nil {
				return nil // the client is gone
			}
		}
		if upto != from {
			from = upto
			continue
		}
		select {
		case <-changed:
			select {
			case <-time.After(gather):
			case <-ctx.Done():
			}
		case <-beat.C:
			if t.write(": -\n\n") != nil {
				return nil
			}
		case <-s.c.Ending:
			return nil
		case <-ctx.Done():
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

func describeEvents(op *huma.Operation) {
	op.Parameters = append(op.Parameters,
		headerParam("Last-Event-ID", "The id of the last event that was seen: what came since is given first, nothing is left out"),
		&huma.Param{Name: "after", In: "query", Description: "The same, for clients that cannot set the header", Schema: &huma.Schema{Type: huma.TypeString}})
	op.Responses["200"] = content("Server-sent events · 事件流", "text/event-stream")
}
