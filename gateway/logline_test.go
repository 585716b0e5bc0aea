package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"testing/synctest"
	"time"
)

func TestTheLogIsAHandlerAsSlogWantsIt(t *testing.T) {
	var out bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		out.Reset()
		return newLineHandler(&out, slog.LevelInfo)
	}, func(t *testing.T) (got map[string]any) {
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("%v in %s", err, out.Bytes())
		}
		return got
	})
}

type secret string

func (secret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// Whatever is logged reads as with the library's handler.
func TestTheLogSaysWhatSlogsOwnHandlerSays(t *testing.T) {
	at := time.Date(2026, 11, 25, 1, 2, 3, 456_789_000, time.FixedZone("east", 3600))
	attrs := []slog.Attr{
		slog.String("plain", "text"), slog.String("odd", "a\"b\\c\n\x01é\u2028\xff<&>{"), slog.String("", "no name"), {},
		slog.Int("int", -1), slog.Uint64("uint", 1<<63), slog.Float64("float", 0.1), slog.Bool("bool", true),
		slog.Duration("took", time.Second), slog.Time("time", at), slog.Any("nil", nil),
		slog.Any("error", fmt.Errorf("outer: %w", io.EOF)), slog.Any("map", map[string]int{"a<": 1}), slog.Any("ip", net.IPv4(1, 2, 3, 4)),
		slog.Any("secret", secret("s3cret")), slog.Any("list", []string{"x", "y"}),
		slog.Group("group", slog.Int("a", 1), slog.Group("empty"), slog.Group("inner", slog.Int("b", 2)), slog.Int("c", 3)),
		slog.Group("", slog.Int("inline", 1)), slog.Group("hollow", slog.Group("hollow")), slog.Int("last", 1),
	}
	var ours, theirs bytes.Buffer
	for _, log := range []*slog.Logger{slog.New(newLineHandler(&ours, slog.LevelDebug)), slog.New(slog.NewJSONHandler(&theirs, nil))} {
		h := log.With("service_name", "s").WithGroup("g").WithGroup("h").Handler()
		h = h.WithAttrs([]slog.Attr{slog.Int("w", 1)}).WithGroup("i")
		for _, h := range []slog.Handler{log.Handler(), h, h.WithGroup("unused")} {
			r := slog.NewRecord(at.UTC(), slog.LevelInfo, "said", 0)
			r.AddAttrs(attrs...)
			if err := h.Handle(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := strings.ReplaceAll(theirs.String(), `"INFO"`, `"info"`)
	if ours.String() != want {
		t.Errorf("\n%s\nwant\n%s", &ours, want)
	}
}

func TestLevelsAreNamedAsTheOtherServicesNameThem(t *testing.T) {
	var out bytes.Buffer
	log := NewLogger(&out, "debug")
	for level, want := range map[slog.Level]string{slog.LevelDebug: "debug", slog.LevelInfo: "info", slog.LevelWarn: "warning", slog.LevelError: "error"} {
		out.Reset()
		log.Log(t.Context(), level, "")
		var got map[string]any
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		delete(got, "time")
		if !reflect.DeepEqual(got, map[string]any{"level": want}) {
			t.Errorf("%v, want the level %s and no empty message", got, want)
		}
	}
}

// gated lets a write through for each value it receives.
type gated struct {
	pass   chan struct{}
	writes [][]byte
}

func (g *gated) Write(p []byte) (int, error) {
	<-g.pass
	g.writes = append(g.writes, bytes.Clone(p))
	return len(p), nil
}

func TestLinesThatWaitLeaveTogetherAndNoneIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &gated{pass: make(chan struct{})}
		l := NewLines(out)
		write := func(text string) {
			if _, err := l.Write([]byte(text)); err != nil {
				t.Error(err)
			}
		}
		write("1\n")
		synctest.Wait() // the first is being written
		write("2\n")
		write("3\n")
		out.pass <- struct{}{}
		out.pass <- struct{}{}
		synctest.Wait()
		if got := fmt.Sprintf("%q", out.writes); got != `["1\n" "2\n3\n"]` {
			t.Errorf("written as %s", got)
		}

		big := strings.Repeat("x", linesWaiting/2) + "\n"
		var stuck sync.WaitGroup
		var through int
		stuck.Go(func() {
			for range 8 {
				write(big)
				through++
			}
		})
		synctest.Wait()
		if through < 2 || through > 3 {
			t.Errorf("%d lines of half a megabyte were taken from one who logs to a writer that is stuck", through)
		}
		close(out.pass)
		stuck.Wait()
		write("end\n")
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		write("after\n")
		if got, want := string(bytes.Join(out.writes, nil)), "1\n2\n3\n"+strings.Repeat(big, 8)+"end\nafter\n"; got != want {
			t.Errorf("%d bytes were written, want %d", len(got), len(want))
		}
	})
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestLinesTellThatTheyCouldNotBeWritten(t *testing.T) {
	l := NewLines(broken{})
	if _, err := l.Write([]byte("x\n")); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err == nil || err.Error() != "no space left" {
		t.Errorf("Close says %v", err)
	}
}
