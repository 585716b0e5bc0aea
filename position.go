package sluice

import (
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"
)

// Position is where to go on in one partition, as people and other systems write it. Offset is the next to read;
// NoOffset means the end, or, if Time is set, the first record with that time or later.
type Position struct {
	Topic     string
	Partition int32
	Offset    int64
	Time      time.Time
}

// ParsePositions reads positions in one of two forms: orders/3:104857,orders/5:88 or a JSON array of
// {"topic":"orders","partition":3,"offset":104857}, where "timestamp" (epoch ms) may stand for "offset" and the offset
// -1 means the end. ok is false if the text has neither form (it may be a cursor), err tells a form with a fault in it.
func ParsePositions(text string) (ps []Position, ok bool, err error) {
	switch {
	case strings.HasPrefix(text, "["):
		ps, err = parseJSONPositions(text)
	case strings.Contains(text, "/"): // not in base64url
		ps, err = parseShortPositions(text)
	default:
		return nil, false, nil
	}
	if err != nil || len(ps) == 0 {
		return nil, true, ErrMalformedCursor
	}
	type key struct {
		topic     string
		partition int32
	}
	seen := make(map[key]bool, len(ps))
	for _, p := range ps {
		k := key{p.Topic, p.Partition}
		if p.Topic == "" || p.Partition < 0 || p.Offset < NoOffset || seen[k] {
			return nil, true, ErrMalformedCursor
		}
		seen[k] = true
	}
	return ps, true, nil
}

func parseShortPositions(text string) ([]Position, error) {
	var ps []Position
	for item := range strings.SplitSeq(text, ",") {
		topic, rest, _ := strings.Cut(item, "/")
		number, offset, ok := strings.Cut(rest, ":")
		n, err := strconv.ParseInt(number, 10, 32)
		o, err2 := strconv.ParseInt(offset, 10, 64)
		if !ok || err != nil || err2 != nil {
			return nil, ErrMalformedCursor
		}
		ps = append(ps, Position{Topic: topic, Partition: int32(n), Offset: o})
	}
	return ps, nil
}

func parseJSONPositions(text string) ([]Position, error) {
	var items []struct {
		Topic     string `json:"topic"`
		Partition *int32 `json:"partition"`
		Offset    *int64 `json:"offset"`
		Timestamp *int64 `json:"timestamp"`
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&items); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, ErrMalformedCursor
	}
	ps := make([]Position, 0, len(items))
	for _, i := range items {
		if i.Partition == nil || (i.Offset == nil) == (i.Timestamp == nil) {
			return nil, ErrMalformedCursor
		}
		p := Position{Topic: i.Topic, Partition: *i.Partition, Offset: NoOffset}
		if i.Offset != nil {
			p.Offset = *i.Offset
		} else {
			p.Time = time.UnixMilli(*i.Timestamp)
		}
		ps = append(ps, p)
	}
	return ps, nil
}
