package subscriptions

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sluicegate/sluice"
)

// Field is one fault of a document: where, and what is wrong there.
type Field struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// Invalid is a document that parses and breaks rules: 422, code 42210 with every fault at once. Refused says that the
// guard's refusal of the endpoint is the only fault: code 42211.
type Invalid struct {
	Fields  []Field
	Refused bool
}

func (e *Invalid) Error() string {
	all := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		all[i] = f.Path + " " + f.Reason
	}
	return "invalid: " + strings.Join(all, "; ")
}

// Unwrap makes KindOf say Invalid.
func (e *Invalid) Unwrap() error {
	return &sluice.Error{Kind: sluice.Invalid, Msg: "One or more fields are invalid."}
}

const (
	maxBody  = 256 << 10
	maxDepth = 32
)

// faults collects; nothing stops at the first.
type faults struct{ list []Field }

func (f *faults) add(path, format string, args ...any) {
	f.list = append(f.list, Field{path, fmt.Sprintf(format, args...)})
}

// object is a JSON object by strict rules. Each member is taken once; what was never taken is an unknown field.
type object struct {
	path    string
	members map[string]any // string, json.Number, bool, nil, []any, *object
	order   []string
	faults  *faults
}

// parseObject reads one JSON object and nothing after it. The error has Kind Malformed or TooLarge; members that
// repeat are faults.
func parseObject(body []byte, f *faults) (*object, error) {
	if len(body) > maxBody {
		return nil, &sluice.Error{Kind: sluice.TooLarge, Msg: "The document is larger than 262144 bytes."}
	}
	malformed := func(err error) error {
		return &sluice.Error{Kind: sluice.Malformed, Msg: "The body is not a JSON object.", Err: err}
	}
	if !utf8.Valid(body) {
		return nil, malformed(errors.New("not UTF-8"))
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	value, err := parseValue(d, "", 0, f)
	if err != nil {
		return nil, malformed(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, malformed(errors.New("something follows the object"))
	}
	top, ok := value.(*object)
	if !ok {
		return nil, malformed(errors.New("not an object"))
	}
	return top, nil
}

func parseValue(d *json.Decoder, path string, depth int, f *faults) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return token, nil
	}
	if depth >= maxDepth { // recursion must not follow whatever is sent
		return nil, errors.New("nested too deeply")
	}
	if delim == '[' {
		list := []any{}
		for d.More() {
			v, err := parseValue(d, path+"["+strconv.Itoa(len(list))+"]", depth+1, f)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	}
	o := &object{path: path, members: map[string]any{}, faults: f}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		name := token.(string) // the decoder allows nothing else here
		v, err := parseValue(d, join(path, name), depth+1, f)
		if err != nil {
			return nil, err
		}
		if _, twice := o.members[name]; twice {
			f.add(join(path, name), "is given more than once")
			continue
		}
		o.members[name] = v
		o.order = append(o.order, name)
	}
	_, err = d.Token()
	return o, err
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// take removes a member, so that rest finds only what nobody wanted.
func (o *object) take(name string) (v any, ok bool) {
	v, ok = o.members[name]
	delete(o.members, name)
	return v, ok
}

func (o *object) at(name string) string { return join(o.path, name) }

// object is the member as an object; an absent one is empty.
func (o *object) object(name string) *object {
	v, ok := o.take(name)
	if sub, is := v.(*object); is {
		return sub
	}
	if ok {
		o.faults.add(o.at(name), "must be an object")
	}
	return &object{path: o.at(name), faults: o.faults}
}

// text is the member as a string, or otherwise def.
func (o *object) text(name, def string) (s string, given bool) {
	v, ok := o.take(name)
	if !ok {
		return def, false
	}
	s, is := v.(string)
	if !is {
		o.faults.add(o.at(name), "must be a string")
		return def, false
	}
	return s, true
}

// choice is the member as one of allowed.
func (o *object) choice(name, def string, allowed ...string) string {
	s, _ := o.text(name, def)
	for _, a := range allowed {
		if s == a {
			return s
		}
	}
	o.faults.add(o.at(name), "must be one of %s", strings.Join(allowed, ", "))
	return def
}

// whole is the member as an integer in [lo, hi].
func (o *object) whole(name string, def, lo, hi int64) int64 {
	v, ok := o.take(name)
	if !ok {
		return def
	}
	if n, is := integer(v); is && n >= lo && n <= hi {
		return n
	}
	o.faults.add(o.at(name), "must be an integer from %d to %d", lo, hi)
	return def
}

// integer takes a number only if it is written as one: no fraction, no exponent.
func integer(v any) (int64, bool) {
	number, is := v.(json.Number)
	if !is {
		return 0, false
	}
	n, err := strconv.ParseInt(number.String(), 10, 64)
	return n, err == nil
}

// list is the member as an array, nil if absent.
func (o *object) list(name string) []any {
	v, ok := o.take(name)
	if !ok {
		return nil
	}
	l, is := v.([]any)
	if !is {
		o.faults.add(o.at(name), "must be an array")
	}
	return l
}

// rest reports every member that nobody took.
func (o *object) rest() {
	for _, name := range o.order {
		if _, left := o.members[name]; left {
			o.faults.add(o.at(name), "is not a known field")
		}
	}
}
