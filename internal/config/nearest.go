package config

import (
	"reflect"
	"strings"
)

// nearest finds the option that a misspelt key was meant to be: one of the
// same table at an edit distance of at most a third of its length, or one of
// the same name in another table. Empty when nothing is near.
func nearest(key []string, into any) string {
	if len(key) == 0 {
		return ""
	}
	t := structOf(reflect.TypeOf(into))
	for i, part := range key {
		next := fieldNamed(t, part)
		if next == nil {
			return nearestIn(t, strings.Join(key[:i], "."), part)
		}
		t = structOf(next)
	}
	return ""
}

func nearestIn(t reflect.Type, table, name string) string {
	best, least := "", len(name)/3+1
	for _, known := range names(t) {
		if d := distance(strings.ToLower(name), strings.ToLower(known)); d < least {
			best, least = known, d
		}
	}
	if best == "" || table == "" {
		return best
	}
	return table + "." + best
}

// structOf follows pointers, slices and maps to the struct whose fields a
// table fills; nil when there is none.
func structOf(t reflect.Type) reflect.Type {
	for t != nil {
		switch t.Kind() {
		case reflect.Struct:
			return t
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			t = t.Elem()
		default:
			return nil
		}
	}
	return nil
}

func names(t reflect.Type) []string {
	if t == nil {
		return nil
	}
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		if name == "" {
			name = f.Name
		}
		if f.IsExported() && name != "-" {
			out = append(out, name)
		}
	}
	return out
}

func fieldNamed(t reflect.Type, name string) reflect.Type {
	for i, known := range names(t) {
		if strings.EqualFold(known, name) {
			return exported(t, i)
		}
	}
	return nil
}

// exported is the type of the i-th field that names lists.
func exported(t reflect.Type, i int) reflect.Type {
	for at := range t.NumField() {
		f := t.Field(at)
		if name, _, _ := strings.Cut(f.Tag.Get("toml"), ","); !f.IsExported() || name == "-" {
			continue
		}
		if i == 0 {
			return f.Type
		}
		i--
	}
	return nil
}

// distance is the Levenshtein distance in bytes; long keys are not compared.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
