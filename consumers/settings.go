package consumers

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluicegate/sluice"
)

const (
	maxMinBytes = 10_000_000
	maxHold     = 55 * time.Second // nothing is held longer: proxies and clients give up at 60 s
)

// Reset says where an instance begins in a partition for which its group has committed nothing, and where it goes on
// when its position lies outside the log.
type Reset string

// The values of auto.offset.reset; ResetNone makes a read fail instead.
const (
	ResetLatest   Reset = "latest"
	ResetEarliest Reset = "earliest"
	ResetNone     Reset = "none"
)

// Settings are the options of one instance (rest-api.md 5.1). Zero means the server's own setting.
type Settings struct {
	ID         string // "": Sluice makes one up
	Format     string // "binary", "json", …
	Reset      Reset
	AutoCommit *bool // nil: by API, v1 off, v2 on
	MinBytes   int   // of keys and values
	Timeout    time.Duration
	Isolation  sluice.Isolation
}

// ParseSettings reads the options of a create request, as decoded from JSON with numbers as json.Number. known says
// which formats there are. Kinds: Malformed, Invalid (unknown field or format), BadSetting, OutOfBounds.
func ParseSettings(options map[string]any, known func(format string) bool) (Settings, error) {
	s := Settings{Format: "binary", Reset: ResetLatest, Isolation: sluice.ReadUncommitted}
	texts := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if !slices.Contains(optionNames, name) {
			return s, &sluice.Error{Kind: sluice.Invalid, Msg: "Unrecognized field: " + name}
		}
		switch v := options[name].(type) {
		case nil: // as if absent
		case string:
			texts[name] = v
		case bool:
			texts[name] = strconv.FormatBool(v)
		case json.Number:
			texts[name] = v.String()
		default:
			return s, &sluice.Error{Kind: sluice.Malformed, Msg: name + " must be a string, a number or a boolean"}
		}
	}
	for _, read := range []func(map[string]string) error{
		s.readID,
		func(t map[string]string) error { return s.readFormat(t, known) },
		s.readReset, s.readAutoCommit, s.readMinBytes, s.readTimeout, s.readIsolation,
	} {
		if err := read(texts); err != nil {
			return s, err
		}
	}
	return s, nil
}

var optionNames = []string{
	"id", "name", "format", "auto.offset.reset", "auto.commit.enable", "enable.auto.commit", "fetch.min.bytes",
	"responseMinBytes", "consumer.request.timeout.ms", "requestWaitMs", "isolation.level", "topic.metadata.refresh.interval.ms",
}

// option is the value of the first of the names that was given.
func option(texts map[string]string, names ...string) (string, bool) {
	for _, name := range names {
		if v, ok := texts[name]; ok {
			return v, true
		}
	}
	return "", false
}

func (s *Settings) readID(texts map[string]string) error {
	id, ok := option(texts, "id", "name")
	if !ok {
		return nil
	}
	if err := checkName("instance id", id); err != nil {
		return err
	}
	s.ID = id
	return nil
}

func (s *Settings) readFormat(texts map[string]string, known func(string) bool) error {
	format, ok := option(texts, "format")
	if !ok {
		return nil
	}
	s.Format = strings.ToLower(format)
	if !known(s.Format) {
		return &sluice.Error{Kind: sluice.Invalid, Msg: "Invalid format type."}
	}
	return nil
}

func (s *Settings) readReset(texts map[string]string) error {
	reset, ok := option(texts, "auto.offset.reset")
	if !ok {
		return nil
	}
	switch reset {
	case "latest", "largest":
		s.Reset = ResetLatest
	case "earliest", "smallest":
		s.Reset = ResetEarliest
	case "none":
		s.Reset = ResetNone
	default:
		return badValue(reset, "auto.offset.reset", "String must be one of: latest, earliest, none")
	}
	return nil
}

func (s *Settings) readAutoCommit(texts map[string]string) error {
	commit, ok := option(texts, "auto.commit.enable", "enable.auto.commit")
	if !ok {
		return nil
	}
	on := strings.EqualFold(commit, "true")
	if !on && !strings.EqualFold(commit, "false") {
		return badValue(commit, "auto.commit.enable", "Expected value to be either true or false")
	}
	s.AutoCommit = &on
	return nil
}

func (s *Settings) readMinBytes(texts map[string]string) error {
	text, ok := option(texts, "fetch.min.bytes", "responseMinBytes")
	if !ok {
		return nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < -1 || n > maxMinBytes {
		return outOfBounds("fetch.min.bytes", text, "-1 to 10000000")
	}
	s.MinBytes = max(n, 1)
	return nil
}

func (s *Settings) readTimeout(texts map[string]string) error {
	text, ok := option(texts, "consumer.request.timeout.ms", "requestWaitMs")
	if !ok {
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 1 {
		return outOfBounds("consumer.request.timeout.ms", text, "1 to 2147483647")
	}
	s.Timeout = time.Duration(n) * time.Millisecond
	return nil
}

func (s *Settings) readIsolation(texts map[string]string) error {
	level, ok := option(texts, "isolation.level")
	if !ok {
		return nil
	}
	switch level {
	case sluice.ReadCommitted.String():
		s.Isolation = sluice.ReadCommitted
	case sluice.ReadUncommitted.String():
		s.Isolation = sluice.ReadUncommitted
	default:
		return badValue(level, "isolation.level", "String must be one of: read_committed, read_uncommitted")
	}
	return nil
}

func badValue(value, option, rule string) error {
	return badSetting(fmt.Sprintf("Invalid value %s for configuration %s: %s", value, option, rule))
}

func badSetting(text string) error {
	return &sluice.Error{Kind: sluice.BadSetting, Msg: text}
}

func outOfBounds(option, value, bounds string) error {
	return &sluice.Error{Kind: sluice.OutOfBounds, Msg: fmt.Sprintf(
		"%s must be an integer from %s (was %s)", option, bounds, value)}
}

// checkGroup refuses names that could not stand in a path, and those that carry Sluice's own state.
func checkGroup(group string) error {
	if strings.HasPrefix(group, "sluice.") {
		return badSetting(`Group names that begin with "sluice." are reserved`)
	}
	return checkName("group name", group)
}

func checkName(what, name string) error {
	if name == "" || len(name) > 255 || !printable(name) {
		return badSetting("The " + what + " must have 1 to 255 bytes, no control characters and no slash")
	}
	return nil
}

func printable(name string) bool {
	return strings.IndexFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '/' }) < 0
}
