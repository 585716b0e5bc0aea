package formats

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// jsonSchemaCodec keeps the JSON as it stands, once it fits its schema. What was written elsewhere is shown as it is,
// as Confluent's readers do by default: the schema may have moved on.
type jsonSchemaCodec struct{ schema *jsonschema.Schema }

const rootURL = "schema:///root"

func compileJSONSchema(text string, refs []reference, w *weights) (codec, error) {
	root, err := weighed(text, w)
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7) // the registry's own default
	c.UseLoader(referenced{refs, w})  // and nothing else: no file, no network
	regexps := &patterns{weights: w, known: map[string]*regexp.Regexp{}}
	c.UseRegexpEngine(regexps.engine)
	if err := c.AddResource(rootURL, root); err != nil {
		return nil, err
	}
	schema, err := c.Compile(rootURL)
	if err != nil {
		if regexps.fault != nil {
			err = regexps.fault
		}
		return nil, err
	}
	regexps.closed = true
	return &jsonSchemaCodec{schema}, nil
}

func weighed(text string, w *weights) (any, error) {
	if err := strictJSON(text); err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	return doc, w.json(doc, 1, 0)
}

// referenced finds a $ref among the schemas that the registry named, by the whole URL or by its end.
type referenced struct {
	all     []reference
	weights *weights
}

func (r referenced) Load(address string) (any, error) {
	path := address
	if u, err := url.Parse(address); err == nil {
		path = strings.TrimPrefix(u.Path, "/")
	}
	for _, ref := range r.all {
		if ref.name == address || ref.name == path || strings.HasSuffix(address, "/"+ref.name) {
			return weighed(ref.text, r.weights)
		}
	}
	return nil, errors.New("it is not among the references of the schema")
}

func (c *jsonSchemaCodec) encode(dst, value []byte) ([]byte, error) {
	if err := countParts(value); err != nil {
		return nil, err
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err != nil {
		return nil, err
	}
	if err := compared(instance); err != nil {
		return nil, err
	}
	if err := c.schema.Validate(instance); err != nil {
		return nil, reasonOf(err)
	}
	return append(dst, value...), nil
}

// reasonOf is the first thing that did not fit, without the addresses of the schema.
func reasonOf(err error) error {
	_, reasons, more := strings.Cut(err.Error(), "\n")
	if _, ok := errors.AsType[*jsonschema.ValidationError](err); !ok || !more {
		return err
	}
	first, _, _ := strings.Cut(reasons, "\n")
	return errors.New(strings.TrimPrefix(strings.TrimSpace(first), "- "))
}

func (c *jsonSchemaCodec) show(dst, payload []byte) ([]byte, error) {
	if !utf8.Valid(payload) || !json.Valid(payload) {
		return dst, fmt.Errorf("%d bytes are not valid JSON", len(payload))
	}
	return append(dst, payload...), nil
}
