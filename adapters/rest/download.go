package rest

import (
	"net/http"
	"time"
)

// Downloads hold memory while they are under way, as uploads do: the chunks of
// a part that are opened ahead for a long file, its own bytes for a short one.
// One that finds no room is told to come again, and goes on where it was (ranges);
// a reader that takes nothing for a while is cut off.
const (
	downloadBytes = 96 << 20
	downloadMost  = 3 << 20
	downloadLeast = 64 << 10
)

// downloadWeight is what the download of a file of so many bytes may hold.
func downloadWeight(size int64) int64 { return min(size, downloadMost) + downloadLeast }

// patient gives each write to a caller its own time.
type patient struct {
	http.ResponseWriter
	deadline func(time.Time) error
	silence  time.Duration
}

func (p *patient) Write(b []byte) (int, error) {
	if err := p.deadline(time.Now().Add(p.silence)); err != nil {
		return 0, err
	}
	return p.ResponseWriter.Write(b)
}

// takeDownload reserves what a download may hold, and bounds how long its reader
// may be silent. release gives it back.
func (s *Server) takeDownload(w http.ResponseWriter, r *http.Request, size int64) (_ http.ResponseWriter, release func(), err error) {
	if release, err = s.downloads.take(r.Context(), caller(r.Context()).Agency, downloadWeight(size), budgetWait); err != nil {
		return nil, nil, err
	}
	return &patient{w, http.NewResponseController(w).SetWriteDeadline, s.c.Silence}, release, nil
}
