package client

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Uploaded is a file that lies, sealed, on the node until a document names it.
type Uploaded struct {
	ID   string
	Name string
	Type string
}

// errNotUploads is an answer that does not speak of uploads.
var errNotUploads = errors.New("client: the answer is not that of a Yizhan node that takes uploads")

// Upload hands in one file by the tus protocol: for documents that are larger than
// what a node takes at once (32 MiB, unless its operator says otherwise). What has
// arrived stays when the network breaks, and it goes on behind it. The file's size
// has to be known. A file that no document names ends by itself.
func (c *Client) Upload(ctx context.Context, f File) (*Uploaded, error) {
	if f.Open == nil || f.Size <= 0 {
		return nil, errors.New("client: a file to be uploaded has Open, and a size that is known")
	}
	u := &Uploaded{Name: f.Name, Type: f.media()}
	res, err := c.do(ctx, &call{method: http.MethodPost, path: "/v1/uploads", header: http.Header{
		"Tus-Resumable": {"1.0.0"}, "Upload-Length": {strconv.FormatInt(f.Size, 10)},
		"Upload-Metadata": {"filename " + encoded(f.Name) + ",filetype " + encoded(u.Type)},
	}})
	if err != nil {
		return nil, err
	}
	location := res.Header.Get("Location")
	u.ID = location[strings.LastIndexByte(location, '/')+1:]
	if err := res.Body.Close(); err != nil || u.ID == "" || strings.ContainsAny(u.ID, "?#.%") {
		return nil, errors.Join(errNotUploads, err)
	}
	return u, c.fill(ctx, u, &f)
}

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// fill sends a file, from wherever the node says it ended, until it is whole. Tries
// count from the last that brought it further.
func (c *Client) fill(ctx context.Context, u *Uploaded, f *File) error {
	for at, try := int64(0), 1; at < f.Size; try++ {
		err := c.add(ctx, u, f, at)
		if err != nil && (!mayGoOn(err) || ctx.Err() != nil || try >= c.c.Tries || sleep(ctx, pause(try)) != nil) {
			return err
		}
		now, lost := c.arrived(ctx, u)
		if lost != nil {
			return errors.Join(err, lost)
		}
		if now > at {
			try = 0
		}
		at = now
	}
	return nil
}

// mayGoOn says whether an upload that broke off may go on: also when the node says
// that it ends elsewhere, or that an earlier request still adds to it.
func mayGoOn(err error) bool {
	var p *Problem
	return again(err) || errors.As(err, &p) && (p.Status == http.StatusConflict || p.Status == http.StatusLocked)
}

func uploadPath(u *Uploaded) string { return "/v1/uploads/" + url.PathEscape(u.ID) }

// add is one try to send all that is missing.
func (c *Client) add(ctx context.Context, u *Uploaded, f *File, at int64) error {
	res, err := c.once(ctx, &call{
		method: http.MethodPatch, path: uploadPath(u), long: true,
		header: http.Header{
			"Tus-Resumable": {"1.0.0"}, "Upload-Offset": {strconv.FormatInt(at, 10)}, "Content-Type": {"application/offset+octet-stream"},
		},
		body: func() (io.ReadCloser, int64, error) {
			in, err := f.Open()
			if err != nil {
				return nil, 0, err
			}
			if err := skip(in, at); err != nil {
				return nil, 0, errors.Join(err, in.Close())
			}
			return in, f.Size - at, nil
		},
	})
	if err != nil {
		return err
	}
	return res.Body.Close()
}

func skip(in io.Reader, n int64) (err error) {
	if s, ok := in.(io.Seeker); ok {
		_, err = s.Seek(n, io.SeekStart)
	} else {
		_, err = io.CopyN(io.Discard, in, n)
	}
	return err
}

// arrived asks how much of a file the node has.
func (c *Client) arrived(ctx context.Context, u *Uploaded) (int64, error) {
	res, err := c.do(ctx, &call{method: http.MethodHead, path: uploadPath(u), header: http.Header{"Tus-Resumable": {"1.0.0"}}})
	if err != nil {
		return 0, err
	}
	at, err := strconv.ParseInt(res.Header.Get("Upload-Offset"), 10, 64)
	if err != nil || at < 0 {
		err = errNotUploads
	}
	return at, errors.Join(err, res.Body.Close())
}

type uploadedFile struct {
	Upload string `json:"upload"`
	Role   string `json:"role"`
	Name   string `json:"name,omitempty"`
	Type   string `json:"type,omitempty"`
}

// SubmitUploaded hands in a document whose files were uploaded before; the first is
// its body.
func (c *Client) SubmitUploaded(ctx context.Context, d *Document, files []*Uploaded, options ...Option) (*Sent, error) {
	in := struct {
		Document *Document      `json:"document"`
		Files    []uploadedFile `json:"files"`
	}{Document: d}
	for i, f := range files {
		in.Files = append(in.Files, uploadedFile{f.ID, roleOf(i), f.Name, f.Type})
	}
	q := &call{method: http.MethodPost, path: "/v1/documents", timeout: sealTime}
	return c.sent(ctx, q.with(options), in)
}
