package rest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// listener is an open event stream.
type listener struct {
	o     *office
	lines *bufio.Scanner
	end   func()
}

type heard struct {
	id, name string
	data     EventData
}

func (o *office) listen(who, last string) *listener {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), time.Minute)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.url+"/v1/events", nil)
	o.must(err)
	req.Header.Set("Authorization", "Bearer "+o.keys[who])
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	res, err := http.DefaultClient.Do(req)
	o.must(err)
	if res.StatusCode != http.StatusOK {
		cancel()
		res.Body.Close()
		return &listener{end: func() {}}
	}
	if operation := described(o.t, req, &answer{status: res.StatusCode, header: res.Header}); o.seen != nil {
		o.seen(operation, &answer{status: res.StatusCode})
	}
	l := &listener{o, bufio.NewScanner(res.Body), func() { cancel(); res.Body.Close() }}
	o.t.Cleanup(l.end)
	return l
}

// next is the next event.
func (l *listener) next() (h heard) {
	l.o.t.Helper()
	for l.lines.Scan() {
		name, value, _ := strings.Cut(l.lines.Text(), ": ")
		switch name {
		case "id":
			h.id = value
		case "event":
			h.name = value
		case "data":
			l.o.must(json.Unmarshal([]byte(value), &h.data))
		case "":
			if h.name != "" {
				return h
			}
		}
	}
	l.o.t.Fatal("the stream ended")
	return h
}

func (l *listener) until(name string, stage exchange.Stage) (h heard) {
	l.o.t.Helper()
	for h.name != name || h.data.Stage != stage {
		h = l.next()
	}
	return h
}

// TestEvents: both sides hear what concerns them, in its order; a stream that comes
// back with the last id it saw has all that it missed, and nothing twice.
func TestEvents(t *testing.T) {
	o := newOffice(t, 0)
	mine, theirs := o.listen("jia", ""), o.listen("yi", "")
	id := o.sent("1")
	if h := theirs.next(); h.name != "arrived" || h.data.Document != id || h.data.Stage != exchange.StageDelivered {
		t.Errorf("first the recipient hears %+v", h)
	}
	accepted := mine.until("receipt", exchange.StageAccepted)
	mine.end()
	o.ok(o.posted("jia", "/v1/documents/"+id+"/remind", someone))
	if h := theirs.next(); h.name != "request" || h.data.Kind != exchange.WishRemind || h.data.Document != id {
		t.Errorf("then %+v", h)
	}
	o.ok(o.posted("yi", "/v1/inbox/"+id+"/accept", someone))
	theirs.until("receipt", exchange.StageSignedFor)

	var seen []string
	again, last := o.listen("jia", accepted.id), accepted.id
	for h := again.next(); ; h = again.next() {
		seen = append(seen, fmt.Sprint(h.name, h.data.Stage, h.data.Kind))
		behind := o.listen("jia", last) // wherever it ended
		if first := behind.next(); first != h {
			t.Errorf("behind %s comes %+v, not %+v", last, first, h)
		}
		behind.end()
		last = h.id
		if h.data.Stage == exchange.StageSignedFor {
			break
		}
	}
	if want := "[receiptDELIVERED requestREMIND receiptSIGNED_FOR]"; fmt.Sprint(seen) != want {
		t.Errorf("it had missed %v, want %s", seen, want)
	}
	if h := o.listen("yi", "01ARZ3NDEKTSV4RRFFQ69G5FAV-7").next(); h.name != "reset" {
		t.Errorf("with an id of another ledger: %+v", h)
	}
	if a := o.do("jia", http.MethodGet, "/v1/events?after=x", nil, nil); a.status != 400 || a.problem().Code != exchange.CodeBadRequest {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestEventStreamsAreBounded: one agency takes no more than its share, and gets it
// back when a stream ends.
func TestEventStreamsAreBounded(t *testing.T) {
	var open openStreams
	var leave []func()
	for range streamsPerAgency {
		l, err := open.enter("jia")
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	if _, err := open.enter("jia"); exchange.CodeOf(err) != exchange.CodeRateLimited {
		t.Errorf("one more: %v", err)
	}
	if _, err := open.enter("yi"); err != nil {
		t.Errorf("another agency: %v", err)
	}
	leave[0]()
	if _, err := open.enter("jia"); err != nil {
		t.Errorf("after one ended: %v", err)
	}
}

// TestLeases: two workers get different documents; what is released or late comes
// again, what is signed for does not.
func TestLeases(t *testing.T) {
	o := newOffice(t, 0)
	one, two, three := o.sent("1"), o.sent("2"), o.sent("3")
	lease := func(body string) string {
		t.Helper()
		got := into[Leased](o, o.posted("yi", "/v1/inbox/lease", body))
		return fmt.Sprint(ids(list[Received]{Items: got.Items}))
	}
	if got := lease(`{"limit":2}`); got != fmt.Sprint([]string{one, two}) {
		t.Fatalf("leased %s", got)
	}
	if got := lease(`{"limit":2,"seconds":3600}`); got != fmt.Sprint([]string{three}) {
		t.Errorf("another worker leased %s", got)
	}
	o.ok(o.posted("yi", "/v1/inbox/"+one+"/accept", someone))
	if got := into[Released](o, o.posted("yi", "/v1/inbox/release", fmt.Sprintf(`{"documents":[%q,%q,%q]}`, one, two, exampleID))); got.Released != 2 {
		t.Errorf("released %d", got.Released)
	}
	under := func() string {
		a := o.do("yi", http.MethodPost, "/v1/inbox/lease", strings.NewReader(`{}`), map[string]string{"Content-Type": "application/json", "Idempotency-Key": "l"})
		return fmt.Sprint(ids(list[Received]{Items: into[Leased](o, a).Items}))
	}
	if first, again := under(), under(); first != fmt.Sprint([]string{two}) || again != first {
		t.Errorf("under a key leased %s, then %s", first, again)
	}
	// Their time is over.
	o.rest.leased.mu.Lock()
	for id, l := range o.rest.leased.of[o.yi] {
		l.until = time.Time{}
		o.rest.leased.of[o.yi][id] = l
	}
	o.rest.leased.mu.Unlock()
	if got := lease(`{}`); got != fmt.Sprint([]string{two, three}) {
		t.Errorf("afterwards leased %s", got)
	}
}
