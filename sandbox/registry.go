package sandbox

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Registry is an embedded schema registry that follows Confluent's HTTP contract, as far as clients that register and
// look up need it. It takes every schema that has the look of its type: there is no compatibility check.
type Registry struct {
	URL string

	file     string // "": none
	mu       sync.Mutex
	schemas  []schema // id 1 first
	ids      map[schemaKey]int
	subjects map[string][]int // ids, version 1 first
	trouble  func(*http.Request) (status int, wait time.Duration)

	server *http.Server
	served chan error
	closed chan struct{}
}

// schema is what the contract calls one, on the wire.
type schema struct {
	Type       string            `json:"schemaType,omitempty"` // "" is AVRO
	Text       string            `json:"schema"`
	References []schemaReference `json:"references,omitempty"`
}

type schemaReference struct {
	Name    string `json:"name"`
	Subject string `json:"subject"`
	Version int    `json:"version"`
}

// schemaKey tells schemas apart: the same schema has the same id under every subject.
type schemaKey [sha256.Size]byte

// StartRegistry serves on a free loopback port until Close, from memory alone.
func StartRegistry() (*Registry, error) { return OpenRegistry("") }

// OpenRegistry is StartRegistry with everything in that file: a schema is answered when the file holds it too.
func OpenRegistry(file string) (*Registry, error) {
	r := &Registry{file: file, ids: map[schemaKey]int{}, subjects: map[string][]int{}, served: make(chan error, 1), closed: make(chan struct{})}
	if err := r.load(); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the embedded schema registry: %w", err)
	}
	r.URL = "http://" + ln.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /schemas/types", answer(func(*http.Request) (any, error) { return []string{"JSON", "PROTOBUF", "AVRO"}, nil }))
	mux.HandleFunc("GET /schemas/ids/{id}", answer(r.byID))
	mux.HandleFunc("GET /subjects", answer(r.listSubjects))
	mux.HandleFunc("POST /subjects/{subject}", answer(r.find))
	mux.HandleFunc("GET /subjects/{subject}/versions", answer(r.listVersions))
	mux.HandleFunc("POST /subjects/{subject}/versions", answer(r.register))
	mux.HandleFunc("GET /subjects/{subject}/versions/{version}", answer(r.byVersion))
	mux.HandleFunc("/", answer(func(*http.Request) (any, error) { return nil, refuse(404, 404, "HTTP 404 Not Found") }))
	r.server = &http.Server{Handler: r.troubled(mux), ReadHeaderTimeout: 10 * time.Second}
	go func() { r.served <- r.server.Serve(ln) }()
	return r, nil
}

// Close ends the server; calls under way end with their connections.
func (r *Registry) Close() error {
	close(r.closed)
	err := r.server.Close()
	if served := <-r.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// Trouble has each request answered with a status after a wait, for tests: 0 goes on as usual. Nil ends the trouble.
func (r *Registry) Trouble(of func(*http.Request) (status int, wait time.Duration)) {
	r.mu.Lock()
	r.trouble = of
	r.mu.Unlock()
}

func (r *Registry) troubled(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		of := r.trouble
		r.mu.Unlock()
		if of == nil {
			next.ServeHTTP(w, req)
			return
		}
		status, wait := of(req)
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-req.Context().Done():
			return
		case <-r.closed:
			return
		}
		if status == 0 {
			next.ServeHTTP(w, req)
			return
		}
		answer(func(*http.Request) (any, error) {
			return nil, refuse(status, status*100+1, "Error in the backend data store")
		})(w, req)
	})
}

// refused is an error of the contract.
type refused struct {
	status  int
	Code    int    `json:"error_code"`
	Message string `json:"message"`
}

func (r *refused) Error() string { return r.Message }

func refuse(status, code int, format string, args ...any) error {
	return &refused{status, code, fmt.Sprintf(format, args...)}
}

const schemaRegistryType = "application/vnd.schemaregistry.v1+json"

func answer(handle func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		body, err := handle(req)
		status := http.StatusOK
		if err != nil {
			no, ok := errors.AsType[*refused](err)
			if !ok {
				no = &refused{500, 50001, "Error in the backend data store"}
			}
			status, body = no.status, no
		}
		w.Header().Set("Content-Type", schemaRegistryType)
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body) // the client has gone, if this fails
	}
}

func (r *Registry) byID(req *http.Request) (any, error) {
	id, err := strconv.Atoi(req.PathValue("id"))
	if err != nil {
		return nil, refuse(404, 404, "HTTP 404 Not Found")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if id < 1 || id > len(r.schemas) {
		return nil, refuse(404, 40403, "Schema %d not found", id)
	}
	return r.schemas[id-1], nil
}

func (r *Registry) listSubjects(*http.Request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]string, 0, len(r.subjects))
	for name := range r.subjects {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

func (r *Registry) listVersions(req *http.Request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids, err := r.subject(req)
	if err != nil {
		return nil, err
	}
	versions := make([]int, len(ids))
	for n := range versions {
		versions[n] = n + 1
	}
	return versions, nil
}

func (r *Registry) subject(req *http.Request) ([]int, error) {
	name := req.PathValue("subject")
	ids := r.subjects[name]
	if ids == nil {
		return nil, refuse(404, 40401, "Subject '%s' not found.", name)
	}
	return ids, nil
}

// registered is a schema under a subject.
type registered struct {
	Subject string `json:"subject"`
	Version int    `json:"version"`
	ID      int    `json:"id"`
	schema
}

func (r *Registry) byVersion(req *http.Request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids, err := r.subject(req)
	if err != nil {
		return nil, err
	}
	text := req.PathValue("version")
	version := len(ids)
	if text != "latest" && text != "-1" {
		if version, err = strconv.Atoi(text); err != nil || version < 1 {
			return nil, refuse(422, 42202, "The specified version '%s' is not a valid version id. Allowed values are between [1, 2^31-1] and the string \"latest\"", text)
		}
	}
	if version > len(ids) {
		return nil, refuse(404, 40402, "Version %d not found.", version)
	}
	id := ids[version-1]
	return registered{req.PathValue("subject"), version, id, r.schemas[id-1]}, nil
}

// find tells whether a subject has a schema.
func (r *Registry) find(req *http.Request) (any, error) {
	s, key, err := readSchema(req)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	ids, err := r.subject(req)
	if err != nil {
		return nil, err
	}
	at := slices.Index(ids, r.ids[key])
	if at < 0 {
		return nil, refuse(404, 40403, "Schema not found")
	}
	return registered{req.PathValue("subject"), at + 1, ids[at], s}, nil
}

func (r *Registry) register(req *http.Request) (any, error) {
	s, key, err := readSchema(req)
	if err != nil {
		return nil, err
	}
	id, err := r.add(req.PathValue("subject"), s, key)
	return map[string]int{"id": id}, err
}

func (r *Registry) add(subject string, s schema, key schemaKey) (id int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ref := range s.References {
		if ids := r.subjects[ref.Subject]; ref.Version < 1 || ref.Version > len(ids) {
			return 0, refuse(422, 42201, "Invalid schema: no schema reference found for subject \"%s\" and version %d", ref.Subject, ref.Version)
		}
	}
	if id = r.ids[key]; id == 0 {
		r.schemas = append(r.schemas, s)
		id = len(r.schemas)
		r.ids[key] = id
	}
	if slices.Contains(r.subjects[subject], id) {
		return id, nil
	}
	r.subjects[subject] = append(r.subjects[subject], id)
	return id, r.save()
}

const registryFormat = 1

// registryFile is what the file of a registry holds: schemas by id, 1 first, and the ids of each subject's versions.
type registryFile struct {
	Format   int              `json:"format"`
	Schemas  []schema         `json:"schemas"`
	Subjects map[string][]int `json:"subjects"`
}

// save writes everything; schemas are few.
func (r *Registry) save() error {
	if r.file == "" {
		return nil
	}
	raw, err := json.Marshal(registryFile{registryFormat, r.schemas, r.subjects})
	if err != nil {
		return err
	}
	return replaceFile(r.file, raw)
}

func (r *Registry) load() error {
	if r.file == "" {
		return nil
	}
	raw, err := os.ReadFile(r.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("schemas: %w", err)
	}
	if err := sameFormat(r.file, raw, registryFormat); err != nil {
		return err
	}
	var f registryFile
	if err := json.Unmarshal(raw, &f); err != nil {
		return fmt.Errorf("%s is damaged: %w", r.file, err)
	}
	for n, s := range f.Schemas {
		_, key, err := checked(s)
		if err != nil {
			return fmt.Errorf("%s is damaged: schema %d: %w", r.file, n+1, err)
		}
		r.ids[key] = n + 1
	}
	r.schemas = f.Schemas
	for subject, ids := range f.Subjects {
		for _, id := range ids {
			if id < 1 || id > len(r.schemas) {
				return fmt.Errorf("%s is damaged: subject %s has a schema %d that is not there", r.file, subject, id)
			}
		}
		r.subjects[subject] = ids
	}
	return nil
}

var (
	protoLook = regexp.MustCompile(`(?s)^.*\b(message|enum|syntax|edition|service)\b.*$`)
	avroName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)
)

func readSchema(req *http.Request) (s schema, key schemaKey, err error) {
	const most = 2 << 20
	if err := json.NewDecoder(http.MaxBytesReader(nil, req.Body, most)).Decode(&s); err != nil {
		return s, key, refuse(400, 400, "Unable to process JSON")
	}
	return checked(s)
}

// checked gives a schema the form in which it is kept, and its key.
func checked(s schema) (_ schema, key schemaKey, err error) {
	looks := false
	switch s.Type {
	case "", "AVRO":
		s.Type = ""
		looks = avroName.MatchString(s.Text) || json.Valid([]byte(s.Text))
	case "JSON":
		looks = json.Valid([]byte(s.Text))
	case "PROTOBUF":
		looks = protoLook.MatchString(s.Text)
	default:
		return s, key, refuse(422, 42201, "Invalid schema type %s", s.Type)
	}
	if !looks || strings.TrimSpace(s.Text) == "" {
		return s, key, refuse(422, 42201, "Invalid schema %s", s.Text)
	}
	whole, err := json.Marshal(s)
	return s, sha256.Sum256(whole), err
}

// Register puts a schema in as a client would, and returns its id; typ is AVRO, JSON or PROTOBUF.
func (r *Registry) Register(subject, typ, text string) (int, error) {
	s, key, err := checked(schema{Type: typ, Text: text})
	if err != nil {
		return 0, err
	}
	return r.add(subject, s, key)
}
