package subscriptions

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sluicegate/sluice"
)

// Limits of the fields.
const (
	maxName        = 128
	maxTopics      = 16
	maxURL         = 2048
	maxAttempts    = 20
	maxScheduleSum = 7 * 24 * time.Hour
	maxInFlight    = 1024
)

// defaultSchedule spreads ten attempts over 75 hours.
var defaultSchedule = []Duration{
	0, Duration(5 * time.Second), Duration(5 * time.Minute), Duration(30 * time.Minute), Duration(2 * time.Hour),
	Duration(5 * time.Hour), Duration(10 * time.Hour), Duration(14 * time.Hour), Duration(20 * time.Hour), Duration(24 * time.Hour),
}

// parseDraft turns a document of the API into a subscription without id, owner, times and resolved offsets. Faults that
// need no look-up are all in f when it returns; the error is Malformed or TooLarge.
func parseDraft(body []byte, f *faults) (*Subscription, error) {
	top, err := parseObject(body, f)
	if err != nil {
		return nil, err
	}
	s := &Subscription{State: Active}
	s.Name = draftName(top)
	s.Source = draftSource(top.object("source"))
	s.Endpoint = draftEndpoint(top.object("endpoint"))
	s.Verification = top.choice("verification", VerifyNone, VerifyNone)
	s.Signing = draftSigning(top.object("signing"))

	payload := top.object("payload")
	s.Payload.Format = payload.choice("format", FormatBinary, FormatBinary, FormatRaw, FormatStandard)
	payload.rest()

	delivery := top.object("delivery")
	s.Delivery.Ordering = delivery.choice("ordering", OrderKey, OrderNone, OrderKey, OrderPartition)
	s.Delivery.MaxInFlight = int(delivery.whole("max_in_flight", 32, 1, maxInFlight))
	delivery.rest()

	s.Retry = draftRetry(top.object("retry"))
	top.rest()
	return s, nil
}

func draftName(top *object) string {
	name, _ := top.text("name", "")
	if utf8.RuneCountInString(name) > maxName {
		top.faults.add("name", "must not be longer than %d characters", maxName)
	}
	if strings.ContainsFunc(name, unicode.IsControl) {
		top.faults.add("name", "must not contain control characters")
	}
	return name
}

func draftSource(o *object) Source {
	defer o.rest()
	var s Source
	topics := o.list("topics")
	if len(topics) == 0 || len(topics) > maxTopics {
		o.faults.add(o.at("topics"), "must name 1 to %d topics", maxTopics)
	}
	for i, v := range topics {
		path := o.at("topics") + "[" + strconv.Itoa(i) + "]"
		name, is := v.(string)
		switch {
		case !is || !legalTopic(name):
			o.faults.add(path, "must be the name of a topic")
		case strings.HasPrefix(name, "__") || strings.HasPrefix(name, "sluice."):
			o.faults.add(path, "is an internal topic")
		case slices.Contains(s.Topics, name):
			o.faults.add(path, "is named more than once")
		default:
			s.Topics = append(s.Topics, name)
		}
	}
	s.StartFrom = o.choice("start_from", FromLatest, FromLatest, FromEarliest, FromTimestamp, FromOffsets)
	s.StartTimestamp = draftTimestamp(o, s.StartFrom)
	s.StartOffsets = draftOffsets(o, s.StartFrom, s.Topics)
	return s
}

// legalTopic is Kafka's own rule for names.
func legalTopic(name string) bool {
	if name == "" || name == "." || name == ".." || len(name) > 249 {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
	})
}

func draftTimestamp(o *object, from string) *Time {
	text, given := o.text("start_timestamp", "")
	switch {
	case given && from != FromTimestamp:
		o.faults.add(o.at("start_timestamp"), `goes only with start_from "timestamp"`)
	case given:
		at, err := time.Parse(time.RFC3339, text)
		if err == nil && at.UnixMilli() >= 0 {
			return &Time{at.UTC()}
		}
		o.faults.add(o.at("start_timestamp"), "must be a time in RFC 3339, not before 1970")
	case from == FromTimestamp:
		o.faults.add(o.at("start_timestamp"), `is required with start_from "timestamp"`)
	}
	return nil
}

func draftOffsets(o *object, from string, topics []string) map[string]map[int32]int64 {
	_, given := o.members["start_offsets"]
	byTopic := o.object("start_offsets")
	if from != FromOffsets {
		if given {
			o.faults.add(o.at("start_offsets"), `goes only with start_from "offsets"`)
		}
		return nil
	}
	all := map[string]map[int32]int64{}
	for _, topic := range topics {
		if _, there := byTopic.members[topic]; !there {
			o.faults.add(byTopic.at(topic), "is required: an offset for each partition")
			continue
		}
		byPartition := byTopic.object(topic)
		all[topic] = map[int32]int64{}
		for _, name := range byPartition.order {
			v, _ := byPartition.take(name)
			number, err := strconv.ParseInt(name, 10, 32)
			offset, is := integer(v)
			switch {
			case err != nil || number < 0 || strconv.FormatInt(number, 10) != name:
				o.faults.add(byPartition.at(name), "must be the number of a partition")
			case !is || offset < 0:
				o.faults.add(byPartition.at(name), "must be an offset, 0 or more")
			default:
				all[topic][int32(number)] = offset
			}
		}
	}
	byTopic.rest()
	return all
}

func draftEndpoint(o *object) Endpoint {
	defer o.rest()
	e := Endpoint{Timeout: Duration(15 * time.Second)}
	var given bool
	e.URL, given = o.text("url", "")
	switch reason := urlFault(e.URL); {
	case o.faults.has(o.at("url")):
	case !given:
		o.faults.add(o.at("url"), "is required")
	case reason != "":
		o.faults.add(o.at("url"), "%s", reason)
	}
	if text, given := o.text("timeout", ""); given {
		d, err := ParseDuration(text)
		if err != nil || d.Std() < time.Second || d.Std() > time.Minute {
			o.faults.add(o.at("timeout"), "must be a duration from 1s to 60s")
		} else {
			e.Timeout = d
		}
	}
	return e
}

// urlFault says what is wrong with the text itself. What the address may be is the guard's affair.
func urlFault(text string) string {
	if len(text) > maxURL {
		return fmt.Sprintf("must not be longer than %d bytes", maxURL)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Opaque != "" || u.Hostname() == "":
		return "must be an absolute https URL"
	case u.User != nil:
		return "must not contain user or password"
	case u.Fragment != "" || strings.Contains(text, "#"):
		return "must not contain a fragment"
	case strings.ContainsFunc(u.Hostname(), func(r rune) bool { return r > unicode.MaxASCII }):
		return "must have its host in punycode"
	}
	return ""
}

func draftSigning(o *object) Signing {
	defer o.rest()
	text, given := o.text("secret", "")
	if !given {
		return Signing{Secrets: []SigningSecret{{Secret: NewSecret()}}, generated: true}
	}
	secret, err := ParseSecret(text)
	if err != nil {
		o.faults.add(o.at("secret"), "%s", err.Error())
	}
	return Signing{Secrets: []SigningSecret{{Secret: secret}}}
}

func draftRetry(o *object) Retry {
	defer o.rest()
	if _, given := o.members["schedule"]; !given {
		return Retry{Schedule: slices.Clone(defaultSchedule)}
	}
	var r Retry
	var sum time.Duration
	list := o.list("schedule")
	for i, v := range list {
		text, is := v.(string)
		d, err := ParseDuration(text)
		if !is || err != nil || d.Std() > maxScheduleSum {
			o.faults.add(o.at("schedule")+"["+strconv.Itoa(i)+"]", "must be a duration of at most 7 days")
			continue
		}
		sum += d.Std()
		r.Schedule = append(r.Schedule, d)
	}
	if len(list) == 0 || len(list) > maxAttempts {
		o.faults.add(o.at("schedule"), "must have 1 to %d entries", maxAttempts)
	} else if sum > maxScheduleSum {
		o.faults.add(o.at("schedule"), "must not add up to more than 7 days")
	}
	return r
}

// has reports whether path is at fault already.
func (f *faults) has(path string) bool {
	return slices.ContainsFunc(f.list, func(one Field) bool { return one.Path == path })
}

// check asks the guard about the endpoint, last, because it may look a name up.
func (f *faults) check(ctx context.Context, g guard, s *Subscription) error {
	path := "endpoint.url"
	if f.has(path) {
		return f.err(false)
	}
	err := g.Check(ctx, s.Endpoint.URL)
	if err == nil {
		return f.err(false)
	}
	if sluice.KindOf(err) != sluice.Invalid {
		return fmt.Errorf("check the endpoint: %w", err)
	}
	f.add(path, "is not an address that may be called")
	return f.err(len(f.list) == 1)
}

func (f *faults) err(refused bool) error {
	if len(f.list) == 0 {
		return nil
	}
	return &Invalid{Fields: f.list, Refused: refused}
}
