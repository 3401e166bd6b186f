package inspect

import (
	"encoding/xml"
	"errors"
	"io"

	"github.com/yizhan-gateway/yizhan/exchange"
)

// maxLeaf is how much text of one element is kept.
const maxLeaf = 4 << 10

// element is one element as it ends: the local names from the root to it, its
// attributes, and the text directly in it.
type element struct {
	path  []string
	attrs []xml.Attr
	text  []byte
}

func (e *element) attr(name string) string {
	for _, a := range e.attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// is says whether the element is at the end of this path.
func (e *element) is(names ...string) bool {
	if len(e.path) < len(names) {
		return false
	}
	tail := e.path[len(e.path)-len(names):]
	for i, n := range names {
		if tail[i] != n {
			return false
		}
	}
	return true
}

// walkXML reads an XML file element by element. There is no DTD in it, hence
// no entity but the five that XML has; its size and depth are bounded.
func (l *look) walkXML(r io.Reader, visit func(*element) error) error {
	limited := &io.LimitedReader{R: r, N: l.XML + 1}
	d := xml.NewDecoder(limited)
	var open []*element
	var names []string
	root := false
	for {
		t, err := d.RawToken()
		if limited.N <= 0 {
			return refuse(exchange.CodeContentTooLarge, "an XML file of more than %d bytes", l.XML)
		}
		if errors.Is(err, io.EOF) && root && len(open) == 0 {
			return nil
		}
		if err != nil {
			return damagedBy(err, "an XML file that is not well formed")
		}
		switch t := t.(type) {
		case xml.Directive:
			return refuse(exchange.CodeContentActive, "an XML file with a document type declaration")
		case xml.StartElement:
			if len(open) == l.Depth {
				return refuse(exchange.CodeContentTooLarge, "an XML file deeper than %d elements", l.Depth)
			}
			if len(open) == 0 && root {
				return refuse(exchange.CodeContentDamaged, "an XML file with two roots")
			}
			root, names = true, append(names, t.Name.Local)
			open = append(open, &element{path: names, attrs: t.Attr})
		case xml.CharData:
			if n := len(open); n > 0 {
				e := open[n-1]
				e.text = append(e.text, t[:min(len(t), maxLeaf-len(e.text))]...)
			}
		case xml.EndElement:
			n := len(open)
			if n == 0 || names[n-1] != t.Name.Local {
				return refuse(exchange.CodeContentDamaged, "an XML file that is not well formed")
			}
			if visit != nil {
				if err := visit(open[n-1]); err != nil {
					return err
				}
			}
			open, names = open[:n-1], names[:n-1]
		}
	}
}
