package stream

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"
)

// event is what the strict parser makes of one frame.
type event struct {
	name, data string
	id         string // as it stands in the frame; "" if there is none
	hasID      bool
	retry      string
	comments   int // comment lines before or in it
}

// strictParser reads an event stream by WHATWG HTML 9.2.6, and more strictly than any client: it knows only the forms that
// sse.md writes, so that anything a payload could inject is an error.
type strictParser struct {
	r      *bufio.Reader
	lastID string
}

func newStrictParser(r io.Reader) *strictParser {
	return &strictParser{r: bufio.NewReaderSize(r, 64<<10)}
}

var errUnfinished = errors.New("the stream ends inside an event")

// next reads one event. An io.EOF is a stream that ended between two events.
func (p *strictParser) next() (event, error) {
	var e event
	var data []string
	begun, fields := false, 0
	for {
		line, err := p.r.ReadString('\n')
		if err != nil {
			if begun || line != "" {
				return e, fmt.Errorf("%w (%d fields, %q): %w", errUnfinished, fields, line, err)
			}
			return e, err
		}
		line = line[:len(line)-1]
		if !utf8.ValidString(line) || strings.ContainsAny(line, "\r\x00") || strings.HasPrefix(line, "\ufeff") {
			return e, fmt.Errorf("forbidden bytes in %.80q", line)
		}
		if line == ":" {
			e.comments++
			continue
		}
		if line == "" {
			if len(data) == 0 {
				return e, errors.New("a blank line without data")
			}
			e.data = strings.Join(data, "\n")
			if e.hasID {
				p.lastID = e.id
			}
			return e, nil
		}
		begun = true
		fields++
		name, value, ok := strings.Cut(line, ": ")
		if !ok {
			return e, fmt.Errorf("not a field: %.80q", line)
		}
		switch name {
		case "data":
			data = append(data, value)
		case "event":
			e.name = value
		case "id":
			e.id, e.hasID = value, true
		case "retry":
			e.retry = value
		default:
			return e, fmt.Errorf("unknown field in %.80q", line)
		}
	}
}

// message is the envelope.
type message struct {
	Topic         string          `json:"topic"`
	Partition     int32           `json:"partition"`
	Offset        int64           `json:"offset"`
	Timestamp     *int64          `json:"timestamp"`
	TimestampType string          `json:"timestamp_type"`
	Key           json.RawMessage `json:"key"`
	KeyFormat     *string         `json:"key_format"`
	Value         json.RawMessage `json:"value"`
	ValueFormat   *string         `json:"value_format"`
	Headers       []struct {
		Name        string  `json:"name"`
		Value       *string `json:"value"`
		ValueBase64 *string `json:"value_base64"`
	} `json:"headers"`
}

func (e event) message() (m message, err error) {
	d := json.NewDecoder(strings.NewReader(e.data))
	d.DisallowUnknownFields()
	err = d.Decode(&m)
	return m, err
}

// readResponse reads the head of a response and gives its body, chunks taken off.
func readResponse(r io.Reader) (*http.Response, error) {
	return http.ReadResponse(bufio.NewReaderSize(r, 64<<10), nil)
}

// readAll reads every whole event of a body that may be cut anywhere.
func readAll(body io.Reader) (events []event, lastID string, err error) {
	p := newStrictParser(body)
	for {
		e, err := p.next()
		if err != nil {
			return events, p.lastID, err
		}
		events = append(events, e)
	}
}

func parseText(s string) ([]event, error) {
	events, _, err := readAll(bytes.NewReader([]byte(s)))
	if errors.Is(err, io.EOF) && !errors.Is(err, errUnfinished) {
		err = nil
	}
	return events, err
}
