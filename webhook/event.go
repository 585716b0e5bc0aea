package webhook

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sluicegate/sluice"
)

// event is a record seen as a CloudEvent (1.0): its own attributes if it is one by the Kafka binding, else ours.
type event struct {
	attributes  []attribute // in a fixed order; without datacontenttype
	contentType string
	data        []byte
	null        bool // the record is a tombstone
}

type attribute struct{ name, value string }

func (e *event) set(name, value string) { e.attributes = append(e.attributes, attribute{name, value}) }

func (e *event) get(name string) string {
	for _, a := range e.attributes {
		if a.name == name {
			return a.value
		}
	}
	return ""
}

const (
	defaultType        = "org.apache.kafka.record"
	defaultContentType = "application/json"
	maxKeyHeader       = 2 << 10
)

// recordContentType is the record's own, else JSON: nothing is ever sniffed. Of several headers the last counts, as in
// Kafka's Headers.lastHeader.
func recordContentType(r *sluice.Record) string {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if h := r.Headers[i]; strings.EqualFold(h.Name, "content-type") && len(h.Value) > 0 {
			return string(h.Value)
		}
	}
	return defaultContentType
}

// readEvent gives every record attributes. The error means that it claims to be a CloudEvent and cannot be read.
func readEvent(d Delivery) (event, error) {
	r := d.Record
	e := event{contentType: recordContentType(r), data: r.Value, null: r.Value == nil}
	own := map[string]string{}
	for _, h := range r.Headers {
		name, is := strings.CutPrefix(h.Name, "ce_")
		if is && attributeName(name) && len(h.Value) > 0 {
			own[name] = string(h.Value)
		}
	}
	structured := false
	if media, _, err := mime.ParseMediaType(e.contentType); err == nil && media == "application/cloudevents+json" && !e.null {
		structured = true
		var err error
		if own, e.contentType, e.data, err = unpack(r.Value); err != nil {
			return event{}, err
		}
	}
	is := own["specversion"] != "" && own["id"] != "" && own["source"] != "" && own["type"] != ""
	if structured && !is {
		return event{}, errors.New("the CloudEvent lacks specversion, id, source or type")
	}
	if !is {
		own = map[string]string{
			"specversion": "1.0",
			"id":          fmt.Sprintf("%d-%d", r.Partition, r.Offset),
			"source":      "/kafka/" + d.ClusterID + "/" + r.Topic,
			"type":        defaultType,
		}
		if !r.Timestamp.IsZero() {
			own["time"] = stamp(r.Timestamp)
		}
		if usableKey(r.Key) {
			own["subject"] = string(r.Key)
		}
	}
	if usableKey(r.Key) && own["partitionkey"] == "" {
		own["partitionkey"] = string(r.Key)
	}
	if own["sequence"] == "" {
		own["sequence"] = fmt.Sprintf("%020d", r.Offset)
	}
	for _, name := range []string{"specversion", "id", "source", "type", "time", "subject", "partitionkey", "sequence"} {
		if value := own[name]; value != "" {
			e.set(name, value)
		}
		delete(own, name)
	}
	for name, value := range own {
		if name != "datacontenttype" {
			e.set(name, value)
		}
	}
	return e, nil
}

// usableKey is a key that can be an attribute.
func usableKey(key []byte) bool {
	return len(key) > 0 && len(key) <= maxKeyHeader && utf8.Valid(key)
}

// attributeName is CloudEvents' rule: lower-case letters and digits.
func attributeName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

// unpack reads an event in the JSON format. Data that is JSON comes out byte for byte.
func unpack(value []byte) (attributes map[string]string, contentType string, data []byte, err error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(value, &members); err != nil || !utf8.Valid(value) {
		return nil, "", nil, errors.New("the CloudEvent is no JSON object")
	}
	attributes = map[string]string{}
	for name, raw := range members {
		if name == "data" || name == "data_base64" || string(raw) == "null" {
			continue
		}
		text, ok := attributeText(raw)
		if !ok || !attributeName(name) {
			return nil, "", nil, fmt.Errorf("the CloudEvent's attribute %q is not allowed", name)
		}
		attributes[name] = text
	}
	contentType = defaultContentType
	if own := attributes["datacontenttype"]; own != "" {
		contentType = own
	}
	if encoded, there := members["data_base64"]; there && string(encoded) != "null" {
		var text string
		if err := json.Unmarshal(encoded, &text); err != nil {
			return nil, "", nil, errors.New("the CloudEvent's data_base64 is no string")
		}
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, "", nil, errors.New("the CloudEvent's data_base64 is not base64")
		}
		return attributes, contentType, data, nil
	}
	data = members["data"]
	if isJSON(contentType) {
		return attributes, contentType, data, nil
	}
	var text string
	if json.Unmarshal(data, &text) == nil {
		data = []byte(text) // a text in a format other than JSON stands as a JSON string
	}
	return attributes, contentType, data, nil
}

func attributeText(raw json.RawMessage) (string, bool) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text, true
	}
	var flag bool
	if json.Unmarshal(raw, &flag) == nil {
		return strconv.FormatBool(flag), true
	}
	n, err := strconv.ParseInt(string(raw), 10, 32) // CloudEvents integers have 32 bits
	return strconv.FormatInt(n, 10), err == nil
}

func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json"))
}
