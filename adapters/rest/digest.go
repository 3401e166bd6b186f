package rest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"hash"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humamux"

	"github.com/yizhan-gateway/yizhan/crypto/envelope"
	"github.com/yizhan-gateway/yizhan/crypto/sm"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// Digests as RFC 9530 has them, with sm3 beside the registered names. What comes
// with one is held against it before anything is accepted; names that are not
// known here are left alone.
var digesters = map[string]func() hash.Hash{
	"sha-256": sha256.New, "sha-512": sha512.New, "sm3": func() hash.Hash { return sm.New() },
}

const maxDigests = 1 << 10 // bytes of a header

// expected is what a body has to come to.
type expected struct {
	want   map[string][]byte
	have   map[string]hash.Hash
	header string
}

// digestsOf reads Content-Digest and Repr-Digest, which are the same for a body
// without a content coding; nil when there is neither.
func digestsOf(header interface{ Get(string) string }) (*expected, error) {
	var e *expected
	for _, name := range []string{"Content-Digest", "Repr-Digest"} {
		text := header.Get(name)
		if text == "" {
			continue
		}
		if e == nil {
			e = &expected{want: map[string][]byte{}, have: map[string]hash.Hash{}, header: name}
		}
		if err := e.add(name, text); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *expected) add(name, text string) error {
	bad := exchange.Fail(exchange.CodeBadRequest, "%s: sha-256=:base64: or sm3=:base64: is expected", name)
	if len(text) > maxDigests {
		return bad
	}
	for one := range strings.SplitSeq(text, ",") {
		algorithm, value, ok := strings.Cut(strings.TrimSpace(one), "=")
		if !ok || len(value) < 2 || value[0] != ':' || value[len(value)-1] != ':' {
			return bad
		}
		make := digesters[algorithm]
		if make == nil {
			continue
		}
		sum, err := base64.StdEncoding.DecodeString(value[1 : len(value)-1])
		h := make()
		if err != nil || len(sum) != h.Size() {
			return bad
		}
		if before, twice := e.want[algorithm]; twice && !bytes.Equal(before, sum) {
			return exchange.Fail(exchange.CodeDigestMismatch, "two values of %s", algorithm)
		}
		e.want[algorithm], e.have[algorithm] = sum, h
	}
	return nil
}

func (e *expected) write(p []byte) {
	if e != nil {
		for _, h := range e.have {
			h.Write(p)
		}
	}
}

// check compares, when the body has come to its end.
func (e *expected) check(what string) error {
	if e == nil {
		return nil
	}
	for _, algorithm := range slices.Sorted(maps.Keys(e.want)) {
		if !bytes.Equal(e.have[algorithm].Sum(nil), e.want[algorithm]) {
			return exchange.Fail(exchange.CodeDigestMismatch, "%s of %s", algorithm, what)
		}
	}
	return nil
}

// digested is a body that is held against its digests at its end.
type digested struct {
	io.ReadCloser
	e    *expected
	what string
}

func (d *digested) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	d.e.write(p[:n])
	if errors.Is(err, io.EOF) {
		if bad := d.e.check(d.what); bad != nil {
			return n, bad
		}
	}
	return n, err
}

// withDigests makes a request's body fail at its end when it is not what the
// digests say.
func withDigests(r *http.Request) error {
	e, err := digestsOf(r.Header)
	if err == nil && e != nil {
		r.Body = &digested{r.Body, e, "the body"}
	}
	return err
}

// readDigested reads the body of an act that comes with a digest before the act.
func (s *Server) readDigested(ctx huma.Context, next func(huma.Context)) {
	r, w := humamux.Unwrap(ctx)
	e, err := digestsOf(r.Header)
	if e != nil && err == nil {
		var b []byte
		if b, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxJSON)); err == nil {
			e.write(b)
			err = e.check("the body")
			r.Body = io.NopCloser(bytes.NewReader(b))
		}
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	next(ctx)
}

// digestField is the value of Repr-Digest and Content-Digest.
func digestField(sha, sm3 []byte) string {
	var all []string
	if sha != nil {
		all = append(all, "sha-256=:"+base64.StdEncoding.EncodeToString(sha)+":")
	}
	return strings.Join(append(all, "sm3=:"+base64.StdEncoding.EncodeToString(sm3)+":"), ", ")
}

// shaSums keeps the SHA-256 of files by their SM3, which is what a manifest has.
type shaSums struct {
	mu sync.Mutex
	of map[sm.Digest][]byte
}

const (
	maxSums    = 4096
	sumUnasked = 4 << 20 // a file up to this size is read for its SHA-256 without being asked
)

// wantsSHA says whether a caller asks for the SHA-256 of what it fetches.
func wantsSHA(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Want-Repr-Digest"), "sha-256") || strings.Contains(r.Header.Get("Want-Content-Digest"), "sha-256")
}

// shaOf gives the SHA-256 of a file, which is read for it unless it is remembered;
// nil when it cannot be, as the answer itself will say.
func (s *Server) shaOf(ctx context.Context, opened *envelope.Opened, n int) []byte {
	id := opened.Manifest.Files[n].SM3
	s.sums.mu.Lock()
	sum := s.sums.of[id]
	s.sums.mu.Unlock()
	if sum != nil {
		return sum
	}
	f, err := opened.File(ctx, n)
	if err != nil {
		return nil
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil
	}
	s.sums.mu.Lock()
	defer s.sums.mu.Unlock()
	if s.sums.of == nil || len(s.sums.of) >= maxSums {
		s.sums.of = map[sm.Digest][]byte{}
	}
	s.sums.of[id] = h.Sum(nil)
	return s.sums.of[id]
}

// summed is an answer of unknown length whose digests follow it, in the trailer.
type summed struct {
	http.ResponseWriter
	sha, sm3 hash.Hash
}

func newSummed(w http.ResponseWriter) *summed {
	w.Header().Set("Trailer", "Repr-Digest, Content-Digest")
	return &summed{w, sha256.New(), sm.New()}
}

func (s *summed) Write(p []byte) (int, error) {
	n, err := s.ResponseWriter.Write(p)
	s.sha.Write(p[:n])
	s.sm3.Write(p[:n])
	return n, err
}

func (s *summed) end() {
	field := digestField(s.sha.Sum(nil), s.sm3.Sum(nil))
	s.Header().Set("Repr-Digest", field)
	s.Header().Set("Content-Digest", field)
}
