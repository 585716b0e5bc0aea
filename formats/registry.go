package formats

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/sr"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"github.com/sluicegate/sluice"
)

const (
	// Patience bounds all that one look-up asks of the registry, retries included.
	Patience      = 5 * time.Second
	attemptBound  = 2 * time.Second // for one answer of it
	attempts      = 3
	retryAfter    = 100 * time.Millisecond // doubled each time
	maxReferences = 100                    // of one schema, in all
	keptBytes     = 64 << 20               // of schemas that are ready for use
	compilers     = 2                      // at a time; each may take tens of megabytes
)

// Registry is the schema registry as the formats need it: Confluent's API, over sr. What it once said is kept, since an
// id never gets another schema: with the registry down, schemas that are in use go on working. Calls for the same
// schema share one look-up.
type Registry struct {
	client    *sr.Client
	transport *http.Transport
	log       *slog.Logger
	stopping  context.Context
	stop      context.CancelFunc

	flights    singleflight.Group
	byID       *recent[int, *known]
	registered *recent[registration, *Schema]
	members    *recent[membership, bool]
	heavy      *heavy
	compiling  *semaphore.Weighted
	lookups    *prometheus.CounterVec
}

// known is a schema of the registry with what it was made of.
type known struct {
	*Schema
	source sr.Schema
}

type registration struct {
	format  Format
	subject string
	text    [sha256.Size]byte
}

type membership struct {
	subject string
	id      int
}

// New asks nobody anything. With a nil Registerer the counts stay private.
func New(c Config, log *slog.Logger, reg prometheus.Registerer) (*Registry, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("formats: %w", err)
	}
	if !c.On() {
		return nil, errors.New("formats: no address of a schema registry")
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.IdleConnTimeout = 8, time.Minute
	options := []sr.ClientOpt{sr.UserAgent("sluice"), sr.HTTPClient(&http.Client{Transport: transport, Timeout: attemptBound})}
	var addresses []string
	for n, text := range c.RegistryURL {
		u, err := url.Parse(text)
		if err != nil {
			return nil, errors.New("formats: the address of the schema registry does not parse")
		}
		if password, _ := u.User.Password(); n == 0 && u.User != nil {
			options = append(options, sr.BasicAuth(u.User.Username(), password))
		}
		u.User = nil
		addresses = append(addresses, u.String())
	}
	client, err := sr.NewClient(append(options, sr.URLs(addresses...))...)
	if err != nil {
		return nil, fmt.Errorf("formats: %w", err)
	}
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	r := &Registry{
		client: client, transport: transport, log: log, heavy: newHeavy(), compiling: semaphore.NewWeighted(compilers),
		byID: newRecent[int, *known](keptBytes), registered: newRecent[registration, *Schema](keptBytes), members: newRecent[membership, bool](keptBytes / 16),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sluice_schema_lookups_total", Help: "Questions to the schema registry, by what became of them: found, refused, unreachable."}, []string{"result"}),
	}
	reg.MustRegister(r.lookups)
	r.stopping, r.stop = context.WithCancel(context.Background())
	return r, nil
}

// Stop ends the look-ups that are under way. What is known stays known.
func (r *Registry) Stop(context.Context) error {
	r.stop()
	r.transport.CloseIdleConnections()
	return nil
}

// Named is how a produce names a schema: by its id, else by its text.
type Named struct {
	ID   *int64
	Text *string
}

// Given says that there is a name.
func (n Named) Given() bool { return n.ID != nil || n.Text != nil }

// ForWriting finds the schema of a produce to a subject: an id must be one of the subject's; a text is registered under
// it. Kinds: BadSchema; SchemaLookup if the registry refuses, or does not answer before ctx or Patience ends; Overloaded if too
// many new schemas came before.
func (r *Registry) ForWriting(ctx context.Context, f Format, subject string, n Named) (*Schema, error) {
	if n.ID != nil {
		return r.ofSubject(ctx, f, subject, *n.ID)
	}
	key := registration{f, subject, sha256.Sum256([]byte(*n.Text))}
	if s, ok := r.registered.get(key); ok {
		return s, nil
	}
	found, err, _ := r.flights.Do(fmt.Sprintf("text %d %x %s", f, key.text, subject), func() (any, error) {
		ctx, cancel := r.bounded(ctx)
		defer cancel()
		c, cost, err := r.compile(ctx, f, *n.Text, nil)
		if err != nil {
			return nil, err
		}
		var id int
		err = r.ask(ctx, func(ctx context.Context) (err error) {
			id, err = r.client.RegisterSchema(ctx, subject, sr.Schema{Schema: *n.Text, Type: f.registryType()}, -1, -1)
			return err
		})
		if err != nil {
			return nil, lookupFailed(err)
		}
		s := &Schema{id: id, format: f, codec: c, heavy: r.heavy}
		r.registered.put(key, s, cost)
		return s, nil
	})
	if err != nil {
		return nil, err
	}
	return found.(*Schema), nil
}

// bounded is the time of a look-up that others may have joined: it does not end because one caller leaves.
func (r *Registry) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	end := time.Now().Add(Patience)
	if sooner, ok := ctx.Deadline(); ok && sooner.Before(end) {
		end = sooner
	}
	return context.WithDeadline(r.stopping, end)
}

// compile waits until fewer than compilers others are being compiled.
func (r *Registry) compile(ctx context.Context, f Format, text string, refs []reference) (codec, int, error) {
	if err := r.compiling.Acquire(ctx, 1); err != nil {
		return nil, 0, &sluice.Error{Kind: sluice.Overloaded, Msg: "Too many new schemas came at once.", Err: err}
	}
	defer r.compiling.Release(1)
	return compile(f, text, refs)
}

// ofSubject finds a schema by id and makes sure that it is one of the subject's.
func (r *Registry) ofSubject(ctx context.Context, f Format, subject string, id int64) (*Schema, error) {
	if id < 0 || id > 1<<31-1 {
		return nil, badSchema("there is no schema with id %d", id)
	}
	k, err := r.known(ctx, int(id))
	if err != nil {
		return nil, err
	}
	if k.format != f {
		return nil, badSchema("schema %d is of type %s", id, k.format.registryType())
	}
	key := membership{subject, int(id)}
	if _, ok := r.members.get(key); ok {
		return k.Schema, nil
	}
	_, err, _ = r.flights.Do(fmt.Sprintf("member %d %s", id, subject), func() (any, error) {
		ctx, cancel := r.bounded(ctx)
		defer cancel()
		var found sr.SubjectSchema
		err := r.ask(ctx, func(ctx context.Context) (err error) {
			found, err = r.client.LookupSchema(ctx, subject, k.source)
			return err
		})
		switch {
		case unknown(err), err == nil && found.ID != int(id):
			return nil, badSchema("schema %d is not registered under subject %s", id, subject)
		case err != nil:
			return nil, lookupFailed(err)
		}
		r.members.put(key, true, len(subject)+100)
		return nil, nil
	})
	return k.Schema, err
}

// known finds a schema by id, whatever its subject.
func (r *Registry) known(ctx context.Context, id int) (*known, error) {
	if k, ok := r.byID.get(id); ok {
		return k, nil
	}
	found, err, _ := r.flights.Do(fmt.Sprintf("id %d", id), func() (any, error) {
		ctx, cancel := r.bounded(ctx)
		defer cancel()
		var source sr.Schema
		err := r.ask(ctx, func(ctx context.Context) (err error) {
			source, err = r.client.SchemaByID(ctx, id)
			return err
		})
		switch {
		case unknown(err):
			return nil, badSchema("there is no schema with id %d", id)
		case err != nil:
			return nil, lookupFailed(err)
		}
		f, ok := formatOf(source.Type)
		if !ok {
			return nil, badSchema("schema %d is of a type that is not known", id)
		}
		refs, err := r.references(ctx, source)
		if err != nil {
			return nil, err
		}
		c, cost, err := r.compile(ctx, f, source.Schema, refs)
		if err != nil {
			return nil, err
		}
		k := &known{&Schema{id: id, format: f, codec: c, heavy: r.heavy}, source}
		r.byID.put(id, k, cost)
		return k, nil
	})
	if err != nil {
		return nil, err
	}
	return found.(*known), nil
}

// references finds what a schema refers to, and what those refer to, those first.
func (r *Registry) references(ctx context.Context, root sr.Schema) (all []reference, err error) {
	seen := map[string]bool{}
	var follow func(sr.Schema) error
	follow = func(s sr.Schema) error {
		for _, ref := range s.References {
			if seen[ref.Name] {
				continue
			}
			if seen[ref.Name] = true; len(seen) > maxReferences {
				return badSchema("it refers to more than %d schemas", maxReferences)
			}
			var found sr.SubjectSchema
			err := r.ask(ctx, func(ctx context.Context) (err error) {
				found, err = r.client.SchemaByVersion(ctx, ref.Subject, ref.Version)
				return err
			})
			switch {
			case unknown(err):
				return badSchema("it refers to version %d of subject %s, which does not exist", ref.Version, ref.Subject)
			case err != nil:
				return lookupFailed(err)
			}
			if err := follow(found.Schema); err != nil {
				return err
			}
			all = append(all, reference{ref.Name, found.Schema.Schema})
		}
		return nil
	}
	return all, follow(root)
}

// ask puts one question, again if the registry was not there or had a trouble of its own.
func (r *Registry) ask(ctx context.Context, question func(context.Context) error) (err error) {
	wait := retryAfter
	for n := 1; ; n++ {
		err = question(ctx)
		var answered *sr.ResponseError
		switch refused := errors.As(err, &answered); {
		case err == nil:
			r.lookups.WithLabelValues("found").Inc()
			return nil
		case refused && answered.StatusCode < 500 && answered.StatusCode != http.StatusTooManyRequests:
			r.lookups.WithLabelValues("refused").Inc()
			return err
		case n == attempts || ctx.Err() != nil:
			r.lookups.WithLabelValues("unreachable").Inc()
			r.log.LogAttrs(ctx, slog.LevelWarn, "the schema registry did not help", slog.Int("attempts", n), slog.Any("error", err))
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		wait *= 2
	}
}

// unknown says that the registry has no such subject, version or schema.
func unknown(err error) bool {
	var answered *sr.ResponseError
	return errors.As(err, &answered) && answered.StatusCode == http.StatusNotFound &&
		(answered.ErrorCode == sr.ErrSubjectNotFound.Code || answered.ErrorCode == sr.ErrVersionNotFound.Code || answered.ErrorCode == sr.ErrSchemaNotFound.Code)
}

// lookupFailed carries the registry's own words, and nothing of how it was reached.
func lookupFailed(err error) error {
	failed := &sluice.Error{Kind: sluice.SchemaLookup, Msg: "Schema registration or lookup failed", Err: err}
	var answered *sr.ResponseError
	switch {
	case errors.As(err, &answered) && answered.Message != "":
		failed.Detail = bounded(fmt.Sprintf("The schema registry answered %d: %s", answered.StatusCode, answered.Message))
	case answered != nil:
		failed.Detail = fmt.Sprintf("The schema registry answered %d.", answered.StatusCode)
	default:
		failed.Detail = "The schema registry could not be reached in time."
	}
	return failed
}

func (f Format) registryType() sr.SchemaType {
	switch f {
	case JSONSchema:
		return sr.TypeJSON
	case Protobuf:
		return sr.TypeProtobuf
	}
	return sr.TypeAvro
}

func formatOf(t sr.SchemaType) (Format, bool) {
	switch t {
	case sr.TypeAvro:
		return Avro, true
	case sr.TypeJSON:
		return JSONSchema, true
	case sr.TypeProtobuf:
		return Protobuf, true
	}
	return 0, false
}
