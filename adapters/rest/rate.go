package rest

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// Rate bounds the requests of one API key, so that a loop in one system does not take
// the node from the others. 0 is no bound. It is kept in memory.
type Rate struct {
	Requests int
	Window   time.Duration
}

// rates is what keys have used of the present windows. There is an entry for each
// key of the node's own file that came within a window.
type rates struct {
	mu   sync.Mutex
	used map[string]*window
}

type window struct {
	began time.Time
	n     int
}

// limit counts a request of a key and says in the answer what is left
// (draft-ietf-httpapi-ratelimit-headers).
func (s *Server) limit(w http.ResponseWriter, key string) error {
	q := s.c.Rate
	if q.Requests <= 0 || q.Window <= 0 {
		return nil
	}
	left, after := s.rates.count(key, q, s.c.Node.Now())
	seconds := int(math.Ceil(after.Seconds()))
	h := w.Header()
	h.Set("RateLimit-Policy", fmt.Sprintf(`"key";q=%d;w=%d`, q.Requests, int(q.Window.Seconds())))
	h.Set("RateLimit", `"key";r=`+strconv.Itoa(max(left, 0))+";t="+strconv.Itoa(seconds))
	if left < 0 {
		return &overQuota{exchange.Fail(exchange.CodeRateLimited, "%d requests in %s", q.Requests, q.Window), after}
	}
	return nil
}

// count takes one request of a key's window; left is negative when there is none.
func (r *rates) count(key string, q Rate, now time.Time) (left int, after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.used[key]
	if u == nil || now.Sub(u.began) >= q.Window || now.Before(u.began) {
		if r.used == nil {
			r.used = map[string]*window{}
		}
		for other, w := range r.used { // of keys that are over
			if now.Sub(w.began) >= q.Window {
				delete(r.used, other)
			}
		}
		u = &window{began: now}
		r.used[key] = u
	}
	if u.n >= q.Requests {
		return -1, q.Window - now.Sub(u.began)
	}
	u.n++
	return q.Requests - u.n, q.Window - now.Sub(u.began)
}
