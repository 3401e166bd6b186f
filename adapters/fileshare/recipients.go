package fileshare

import (
	"context"
	"slices"
	"strings"

	"github.com/yizhan-gateway/yizhan/adapters/fileshare/manifest"
	"github.com/yizhan-gateway/yizhan/exchange"
)

// found is what a name of a recipient leads to: a code, or a fault.
type found struct {
	code  string
	fault *Fault
}

const (
	keptNames  = 10_000 // names that are remembered in a run
	candidates = 8      // that are named to a clerk
)

// recipients finds the agencies of an item.
func (i *Import) recipients(ctx context.Context, it *item) (*Fault, error) {
	it.doc.To, it.doc.Cc = nil, nil
	for _, part := range []struct {
		names []string
		into  *[]exchange.Addressee
		field manifest.Field
	}{{it.to, &it.doc.To, manifest.To}, {it.cc, &it.doc.Cc, manifest.Cc}} {
		for _, name := range part.names {
			f, err := i.agency(ctx, name)
			if err != nil {
				return nil, err
			}
			if f.fault != nil {
				fault := *f.fault
				fault.Column = part.field.Heading()
				return &fault, nil
			}
			*part.into = append(*part.into, exchange.Addressee{Agency: f.code})
		}
	}
	return nil, nil
}

// agency asks the directory once for each name of a run.
func (i *Import) agency(ctx context.Context, name string) (found, error) {
	i.mu.Lock()
	f, known := i.agencies[name]
	i.mu.Unlock()
	if known {
		return f, nil
	}
	var list []Agency
	err := i.gate.try(ctx, func() (err error) {
		list, err = i.node.Find(ctx, name)
		return err
	})
	if err != nil {
		return found{}, err
	}
	f = choose(name, list)
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.agencies) < keptNames {
		i.agencies[name] = f
	}
	return f, nil
}

// choose takes the one agency that a name is the code, the name or an alias of.
func choose(name string, list []Agency) found {
	var exact []Agency
	for _, a := range list {
		if a.Code == strings.ToUpper(name) || a.Name == name || slices.Contains(a.Aliases, name) {
			exact = append(exact, a)
		}
	}
	switch len(exact) {
	case 1:
		return found{code: exact[0].Code}
	case 0:
		return found{fault: &Fault{Code: CodeRecipient, Detail: detail(name, list)}}
	}
	return found{fault: &Fault{Code: CodeAmbiguous, Detail: detail(name, exact)}}
}

func detail(name string, list []Agency) string {
	var b strings.Builder
	b.WriteString(name)
	for n, a := range list {
		if n == candidates {
			b.WriteString(" …")
			break
		}
		b.WriteString(map[bool]string{true: "：", false: "、"}[n == 0] + a.Name + "（" + a.Code + "）")
	}
	return b.String()
}
