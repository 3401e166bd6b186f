package fileshare

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
)

// reportHead are the headings of the report.
var reportHead = []string{"清单", "行", "列", "文件", "结果", "公文标识", "代码", "原因", "具体", "处理", "时间"}

// ReportCSV writes what became of every document that the ledger knows, in UTF-8 with
// a mark, so that spreadsheet programs of every language read it.
func (i *Import) ReportCSV(ctx context.Context, w io.Writer) error {
	if _, err := io.WriteString(w, "\ufeff"); err != nil {
		return err
	}
	out := csv.NewWriter(w)
	out.UseCRLF = true
	if err := out.Write(reportHead); err != nil {
		return err
	}
	err := i.ledger.places(ctx, func(_ digest, row *placeRow) error {
		e := row.Entry.Words()
		line := ""
		if e.Row > 0 {
			line = strconv.Itoa(e.Row)
		}
		cells := []string{e.Manifest, line, e.Column, strings.Join(e.Files, "；"), e.OutcomeZH, e.Document, e.Code, e.Cause, e.Detail, e.Remedy, e.At.In(china).Format("2006-01-02 15:04:05")}
		for n := range cells {
			cells[n] = harmless(cells[n])
		}
		return out.Write(cells)
	})
	out.Flush()
	return errors.Join(err, out.Error())
}

// harmless keeps a cell from being taken for a formula: what stands in it comes from
// names that anybody may give a file.
func harmless(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r|＝＋－＠", []rune(s)[0]) {
		return "'" + s
	}
	return s
}

// ReportJSON writes the same as one array.
func (i *Import) ReportJSON(ctx context.Context, w io.Writer) error {
	out := bufio.NewWriter(w)
	between := "["
	err := i.ledger.places(ctx, func(_ digest, row *placeRow) error {
		b, err := json.Marshal(row.Entry.Words())
		if err != nil {
			return err
		}
		_, err = out.WriteString(between + string(b))
		between = ","
		return err
	})
	if between == "[" {
		_, e := out.WriteString(between)
		err = errors.Join(err, e)
	}
	_, e := out.WriteString("]\n")
	return errors.Join(err, e, out.Flush())
}

// Status counts what the ledger knows, and tells what somebody has to look at.
func (i *Import) Status(ctx context.Context, each func(Entry, Summary)) (Summary, error) {
	var s Summary
	err := i.ledger.places(ctx, func(_ digest, row *placeRow) error {
		s.count(row.Outcome)
		s.Documents++
		if row.Outcome == Quarantined || row.Outcome == Undecided {
			each(row.Entry.Words(), s)
		}
		return nil
	})
	return s, err
}
