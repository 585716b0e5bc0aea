// Package gateway is the composition root: one straight line from a Config to a running process, and the ordered stop.
//
//	listen → Kafka → Redis → migrations → partition log → producers → subscriptions → dispatcher
//	                                                  ├→ streams, consumers
//	                                                  └→ HTTP serves, good to go
//
// What is acquired registers its stop in the next statement; the stops run in reverse, each with a bound, and undo half a
// start as well. Because of that the order below is also the order of the drain, read from its end: not ready, streams,
// lanes, consumers, HTTP, producers, Redis, Kafka.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/consumers"
	"github.com/sluicegate/sluice/deadletters"
	"github.com/sluicegate/sluice/dispatcher"
	"github.com/sluicegate/sluice/formats"
	"github.com/sluicegate/sluice/httpapi"
	"github.com/sluicegate/sluice/kafka"
	"github.com/sluicegate/sluice/migrations"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/stream"
	"github.com/sluicegate/sluice/subscriptions"
	"github.com/sluicegate/sluice/webhook"
)

// Gateway is a running gateway.
type Gateway struct {
	cfg    Config
	log    *slog.Logger
	addr   net.Addr
	http   *httpapi.Server
	stops  stops
	failed chan error
}

// The bounds of the stops. Together they stay below the sixty seconds that an orchestrator gives.
const (
	stopQuickly   = 5 * time.Second
	stopLanes     = 28 * time.Second // flights get 20 s, then the last commits
	stopStreams   = 5 * time.Second  // on top of SLUICE_SSE_DRAIN
	stopConsumers = 12 * time.Second // a last commit and a leave each
)

// New binds the port, reaches Kafka and Redis within their bound, runs pending migrations and builds every room. It
// serves nothing yet. What fails undoes what was done.
func New(ctx context.Context, cfg Config, log *slog.Logger) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Gateway{cfg: cfg, log: log, stops: stops{log: log}, failed: make(chan error, 1)}
	if err := g.build(ctx); err != nil {
		_ = g.stops.run(ctx) // err is the reason; how the undoing went is in the log
		return nil, err
	}
	return g, nil
}

// build is the straight line. Its length is its point: the order of everything stands in one place.
func (g *Gateway) build(ctx context.Context) error {
	cfg, log := g.cfg, g.log
	reg := newMetrics()
	ln, err := net.Listen("tcp", cfg.HTTP.Listen) // first, so that a taken port costs nothing else; served last
	if err != nil {
		return err
	}
	g.stops.add("listener", stopQuickly, closer(ln))

	clients, err := connect(ctx, cfg.Stores, log)
	if err != nil {
		return err
	}
	g.stops.add("Kafka clients", stopQuickly, func(context.Context) error { return clients.Close() })
	admin, offsets := kafka.NewAdmin(clients), kafka.NewOffsets(clients)
	// Joins are paced for each of the two, so that an instance's subscribe does not queue behind five hundred topics.
	topicGroups, callersGroups := kafka.NewGroups(clients, log), kafka.NewGroups(clients, log)
	clusterID, err := admin.ClusterID(ctx)
	if err != nil {
		return err
	}
	metadataBytes, err := admin.MetadataMaxBytes(ctx)
	if err != nil {
		return err
	}

	store, err := openStore(ctx, cfg.Stores, log)
	if err != nil {
		return err
	}
	g.stops.add("Redis", stopQuickly, func(context.Context) error { return store.Close() })
	if cfg.Migrate {
		if err := migrations.Run(ctx, migrations.Target{Topics: admin, Redis: store.Client(), MaxRecordBytes: cfg.Kafka.MaxRecordBytes}, log); err != nil {
			return err
		}
	}

	records, err := partition.New(cfg.Log, kafka.NewFetcher(clients), log, reg)
	if err != nil {
		return err
	}
	g.stops.add("partition log", stopQuickly, records.Stop)
	producer, err := kafka.NewProducer(clients, false, reg)
	if err != nil {
		return err
	}
	g.background("producer", stopQuickly, producer.Run)
	g.stops.add("producer's records", cfg.Kafka.ProduceTimeout, producer.Stop)
	letterProducer, err := kafka.NewProducer(clients, true, reg)
	if err != nil {
		return err
	}
	g.background("producer of dead letters", stopQuickly, letterProducer.Run)
	g.stops.add("dead letters", stopQuickly, letterProducer.Stop)
	// HTTP is built last, out of all the others, and stops here in the order: after those who answer through it.
	g.stops.add("HTTP", cfg.ShutdownGrace+stopQuickly, func(ctx context.Context) error {
		if g.http == nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, cfg.ShutdownGrace)
		defer cancel()
		return g.http.Stop(ctx)
	})

	pulls, err := consumers.New(consumersConfig(cfg, ln.Addr()), consumers.Needs{
		Log: records, Groups: callersGroups, Offsets: offsets, Topics: admin, Redis: store.Client(),
	}, log, reg)
	if err != nil {
		return err
	}
	g.background("registry of consumer instances", stopQuickly, pulls.Run)
	g.stops.add("consumer instances", stopConsumers, pulls.Stop)

	guard, err := webhook.NewGuard(cfg.Webhook.Guard, log, reg)
	if err != nil {
		return err
	}
	guard.Forbid(slices.Concat(cfg.Kafka.Brokers, store.Addrs(), []string{ln.Addr().String()})...)
	sender, err := webhook.NewSender(cfg.Webhook, guard, log, reg)
	if err != nil {
		return err
	}
	book, err := subscriptions.NewBook(store, log, reg)
	if err != nil {
		return err
	}
	g.background("definitions", stopQuickly, book.Run)
	health, err := subscriptions.NewHealth(store, log, reg)
	if err != nil {
		return err
	}
	g.background("health reports", stopQuickly, health.Run)
	registry, err := subscriptions.NewRegistry(subscriptions.Needs{
		Store: store, Book: book, Topics: admin, Offsets: admin, Commits: offsets, Guard: guard,
	}, log)
	if err != nil {
		return err
	}
	cfg.Deliver.Replica = instance(cfg)
	lanes, err := dispatcher.New(cfg.Deliver, dispatcher.Needs{
		Log: records, Book: book, Registry: registry, Groups: topicGroups, Offsets: offsets, Topics: admin, Sender: sender,
		Letters: deadletters.NewWriter(letterProducer, admin, migrations.DeadLetters, instance(cfg)), Health: health,
		ClusterID: clusterID, MetadataBytes: metadataBytes,
	}, log, reg)
	if err != nil {
		return err
	}
	g.background("dispatcher", stopQuickly, lanes.Run)
	g.stops.add("lanes", stopLanes, lanes.Stop)

	streams, err := stream.New(cfg.Stream, records, admin, log, reg)
	if err != nil {
		return err
	}
	g.stops.addBeside("streams", cfg.Stream.Drain+stopStreams, streams.Stop) // the lanes' flights land meanwhile

	var schemas *formats.Registry // nil: formats with schemas are unknown
	if cfg.Formats.On() {
		if schemas, err = formats.New(cfg.Formats, log, reg); err != nil {
			return err
		}
		g.stops.add("schema registry", stopQuickly, schemas.Stop)
	}
	var page []byte
	if cfg.Page {
		page = httpapi.TailPage()
	}
	g.http, err = httpapi.New(cfg.HTTP, httpapi.Needs{
		Topics: admin, Producer: producer, AutoCreate: cfg.Kafka.AutoCreate, Schemas: schemas, Consumers: pulls, Streams: streams, Kafka: admin, Store: store, Gatherer: reg,
		Subscriptions: registry, Commits: offsets, Health: health, RootPage: page,
	}, log, reg)
	if err != nil {
		return err
	}
	g.http.Take(ln)
	g.stops.add("readiness", cfg.DrainDelay+stopQuickly, g.drain)
	g.addr = ln.Addr()
	return nil
}

// Addr is the address that the gateway is bound to.
func (g *Gateway) Addr() net.Addr { return g.addr }

// Run serves until ctx ends or a part of the gateway fails, then stops everything in order.
func (g *Gateway) Run(ctx context.Context) error {
	go func() {
		if err := g.http.Serve(); err != nil {
			g.fail(fmt.Errorf("HTTP: %w", err))
		}
	}()
	g.http.SetReady()
	g.log.LogAttrs(ctx, slog.LevelInfo, "serving", slog.String("event", "service_started"), slog.String("address", g.addr.String()))
	var failed error
	select {
	case <-ctx.Done():
		g.log.LogAttrs(ctx, slog.LevelInfo, "draining")
	case failed = <-g.failed:
		g.log.LogAttrs(ctx, slog.LevelError, "a part of the gateway failed", slog.Any("error", failed))
	}
	err := errors.Join(failed, g.stops.run(ctx))
	g.log.LogAttrs(ctx, slog.LevelInfo, "stopped")
	return err
}

// drain says "not ready" and goes on serving for a while, until load balancers have noticed.
func (g *Gateway) drain(ctx context.Context) error {
	g.http.Drain()
	delay := time.NewTimer(g.cfg.DrainDelay)
	defer delay.Stop()
	select {
	case <-delay.C:
	case <-ctx.Done():
	}
	return nil
}

// Migrate runs the pending migrations and nothing else.
func Migrate(ctx context.Context, c Stores, log *slog.Logger) (err error) {
	if err := c.Validate(); err != nil {
		return err
	}
	clients, err := connect(ctx, c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, clients.Close()) }()
	store, err := openStore(ctx, c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return migrations.Run(ctx, migrations.Target{Topics: kafka.NewAdmin(clients), Redis: store.Client(), MaxRecordBytes: c.Kafka.MaxRecordBytes}, log)
}

// connect reaches Kafka within the start's bound.
func connect(ctx context.Context, c Stores, log *slog.Logger) (*kafka.Clients, error) {
	ctx, cancel := context.WithTimeout(ctx, c.StartTimeout)
	defer cancel()
	return kafka.Connect(ctx, c.Kafka, log)
}

// storePause is between two questions to a Redis that does not answer yet: it may be starting, too.
const storePause = 250 * time.Millisecond

// openStore reaches Redis within the start's bound and warns of a setting that lets Redis throw definitions away.
func openStore(ctx context.Context, c Stores, log *slog.Logger) (*subscriptions.Store, error) {
	store, err := subscriptions.OpenStore(c.Redis)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.StartTimeout)
	defer cancel()
	for {
		err := store.Ping(ctx)
		if err == nil {
			break
		}
		select {
		case <-time.After(storePause):
			continue
		case <-ctx.Done():
		}
		_ = store.Close() // that it does not answer is the reason
		return nil, &sluice.Error{Kind: sluice.StoreDown, Msg: "Redis could not be reached at " + strings.Join(store.Addrs(), ", ") + ".", Err: err}
	}
	if policy := store.Eviction(ctx); policy != "" && policy != "noeviction" {
		log.LogAttrs(ctx, slog.LevelWarn, "Redis may throw definitions away: set maxmemory-policy to noeviction", slog.String("policy", policy))
	}
	return store, nil
}

// consumersConfig fills in where the other replicas reach this one, if nobody said: by its first address that is not
// loopback, unless it listens on one address only.
func consumersConfig(c Config, bound net.Addr) consumers.Config {
	at, ok := bound.(*net.TCPAddr)
	if c.Consumers.ReplicaURL != "" || !ok {
		return c.Consumers
	}
	host := at.IP.String()
	if at.IP.IsUnspecified() {
		host = "127.0.0.1"
		addrs, _ := net.InterfaceAddrs() // none at all leaves loopback
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
				host = n.IP.String()
				break
			}
		}
	}
	c.Consumers.ReplicaURL = "http://" + net.JoinHostPort(host, strconv.Itoa(at.Port))
	return c.Consumers
}

// instance is who gives a record up, as it stands in dead letters.
func instance(c Config) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return host + " " + c.HTTP.Build.Version
}

// newMetrics is the registry of one gateway, with the process's own numbers in it.
func newMetrics() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return reg
}

func closer(c net.Listener) func(context.Context) error {
	return func(context.Context) error {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}
