package certs

import (
	"errors"
	"io/fs"
	"path/filepath"

	"github.com/yizhan-gateway/yizhan/internal/durable"
	"github.com/yizhan-gateway/yizhan/internal/strictjson"
)

// edit is a change of several entries that is not written yet.
type edit struct {
	a         *Authority
	changed   map[string]strictjson.Raw // by name; nil takes the entry out
	order     []string                  // in which they are written
	published map[string]strictjson.Raw // what nodes have, by name
}

func (a *Authority) edit() (*edit, error) {
	published, err := a.publishedEntries()
	return &edit{a: a, changed: map[string]strictjson.Raw{}, published: published}, err
}

// publishedEntries gives the nodes, agencies, links and routes of the version
// that is published, by the names that their files have.
func (a *Authority) publishedEntries() (map[string]strictjson.Raw, error) {
	out := map[string]strictjson.Raw{}
	b, err := durable.ReadFile(durable.OS, filepath.Join(a.dir, directoryName), MaxDirectory)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := parseFile(b)
	if err != nil {
		return nil, err
	}
	for _, raw := range f.Entries {
		name, err := nameOf(raw)
		if err != nil {
			return nil, err
		}
		out[name] = raw
	}
	delete(out, "")
	return out, nil
}

// nameOf is the name of the file of a node, an agency, a link or a route; empty
// for other entries.
func nameOf(raw strictjson.Raw) (string, error) {
	kind, err := kindOf(raw)
	if err != nil {
		return "", err
	}
	switch kind {
	case nodeType:
		var e nodeEntry
		err = strictjson.Unmarshal(raw, &e)
		return nodeFile(e.ID), err
	case agencyType:
		var e agencyEntry
		err = strictjson.Unmarshal(raw, &e)
		return agencyFile(e.Code), err
	case linkType:
		var e linkEntry
		err = strictjson.Unmarshal(raw, &e)
		return linkFile(e.ID), err
	case routeType:
		var e routeEntry
		err = strictjson.Unmarshal(raw, &e)
		return routeFile(e.From, e.To), err
	}
	return "", nil
}
func (e *edit) put(name string, entry any) error {
	b, err := strictjson.Marshal(entry)
	if err != nil {
		return err
	}
	e.set(name, b)
	return nil
}

func (e *edit) set(name string, b strictjson.Raw) {
	if _, twice := e.changed[name]; !twice {
		e.order = append(e.order, name)
	}
	e.changed[name] = b
}

// find reads an entry as the edit leaves it; one that is not there, as it is
// published. What is in neither leaves into as it is.
func (e *edit) find(name string, into any) (inEntries bool, err error) {
	b, changed := e.changed[name]
	if !changed {
		if b, err = durable.ReadFile(durable.OS, e.a.entryPath(name), maxEntry); errors.Is(err, fs.ErrNotExist) {
			b, err = nil, nil
		}
	}
	inEntries = b != nil
	if !inEntries {
		b = e.published[name]
	}
	if err == nil && b != nil {
		err = strictjson.Unmarshal(b, into)
	}
	if err != nil {
		return false, &Error{Code: codeContent, Detail: "entry " + name, Err: err}
	}
	return inEntries, nil
}

// write makes the change durable, one file after the other.
func (e *edit) write() error {
	for _, name := range e.order {
		if b := e.changed[name]; b != nil {
			if err := durable.WriteFile(durable.OS, e.a.entryPath(name), b); err != nil {
				return err
			}
			continue
		}
		if err := durable.OS.Remove(e.a.entryPath(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return durable.OS.SyncDir(filepath.Join(e.a.dir, entriesDir))
}
