package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// Download is a file of a received document while it is read. A connection that
// breaks is made again, and it goes on where it was; it is whole when Read gives
// io.EOF, and only then. Name is never a path. SM3 is of the whole file, as the
// sender signed it.
type Download struct {
	Name string
	Type string
	Size int64 // of the whole file
	SM3  string

	ctx    context.Context
	c      *Client
	path   string
	etag   string
	at     int64
	end    int64 // behind the last byte that is wanted
	tries  int
	body   io.ReadCloser
	failed error
}

// File opens a file of a received document, 0 being its body. Reading it is
// collecting the document (取件), for which the node signs a receipt.
func (c *Client) File(ctx context.Context, document string, index int) (*Download, error) {
	return c.FileRange(ctx, document, index, 0, -1)
}

// FileRange opens length bytes of a file from an offset on; a negative length is all
// that follow. So a download goes on that an earlier process began.
func (c *Client) FileRange(ctx context.Context, document string, index int, offset, length int64) (*Download, error) {
	if index < 0 || offset < 0 || length == 0 {
		return nil, errors.New("client: a file and bytes of it are expected")
	}
	d := &Download{ctx: ctx, c: c, path: inboxPath(document, "files", strconv.Itoa(index)), at: offset, end: -1}
	if length > 0 {
		d.end = offset + length
	}
	res, err := d.open()
	if err != nil {
		return nil, err
	}
	if err := d.describe(res, index); err != nil {
		return nil, errors.Join(err, res.Body.Close())
	}
	d.body = res.Body
	return d, nil
}

// open asks for what is still wanted.
func (d *Download) open() (*http.Response, error) {
	q := &call{method: http.MethodGet, path: d.path, long: true, header: http.Header{}}
	if d.at > 0 || d.end >= 0 {
		last := ""
		if d.end >= 0 {
			last = strconv.FormatInt(d.end-1, 10)
		}
		q.header.Set("Range", fmt.Sprintf("bytes=%d-%s", d.at, last))
	}
	if d.etag != "" {
		q.header.Set("If-Match", d.etag)
	}
	res, err := d.c.do(d.ctx, q)
	if err == nil && d.at > 0 && res.StatusCode != http.StatusPartialContent {
		return nil, errors.Join(errors.New("client: the node did not go on where it was asked to"), res.Body.Close())
	}
	return res, err
}

func (d *Download) describe(res *http.Response, index int) error {
	d.etag, d.SM3, d.Type = res.Header.Get("Etag"), res.Header.Get("Yizhan-Sm3"), res.Header.Get("Content-Type")
	d.Name = safeName(res.Header.Get("Content-Disposition"), index)
	d.Size = res.ContentLength
	if res.StatusCode == http.StatusPartialContent {
		_, total, _ := strings.Cut(res.Header.Get("Content-Range"), "/")
		size, err := strconv.ParseInt(total, 10, 64)
		if err != nil {
			return errors.New("client: the answer does not say how large the file is")
		}
		d.Size = size
	}
	if d.Size < 0 || d.etag == "" {
		return errors.New("client: the answer is not that of a Yizhan node")
	}
	if d.end < 0 || d.end > d.Size {
		d.end = d.Size
	}
	return nil
}

// safeName gives the name of a file, or one of our own where it would lead elsewhere.
func safeName(disposition string, index int) string {
	_, params, err := mime.ParseMediaType(disposition)
	name := params["filename"]
	if err != nil || name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") {
		return "file-" + strconv.Itoa(index)
	}
	return name
}

// Read gives the next bytes; it asks again when a connection breaks.
func (d *Download) Read(p []byte) (int, error) {
	for {
		if d.failed != nil {
			return 0, d.failed
		}
		if d.at >= d.end {
			return 0, io.EOF
		}
		if d.body == nil {
			d.reopen()
			continue
		}
		n, err := d.body.Read(p[:min(int64(len(p)), d.end-d.at)])
		d.at += int64(n)
		if err != nil {
			_ = d.body.Close() // what was wrong with it is known
			d.body = nil
			d.broke(err, n)
		}
		if n > 0 {
			d.tries = 0
			return n, nil
		}
	}
}

// broke notes that a body ended; where it should have, nothing is wrong.
func (d *Download) broke(err error, n int) {
	if d.at >= d.end {
		return
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if d.tries++; n == 0 && d.tries >= d.c.c.Tries || d.ctx.Err() != nil {
		d.failed = err
	}
}

func (d *Download) reopen() {
	if d.tries > 0 && sleep(d.ctx, pause(d.tries)) != nil {
		d.failed = d.ctx.Err()
		return
	}
	res, err := d.open()
	if err != nil {
		d.failed = err
		return
	}
	d.body = res.Body
}

// Close ends the download, whole or not.
func (d *Download) Close() error {
	if d.failed == nil && d.at < d.end {
		d.failed = errors.New("client: the download is closed")
	}
	if d.body == nil {
		return nil
	}
	err := d.body.Close()
	d.body = nil
	return err
}
