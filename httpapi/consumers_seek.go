package httpapi

import (
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/sluicegate/sluice/consumers"
)

// seekPatience is above the 55 s that a read before it, and then the assignment, may take.
const seekPatience = 2 * time.Minute

// assignConsumer takes partitions by hand: nothing of the body is checked against Kafka (rest-api.md 7.2).
func (s *Server) assignConsumer(c *fiber.Ctx, i *consumers.Instance) error {
	body, err := s.body(c)
	if err != nil {
		return err
	}
	defer body.release()
	parts, err := requirePartitions(body)
	if err != nil {
		return err
	}
	ctx, cancel := s.within(lookupPatience)
	defer cancel()
	if err := i.Assign(ctx, parts); err != nil {
		return err
	}
	return noContent(c)
}

func (s *Server) showAssignment(c *fiber.Ctx, i *consumers.Instance) error {
	type part struct {
		Topic     string `json:"topic"`
		Partition int32  `json:"partition"`
	}
	parts, err := i.Assignment()
	if err != nil {
		return err
	}
	all := []part{}
	for _, p := range parts {
		all = append(all, part{p.Topic, p.Number})
	}
	return s.sendJSON(c, fiber.StatusOK, map[string][]part{"partitions": all})
}

func (s *Server) seekConsumer(c *fiber.Ctx, i *consumers.Instance) error {
	body, err := s.body(c)
	if err != nil {
		return err
	}
	defer body.release()
	targets, err := parseTargets(body)
	if err != nil {
		return err
	}
	return s.seek(c, i, targets)
}

// seekEdge goes to the beginning or the end of the partitions in the body.
func (s *Server) seekEdge(to consumers.Place) func(*fiber.Ctx, *consumers.Instance) error {
	return func(c *fiber.Ctx, i *consumers.Instance) error {
		body, err := s.body(c)
		if err != nil {
			return err
		}
		defer body.release()
		parts, err := requirePartitions(body)
		if err != nil {
			return err
		}
		var targets []consumers.Target
		for _, p := range parts {
			targets = append(targets, consumers.Target{Topic: p.Topic, Partition: p.Number, To: to})
		}
		return s.seek(c, i, targets)
	}
}

func (s *Server) seek(c *fiber.Ctx, i *consumers.Instance, targets []consumers.Target) error {
	ctx, cancel := s.within(seekPatience)
	defer cancel()
	if err := i.Seek(ctx, targets); err != nil {
		return err
	}
	return noContent(c)
}
