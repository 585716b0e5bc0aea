package httpapi

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/consumers"
	"github.com/sluicegate/sluice/formats"
)

// document scans a body that is one JSON object. It reports false for no body at all and for null.
func document(body *payload, field func(s *formats.Scanner, name []byte) error) (given bool, err error) {
	if body.empty() {
		return false, nil
	}
	s := formats.NewScanner(body.bytes)
	null, err := s.Null()
	if err == nil && !null {
		err = object(s, "the document", func(name []byte) error { return field(s, name) })
	}
	if err == nil {
		err = s.End()
	}
	return !null, err
}

// object scans an object whose names must not repeat.
func object(s *formats.Scanner, path string, field func(name []byte) error) error {
	if kind, err := s.Kind(); err != nil || kind != '{' {
		return orWrongType(err, s, path, "an object")
	}
	seen := map[string]bool{}
	return s.Object(func(name []byte) error {
		if seen[string(name)] {
			return formats.DuplicateField(name)
		}
		seen[string(name)] = true
		return field(name)
	})
}

// mostElements of a list, and of the fields of a create request. What an instance is told it keeps, and Redis with it;
// an element of three bytes would cost fifty that no budget counts.
const mostElements = 10_000

// array scans an array, or a null, which counts as no array at all.
func array(s *formats.Scanner, path string, element func(path string) error) (given bool, err error) {
	if null, err := s.Null(); null || err != nil {
		return false, err
	}
	if kind, err := s.Kind(); err != nil || kind != '[' {
		return false, orWrongType(err, s, path, "an array")
	}
	return true, s.Array(func(i int) error {
		if i == mostElements {
			return errInvalid.saying("%s may not have more than %d elements", path, mostElements)
		}
		return element(fmt.Sprintf("%s[%d]", path, i))
	})
}

func text(s *formats.Scanner, path string) (string, error) {
	if kind, err := s.Kind(); err != nil || kind != '"' {
		return "", orWrongType(err, s, path, "a string")
	}
	b, err := s.Text()
	return string(b), err
}

// natural is an integer from 0 to most.
func natural(s *formats.Scanner, path string, most int64) (int64, error) {
	n, ok, err := s.Integer()
	switch {
	case err != nil || !ok:
		return 0, orWrongType(err, s, path, "an integer")
	case n < 0:
		return 0, errInvalid.saying("%s must be greater than or equal to 0 (was %d)", path, n)
	case n > most:
		return 0, errInvalid.saying("%s must be less than or equal to %d (was %d)", path, most, n)
	}
	return n, nil
}

// parseOptions reads the scalars of a create request; no body means no options.
func parseOptions(body *payload) (map[string]any, error) {
	options := map[string]any{}
	_, err := document(body, func(s *formats.Scanner, name []byte) error {
		kind, err := s.Kind()
		if err != nil {
			return err
		}
		if len(options) == mostElements { // long before, there was one that is unknown
			return formats.UnknownField(name)
		}
		option := string(name)
		switch kind {
		case '"':
			b, err := s.Text()
			options[option] = string(b)
			return err
		case '{', '[':
			_, _, err := s.Value()
			options[option] = []any{} // refused, once the name is known to be one
			return err
		}
		b, _, err := s.Value()
		switch {
		case err != nil:
			return err
		case kind == 'n':
			options[option] = nil
		case kind == '0':
			options[option] = json.Number(string(b))
		default:
			options[option] = kind == 't'
		}
		return nil
	})
	return options, err
}

// parseWish reads {"topics":[…]} or {"topic_pattern":"…"}.
func parseWish(body *payload) (w consumers.Wish, err error) {
	var topics, pattern bool
	given, err := document(body, func(s *formats.Scanner, name []byte) (err error) {
		switch string(name) {
		case "topics":
			topics, err = array(s, "topics", func(path string) error {
				topic, err := text(s, path)
				w.Topics = append(w.Topics, topic)
				return err
			})
			return err
		case "topic_pattern":
			if null, err := s.Null(); null || err != nil {
				return err
			}
			pattern = true
			w.Pattern, err = text(s, "topic_pattern")
			return err
		}
		return formats.UnknownField(name)
	})
	switch {
	case err != nil:
		return w, err
	case !given || (!topics && !pattern):
		return w, errInvalid.saying("topics may not be empty (was null)")
	case topics && pattern:
		return w, &sluice.Error{Kind: sluice.IllegalState, Msg: "Subscription to topics, partitions and pattern are mutually exclusive"}
	case pattern && w.Pattern == "":
		return w, errInvalid.saying("topic_pattern may not be empty (was )")
	}
	return w, nil
}

// place is a partition in a request, and what is said of it.
type place struct {
	topic    string
	number   int32
	offset   int64
	metadata string
	time     time.Time
}

// placeForm says what a list of places holds beside topic and partition.
type placeForm string

const (
	barePlaces  placeForm = ""
	withOffset  placeForm = "offset"
	withinTimes placeForm = "timestamp"
)

// parsePlace reads one element of a list of partitions.
func parsePlace(s *formats.Scanner, path string, form placeForm) (p place, err error) {
	given := map[string]bool{}
	err = object(s, path, func(name []byte) (err error) {
		at := path + "." + string(name)
		field := string(name)
		switch {
		case field == "topic", field == "partition":
		case form != barePlaces && (field == string(form) || field == "metadata"):
		default:
			return formats.UnknownField(name)
		}
		if null, err := s.Null(); null || err != nil {
			return err
		}
		given[field] = true
		var n int64
		switch field {
		case "topic":
			p.topic, err = text(s, at)
		case "partition":
			n, err = natural(s, at, math.MaxInt32)
			p.number = int32(n)
		case "offset":
			p.offset, err = natural(s, at, math.MaxInt64-1)
		case "timestamp":
			p.time, err = instant(s, at)
		default:
			p.metadata, err = text(s, at)
		}
		return err
	})
	if err != nil {
		return p, err
	}
	for _, field := range []string{"topic", "partition", string(form)} {
		if field != "" && !given[field] {
			return p, errInvalid.saying("%s.%s may not be empty (was null)", path, field)
		}
	}
	return p, nil
}

// instant is RFC 3339, or milliseconds since 1970.
func instant(s *formats.Scanner, path string) (time.Time, error) {
	n, ok, err := s.Integer() // a string of digits too
	switch {
	case err != nil:
		return time.Time{}, err
	case ok && (n < 0 || n > lastTimestamp):
		return time.Time{}, errInvalid.saying("%s must be a time between 1970 and 2261 (was %d)", path, n)
	case ok:
		return time.UnixMilli(n), nil
	}
	t, err := text(s, path)
	if err != nil {
		return time.Time{}, err
	}
	at, ok := parseTime(t)
	if !ok {
		return time.Time{}, errInvalid.saying("%s must be milliseconds since 1970 or an ISO 8601 time (was %s)", path, t)
	}
	return at, nil
}

// parseTime reads the forms of ISO 8601 that clients send; a time without a zone is UTC.
func parseTime(text string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05Z0700", time.DateOnly} {
		at, err := time.Parse(layout, text)
		if err == nil && at.UnixMilli() >= 0 && at.UnixMilli() <= lastTimestamp {
			return at, true
		}
	}
	return time.Time{}, false
}

// parseCommits reads {"offsets":[…]}. Without a list nothing is given: then what was delivered is to be committed.
func parseCommits(body *payload) (commits []sluice.Commit, given bool, err error) {
	_, err = document(body, func(s *formats.Scanner, name []byte) (err error) {
		if string(name) != "offsets" {
			return formats.UnknownField(name)
		}
		given, err = array(s, "offsets", func(path string) error {
			p, err := parsePlace(s, path, withOffset)
			if err == nil && !legalTopic(p.topic) {
				err = errUnknownTopic.because("%s.topic is not a topic name.", path)
			}
			commits = append(commits, sluice.Commit{Topic: p.topic, Partition: p.number, Offset: p.offset, Metadata: p.metadata})
			return err
		})
		return err
	})
	return commits, given, err
}

// parseTargets reads the places of a seek: {"offsets":[…],"timestamps":[…]}.
func parseTargets(body *payload) (targets []consumers.Target, err error) {
	var some bool
	_, err = document(body, func(s *formats.Scanner, name []byte) (err error) {
		list := string(name)
		form, to := withOffset, consumers.ToOffset
		switch list {
		case "offsets":
		case "timestamps":
			form, to = withinTimes, consumers.ToTime
		default:
			return formats.UnknownField(name)
		}
		given, err := array(s, list, func(path string) error {
			p, err := parsePlace(s, path, form)
			targets = append(targets, consumers.Target{Topic: p.topic, Partition: p.number, To: to, Offset: p.offset, Time: p.time})
			return err
		})
		some = some || given
		return err
	})
	if err == nil && !some {
		err = errInvalid.saying("offsets may not be empty (was null)")
	}
	return targets, err
}

// requirePartitions is parsePartitions where there must be a list.
func requirePartitions(body *payload) ([]sluice.Partition, error) {
	parts, err := parsePartitions(body)
	if err == nil && parts == nil {
		err = errInvalid.saying("partitions may not be empty (was null)")
	}
	return parts, err
}

// parsePartitions reads {"partitions":[…]}; nil if there is no list.
func parsePartitions(body *payload) (parts []sluice.Partition, err error) {
	var given bool
	_, err = document(body, func(s *formats.Scanner, name []byte) (err error) {
		if string(name) != "partitions" {
			return formats.UnknownField(name)
		}
		given, err = array(s, "partitions", func(path string) error {
			p, err := parsePlace(s, path, barePlaces)
			parts = append(parts, sluice.Partition{Topic: p.topic, Number: p.number})
			return err
		})
		return err
	})
	if given && parts == nil {
		parts = []sluice.Partition{}
	}
	return parts, err
}
