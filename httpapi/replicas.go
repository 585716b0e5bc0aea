package httpapi

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/sluicegate/sluice"
	"github.com/sluicegate/sluice/consumers"
)

// The headers that replicas send each other. They say nothing without a signature that holds, and a client never sees
// one.
const (
	headerReplicaTime      = "Sluice-Replica-Time"      // milliseconds since 1970
	headerReplicaPrincipal = "Sluice-Replica-Principal" // on whose behalf
	headerReplicaSignature = "Sluice-Replica-Signature" // consumers.Registry.Sign
	headerReplicaLost      = "Sluice-Replica-Lost"      // with a receipt: the client did not get the answer
	headerAnswer           = "Sluice-Answer"            // the number of an answer that wants a receipt
	headerNotOwner         = "Sluice-Not-Owner"         // ask the roster again
)

const forwardPause = 100 * time.Millisecond // before a replica that did not answer is asked again

// seating is what a request on an instance was given: the instance, or why there is none.
type seating struct {
	instance  *consumers.Instance
	missing   error
	forwarded bool // by another replica
}

type seatingKey struct{}

// seated runs next where the instance of the path is: here, or on the replica that owns it. An owner that has died or is
// leaving is waited for, or followed.
func (s *Server) seated(next fiber.Handler) fiber.Handler {
	return func(c *fiber.Ctx) error {
		group, err := segment(c, "group")
		if err != nil {
			return err
		}
		id, err := segment(c, "instance")
		if err != nil {
			return err
		}
		forwarded, err := s.fromReplica(c)
		if err != nil {
			return err
		}
		began := time.Now() // of the trouble, if there is any
		for {
			ctx, cancel := s.within(consumers.AdoptPatience - time.Since(began))
			seat, err := s.needs.Consumers.Find(ctx, group, id, forwarded)
			cancel()
			switch {
			case errors.Is(err, consumers.ErrNotOwner):
				c.Set(headerNotOwner, "1")
				return err
			case seat.URL != "":
				tried := time.Now()
				if err = s.forward(c, seat.URL, seat.Owner); !errors.Is(err, errAskAgain) {
					return err
				}
				if time.Since(tried) > forwardDial { // it died over the request: its lease begins to run out now
					began = time.Now()
				}
			default:
				of(c).keeps = seat.Instance != nil && s.needs.Consumers.Shared() && hasBody(c)
				c.Locals(seatingKey{}, seating{seat.Instance, err, forwarded})
				if err = next(c); !errors.Is(err, consumers.ErrMoved) {
					return err
				}
			}
			pause := time.NewTimer(forwardPause)
			select {
			case <-pause.C:
			case <-s.requests.Done():
				pause.Stop()
			}
			if s.requests.Err() != nil || time.Since(began) >= consumers.AdoptPatience {
				return &sluice.Error{Kind: sluice.Overloaded, Msg: "The consumer instance is being taken over."}
			}
		}
	}
}

// fromReplica is whether another replica has sent the request on. A signature that does not hold is no client's.
func (s *Server) fromReplica(c *fiber.Ctx) (bool, error) {
	signature := c.Get(headerReplicaSignature)
	if signature == "" {
		return false, nil
	}
	ms, err := strconv.ParseInt(c.Get(headerReplicaTime), 10, 64)
	call := consumers.Call{Method: c.Method(), Target: target(c), Principal: c.Get(headerReplicaPrincipal), At: time.UnixMilli(ms)}
	if err != nil || !s.needs.Consumers.Signed(call, signature) {
		return false, errCrossSite
	}
	return true, nil
}

// target is what is signed and sent: the path in its canonical form, and the query.
func target(c *fiber.Ctx) string {
	u := c.Request().URI()
	path := string(u.PathOriginal())
	if q := u.QueryString(); len(q) > 0 {
		path += "?" + string(q)
	}
	return path
}

// receive takes the receipt for an answer that went out through another replica. It is meant for this one, which gave
// that answer, wherever the instance is by now.
func (s *Server) receive(c *fiber.Ctx) error {
	if forwarded, err := s.fromReplica(c); err != nil || !forwarded {
		return errNotFound // to everybody else there is no such path
	}
	group, err := segment(c, "group")
	if err != nil {
		return err
	}
	id, err := segment(c, "instance")
	if err != nil {
		return err
	}
	s.needs.Consumers.Receipt(group, id, c.Params("number"), c.Get(headerReplicaLost) == "")
	return noContent(c)
}

// receiptWanted has an answer that goes out through another replica settled by that one's receipt. A replica that dies
// before it closes its connection: then nobody knows, and the answer is given again.
func (s *Server) receiptWanted(c *fiber.Ctx, a *consumers.Answer) (settle func(ok bool)) {
	number, closed := a.Number()
	if number == "" {
		return func(bool) { a.Settled() }
	}
	c.Set(headerAnswer, number)
	conn, _ := c.Context().Conn().(*clientConn)
	return func(ok bool) {
		if !ok || conn == nil {
			a.Lost()
			return
		}
		s.waiting.Go(func() { s.awaitReceipt(a, conn, closed) })
	}
}

const (
	receiptPatience = time.Minute // a client that is so slow is given the answer again
	receiptGrace    = time.Second // between a connection's end and its receipt
)

func (s *Server) awaitReceipt(a *consumers.Answer, conn *clientConn, closed <-chan struct{}) {
	defer a.Lost() // nothing, once it is settled
	ctx, cancel := context.WithTimeout(s.requests, receiptPatience)
	defer cancel()
	look := time.NewTicker(goneEvery)
	defer look.Stop()
	for !conn.Gone() {
		select {
		case <-closed:
			return
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
	grace := time.NewTimer(receiptGrace)
	defer grace.Stop()
	select {
	case <-closed:
	case <-grace.C:
	}
}
