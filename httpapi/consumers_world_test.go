package httpapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/consumers"
	"github.com/sluicegate/sluice/formats"
	"github.com/sluicegate/sluice/kafka"
	"github.com/sluicegate/sluice/partition"
	"github.com/sluicegate/sluice/sandbox/backend"
)

const typeV2Name = "application/vnd.kafka.v2+json"

// pull is a server over a Kafka, spoken to by HTTP alone.
type pull struct {
	t       *testing.T
	k       *backend.Broker
	url     string
	addr    string
	client  *http.Client
	room    *consumers.Registry
	offsets *kafka.Offsets
	reg     *prometheus.Registry
}

// reads is how many reads are held or being answered.
func (p *pull) reads() int {
	p.t.Helper()
	families, err := p.reg.Gather()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "sluice_consumer_reads" {
			return int(f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	p.t.Fatal("no such metric")
	return 0
}

// pullers is a running server over the back end that the environment chose.
func pullers(t *testing.T, change ...func(*Config, *consumers.Config)) *pull {
	t.Helper()
	return pullersOn(t, backend.Kafka(t), change...)
}

// pullersOn is pullers over a Kafka of the test's own.
func pullersOn(t *testing.T, k *backend.Broker, change ...func(*Config, *consumers.Config)) *pull {
	t.Helper()
	return pullersWith(t, k, nil, change...)
}

// pullersWith is pullersOn with a schema registry beside the server.
func pullersWith(t *testing.T, k *backend.Broker, schemas *formats.Registry, change ...func(*Config, *consumers.Config)) *pull {
	t.Helper()
	cfg := kafka.Default()
	cfg.Brokers = k.Brokers
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	clients, err := kafka.Connect(ctx, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	stop := func(name string, f func(context.Context) error) {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
			defer cancel()
			if err := f(ctx); err != nil {
				t.Errorf("stop %s: %v", name, err)
			}
		})
	}
	stop("kafka", func(context.Context) error { return clients.Close() })
	log, err := partition.New(partition.Default(), kafka.NewFetcher(clients), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	stop("log", log.Stop)
	producer, err := kafka.NewProducer(clients, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	producing, endProducing := context.WithCancel(context.Background())
	var background sync.WaitGroup
	background.Go(func() { _ = producer.Run(producing) })
	stop("producer", func(ctx context.Context) error {
		err := producer.Stop(ctx)
		endProducing()
		background.Wait()
		return err
	})
	admin, offsets := kafka.NewAdmin(clients), kafka.NewOffsets(clients)
	c, rc := Default(), consumers.Default()
	c.Listen = "127.0.0.1:0"
	reg := prometheus.NewRegistry()
	for _, f := range change {
		f(&c, &rc)
	}
	room, err := consumers.New(rc, consumers.Needs{Log: log, Groups: kafka.NewGroups(clients, nil), Offsets: offsets, Topics: admin}, nil, reg)
	if err != nil {
		t.Fatal(err)
	}
	server, err := New(c, Needs{Topics: admin, Producer: producer, Consumers: room, Kafka: admin, Schemas: schemas}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := server.Listen()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	server.SetReady()
	p := &pull{t: t, k: k, url: "http://" + addr.String(), addr: addr.String(), room: room, offsets: offsets, reg: reg,
		client: &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 20}}}
	stop("http", func(ctx context.Context) error {
		p.client.CloseIdleConnections()
		return errors.Join(server.Stop(ctx), <-served)
	})
	stop("consumers", room.Stop)
	return p
}

// call sends one request; headers are name, value pairs. Where is a path or an absolute URL.
func (p *pull) call(method, where, body string, headers ...string) answer {
	p.t.Helper()
	a, err := p.try(method, where, body, headers...)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

func (p *pull) try(method, where, body string, headers ...string) (answer, error) {
	if strings.HasPrefix(where, "/") {
		where = p.url + where
	}
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, where, r)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := p.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return answer{}, err
	}
	return answer{res.StatusCode, res.Header, string(b)}, nil
}

// want is call for an answer that is known.
func (p *pull) want(status int, body string, method, where, sent string, headers ...string) answer {
	p.t.Helper()
	a := p.call(method, where, sent, headers...)
	if a.status != status || (body != "*" && a.body != body) {
		p.t.Fatalf("%s %s %s: %d %s, want %d %s", method, where, sent, a.status, a.body, status, body)
	}
	return a
}

// create makes a v2 instance and returns its base_uri.
func (p *pull) create(group, options string) string {
	p.t.Helper()
	a := p.want(200, "*", "POST", "/consumers/"+group, options, "Content-Type", typeV2Name)
	var made struct {
		Base string `json:"base_uri"`
	}
	if err := json.Unmarshal([]byte(a.body), &made); err != nil || made.Base == "" {
		p.t.Fatalf("%s: %v", a.body, err)
	}
	return made.Base
}

func (p *pull) subscribe(base string, topics ...string) {
	p.t.Helper()
	list, _ := json.Marshal(topics)
	p.want(204, "", "POST", base+"/subscription", `{"topics":`+string(list)+`}`, "Content-Type", typeV2Name)
}

const earliestJSON = `{"auto.offset.reset":"earliest","auto.commit.enable":"false","consumer.request.timeout.ms":"10000"}`

// consumer is a v2 instance that reads topic.
func (p *pull) consumer(group, options, topic string) string {
	p.t.Helper()
	base := p.create(group, options)
	p.subscribe(base, topic)
	return base
}

// pulled is a record as a binary instance gets it.
type pulled struct {
	Topic     string
	Key       *string
	Value     *string
	Partition int32
	Offset    int64
	Timestamp int64
	Headers   []struct{ Key, Value *string }
}

func (r pulled) value(t testing.TB) string {
	t.Helper()
	if r.Value == nil {
		return "<null>"
	}
	b, err := base64.StdEncoding.DecodeString(*r.Value)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (p *pull) read(base, query string) []pulled {
	p.t.Helper()
	a := p.want(200, "*", "GET", base+"/records"+query, "", "Accept", typeV2Name)
	var rs []pulled
	if err := json.Unmarshal([]byte(a.body), &rs); err != nil {
		p.t.Fatal(err)
	}
	return rs
}

// readSome reads until there are n records, at most for a while.
func (p *pull) readSome(base, query string, n int) (rs []pulled) {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); len(rs) < n; {
		rs = append(rs, p.read(base, query)...)
		if time.Now().After(deadline) {
			p.t.Fatalf("%d of %d records came", len(rs), n)
		}
	}
	return rs
}

func (p *pull) values(rs []pulled) []string {
	vs := make([]string, 0, len(rs))
	for _, r := range rs {
		vs = append(vs, r.value(p.t))
	}
	return vs
}

func (p *pull) wantValues(rs []pulled, want ...string) {
	p.t.Helper()
	got := p.values(rs)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		p.t.Fatalf("read %.200q, want %.200q", got, want)
	}
}

// produce writes values to one partition.
func (p *pull) produce(topic string, partition int, values ...string) {
	p.t.Helper()
	var body bytes.Buffer
	body.WriteString(`{"records":[`)
	for n, v := range values {
		if n > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"value":"%s"}`, base64.StdEncoding.EncodeToString([]byte(v)))
	}
	body.WriteString(`]}`)
	a := p.want(200, "*", "POST", fmt.Sprintf("/topics/%s/partitions/%d", topic, partition), body.String(), "Content-Type", "application/vnd.kafka.binary.v2+json")
	if strings.Contains(a.body, `"error":"`) {
		p.t.Fatal(a.body)
	}
}

// running starts a foreign consumer and returns what it has printed so far and how to end it.
func running(t *testing.T, cmd *exec.Cmd) (printed func() string, stop func()) {
	t.Helper()
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		done := make(chan struct{})
		go func() { _ = cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
	})
	t.Cleanup(stop)
	return out.String, stop
}

// raw is a connection that a test can cut.
func (p *pull) raw(request string) *net.TCPConn {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	tcp := conn.(*net.TCPConn)
	if err := tcp.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	if _, err := io.WriteString(tcp, request); err != nil {
		p.t.Fatal(err)
	}
	return tcp
}

// await polls until cond holds.
func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: did not come", what)
		}
	}
}

// awaitAssigned produces probes until one is read: with latest that is only after the position was found.
func awaitAssigned(p *pull, base, topic string) {
	p.t.Helper()
	await(p.t, "an assignment", func() bool {
		p.produce(topic, 0, "probe")
		return len(p.read(base, "?timeout=300")) > 0
	})
}

func (p *pull) wantCommitted(group, topic string, number int32, want int64) {
	p.t.Helper()
	cs, err := p.offsets.Group(p.t.Context(), group, []sluice.Partition{{Topic: topic, Number: number}})
	if err != nil || len(cs) != 1 || cs[0].Offset != want {
		p.t.Fatalf("committed %v, %v, want %d", cs, err, want)
	}
}

// awaitMembers waits until each instance holds so many partitions.
func (p *pull) awaitMembers(group string, bases []string, each int) {
	p.t.Helper()
	await(p.t, fmt.Sprintf("%d partitions for each", each), func() bool {
		return !slices.ContainsFunc(bases, func(base string) bool {
			parts, err := p.instance(group, base).Assignment()
			return err != nil || len(parts) != each
		})
	})
}

// instance looks behind the API for what it does not tell.
func (p *pull) instance(group, base string) *consumers.Instance {
	p.t.Helper()
	i, err := p.room.Instance(group, base[strings.LastIndexByte(base, '/')+1:])
	if err != nil {
		p.t.Fatal(err)
	}
	return i
}
