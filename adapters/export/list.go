package export

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"os"
	"path"
	"strings"
	"time"
)

// What spreadsheets read: UTF-8 with a byte order mark, without which they take it
// for GBK, and no cell that they would compute.

const byteOrderMark = "\ufeff"

// sheet writes lines of cells.
func sheet(header bool, lines ...[]string) []byte {
	var b bytes.Buffer
	if header {
		b.WriteString(byteOrderMark)
	}
	w := csv.NewWriter(&b)
	w.UseCRLF = true
	for _, line := range lines {
		safe := make([]string, len(line))
		for i, cell := range line {
			safe[i] = harmless(cell)
		}
		_ = w.Write(safe) // a buffer takes everything
	}
	w.Flush()
	return b.Bytes()
}

// harmless keeps a spreadsheet from taking text for a formula.
func harmless(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}

// manifest lists one document as an import reads it.
func manifest(d *Document) []byte {
	var body string
	var attachments []string
	for _, f := range d.Files {
		if f.Role == "body" {
			body = f.Saved
		} else {
			attachments = append(attachments, f.Saved)
		}
	}
	return sheet(true,
		[]string{"公文标识", "发文单位", "发文单位名称", "标题", "文号", "密级", "紧急程度", "类别", "签收时限", "收到时间", "正文", "附件"},
		[]string{
			d.ID, d.Sender, d.SenderName, d.Title, d.Number, d.Label, d.Urgency, d.Kind, d.DueAt, local(d.Received),
			body, strings.Join(attachments, "\n"),
		})
}

func local(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// maxList bounds what is read of a month's list to find a line in it.
const maxList = 256 << 20

// list enters a document into the list of the month in which it came, unless its
// line is there. A crash may leave a line without its end, which is cut off.
func (f *Folder) list(d *Document) error {
	name := "received-" + d.Received.Local().Format("2006-01") + ".csv"
	out, err := f.root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = enter(out, d)
	return errors.Join(err, out.Close(), f.sync(path.Dir(name)))
}

func enter(out *os.File, d *Document) error {
	have, err := io.ReadAll(io.LimitReader(out, maxList))
	if err != nil {
		return err
	}
	whole := int64(bytes.LastIndexByte(have, '\n') + 1)
	have = have[:whole]
	if bytes.Contains(have, []byte("\n"+d.ID+",")) {
		return nil
	}
	var lines [][]string
	if whole == 0 {
		lines = append(lines, []string{"公文标识", "收到时间", "发文单位名称", "文号", "标题", "密级", "紧急程度", "签收时限", "文件数"})
	}
	lines = append(lines, []string{
		d.ID, local(d.Received), d.SenderName, d.Number, d.Title, d.Label, d.Urgency, d.DueAt, count(len(d.Files)),
	})
	if err := out.Truncate(whole); err != nil {
		return err
	}
	if _, err := out.WriteAt(sheet(whole == 0, lines...), whole); err != nil {
		return err
	}
	return out.Sync()
}
