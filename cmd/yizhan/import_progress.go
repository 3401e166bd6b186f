package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/yizhan-gateway/yizhan/adapters/fileshare"
)

// progressBar shows a person how far an import is: on a terminal, and never with
// --json.
type progressBar struct {
	w    io.Writer // nil: nobody looks
	last time.Time
}

const barWidth = 30

func (a *app) newProgressBar() *progressBar {
	if f, ok := a.err.(*os.File); ok && !a.json && isTerminal(f) {
		return &progressBar{w: f}
	}
	return &progressBar{}
}

func (b *progressBar) show(s fileshare.Summary) {
	if b.w == nil || time.Since(b.last) < 100*time.Millisecond {
		return
	}
	b.last = time.Now()
	most := max(s.Expected, s.Documents, 1)
	full := barWidth * s.Documents / most
	fmt.Fprintf(b.w, "\r[%s%s] %d/%d  隔离 %d", strings.Repeat("█", full), strings.Repeat("·", barWidth-full), s.Documents, most, s.Quarantined)
}

// end clears the line.
func (b *progressBar) end() {
	if b.w != nil && !b.last.IsZero() {
		fmt.Fprintf(b.w, "\r%s\r", strings.Repeat(" ", 79))
		b.last = time.Time{}
	}
}
