package formats

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// avroType is one type of an Avro schema (Avro 1.12, "Schema Declaration"). Recursive schemas point back at themselves.
// Logical types, defaults, aliases and orders have no meaning for the JSON encoding and are left out.
type avroType struct {
	kind     avroKind
	name     string // in a union the tag: the full name, or the kind
	fields   []avroField
	byName   map[string]int // fields, symbols or branches
	symbols  []string
	size     int // of a fixed, bytes
	items    *avroType
	branches []*avroType
}

type avroField struct {
	name string
	typ  *avroType
}

type avroKind byte

const (
	avroNull avroKind = iota
	avroBoolean
	avroInt
	avroLong
	avroFloat
	avroDouble
	avroBytes
	avroString
	avroRecord
	avroEnum
	avroArray
	avroMap
	avroFixed
	avroUnion
)

var avroKinds = []string{"null", "boolean", "int", "long", "float", "double", "bytes", "string", "record", "enum", "array", "map", "fixed", "union"}

// parseAvro reads a schema; those it refers to come first, since their names are known from then on.
func parseAvro(text string, refs []reference) (*avroType, error) {
	p := avroParser{named: map[string]*avroType{}}
	for _, ref := range refs {
		if _, err := p.document(ref.text); err != nil {
			return nil, fmt.Errorf("the schema it calls %s: %w", ref.name, err)
		}
	}
	return p.document(text)
}

type avroParser struct {
	named map[string]*avroType
	depth int
}

func (p *avroParser) document(text string) (*avroType, error) {
	if isAvroName(text) { // some registries keep a primitive as a bare word
		return p.parse(text, "")
	}
	if err := strictJSON(text); err != nil {
		return nil, err
	}
	var doc any
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		return nil, err
	}
	return p.parse(doc, "")
}

// strictJSON says what is wrong with a schema text as JSON: duplicate names and absurd depth too.
func strictJSON(text string) error {
	s := NewScanner([]byte(text))
	_, fault, err := s.Value()
	if err == nil {
		err = s.End()
	}
	if err == nil {
		err = fault
	}
	if err != nil {
		return errors.New(words(err))
	}
	return nil
}

func (p *avroParser) parse(schema any, space string) (*avroType, error) {
	if p.depth++; p.depth > mostNesting {
		return nil, tooNested()
	}
	defer func() { p.depth-- }()
	switch s := schema.(type) {
	case string:
		return p.named1(s, space)
	case []any:
		return p.union(s, space)
	case map[string]any:
		return p.complex(s, space)
	}
	return nil, errors.New("a type must be a name, an object or an array")
}

// named1 is a primitive, or a type that was defined before.
func (p *avroParser) named1(name, space string) (*avroType, error) {
	if at := slices.Index(avroKinds, name); at >= 0 && at <= int(avroString) {
		return &avroType{kind: avroKind(at), name: name}, nil
	}
	full := fullName(name, space)
	if t := p.named[full]; t != nil {
		return t, nil
	}
	if t := p.named[name]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("type %s is not defined", full)
}

func fullName(name, space string) string {
	if space == "" || strings.Contains(name, ".") {
		return name
	}
	return space + "." + name
}

func (p *avroParser) union(all []any, space string) (*avroType, error) {
	u := &avroType{kind: avroUnion, name: "union", byName: map[string]int{}}
	for n, one := range all {
		t, err := p.parse(one, space)
		if err != nil {
			return nil, err
		}
		if t.kind == avroUnion {
			return nil, errors.New("a union must not hold a union")
		}
		if _, twice := u.byName[t.name]; twice {
			return nil, fmt.Errorf("a union holds %s twice", t.name)
		}
		u.byName[t.name] = n
		u.branches = append(u.branches, t)
	}
	return u, nil
}

func (p *avroParser) complex(s map[string]any, space string) (*avroType, error) {
	switch typ := s["type"].(type) {
	case string:
		switch typ {
		case "record", "error", "enum", "fixed":
			return p.define(s, typ, space)
		case "array":
			items, err := p.parse(s["items"], space)
			return &avroType{kind: avroArray, name: "array", items: items}, err
		case "map":
			values, err := p.parse(s["values"], space)
			return &avroType{kind: avroMap, name: "map", items: values}, err
		}
		return p.named1(typ, space)
	case nil:
		return nil, errors.New("an object must have a type")
	default: // {"type": {"type": …}}
		return p.parse(typ, space)
	}
}

// define takes a record, an enum or a fixed. Its name is known inside it: that is how a schema is recursive.
func (p *avroParser) define(s map[string]any, typ, space string) (*avroType, error) {
	name, _ := s["name"].(string)
	if given, ok := s["namespace"].(string); ok && !strings.Contains(name, ".") {
		space = given
	}
	full := strings.TrimPrefix(fullName(name, space), ".")
	if len(full) > mostAddress {
		return nil, fmt.Errorf("a name is longer than %d bytes", mostAddress)
	}
	for part := range strings.SplitSeq(full, ".") {
		if !isAvroName(part) {
			return nil, fmt.Errorf("%q is not a name", full)
		}
	}
	if p.named[full] != nil {
		return nil, fmt.Errorf("type %s is defined twice", full)
	}
	if slices.Contains(avroKinds[:avroRecord], full) {
		return nil, fmt.Errorf("%s is the name of a primitive type", full)
	}
	t := &avroType{name: full, byName: map[string]int{}}
	p.named[full] = t
	if at := strings.LastIndexByte(full, '.'); at >= 0 {
		space = full[:at]
	} else {
		space = ""
	}
	switch typ {
	case "enum":
		t.kind = avroEnum
		return t, t.defineSymbols(s["symbols"])
	case "fixed":
		t.kind = avroFixed
		size, ok := s["size"].(float64)
		if !ok || size < 0 || size != float64(int32(size)) {
			return nil, fmt.Errorf("fixed %s must have a size", full)
		}
		t.size = int(size)
		return t, nil
	}
	t.kind = avroRecord
	return t, p.defineFields(t, s["fields"], space)
}

func (t *avroType) defineSymbols(list any) error {
	all, ok := list.([]any)
	if !ok {
		return fmt.Errorf("enum %s must have symbols", t.name)
	}
	for n, one := range all {
		symbol, _ := one.(string)
		if _, twice := t.byName[symbol]; twice || !isAvroName(symbol) {
			return fmt.Errorf("enum %s: %q is not a symbol, or stands twice", t.name, symbol)
		}
		t.byName[symbol] = n
		t.symbols = append(t.symbols, symbol)
	}
	return nil
}

func (p *avroParser) defineFields(t *avroType, list any, space string) error {
	all, ok := list.([]any)
	if !ok {
		return fmt.Errorf("record %s must have fields", t.name)
	}
	for n, one := range all {
		field, _ := one.(map[string]any)
		name, _ := field["name"].(string)
		if _, twice := t.byName[name]; twice || !isAvroName(name) {
			return fmt.Errorf("record %s: %q is not the name of a field, or stands twice", t.name, name)
		}
		typ, err := p.parse(field["type"], space)
		if err != nil {
			return fmt.Errorf("field %s of %s: %w", name, t.name, err)
		}
		t.byName[name] = n
		t.fields = append(t.fields, avroField{name, typ})
	}
	return nil
}

func isAvroName(s string) bool {
	for i := range len(s) {
		b := s[i]
		if b != '_' && (b < 'A' || b > 'Z') && (b < 'a' || b > 'z') && (i == 0 || b < '0' || b > '9') {
			return false
		}
	}
	return s != ""
}
