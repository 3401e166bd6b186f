package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// maxLine bounds one object of an answer.
const maxLine = 16 << 20

// Client asks a running node.
type Client struct{ http *http.Client }

// Dial finds the node that runs on a data directory; ErrNotRunning when there
// is none.
func Dial(ctx context.Context, dataDir string) (*Client, error) {
	c, err := dial(ctx, dataDir)
	if err != nil {
		return nil, err
	}
	if err := c.Close(); err != nil {
		return nil, err
	}
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, dataDir) }}
	return &Client{&http.Client{Transport: t}}, nil
}

// Close lets the connection go.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// Call asks a route. in is the request's body, nil for none; the result is
// decoded into out, unless that is nil. progress, if not nil, gets what the node reports
// on the way. The error is the one that the node's handler returned.
func (c *Client) Call(ctx context.Context, method, path string, in, out any, progress func(json.RawMessage)) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	q, err := http.NewRequestWithContext(ctx, method, "http://node"+path, body)
	if err != nil {
		return err
	}
	res, err := c.http.Do(q)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return read(res.Body, out, progress)
}

// answered is a line as it is read.
type answered struct {
	Progress json.RawMessage `json:"progress"`
	Result   json.RawMessage `json:"result"`
	Problem  *problem        `json:"problem"`
}

func read(r io.Reader, out any, progress func(json.RawMessage)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var l answered
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("control: the node's answer: %w", err)
		}
		switch {
		case l.Problem != nil:
			return l.Problem.err()
		case l.Result != nil && out == nil:
			return nil
		case l.Result != nil:
			return json.Unmarshal(l.Result, out)
		case progress != nil && l.Progress != nil:
			progress(l.Progress)
		}
	}
	return errors.Join(errors.New("control: the node's answer was cut off"), lines.Err())
}
