package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"os"
	"path/filepath"
)

// File is one file of a document. Open is called at each try, and what it gives
// is read once from its beginning and closed; a Size below zero is not known. The
// first file of a document is its body, the others are attachments.
type File struct {
	Name string
	Type string // media type; empty: by the name
	Size int64
	Open func() (io.ReadCloser, error)
}

// FileAt is a file on disk. A file that is changed meanwhile fails the call.
func FileAt(path string) File {
	f := File{Name: filepath.Base(path), Size: -1, Open: func() (io.ReadCloser, error) { return os.Open(path) }}
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		f.Size = info.Size()
	}
	return f
}

// FileOf is a file in memory.
func FileOf(name string, content []byte) File {
	return File{Name: name, Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}}
}

// upload is the multipart body of a submission; it can be made again and is the
// same each time.
type upload struct {
	metadata []byte
	files    []File
	boundary string
}

func newUpload(d *Document, files []File) (*upload, error) {
	b, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	for i, f := range files {
		if f.Open == nil {
			return nil, fmt.Errorf("client: file %d has no Open", i)
		}
	}
	return &upload{b, files, multipart.NewWriter(io.Discard).Boundary()}, nil
}

func (u *upload) contentType() string {
	return mime.FormatMediaType("multipart/form-data", map[string]string{"boundary": u.boundary})
}

// open begins to write the body; its length is known when those of the files are.
func (u *upload) open() (io.ReadCloser, int64, error) {
	size, err := u.size()
	if err != nil {
		return nil, 0, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(u.write(w, true)) }()
	return r, size, nil
}

func (u *upload) size() (int64, error) {
	var frame counter
	if err := u.write(&frame, false); err != nil {
		return 0, err
	}
	size := int64(frame)
	for _, f := range u.files {
		if f.Size < 0 {
			return -1, nil
		}
		size += f.Size
	}
	return size, nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func (u *upload) write(w io.Writer, content bool) error {
	form := multipart.NewWriter(w)
	if err := form.SetBoundary(u.boundary); err != nil {
		return err
	}
	part, err := form.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {`form-data; name="document"`}, "Content-Type": {"application/json"},
	})
	if err != nil {
		return err
	}
	if _, err := part.Write(u.metadata); err != nil {
		return err
	}
	for i := range u.files {
		role := "attachment"
		if i == 0 {
			role = "body"
		}
		if err := u.files[i].write(form, role, content); err != nil {
			return err
		}
	}
	return form.Close()
}

func (f *File) write(form *multipart.Writer, role string, content bool) error {
	media := f.Type
	if media == "" {
		media = mime.TypeByExtension(filepath.Ext(f.Name))
	}
	if media == "" {
		media = "application/octet-stream"
	}
	part, err := form.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {multipart.FileContentDisposition(role, f.Name)}, "Content-Type": {media},
	})
	if err != nil || !content {
		return err
	}
	in, err := f.Open()
	if err != nil {
		return &localError{err}
	}
	n, err := io.Copy(part, in)
	if err = errors.Join(err, in.Close()); err != nil {
		return err
	}
	if f.Size >= 0 && n != f.Size {
		return &localError{fmt.Errorf("client: a %s has %d bytes and not %d: it was changed meanwhile", role, n, f.Size)}
	}
	return nil
}
