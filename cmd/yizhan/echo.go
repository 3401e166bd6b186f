package main

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
	"github.com/yizhan-gateway/yizhan/exchange/node"
)

// An echo agency answers by itself, so that a developer can try every path alone. What
// it does stands in the title of the document that it gets:
//
//	关于…的通知                    signs for it
//	关于…的通知 echo:return 理由   returns it, with the reason
//	关于…的通知 echo:delay 30s     signs for it after that time
//	关于…的通知 echo:ignore        leaves it in the inbox
//
// Its receipts name it as a test, in the place of a person.

// echoActor stands in every receipt of an echo agency.
var echoActor = exchange.Actor{Name: "回声测试 ECHO TEST", Role: "非人工签署"}

const (
	echoDelay = time.Hour // at most
	echoTick  = 500 * time.Millisecond
	echoPage  = 100
)

// echo is the echo agencies of a node.
type echo struct {
	g        *gateway
	agencies []string
	waiting  map[string]time.Time // by agency and document: when it is answered
}

var echoCommand = regexp.MustCompile(`(?i)\becho:(return|delay|ignore)\b\s*(.*)$`)

// testDomain says whether a domain is one to try things in. Elsewhere nobody wants
// documents to be signed for by a machine.
func testDomain(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc([]string{"test", "demo", "测试", "示范", "演示"}, func(s string) bool { return strings.Contains(name, s) })
}

// openEcho refuses agencies of others and domains in earnest.
func (g *gateway) openEcho(agencies []string) (*echo, error) {
	d := g.node.Directory()
	if len(agencies) > 0 && !testDomain(d.Domain()) {
		return nil, exchange.Fail(exchange.CodeForbidden, "--echo signs for documents without a person: it is for domains whose name says test, demo, 测试, 示范 or 演示, and this is %s", d.Domain())
	}
	for _, code := range agencies {
		if a, ok := d.Agency(code); !ok || a.Node != g.node.ID() {
			return nil, exchange.Fail(exchange.CodeNotFound, "--echo %.40q: this node serves no such agency", code)
		}
	}
	return &echo{g: g, agencies: agencies, waiting: map[string]time.Time{}}, nil
}

func (e *echo) run(ctx context.Context) {
	for _, code := range e.agencies {
		e.g.log.Warn("TEST MODE 测试模式: this agency answers by itself", "agency", code)
	}
	for len(e.agencies) > 0 && ctx.Err() == nil {
		for _, code := range e.agencies {
			if err := e.look(ctx, code); err != nil && ctx.Err() == nil {
				e.g.log.Error("an echo agency could not answer and will try again", "agency", code, "error", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(echoTick):
		}
	}
}

// look answers what waits for a signature.
func (e *echo) look(ctx context.Context, agency string) error {
	var failed error
	for after := uint64(0); ; {
		items, next, err := e.g.node.InboxBy(ctx, agency, after, echoPage, node.Filter{State: node.Waiting})
		if err != nil {
			return errors.Join(failed, err)
		}
		for i := range items {
			failed = errors.Join(failed, e.answer(ctx, agency, &items[i]))
		}
		if next == 0 || next == after {
			return failed
		}
		after = next
	}
}

func (e *echo) answer(ctx context.Context, agency string, item *node.InboxItem) error {
	do := node.Action{Stage: exchange.StageSignedFor, Actor: echoActor, Opinion: "echo"}
	if m := echoCommand.FindStringSubmatch(item.Title); m != nil {
		what, rest := strings.ToLower(m[1]), strings.TrimSpace(m[2])
		switch what {
		case "ignore":
			return nil
		case "return":
			if rest == "" {
				rest = "echo:return"
			}
			do.Stage, do.Opinion, do.Reason = exchange.StageReturned, "", rest
		case "delay":
			if e.early(agency+item.ID, rest) {
				return nil
			}
		}
	}
	if err := e.g.node.Collected(ctx, agency, item.ID); err != nil {
		return err
	}
	_, err := e.g.node.Act(ctx, agency, item.ID, do)
	delete(e.waiting, agency+item.ID)
	return err
}

// early says whether a document still waits for its time. After a restart the time
// begins anew.
func (e *echo) early(key, rest string) bool {
	until, ok := e.waiting[key]
	if !ok {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 {
			d = 10 * time.Second
		}
		until = time.Now().Add(min(d, echoDelay))
		e.waiting[key] = until
	}
	return time.Now().Before(until)
}
