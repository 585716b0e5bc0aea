package formats

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// What a library builds of a schema takes up to some thousand times its text, and a caller may send any text. These
// bounds hold for a schema together with all it refers to, and are checked before a library sees it. They leave room
// for several times the largest schemas in use. TestHostileSchemaTexts has what is left to take.
const (
	maxSchema   = 1 << 20 // bytes of one text; a registry keeps them in records of Kafka's default size
	mostText    = 4 << 20 // bytes of all texts
	mostNesting = 100     // braces and brackets inside each other
	mostTokens  = 50_000  // of Protobuf, comments included
	mostImports = 1000    // of Protobuf: each is a goroutine
	mostNodes   = 10_000  // objects and booleans of a JSON Schema: each may be a schema, and finding one looks at all
	mostNames   = 2 << 20 // bytes of the full names, or JSON pointers, of all that is declared
	mostIDs     = 1000    // of a JSON Schema: each is looked for among all
	mostAddress = 1000    // bytes of a $id and of a name in Avro: others inherit it
	mostNumber  = 400     // digits and power of ten of a number that is compared; 1e999999 takes megabytes
)

// weights are what the texts of one schema come to so far.
type weights struct{ text, tokens, imports, nodes, ids, names, patterns int }

// cost is about what the schema takes in memory when it is ready for use.
func (w *weights) cost() int {
	return schemaFloor + schemaCost*w.text + 300*w.tokens + 1000*w.nodes + 2*w.names + w.patterns
}

// take adds a text.
func (w *weights) take(text string) error {
	if len(text) > maxSchema {
		return fmt.Errorf("it is larger than %d bytes", maxSchema)
	}
	if w.text += len(text); w.text > mostText {
		return fmt.Errorf("it and what it refers to are larger than %d bytes", mostText)
	}
	return nil
}

func (w *weights) name(length int) error {
	if w.names += length; w.names > mostNames {
		return fmt.Errorf("the full names in it are larger than %d bytes", mostNames)
	}
	return nil
}

func tooNested() error { return fmt.Errorf("it is nested deeper than %d levels", mostNesting) }

// json weighs a JSON Schema. path is the length of the JSON pointer that leads to v.
func (w *weights) json(v any, depth, path int) (err error) {
	if depth > mostNesting {
		return tooNested()
	}
	if err := w.name(path); err != nil {
		return err
	}
	switch v := v.(type) {
	case json.Number:
		return modest(v)
	case []any:
		for n, one := range v {
			if err := w.json(one, depth+1, path+1+len(strconv.Itoa(n))); err != nil {
				return err
			}
		}
	case bool, map[string]any:
		if w.nodes++; w.nodes > mostNodes {
			return fmt.Errorf("it has more than %d objects and booleans", mostNodes)
		}
		object, _ := v.(map[string]any)
		for name, one := range object {
			if address, ok := one.(string); ok && (name == "$id" || name == "id") {
				if w.ids++; w.ids > mostIDs {
					return fmt.Errorf("it has more than %d ids", mostIDs)
				}
				if len(address) > mostAddress {
					return fmt.Errorf("its %s is longer than %d bytes", name, mostAddress)
				}
			}
			if err := w.json(one, depth+1, path+1+len(name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// compared says what is wrong with the numbers of a value that a JSON Schema is to judge.
func compared(v any) error {
	switch v := v.(type) {
	case json.Number:
		return modest(v)
	case []any:
		for _, one := range v {
			if err := compared(one); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, one := range v {
			if err := compared(one); err != nil {
				return err
			}
		}
	}
	return nil
}

func modest(n json.Number) error {
	at := strings.IndexAny(string(n), "eE")
	if at >= 0 {
		power, err := strconv.Atoi(string(n[at+1:]))
		if err != nil || power > mostNumber || power < -mostNumber {
			return fmt.Errorf("a number has a power of ten above %d", mostNumber)
		}
	}
	if len(n) > 2*mostNumber {
		return fmt.Errorf("a number has more than %d digits", 2*mostNumber)
	}
	return nil
}

// protobuf weighs a file by its tokens, as protocompile would cut it. What it takes for a name may be none; the other
// way round it must not be.
func (w *weights) protobuf(text string) error {
	var outer []int // lengths of the names in front of the braces that are open
	prefix, last := 0, 0
	for at := 0; at < len(text); {
		b, start := text[at], at
		at++
		switch rest := text[start:]; {
		case b <= ' ':
			continue
		case strings.HasPrefix(rest, "//"):
			at = start + until(rest, "\n")
		case strings.HasPrefix(rest, "/*"):
			at = start + 2 + until(rest[2:], "*/")
		case b == '"' || b == '\'':
			for at < len(text) && text[at] != b && text[at] != '\n' {
				if text[at] == '\\' {
					at++
				}
				at++
			}
			at++
		case wordy(b):
			for at < len(text) && wordy(text[at]) {
				at++
			}
			last = at - start
			switch word := text[start:at]; {
			case len(outer) > 0:
			case word == "package":
				prefix = until(rest, ";")
			case word == "import":
				if w.imports++; w.imports > mostImports {
					return fmt.Errorf("it has more than %d imports", mostImports)
				}
			}
		case strings.IndexByte("{[(<", b) >= 0:
			if outer = append(outer, last); len(outer) > mostNesting {
				return tooNested()
			}
			prefix += last
		case strings.IndexByte("}])>", b) >= 0 && len(outer) > 0:
			prefix -= outer[len(outer)-1]
			outer = outer[:len(outer)-1]
		}
		if w.tokens++; w.tokens > mostTokens {
			return fmt.Errorf("it has more than %d tokens", mostTokens)
		}
		if b == '{' || b == ';' || b == ',' {
			if err := w.name(prefix + last); err != nil {
				return err
			}
		}
	}
	return nil
}

// until is where what comes first ends in text, or where text ends.
func until(text, what string) int {
	if n := strings.Index(text, what); n >= 0 {
		return n + len(what)
	}
	return len(text)
}

func wordy(b byte) bool {
	return b == '_' || b >= '0' && b <= '9' || b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z'
}
