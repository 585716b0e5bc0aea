package httpapi

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/consumers"
)

// consumerRoutes are the instances of the classic API (rest-api.md 5 to 7) and the reads without one (8). Media types depend on the instance, so the
// handlers settle them.
func (s *Server) consumerRoutes() []route {
	speaks := speech{noun: instances, self: true}
	const group, instance = "/consumers/:group", "/consumers/:group/instances/:instance"
	rows := []route{
		{"GET", "/topics/:topic/partitions/:partition/messages", speaks, s.browse(v1)},
		{"GET", "/topics/:topic/partitions/:partition/records", speaks, s.browse(v2)},
		{"POST", group, speaks, s.createConsumer},
		{"DELETE", instance, speaks, s.onInstance(anyVersion, s.deleteConsumer)},
		{"POST", instance + "/subscription", speaks, s.onInstance(makesV2, s.subscribeConsumer)},
		{"GET", instance + "/subscription", speaks, s.onInstance(makesV2, s.showSubscription)},
		{"DELETE", instance + "/subscription", speaks, s.onInstance(makesV2, s.unsubscribeConsumer)},
		{"POST", instance + "/assignments", speaks, s.onInstance(makesV2, s.assignConsumer)},
		{"GET", instance + "/assignments", speaks, s.onInstance(makesV2, s.showAssignment)},
		{"POST", instance + "/positions", speaks, s.onInstance(makesV2, s.seekConsumer)},
		{"POST", instance + "/positions/beginning", speaks, s.onInstance(makesV2, s.seekEdge(consumers.ToBeginning))},
		{"POST", instance + "/positions/end", speaks, s.onInstance(makesV2, s.seekEdge(consumers.ToEnd))},
		{"GET", instance + "/records", speaks, s.readRecords},
		{"GET", instance + "/topics/:topic", speaks, s.readTopic},
		{"POST", instance + "/offsets", speaks, s.onInstance(anyVersion, s.commitOffsets)},
		{"GET", instance + "/offsets", speaks, s.onInstance(onlyV2, s.showCommitted)},
	}
	for n := range rows {
		if strings.HasPrefix(rows[n].path, instance) {
			rows[n].handler = s.seated(rows[n].handler)
		}
	}
	return rows
}

// receipts is the one path that only replicas know.
func (s *Server) receipts() route {
	return route{"POST", "/consumers/:group/instances/:instance/answers/:number", speech{noun: instances}, s.receive}
}

// pathVersion says what a path means for the version of a call (rest-api.md 2.1 and 5.2).
type pathVersion byte

const (
	anyVersion pathVersion = iota
	onlyV2                 // v1 has no such call
	makesV2                // and it settles an instance whose version was open
)

// instance is the instance of the path, as seated has found it. known is the version of its calls without a versioned
// media type.
func (s *Server) instance(c *fiber.Ctx, p pathVersion) (i *consumers.Instance, known version, err error) {
	at, _ := c.Locals(seatingKey{}).(seating)
	if at.missing != nil {
		if p != anyVersion {
			known = v2
		}
		return nil, known, at.missing
	}
	i = at.instance
	if p == makesV2 {
		i.SpeakV2()
	}
	known = v1
	if i.Version() == consumers.V2 {
		known = v2
	}
	return i, known, nil
}

// onInstance finds the instance and settles the media types. That there is no such instance comes first.
func (s *Server) onInstance(p pathVersion, handle func(*fiber.Ctx, *consumers.Instance) error) fiber.Handler {
	return func(c *fiber.Ctx) error {
		i, known, missing := s.instance(c, p)
		n, err := negotiate(c, known)
		of(c).negotiation = n
		if missing != nil {
			return missing
		}
		if err != nil {
			return err
		}
		return handle(c, i)
	}
}

// noContent is a success without a body.
func noContent(c *fiber.Ctx) error {
	c.Status(fiber.StatusNoContent)
	c.Set(fiber.HeaderCacheControl, "no-store")
	return nil
}

func (s *Server) createConsumer(c *fiber.Ctx) error {
	x := of(c)
	forwarded, err := s.fromReplica(c)
	if err != nil {
		return err
	}
	if s.needs.Consumers.Stopping() && !forwarded { // clients with a connection still arrive here
		ctx, cancel := s.within(lookupPatience)
		defer cancel()
		if base := s.needs.Consumers.Another(ctx); base != "" {
			if err := s.forward(c, base, ""); !errors.Is(err, errAskAgain) {
				return err
			}
		}
	}
	x.negotiation, err = negotiate(c, noVersion)
	if err != nil {
		return err
	}
	group, err := segment(c, "group")
	if err != nil {
		return err
	}
	settings, err := s.consumerSettings(c)
	if err != nil {
		return err
	}
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	i, err := s.needs.Consumers.Create(ctx, group, settings, madeBy(c))
	if err != nil {
		return err
	}
	return s.sendJSON(c, fiber.StatusOK, struct {
		ID   string `json:"instance_id"`
		Base string `json:"base_uri"`
	}{i.ID(), s.baseOf(c) + instancePath(group, i.ID())})
}

// madeBy is the version that a create call names, if it names one: then no default shows through.
func madeBy(c *fiber.Ctx) consumers.Version {
	one, _ := negotiate(c, v1) // the media types were accepted a moment ago
	two, _ := negotiate(c, v2)
	switch {
	case one.version != two.version:
		return consumers.Provisional
	case one.version == v2:
		return consumers.V2
	}
	return consumers.V1
}

// instancePath escapes what a path needs escaped. Clients pass the result through query unescaping, which would turn a
// plus into a space, and some cannot bear an escaped colon.
func instancePath(group, id string) string {
	escape := func(s string) string { return strings.ReplaceAll(url.PathEscape(s), "+", "%2B") }
	return "/consumers/" + escape(group) + "/instances/" + escape(id)
}

func (s *Server) consumerSettings(c *fiber.Ctx) (consumers.Settings, error) {
	body, err := s.body(c)
	if err != nil {
		return consumers.Settings{}, err
	}
	defer body.release()
	options, err := parseOptions(body)
	if err != nil {
		return consumers.Settings{}, err
	}
	return consumers.ParseSettings(options, func(format string) bool {
		_, ok := s.format(format)
		return ok
	})
}

func (s *Server) deleteConsumer(c *fiber.Ctx, i *consumers.Instance) error {
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	if err := s.needs.Consumers.Delete(ctx, i.Group(), i.ID()); err != nil {
		return err
	}
	return noContent(c)
}

func (s *Server) subscribeConsumer(c *fiber.Ctx, i *consumers.Instance) error {
	body, err := s.body(c)
	if err != nil {
		return err
	}
	defer body.release()
	wish, err := parseWish(body)
	if err != nil {
		return err
	}
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	if err := i.Subscribe(ctx, wish); err != nil {
		return err
	}
	return noContent(c)
}

func (s *Server) showSubscription(c *fiber.Ctx, i *consumers.Instance) error {
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	topics, err := i.Subscription(ctx)
	if err != nil {
		return err
	}
	if topics == nil {
		topics = []string{}
	}
	return s.sendJSON(c, fiber.StatusOK, map[string][]string{"topics": topics})
}

func (s *Server) unsubscribeConsumer(c *fiber.Ctx, i *consumers.Instance) error {
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	if err := i.Unsubscribe(ctx); err != nil {
		return err
	}
	return noContent(c)
}

const commitPatience = 20 * time.Second // above what a commit waits for a rebalance

// commitOffsets answers when Kafka has it, unless the client does not want to wait. In v1 the body is ignored.
func (s *Server) commitOffsets(c *fiber.Ctx, i *consumers.Instance) error {
	body, err := s.body(c)
	if err != nil {
		return err
	}
	defer body.release()
	if of(c).version == v1 {
		return s.commitV1(c, i)
	}
	later, err := flag(c, "async")
	if err != nil {
		return err
	}
	commits, given, err := parseCommits(body)
	if err != nil {
		return err
	}
	if s.cfg.Pull.CommitOffsets == "last" {
		for n := range commits {
			commits[n].Offset++ // the client names the last record it processed, Kafka keeps the next
		}
	}
	ctx, cancel := s.within(commitPatience)
	defer cancel()
	switch {
	case given && later:
		err = i.CommitOffsetsLater(commits)
	case given:
		err = s.missing(ctx, commits, i.CommitOffsets(ctx, commits))
	case later:
		err = i.CommitLater()
	default:
		_, err = i.Commit(ctx)
	}
	if err != nil {
		return err
	}
	s.send(c, fiber.StatusOK, of(c).answer.name, []byte("[]"))
	return nil
}

// missing tells which it is that Kafka does not know: it has one error for a topic and for a partition.
func (s *Server) missing(ctx context.Context, commits []sluice.Commit, err error) error {
	if sluice.KindOf(err) != sluice.UnknownTopic {
		return err
	}
	beyond := false
	for _, c := range commits {
		topic, lookErr := s.needs.Topics.Topic(ctx, c.Topic)
		if lookErr != nil {
			return err
		}
		beyond = beyond || int(c.Partition) >= len(topic.Partitions)
	}
	if beyond {
		return errUnknownPartition
	}
	return err
}

// commitV1 tells the offset of the last record delivered of each partition; Kafka holds one more (rest-api.md 6.2).
func (s *Server) commitV1(c *fiber.Ctx, i *consumers.Instance) error {
	ctx, cancel := s.within(commitPatience)
	defer cancel()
	delivered, err := i.Commit(ctx)
	if err != nil {
		return err
	}
	type consumed struct {
		Topic     string `json:"topic"`
		Partition int32  `json:"partition"`
		Consumed  int64  `json:"consumed"`
		Committed int64  `json:"committed"`
	}
	all := make([]consumed, 0, len(delivered))
	for _, d := range delivered {
		all = append(all, consumed{d.Topic, d.Partition, d.Last, d.Last})
	}
	return s.sendJSON(c, fiber.StatusOK, all)
}

// showCommitted takes its partitions from the body of the GET; without one it answers for those that are assigned.
func (s *Server) showCommitted(c *fiber.Ctx, i *consumers.Instance) error {
	body, err := s.body(c)
	if err != nil {
		return err
	}
	defer body.release()
	parts, err := parsePartitions(body)
	if err != nil {
		return err
	}
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	commits, err := i.Committed(ctx, parts)
	if err != nil {
		return err
	}
	type committed struct {
		Topic     string `json:"topic"`
		Partition int32  `json:"partition"`
		Offset    int64  `json:"offset"`
		Metadata  string `json:"metadata"`
	}
	all := make([]committed, 0, len(commits))
	for _, o := range commits {
		all = append(all, committed{o.Topic, o.Partition, o.Offset, o.Metadata})
	}
	return s.sendJSON(c, fiber.StatusOK, map[string][]committed{"offsets": all})
}

// flag is a parameter that is true without a value too.
func flag(c *fiber.Ctx, name string) (bool, error) {
	if !c.Context().QueryArgs().Has(name) {
		return false, nil
	}
	text := c.Query(name)
	if text == "" {
		return true, nil
	}
	on, err := strconv.ParseBool(strings.ToLower(text))
	if err != nil {
		return false, errBadRequest.saying("The query parameter %s must be true or false.", name)
	}
	return on, nil
}

// given reports whether a parameter has a value: clients that build every query from a template leave some empty.
func given(c *fiber.Ctx, name string) bool { return len(c.Context().QueryArgs().Peek(name)) > 0 }

// number is an integer parameter, 0 if it is absent. One that is too large counts as the largest.
func number(c *fiber.Ctx, name string) (int64, error) {
	if !given(c, name) {
		return 0, nil
	}
	n, err := strconv.ParseInt(c.Query(name), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, errBadRequest.saying("The query parameter %s must be an integer.", name)
	}
	return n, nil
}
