// Package httpapi is everything a client of Sluice sees: every route on one screen (routes.go), the media types of the
// classic API (negotiate.go), one table of errors (errors.go), and the handlers, one file for each noun.
//
// A request passes: the connection of our own (listener.go), which follows the bytes (framing.go), the path made
// canonical (path.go), the guard (guard.go), the route, the media types, the handler. A handler returns the error of the room it asked; answerError
// finds its status, code and words. Nothing that a client sent is shown back to it but its X-Request-Id.
//
// Bodies are read by body.go alone, under a limit each and a budget for all. Strings of a *fiber.Ctx are views on a
// buffer that the next request overwrites: what outlives its handler is copied.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/consumers"
	"github.com/sluicegate/sluice/formats"
	"github.com/sluicegate/sluice/stream"
	"github.com/sluicegate/sluice/subscriptions"
)

// Needs is what the handlers ask. A nil need leaves its routes out: they answer like an unknown path.
type Needs struct {
	Topics     topics
	Producer   producer
	Consumers  *consumers.Registry
	AutoCreate bool              // the Producer makes topics that do not exist
	Schemas    *formats.Registry // nil: avro, jsonschema and protobuf are unknown
	Streams    *stream.Streams

	Subscriptions *subscriptions.Registry // with Topics and Commits
	Health        *subscriptions.Health   // may be nil: nothing is known of the last error
	Commits       commits

	Kafka    kafkaChecker
	Store    storeChecker
	Gatherer prometheus.Gatherer // what /metrics shows
	RootPage []byte              // HTML for browsers at /, whose other callers get {}
}

// topics is what Kafka knows of topics: kafka.Admin.
type topics interface {
	Topics(ctx context.Context) ([]string, error)
	Topic(ctx context.Context, name string) (sluice.Topic, error)
	TopicConfigs(ctx context.Context, name string) (map[string]string, error)
	Brokers(ctx context.Context) ([]int32, error)
	Range(ctx context.Context, p sluice.Partition) (sluice.Range, error)
}

// producer writes records: kafka.Producer.
type producer interface {
	Produce(ctx context.Context, topic string, recs []sluice.NewRecord) ([]sluice.Receipt, error)
}

// kafkaChecker and storeChecker say whether a dependency answers now.
type kafkaChecker interface {
	Reachable(ctx context.Context) error
}

type storeChecker interface {
	Ping(ctx context.Context) error
}

// Server is the HTTP side of the gateway. The order of its life: New, Listen, Serve, SetReady, Drain, Stop.
type Server struct {
	cfg     Config
	needs   Needs
	log     *slog.Logger
	app     *fiber.App
	ln      *listener
	budget  *budget
	metrics *metrics
	checks  *checks
	types   *offer
	proxies []netip.Prefix // who may say what the client asked for

	ready     atomic.Bool
	draining  atomic.Bool
	life      sync.Mutex // orders the beginning of Serve and of Stop
	serving   sync.WaitGroup
	waiting   sync.WaitGroup // receipts on their way between replicas
	later     sync.WaitGroup // records produced behind their answer
	forwarder *http.Client
	stop      context.CancelFunc // ends what runs in the background
	stopping  context.Context
	cut       context.CancelFunc // ends what requests under way wait for
	requests  context.Context
}

const (
	headerPatience = 10 * time.Second  // for headers and small bodies
	bodyPatience   = 60 * time.Second  // for bodies above 64 KiB and chunked ones
	idlePatience   = 180 * time.Second // of our own connections to other replicas; see Config.IdleTimeout for theirs to us
	headerBytes    = 1 << 20           // the most that Config.MaxHeader may say
	streamedFrom   = 64 << 10
	lookupPatience = 10 * time.Second // for one question to Kafka or Redis; they have shorter bounds of their own
)

// New builds the server and binds nothing. With a nil Registerer the counts stay private.
func New(c Config, needs Needs, log *slog.Logger, reg prometheus.Registerer) (*Server, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("httpapi: %w", err)
	}
	if needs.Topics == nil && (needs.Producer != nil || needs.Subscriptions != nil || needs.Consumers != nil) || needs.Subscriptions != nil && needs.Commits == nil {
		return nil, errors.New("httpapi: producer and consumers need topics beside them, subscriptions need topics and commits")
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	s := &Server{cfg: c, needs: needs, log: log, budget: newBudget(c.inflight(), reg), metrics: newMetrics(reg)}
	s.types = offerOf(needs.Schemas != nil, c.API.V2)
	s.checks = newChecks(c, needs, log)
	s.forwarder = newForwarder()
	s.proxies, _ = prefixes(c.Pull.TrustedProxies) // Validate has read them
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.requests, s.cut = context.WithCancel(context.Background())
	s.app = fiber.New(fiber.Config{
		StreamRequestBody: true, BodyLimit: streamedFrom, DisablePreParseMultipartForm: true,
		ReadBufferSize: c.MaxHeader, ReadTimeout: headerPatience, IdleTimeout: c.IdleTimeout,
		CaseSensitive: true, StrictRouting: false, UnescapePath: false, ETag: false,
		ServerHeader: "", DisableStartupMessage: true, DisableDefaultContentType: true,
		ErrorHandler: func(c *fiber.Ctx, err error) error { // what the router says; observe answers everything else
			s.answerUnparsed(c, failureOf(classic, err))
			return nil
		},
	})
	s.app.Use(s.observe)
	s.register()
	server := s.app.Server()
	server.KeepHijackedConns = true // event streams own their connections
	server.HeaderReceived = func(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
		if n := h.ContentLength(); n > streamedFrom || n == -1 {
			return fasthttp.RequestConfig{ReadTimeout: bodyPatience}
		}
		return fasthttp.RequestConfig{}
	}
	server.ExpectHandler = s.expect
	server.ErrorHandler = s.unparsed
	server.Handler = s.route(s.app.Handler())
	return s, nil
}

// Listen binds. A taken port fails here, and with ":0" the address tells the port.
func (s *Server) Listen() (net.Addr, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(s.stopping, "tcp", s.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", s.cfg.Listen, err)
	}
	s.Take(ln)
	return ln.Addr(), nil
}

// Take serves on a listener that is bound already, in place of Listen: a start binds first and builds later.
func (s *Server) Take(ln net.Listener) { s.ln = newListener(ln) }

// Serve answers until Stop. It returns nil after a Stop.
func (s *Server) Serve() error {
	s.life.Lock()
	if s.stopping.Err() != nil {
		s.life.Unlock()
		return nil
	}
	s.serving.Add(1) // not beside the Wait of a Stop that came first
	s.life.Unlock()
	defer s.serving.Done()
	s.serving.Go(func() { s.checks.run(s.stopping) })
	err := s.app.Listener(s.ln)
	if s.stopping.Err() != nil {
		return nil
	}
	return err
}

// SetReady makes /__gtg good, as far as Kafka allows it.
func (s *Server) SetReady() { s.ready.Store(true) }

// Drain makes /__gtg false and asks every client for a new connection elsewhere. Requests are served on.
func (s *Server) Drain() { s.draining.Store(true) }

// Stop refuses new connections, waits for the requests under way as long as ctx allows, and cuts the rest. Connections
// that were taken over are their owner's.
func (s *Server) Stop(ctx context.Context) error {
	s.Drain()
	s.life.Lock()
	s.stop()
	s.life.Unlock()
	defer s.cut()
	if s.ln == nil {
		return nil
	}
	err := s.app.ShutdownWithContext(ctx)
	s.awaitLater(ctx)
	closed := s.ln.Close()
	if err != nil {
		s.cut()
		s.ln.closeAll()
		err = fmt.Errorf("http: requests were still under way: %w", err)
	} else if closed != nil && !errors.Is(closed, net.ErrClosed) {
		err = closed
	}
	s.serving.Wait()
	s.cut() // nobody is left to write to
	s.waiting.Wait()
	s.forwarder.CloseIdleConnections()
	return err
}

// within is the context of a call that a request waits for. It is never the *fasthttp.RequestCtx: that one is used again
// for the next request, while a look-up shared by several callers may still hold it.
func (s *Server) within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.requests, d)
}

// unknownMethod keeps the method that was sent where the router was shown another.
type unknownMethod struct{}

// route shows the router canonical paths and known methods. fiber answers a method it does not know by itself, as text
// and before all middleware; TRACE it knows, and no row of the table has it.
func (s *Server) route(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		path := ctx.URI().PathOriginal()
		if clean := canonicalPath(path); len(clean) != len(path) {
			ctx.URI().SetPathBytes(clean)
		}
		if s.cfg.BasePath != "" {
			stripBasePath(ctx, s.cfg.BasePath)
		}
		if !knownMethod(string(ctx.Method())) {
			ctx.SetUserValue(unknownMethod{}, string(ctx.Method()))
			ctx.Request.Header.SetMethod(fiber.MethodTrace)
		}
		next(ctx)
	}
}

func knownMethod(m string) bool {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT":
		return true
	}
	return false
}

// expect refuses before the client sends its body what could not be taken afterwards.
func (s *Server) expect(ctx *fasthttp.RequestCtx) int {
	length := ctx.Request.Header.ContentLength()
	err := headFault(&ctx.Request.Header)
	switch {
	case err != nil:
	case length > s.cfg.MaxBodyBytes:
		err = tooLarge(s.cfg.MaxBodyBytes)
	case !s.budget.fits(int64(length)):
		err = errBudget
	default:
		return fasthttp.StatusContinue
	}
	c := s.app.AcquireCtx(ctx)
	defer s.app.ReleaseCtx(c)
	s.answerError(c, err)
	s.record(c, of(c))
	return c.Response().StatusCode()
}

// unparsed takes the place of fiber's handler, which looks for "timeout" in the error's text: and that quotes the request.
func (s *Server) unparsed(ctx *fasthttp.RequestCtx, err error) {
	f := errFraming
	netErr, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.As(err, new(*fasthttp.ErrSmallBuffer)):
		f = errHeaderTooLarge
	case errors.Is(err, fasthttp.ErrTimeout), isNet && netErr.Timeout():
		f = errRequestTimeout
	}
	c := s.app.AcquireCtx(ctx)
	defer s.app.ReleaseCtx(c)
	s.answerUnparsed(c, f)
}

// answerUnparsed answers what fasthttp refused. Nothing of the request can be trusted, its id included, and nothing of
// the error may be told: it quotes the raw request, Authorization and all.
func (s *Server) answerUnparsed(c *fiber.Ctx, f *failure) {
	x := &exchange{id: requestID(nil), start: time.Now(), method: "other"}
	x.answer = typeJSON
	c.Locals(exchangeKey{}, x)
	c.Set(fiber.HeaderXRequestID, x.id)
	closing := *f
	closing.closing = true
	s.answerError(c, &closing)
	s.metrics.requests.With(prometheus.Labels{"route": "none", "method": "other", "code": fmt.Sprint(f.status)}).Inc()
	s.log.Info("", slog.String("transaction_id", x.id), slog.String("host", remoteIP(c)), slog.Int("status", f.status), slog.String("reason", "unparsed"))
}
