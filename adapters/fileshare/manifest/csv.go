package manifest

import (
	"encoding/csv"
	"errors"
	"io"
	"strings"
)

func openCSV(b []byte) (*Table, error) {
	text, err := decode(b)
	if err != nil {
		return nil, err
	}
	comma := separator(text)
	return grid(func(yield func(int, []cell, error) bool) {
		r := csv.NewReader(strings.NewReader(text))
		r.Comma, r.FieldsPerRecord, r.ReuseRecord = comma, -1, true
		var row []cell
		for {
			record, err := r.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(0, nil, csvFault(err))
				return
			}
			row = row[:0]
			for _, c := range record {
				row = append(row, cell{text: c})
			}
			line, _ := r.FieldPos(0)
			if !yield(line, row, nil) {
				return
			}
		}
	})
}

// separator is what occurs most in the first lines: some programs write semicolons or
// tabs.
func separator(text string) rune {
	head := text[:min(len(text), 4<<10)]
	best, most := ',', 0
	for _, c := range []rune{',', '\t', ';'} {
		if n := strings.Count(head, string(c)); n > most {
			best, most = c, n
		}
	}
	return best
}

// csvFault names the line. A quote that is not closed takes all that follows into one
// cell, so nothing of the list can be believed.
func csvFault(err error) error {
	var p *csv.ParseError
	if !errors.As(err, &p) {
		return err
	}
	return fault(CodeShape, p.StartLine, "a quote is not where it may be, or not closed (at line %d, byte %d)", p.Line, p.Column)
}
