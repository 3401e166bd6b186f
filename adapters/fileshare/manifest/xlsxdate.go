package manifest

import (
	"encoding/xml"
	"math"
	"strconv"
	"strings"
	"time"
)

// styleKind says how a number of a cell is shown.
type styleKind bool

const asDate styleKind = true

// readStyles finds which styles show a number as a date.
func (w *workbook) readStyles() error {
	if w.files["xl/styles.xml"] == nil {
		return nil
	}
	custom, in := map[int]bool{}, false
	return w.walk("xl/styles.xml", maxSmall, func(_ *scanner, t xml.Token) (bool, error) {
		switch t := t.(type) {
		case xml.StartElement:
			id, _ := strconv.Atoi(attribute(t, "numFmtId")) // absent: 0, a number
			switch {
			case t.Name.Local == "numFmt":
				custom[id] = showsDate(attribute(t, "formatCode"))
			case t.Name.Local == "cellXfs":
				in = true
			case t.Name.Local == "xf" && in:
				w.styles = append(w.styles, styleKind(custom[id] || builtinDate(id)))
			}
		case xml.EndElement:
			if t.Name.Local == "cellXfs" {
				return false, nil
			}
		}
		return true, nil
	})
}

// builtinDate are the numbers that formats have without a text, those of Chinese
// editions among them.
func builtinDate(id int) bool {
	return id >= 14 && id <= 17 || id == 22 || id >= 27 && id <= 31 || id == 36 || id >= 50 && id <= 54 || id == 57 || id == 58
}

// showsDate looks for a year or a day in a format, outside of quotes and brackets.
func showsDate(format string) bool {
	quoted, bracket := false, false
	for i, c := range format {
		switch {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[':
			bracket = true
		case c == ']':
			bracket = false
		case bracket || i > 0 && format[i-1] == '\\':
		case strings.ContainsRune("yYdD", c):
			return true
		}
	}
	return false
}

// days before 1970 in the two calendars that workbooks count by.
const (
	days1900 = 25569
	days1904 = 24107
)

// number gives a number as it was entered: a date as one, a whole number in full. One
// that was rounded is refused, such as a code that should be text.
func (w *workbook) number(v string, style int) cell {
	v = strings.TrimSpace(v)
	if v == "" {
		return cell{}
	}
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return cell{bad: "this is no number"}
	}
	if style >= 0 && style < len(w.styles) && w.styles[style] == asDate {
		return w.date(f)
	}
	if math.Abs(f) >= 1e15 || strings.ContainsAny(v, "eE") {
		return cell{bad: "the workbook has a rounded number here; make the cell a text and enter it again"}
	}
	return cell{text: v}
}

func (w *workbook) date(f float64) cell {
	if w.base {
		f += days1900 - days1904
	}
	if f < 61 || f > 2958465 { // the calendar of 1900 has a day too many until March
		return cell{bad: "this is no date"}
	}
	at := time.Unix(int64(math.Round((f-days1900)*86400)), 0).UTC()
	if at.Hour() == 0 && at.Minute() == 0 && at.Second() == 0 {
		return cell{text: at.Format(time.DateOnly)}
	}
	return cell{text: at.Format("2006-01-02 15:04:05")}
}
