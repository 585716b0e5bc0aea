package httpapi

import (
	"slices"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// route is one row of the API. How a row is answered:
type route struct {
	method  string
	path    string
	speaks  speech
	handler fiber.Handler
}

// speech says how a row's media types are settled before its handler runs, and in whose words its errors are told.
type speech struct {
	noun  noun
	known version // the version that only this path has (rest-api.md 2.1 rule 4)
	typ   string  // a fixed type instead of a negotiated one
	self  bool    // the handler negotiates: it needs the instance's format
}

var (
	classicAPI      = speech{noun: classic}
	operations      = speech{noun: classic, typ: "application/json"}
	subscriptionAPI = speech{noun: subscription, typ: "application/json"}
)

// routes is the whole API. openapi.yaml lists the same, and a test holds the two together.
func (s *Server) routes() []route {
	rows := []route{
		{"GET", "/__gtg", operations, s.goodToGo},
		{"GET", "/__live", operations, s.live},
		{"GET", "/__ping", operations, s.ping},
		{"GET", "/__health", operations, s.health},
		{"GET", "/__build-info", operations, s.buildInfo},
		{"GET", "/build-info", operations, s.buildInfo},
		{"GET", "/__api", operations, s.document},
		{"GET", "/metrics", operations, s.showMetrics},

		{"GET", "/", classicAPI, s.root},
		{"POST", "/", classicAPI, s.root},
	}
	if s.needs.Topics != nil {
		rows = append(rows, []route{
			{"GET", "/brokers", classicAPI, s.listBrokers},
			{"GET", "/topics", classicAPI, s.listTopics},
			{"GET", "/topics/:topic", classicAPI, s.showTopic},
			{"GET", "/topics/:topic/partitions", classicAPI, s.listPartitions},
			{"GET", "/topics/:topic/partitions/:partition", classicAPI, s.showPartition},
			{"GET", "/topics/:topic/partitions/:partition/offsets", classicAPI, s.showOffsets},
		}...)
	}
	if s.needs.Producer != nil {
		rows = append(rows, []route{
			{"POST", "/topics/:topic", classicAPI, s.produceTopic},
			{"POST", "/topics/:topic/partitions/:partition", classicAPI, s.producePartition},
		}...)
	}
	if s.needs.Subscriptions != nil {
		rows = append(rows, []route{
			{"GET", "/subscriptions", subscriptionAPI, s.listSubscriptions},
			{"POST", "/subscriptions", subscriptionAPI, s.createSubscription},
			{"GET", "/subscriptions/:id", subscriptionAPI, s.describeSubscription},
			{"DELETE", "/subscriptions/:id", subscriptionAPI, s.deleteSubscription},
		}...)
	}
	if s.needs.Consumers != nil {
		rows = append(rows, s.consumerRoutes()...)
	}
	if s.needs.Streams != nil {
		rows = append(rows, s.eventRoutes()...)
	}
	return slices.DeleteFunc(rows, func(r route) bool { return !s.cfg.API.has(r.method, r.path) })
}

// register gives the table to the router. Each path also answers OPTIONS, each GET also HEAD; any other method of a
// known path is 405 with Allow.
func (s *Server) register() {
	methods := map[string][]string{}
	var paths []string
	for _, r := range s.routes() {
		if methods[r.path] == nil {
			paths = append(paths, r.path)
		}
		methods[r.path] = append(methods[r.path], r.method)
		s.app.Add(r.method, r.path, s.prepared(r))
		if r.method == fiber.MethodGet {
			methods[r.path] = append(methods[r.path], fiber.MethodHead)
			s.app.Add(fiber.MethodHead, r.path, s.prepared(r))
		}
	}
	for _, path := range paths {
		allow := strings.Join(append(methods[path], fiber.MethodOptions), ", ")
		for _, method := range fiber.DefaultMethods {
			if !slices.Contains(methods[path], method) {
				s.app.Add(method, path, s.otherMethod(path, allow))
			}
		}
	}
	if s.needs.Consumers != nil {
		r := s.receipts()
		s.app.Add(r.method, r.path, s.prepared(r))
	}
	s.app.Use(noRoute)
}

// anyMethod is what the server as a whole understands: the Allow of answers that concern no path.
const anyMethod = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

// noRoute is the last row: no other matched. CONNECT and "OPTIONS *" name no path at all.
func noRoute(c *fiber.Ctx) error {
	if c.Method() == fiber.MethodConnect || string(c.Request().Header.RequestURI()) == "*" {
		c.Set(fiber.HeaderAllow, anyMethod)
		return errMethodNotAllowed
	}
	return errNotFound
}

// prepared settles the media types before the handler of r runs.
func (s *Server) prepared(r route) fiber.Handler {
	return func(c *fiber.Ctx) (err error) {
		x := of(c)
		x.route, x.noun = r.path, r.speaks.noun
		switch {
		case r.speaks.typ != "":
			x.answer.name = r.speaks.typ
		case !r.speaks.self:
			x.negotiation, err = negotiate(c, r.speaks.known)
		}
		if err != nil {
			return err
		}
		return r.handler(c)
	}
}

func (s *Server) otherMethod(path, allow string) fiber.Handler {
	return func(c *fiber.Ctx) error {
		of(c).route = path
		if path == "/__gtg" { // the contract of the other services' probes (operations-and-security.md 2.2)
			c.Set(fiber.HeaderAllow, "GET, HEAD")
			body, err := encode(map[string]string{"error": "Method " + of(c).method + " not allowed"})
			s.send(c, fiber.StatusMethodNotAllowed, typeJSON.name, body)
			return err
		}
		c.Set(fiber.HeaderAllow, allow)
		if c.Method() == fiber.MethodOptions {
			s.preflight(c)
			c.Status(fiber.StatusNoContent)
			return nil
		}
		return errMethodNotAllowed
	}
}
