package httpapi

import (
	"cmp"
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"golang.org/x/sync/errgroup"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/progress"
	"github.com/sluicegate/sluice/subscriptions"
)

const (
	maxDefinition = 256 << 10   // bytes of a definition (webhooks.md 2.1)
	anybody       = "anonymous" // the owner while there is no authentication
	rangesAtOnce  = 8
)

// commits reads what a group has committed: kafka.Offsets. Any replica can ask, whoever owns the lanes.
type commits interface {
	Group(ctx context.Context, group string, parts []sluice.Partition) ([]sluice.Commit, error)
}

// createSubscription answers 201 once the definition is valid, its start stands in Kafka and it stands in Redis. It is
// the only answer that shows a secret, and only one that it generated.
func (s *Server) createSubscription(c *fiber.Ctx) error {
	if err := wantJSON(c); err != nil {
		return err
	}
	body, err := s.bodyWithin(c, maxDefinition)
	if err != nil {
		return err
	}
	defer body.release()
	ctx, cancel := s.within(2 * lookupPatience) // many partitions may have to be asked for their offsets
	defer cancel()
	sub, err := s.needs.Subscriptions.Create(ctx, anybody, body.bytes)
	if err != nil {
		return err
	}
	c.Set(fiber.HeaderLocation, s.basePath(c)+"/subscriptions/"+sub.ID)
	c.Set(fiber.HeaderETag, sub.ETag())
	return s.sendJSON(c, fiber.StatusCreated, sub.Revealed())
}

// listSubscriptions pages. A filter that does not exist yet is refused: to ignore it would answer more than was asked
// for, and somebody may delete what comes back.
func (s *Server) listSubscriptions(c *fiber.Ctx) error {
	o := subscriptions.ListOptions{Topic: strings.Clone(c.Query("topic")), State: strings.Clone(c.Query("state")), After: strings.Clone(c.Query("cursor"))}
	if c.Query("label") != "" {
		return errBadRequest.saying("Query parameter label is not supported yet.")
	}
	if text := c.Query("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 100 {
			return errBadRequest.saying("Query parameter limit must be an integer from 1 to 100.")
		}
		o.Limit = n
	}
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	page, next, err := s.needs.Subscriptions.List(ctx, o)
	if err != nil {
		return err
	}
	body := struct {
		Data []*subscriptions.Subscription `json:"data"`
		Next *string                       `json:"next"`
	}{Data: append([]*subscriptions.Subscription{}, page...)}
	if next != "" {
		body.Next = &next
	}
	return s.sendJSON(c, fiber.StatusOK, body)
}

// subscriptionBody is a subscription with how it stands.
type subscriptionBody struct {
	*subscriptions.Subscription
	Status statusBody `json:"status"`
}

type statusBody struct {
	Reason    string                   `json:"reason,omitempty"`
	LastError *subscriptions.LastError `json:"last_error"`
	Position  []positionBody           `json:"position"`
}

// positionBody is how far one lane has come. Committed is the offset below which everything is done, null before the
// first commit; Holes are the records above it that are known not to be done; Lag counts offsets from there to the end.
type positionBody struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed *int64 `json:"committed"`
	Holes     int    `json:"holes"`
	End       int64  `json:"end"`
	Lag       int64  `json:"lag"`
}

func (s *Server) describeSubscription(c *fiber.Ctx) error {
	id, err := segment(c, "id")
	if err != nil {
		return err
	}
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	sub, err := s.needs.Subscriptions.Get(ctx, id)
	if err != nil {
		return err
	}
	status, err := s.statusOf(ctx, sub)
	if err != nil {
		return err
	}
	c.Set(fiber.HeaderETag, sub.ETag())
	return s.sendJSON(c, fiber.StatusOK, subscriptionBody{sub, status})
}

// statusOf asks Kafka for the positions. What the owners of the lanes reported is best effort: without Redis it is
// left out.
func (s *Server) statusOf(ctx context.Context, sub *subscriptions.Subscription) (statusBody, error) {
	status := statusBody{Position: []positionBody{}}
	var parts []sluice.Partition
	for _, name := range sub.Source.Topics {
		topic, err := s.needs.Topics.Topic(ctx, name)
		if sluice.KindOf(err) == sluice.UnknownTopic {
			status.Reason = "topic_missing"
			continue
		}
		if err != nil {
			return status, err
		}
		for _, p := range topic.Partitions {
			parts = append(parts, sluice.Partition{Topic: name, Number: p.Number})
		}
	}
	committed, err := s.needs.Commits.Group(ctx, sub.ProgressGroup(), parts)
	if err != nil {
		return status, err
	}
	ends, err := s.ranges(ctx, parts)
	if err != nil {
		return status, err
	}
	at := make(map[sluice.Partition]sluice.Commit, len(committed))
	for _, one := range committed {
		at[sluice.Partition{Topic: one.Topic, Number: one.Partition}] = one
	}
	for i, p := range parts {
		status.Position = append(status.Position, positionOf(sub, p, at[p], ends[i]))
	}
	if s.needs.Health != nil {
		if all, err := s.needs.Health.Of(ctx, sub.ID); err == nil {
			status.LastError = subscriptions.LatestError(all)
			status.Reason = cmp.Or(status.Reason, subscriptions.Trouble(all, time.Now()))
		}
	}
	return status, nil
}

// positionOf counts from where the lane will begin if it has not committed yet: its resolved start, or 0 for a
// partition that came later.
func positionOf(sub *subscriptions.Subscription, p sluice.Partition, commit sluice.Commit, span sluice.Range) positionBody {
	body := positionBody{Topic: p.Topic, Partition: p.Number, End: span.End}
	low := sub.Source.Resolved[p.Topic].Offsets[p.Number]
	if commit.Topic != "" && commit.Offset != sluice.NoOffset {
		low = commit.Offset
		body.Committed = &low
		_, ledger, _ := progress.Decode(low, commit.Metadata) // foreign metadata is a ledger without holes
		body.Holes = ledger.Len()
	}
	body.Lag = max(span.End-max(low, span.Start), 0)
	return body
}

func (s *Server) ranges(ctx context.Context, parts []sluice.Partition) ([]sluice.Range, error) {
	all := make([]sluice.Range, len(parts))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(rangesAtOnce)
	for i, p := range parts {
		group.Go(func() (err error) {
			all[i], err = s.needs.Topics.Range(ctx, p)
			return err
		})
	}
	return all, group.Wait()
}

// deleteSubscription answers 202: the id is gone when the owners of its lanes have let go.
func (s *Server) deleteSubscription(c *fiber.Ctx) error {
	id, err := segment(c, "id")
	if err != nil {
		return err
	}
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	if wanted := strings.TrimSpace(c.Get(fiber.HeaderIfMatch)); wanted != "" && wanted != "*" {
		sub, err := s.needs.Subscriptions.Get(ctx, id)
		if err != nil {
			return err
		}
		if !matchesTag(wanted, sub.ETag()) {
			return errStale
		}
	}
	if err := s.needs.Subscriptions.Delete(ctx, id); err != nil {
		return err
	}
	return s.sendJSON(c, fiber.StatusAccepted, struct {
		ID    string `json:"id"`
		State string `json:"state"`
	}{id, subscriptions.Deleting})
}

func matchesTag(list, tag string) bool {
	for one := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(one) == tag {
			return true
		}
	}
	return false
}

// wantJSON accepts a definition as application/json, or without a type.
func wantJSON(c *fiber.Ctx) error {
	header := cmp.Or(strings.TrimSpace(string(c.Request().Header.ContentType())), typeJSON.name)
	r, ok := parseMedia(header)
	if !ok || r.name != typeJSON.name || (r.charset != "" && r.charset != "utf-8" && r.charset != "us-ascii") {
		return errUnsupportedMedia
	}
	return nil
}
