package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// lineHandler writes records as lines of JSON (operations-and-security.md 2.5). It does what slog.JSONHandler does but
// for the names of the levels, UTC, and that an empty message is left out. The library's handler calls a function for
// each attribute to rename one; each request writes a line, and with it that line was an eighth of what a produce of one
// record costs.
type lineHandler struct {
	least slog.Level
	mu    *sync.Mutex // of w
	w     io.Writer

	fixed   []byte   // what WithAttrs added, with the groups that this opened
	opened  int      // how many those are
	pending []string // groups without an attribute so far: they show with their first one
}

func newLineHandler(w io.Writer, least slog.Level) *lineHandler {
	return &lineHandler{least: least, mu: &sync.Mutex{}, w: w}
}

// Enabled is part of slog.Handler.
func (h *lineHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.least }

// WithGroup is part of slog.Handler.
func (h *lineHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.pending = append(slices.Clip(h.pending), name)
	return &with
}

// WithAttrs is part of slog.Handler.
func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	l := line{out: slices.Clone(h.fixed), pending: h.pending}
	for _, a := range attrs {
		l.attr(a)
	}
	with := *h
	with.fixed, with.opened = l.out, h.opened+len(h.pending)-len(l.pending)
	with.pending = l.pending
	return &with
}

var lines = sync.Pool{New: func() any { return &line{} }}

// Handle is part of slog.Handler. It keeps nothing of r.
func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	l := lines.Get().(*line)
	l.out = append(l.out[:0], '{')
	l.pending = h.pending
	if !r.Time.IsZero() {
		l.out = append(l.out, `"time":"`...)
		l.out = append(r.Time.UTC().AppendFormat(l.out, time.RFC3339Nano), `",`...)
	}
	l.out = append(l.out, `"level":"`...)
	l.out = append(append(l.out, levelName(r.Level)...), '"')
	if r.Message != "" {
		l.out = append(l.out, `,"msg":`...)
		l.text(r.Message)
	}
	l.out = append(l.out, h.fixed...)
	r.Attrs(func(a slog.Attr) bool {
		l.attr(a)
		return true
	})
	for range h.opened + len(h.pending) - len(l.pending) {
		l.out = append(l.out, '}')
	}
	l.out = append(l.out, "}\n"...)
	h.mu.Lock()
	_, err := h.w.Write(l.out)
	h.mu.Unlock()
	if cap(l.out) <= 64<<10 {
		lines.Put(l)
	}
	return err
}

// levelName is slog's name in lower case, "warning" in place of "warn".
func levelName(l slog.Level) string {
	switch l {
	case slog.LevelInfo:
		return "info"
	case slog.LevelWarn:
		return "warning"
	}
	return strings.ToLower(l.String())
}

// line is one on its way.
type line struct {
	out     []byte
	pending []string
}

// attr appends an attribute, and before it the groups that it is the first one of.
func (l *line) attr(a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		l.group(a.Key, v.Group())
		return
	}
	if a.Key == "" && v.Any() == nil {
		return // slog.Attr{} is none
	}
	for _, name := range l.pending {
		l.key(name)
		l.out = append(l.out, '{')
	}
	l.pending = nil
	l.key(a.Key)
	l.value(v)
}

// group writes the attributes of a group; one without any does not show, one without a name is not there.
func (l *line) group(name string, attrs []slog.Attr) {
	if name == "" {
		for _, a := range attrs {
			l.attr(a)
		}
		return
	}
	before := len(l.pending)
	l.pending = append(slices.Clip(l.pending), name)
	for _, a := range attrs {
		l.attr(a)
	}
	if len(l.pending) == 0 {
		l.out = append(l.out, '}')
		return
	}
	l.pending = l.pending[:before]
}

func (l *line) key(name string) {
	if n := len(l.out); n > 0 && l.out[n-1] != '{' || n == 0 {
		l.out = append(l.out, ',')
	}
	l.text(name)
	l.out = append(l.out, ':')
}

func (l *line) value(v slog.Value) {
	switch v.Kind() {
	case slog.KindString:
		l.text(v.String())
	case slog.KindInt64:
		l.out = strconv.AppendInt(l.out, v.Int64(), 10)
	case slog.KindUint64:
		l.out = strconv.AppendUint(l.out, v.Uint64(), 10)
	case slog.KindBool:
		l.out = strconv.AppendBool(l.out, v.Bool())
	case slog.KindDuration: // nanoseconds, as slog has them
		l.out = strconv.AppendInt(l.out, int64(v.Duration()), 10)
	case slog.KindTime:
		l.text(v.Time().Format(time.RFC3339Nano))
	default:
		l.any(v.Any())
	}
}

// any writes an error as its text and what else there is as encoding/json does.
func (l *line) any(v any) {
	if err, ok := v.(error); ok {
		if _, own := v.(json.Marshaler); !own {
			l.text(err.Error())
			return
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		l.text(fmt.Sprintf("!ERROR:%v", err))
		return
	}
	l.out = append(l.out, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

// text writes a JSON string. Almost every text is plain.
func (l *line) text(s string) {
	for i := range len(s) {
		if b := s[i]; b < 0x20 || b >= 0x7f || b == '"' || b == '\\' {
			l.any(s)
			return
		}
	}
	l.out = append(l.out, '"')
	l.out = append(l.out, s...)
	l.out = append(l.out, '"')
}
