package stream

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluicegate/sluice"
)

// Query is what a request says, as it came. Values are percent-decoded, in the order of the URL.
type Query struct {
	Topic       string // of the path; empty where topics are parameters
	Parameters  []Parameter
	LastEventID string // the header; it wins over the parameter
}

// Parameter is one name=value of a URL.
type Parameter struct{ Name, Value string }

// Request is a stream that somebody wants, with its parameters checked against each other but not yet against Kafka.
type Request struct {
	Topics      []string          // 1 to 16, in the order of the request
	Subset      map[string][]span // partitions asked for; a topic without an entry is followed whole
	From        start
	Since       time.Time         // FromTimestamp
	Offsets     []sluice.Position // FromOffsets; partitions not named start at the end
	LastEventID string
	Key, Value  Format
	OnGap       onGap
	Heartbeat   time.Duration // 0: the configured one
	Strict      bool          // real statuses for transient refusals

	// Of the connection and the caller, not of the query.
	ID        string // X-Request-Id
	Address   string // of the client, for the cap and nothing else
	Principal string
	Unchunked bool // HTTP/1.0: the end of the connection ends the stream
}

// start says where a partition begins that the cursor does not cover.
type start byte

const (
	fromLatest start = iota
	fromEarliest
	fromTimestamp
	fromOffsets
)

// onGap says where to go on when Kafka does not have what the cursor names.
type onGap byte

const (
	gapEarliest onGap = iota
	gapLatest
	gapError
)

// span is the partitions low to high, both included.
type span struct{ low, high int32 }

const maxTopics = 16

// Parse checks a query. What is unknown, contradictory or repeated is refused, for form=earliest must not quietly mean
// latest. now is what a relative time is relative to.
func Parse(q Query, now time.Time) (Request, error) {
	p := parser{now: now, seen: map[string]string{}}
	if q.Topic != "" {
		p.req.Topics = []string{q.Topic}
	}
	for _, a := range q.Parameters {
		if err := p.take(q.Topic, a); err != nil {
			return Request{}, err
		}
	}
	return p.finish(q)
}

type parser struct {
	now        time.Time
	req        Request
	seen       map[string]string
	keyFormat  *Format
	bothFormat Format
	valFormat  *Format
}

// take dispatches one parameter. Polyfills add _, r and padding.
func (p *parser) take(path string, a Parameter) error {
	switch a.Name {
	case "_", "r", "padding":
		return nil
	case "stream":
		if path != "" {
			if a.Value != path {
				return invalid(a.Name, "must be the topic of the path")
			}
			return nil
		}
		return p.topic(a)
	case "topic":
		if path == "" {
			return p.topic(a)
		}
	}
	set, known := setters[a.Name]
	if !known {
		return refuse(codeParameter, "Unknown parameter \""+quoted(a.Name)+"\".")
	}
	name := a.Name
	if name == "lastEventId" {
		name = "last_event_id"
	}
	if _, twice := p.seen[name]; twice {
		return invalid(a.Name, "must be given once")
	}
	p.seen[name] = a.Value
	return set(p, a)
}

func (p *parser) topic(a Parameter) error {
	if a.Value == "" {
		return invalid(a.Name, "must be the name of a topic")
	}
	if !slices.Contains(p.req.Topics, a.Value) {
		p.req.Topics = append(p.req.Topics, a.Value)
	}
	if len(p.req.Topics) > maxTopics {
		return invalid(a.Name, "must be given at most 16 times")
	}
	return nil
}

var setters = map[string]func(*parser, Parameter) error{
	"partitions":    (*parser).partitions,
	"from":          (*parser).from,
	"since":         (*parser).since,
	"offsets":       (*parser).offsets,
	"last_event_id": func(p *parser, a Parameter) error { p.req.LastEventID = a.Value; return nil },
	"lastEventId":   func(p *parser, a Parameter) error { p.req.LastEventID = a.Value; return nil },
	"format":        func(p *parser, a Parameter) error { return parseFormat(a, &p.bothFormat) },
	"key_format":    func(p *parser, a Parameter) error { p.keyFormat = new(Format); return parseFormat(a, p.keyFormat) },
	"value_format":  func(p *parser, a Parameter) error { p.valFormat = new(Format); return parseFormat(a, p.valFormat) },
	"on_gap":        (*parser).onGap,
	"heartbeat":     (*parser).heartbeat,
	"mode":          func(_ *parser, a Parameter) error { return only(a, "envelope") },
	"resume":        func(_ *parser, a Parameter) error { return only(a, "offset") },
	"strict":        func(p *parser, a Parameter) error { p.req.Strict = true; return only(a, "1") },
}

func only(a Parameter, value string) error {
	if a.Value != value {
		return invalid(a.Name, "must be "+value)
	}
	return nil
}

func parseFormat(a Parameter, into *Format) error {
	i := slices.Index([]string{"auto", "json", "text", "base64"}, a.Value)
	if i < 0 {
		return invalid(a.Name, "must be auto, json, text or base64")
	}
	*into = Format(i)
	return nil
}

func (p *parser) from(a Parameter) error {
	i := slices.Index([]string{"latest", "earliest", "timestamp", "offsets"}, a.Value)
	if i < 0 {
		return invalid(a.Name, "must be latest, earliest, timestamp or offsets")
	}
	p.req.From = start(i)
	return nil
}

func (p *parser) onGap(a Parameter) error {
	i := slices.Index([]string{"earliest", "latest", "error"}, a.Value)
	if i < 0 {
		return invalid(a.Name, "must be earliest, latest or error")
	}
	p.req.OnGap = onGap(i)
	return nil
}

func (p *parser) heartbeat(a Parameter) error {
	d, err := time.ParseDuration(a.Value)
	if err != nil || d < 5*time.Second || d > time.Minute {
		return invalid(a.Name, "must lie between 5s and 60s")
	}
	p.req.Heartbeat = d
	return nil
}

// since takes epoch ms, RFC 3339, or a time ago such as -90s. A + of RFC 3339 that was not escaped arrives as a blank.
func (p *parser) since(a Parameter) error {
	if ms, err := strconv.ParseInt(a.Value, 10, 64); err == nil && ms >= 0 {
		p.req.Since = time.UnixMilli(ms)
		return nil
	}
	if d, err := time.ParseDuration(a.Value); err == nil && d < 0 {
		p.req.Since = p.now.Add(d)
		return nil
	}
	t, err := time.Parse(time.RFC3339, strings.Replace(a.Value, " ", "+", 1))
	if err != nil {
		return invalid(a.Name, "must be epoch milliseconds, an RFC 3339 time or a duration such as -90s")
	}
	p.req.Since = t
	return nil
}

func (p *parser) offsets(a Parameter) error {
	fault := invalid(a.Name, "must be a list such as 3:104857,5:88 or orders/3:104857")
	for item := range strings.SplitSeq(a.Value, ",") {
		topic, rest, named := strings.Cut(item, "/")
		if !named {
			topic, rest = "", item
		}
		number, offset, ok := strings.Cut(rest, ":")
		n, ok1 := parsePartition(number)
		o, err := strconv.ParseInt(offset, 10, 64)
		if !ok || !ok1 || err != nil || o < 0 || named && topic == "" {
			return fault
		}
		p.req.Offsets = append(p.req.Offsets, sluice.Position{Topic: topic, Partition: n, Offset: o})
	}
	return nil
}

func (p *parser) partitions(a Parameter) error {
	fault := invalid(a.Name, "must be a list such as 0,2,5-7 or orders/0-3,payments/1")
	p.req.Subset = map[string][]span{}
	for item := range strings.SplitSeq(a.Value, ",") {
		topic, rest, named := strings.Cut(item, "/")
		if !named {
			topic, rest = "", item
		}
		low, high, isSpan := strings.Cut(rest, "-")
		if !isSpan {
			high = low
		}
		l, ok1 := parsePartition(low)
		h, ok2 := parsePartition(high)
		if !ok1 || !ok2 || h < l || named && topic == "" {
			return fault
		}
		p.req.Subset[topic] = append(p.req.Subset[topic], span{l, h})
	}
	return nil
}

func parsePartition(s string) (int32, bool) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int32(n), err == nil
}

// finish checks the parameters against each other.
func (p *parser) finish(q Query) (Request, error) {
	r := &p.req
	if len(r.Topics) == 0 {
		return Request{}, invalid("topic", "must be given")
	}
	if q.LastEventID != "" {
		r.LastEventID = q.LastEventID
	}
	r.Key, r.Value = p.bothFormat, p.bothFormat
	if p.keyFormat != nil {
		r.Key = *p.keyFormat
	}
	if p.valFormat != nil {
		r.Value = *p.valFormat
	}
	if err := p.finishStart(); err != nil {
		return Request{}, err
	}
	return *r, p.finishPartitions()
}

func (p *parser) finishStart() error {
	r := &p.req
	_, from := p.seen["from"]
	_, since := p.seen["since"]
	_, offsets := p.seen["offsets"]
	switch {
	case since && offsets:
		return invalid("offsets", "must not be given with since")
	case since && from && r.From != fromTimestamp:
		return invalid("from", "must be timestamp where since is given")
	case offsets && from && r.From != fromOffsets:
		return invalid("from", "must be offsets where offsets are given")
	case r.From == fromTimestamp && !since:
		return invalid("since", "must be given with from=timestamp")
	case r.From == fromOffsets && !offsets:
		return invalid("offsets", "must be given with from=offsets")
	case since:
		r.From = fromTimestamp
	case offsets:
		r.From = fromOffsets
	}
	return nil
}

// finishPartitions gives partitions and offsets without a topic the only one there is.
func (p *parser) finishPartitions() error {
	r := &p.req
	if bare, ok := r.Subset[""]; ok {
		if len(r.Topics) > 1 {
			return invalid("partitions", "must name the topics")
		}
		delete(r.Subset, "")
		r.Subset[r.Topics[0]] = append(r.Subset[r.Topics[0]], bare...)
	}
	for topic := range r.Subset {
		if !slices.Contains(r.Topics, topic) {
			return invalid("partitions", "must be of the topics of the request")
		}
	}
	for i := range r.Offsets {
		o := &r.Offsets[i]
		if o.Topic == "" && len(r.Topics) > 1 {
			return invalid("offsets", "must name the topics")
		}
		if o.Topic == "" {
			o.Topic = r.Topics[0]
		}
		if !slices.Contains(r.Topics, o.Topic) || !r.follows(o.Topic, o.Partition) {
			return invalid("offsets", "must be of the topics and partitions of the request")
		}
		for _, other := range r.Offsets[:i] {
			if other.Topic == o.Topic && other.Partition == o.Partition {
				return invalid("offsets", "must name each partition once")
			}
		}
	}
	return nil
}

// follows reports whether the request asks for a partition, if it exists.
func (r *Request) follows(topic string, partition int32) bool {
	spans, ok := r.Subset[topic]
	if !ok {
		return true
	}
	return slices.ContainsFunc(spans, func(s span) bool { return s.low <= partition && partition <= s.high })
}
