package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// Problem is what a node refuses a call with (RFC 9457). Code is stable and for
// programs; the texts are for people.
type Problem struct {
	Status  int     `json:"status"`
	Code    string  `json:"code"`
	Title   string  `json:"title"`
	Detail  string  `json:"detail"`
	Fix     string  `json:"fix"`
	TitleZH string  `json:"title_zh"`
	FixZH   string  `json:"fix_zh"`
	TitleEN string  `json:"title_en"`
	FixEN   string  `json:"fix_en"`
	Errors  []Fault `json:"errors"` // all that is wrong with a document

	RetryAfter time.Duration `json:"-"` // what the node asks to wait; 0: nothing
}

// Fault is what is wrong with one field of a document, or strange about it.
type Fault struct {
	Field    string `json:"field"`
	Code     string `json:"code"`
	Detail   string `json:"detail"`
	DetailZH string `json:"detail_zh"`
}

// Error gives code, title and detail.
func (p *Problem) Error() string {
	msg := fmt.Sprintf("%s (%d): %s", p.Code, p.Status, p.Title)
	if p.Detail != "" {
		msg += ": " + p.Detail
	}
	return msg
}

// IsCode says whether err is a Problem with this code.
func IsCode(err error, code string) bool {
	var p *Problem
	return errors.As(err, &p) && p.Code == code
}

// codeForeign marks an answer that is not a node's: of a proxy, for instance.
const codeForeign = "not_a_node"

// problemOf reads the problem of a response. One that holds none is the answer of
// something in between; nothing of its text is shown.
func problemOf(res *http.Response) *Problem {
	p := &Problem{}
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	b, err := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	if err != nil || media != "application/problem+json" || json.Unmarshal(b, p) != nil || p.Code == "" {
		p = &Problem{Code: codeForeign, Title: "the answer is not that of a Yizhan node"}
	}
	p.Status = res.StatusCode
	if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && s > 0 && s <= 1<<20 {
		p.RetryAfter = time.Duration(s) * time.Second
	}
	return p
}
