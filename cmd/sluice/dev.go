package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/sluicegate/sluice/gateway"
)

// dev is serve with other addresses and softer rules: Kafka and Redis inside the process, loopback webhooks, topics
// made on demand; and a schema registry. It takes no setting from the environment, so that what it prints is true
// everywhere. With --data a folder keeps what they hold.
type dev struct {
	Listen    string   `default:"127.0.0.1:8082" help:"Address of the gateway."`
	KafkaPort int      `default:"9092" help:"Port of the embedded Kafka on 127.0.0.1."`
	Receiver  string   `default:"127.0.0.1:8083" help:"Address of the webhook receiver that prints what it gets."`
	Topic     []string `placeholder:"NAME:PARTITIONS" help:"A topic to make besides orders (3) and NativeCmsPublicationEvents (1). Repeatable."`
	Data      string   `placeholder:"DIR" help:"Keep topics, records, subscriptions and their progress in this folder, over restarts and kill -9. Signing secrets stand in it as they are."`
	Demo      bool     `help:"Keep producing events that look real."`
	Verbose   bool     `short:"v" help:"Print the gateway's own log."`
}

// seeds are the topics of every dev gateway.
var seeds = map[string]int32{"orders": 3, "NativeCmsPublicationEvents": 1}

// Run starts everything, prints what to paste, and serves until ctx ends.
func (d dev) Run(ctx context.Context) (err error) {
	topics, err := d.topics()
	if err != nil {
		return err
	}
	stores, err := d.openStores(topics)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stores.Close()) }()
	hook, err := openReceiver(d.Receiver, os.Stdout)
	if err != nil {
		return taken(err, d.Receiver, "--receiver")
	}
	g, err := gateway.New(ctx, d.config(stores), d.logger())
	if err != nil {
		return errors.Join(taken(err, d.Listen, "--listen"), hook.Close())
	}
	base := "http://" + g.Addr().String()
	fmt.Print(pasteable(places{base, hook.URL, stores.kafka.Brokers[0], stores.schemas.URL, d.Data}))

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return g.Run(ctx) })
	group.Go(func() error { return hook.Run(ctx) })
	if d.Demo {
		group.Go(func() error { return produceDemo(ctx, base) })
	}
	return group.Wait()
}

// topics are the seeds and what --topic adds; a seed named again gets the number given.
func (d dev) topics() (map[string]int32, error) {
	all := maps.Clone(seeds)
	for _, text := range d.Topic {
		name, number, _ := strings.Cut(text, ":")
		n, err := strconv.ParseInt(number, 10, 32)
		if err != nil || name == "" || n < 1 || n > 1000 {
			return nil, fmt.Errorf("--topic %q must be name:partitions, with 1 to 1000 partitions", text)
		}
		all[name] = int32(n)
	}
	return all, nil
}

func (d dev) config(s *stores) gateway.Config {
	c := gateway.Default()
	c.HTTP.Listen, c.HTTP.Build = d.Listen, build()
	c.Kafka.Brokers, c.Kafka.AutoCreate = s.kafka.Brokers, true
	c.Redis.RedisURL = s.redis.URL
	c.Formats.RegistryURL = []string{s.schemas.URL}
	c.Auth, c.AllowNoAuth = "none", true
	c.Page = true
	c.Webhook.Guard.AnyLoopback = true
	return c
}

func (d dev) logger() *slog.Logger {
	level := "error"
	if d.Verbose {
		level = "info"
	}
	return gateway.NewLogger(os.Stderr, level)
}

// taken turns "address already in use" into words that name the flag.
func taken(err error, address, flag string) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	_, port, splitErr := net.SplitHostPort(address)
	n, convErr := strconv.Atoi(port)
	if splitErr != nil || convErr != nil {
		return fmt.Errorf("%s is taken by another program; choose another with %s", address, flag)
	}
	example := strings.TrimSuffix(address, port) + strconv.Itoa(n+1000)
	if flag == "--kafka-port" {
		example = strconv.Itoa(n + 1000)
	}
	return fmt.Errorf("%s is taken by another program; choose another, e.g. %s %s", address, flag, example)
}
