package peers

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
)

// Balancer sends each request to the next replica, as a load balancer without stickiness does. A replica that refuses the
// connection is passed over; a request that has begun is not sent twice.
type Balancer struct {
	URL string

	server *httptest.Server
	direct *http.Transport
	next   atomic.Int64
	mu     sync.Mutex
	at     []string // host:port
}

// Balance listens until Close.
func Balance(replicas ...*Replica) *Balancer {
	b := &Balancer{at: make([]string, len(replicas)), direct: &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}}
	for n, r := range replicas {
		b.Set(n, r)
	}
	b.server = httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", "replica", r.In.Host
		},
		Transport:    b,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	})
	b.URL = b.server.URL
	return b
}

// Close ends the connections to both sides.
func (b *Balancer) Close() {
	b.server.Close()
	b.direct.CloseIdleConnections()
}

// Set puts a replica in the place of another; places count from 0.
func (b *Balancer) Set(n int, r *Replica) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at[n] = strings.TrimPrefix(r.URL, "http://")
}

func (b *Balancer) pick() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at[int(b.next.Add(1))%len(b.at)]
}

// RoundTrip tries one replica after the other until one takes the connection.
func (b *Balancer) RoundTrip(req *http.Request) (res *http.Response, err error) {
	var body []byte
	if req.Body != nil {
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
	}
	for range len(b.at) {
		one := req.Clone(req.Context())
		one.URL.Host, one.Body = b.pick(), io.NopCloser(bytes.NewReader(body))
		if res, err = b.direct.RoundTrip(one); err == nil {
			return res, nil
		}
		if refused, ok := errors.AsType[*net.OpError](err); !ok || refused.Op != "dial" {
			return nil, err
		}
	}
	return nil, err
}
