package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// Every error of Kafka and of the way to it has one Kind, however deeply it is wrapped.
func TestErrorsHaveTheirKind(t *testing.T) {
	for _, c := range []struct {
		err  error
		want sluice.Kind
	}{
		{nil, ""},
		{sarama.ErrUnknownTopicOrPartition, sluice.UnknownTopic},
		{&sarama.TopicError{Err: sarama.ErrInvalidTopic}, sluice.UnknownTopic},
		{errUnknownTopicID, sluice.UnknownTopic},
		{sarama.ErrLeaderNotAvailable, sluice.NoLeader},
		{sarama.ErrNotLeaderForPartition, sluice.Retriable},
		{sarama.ErrNotEnoughReplicas, sluice.Retriable},
		{sarama.ErrOffsetOutOfRange, sluice.OutOfRange},
		{sarama.ErrMessageSizeTooLarge, sluice.TooLarge},
		{sarama.ErrOffsetMetadataTooLarge, sluice.TooLarge},
		{fmt.Errorf("dial: %w", sarama.ErrSASLAuthenticationFailed), sluice.Unauthorized},
		{fmt.Errorf("%w: %w", sarama.ErrOutOfBrokers, sarama.ErrSASLAuthenticationFailed), sluice.Unauthorized},
		{sarama.ErrTopicAuthorizationFailed, sluice.Forbidden},
		{sarama.ErrGroupAuthorizationFailed, sluice.Forbidden},
		{sarama.ErrUnknownMemberId, sluice.StaleSession},
		{sarama.ErrIllegalGeneration, sluice.StaleSession},
		{sarama.ErrRebalanceInProgress, sluice.StaleSession},
		{sarama.ErrGroupIDNotFound, sluice.NotFound},
		{sarama.ErrNonEmptyGroup, sluice.Conflict},
		{sarama.ErrThrottlingQuotaExceeded, sluice.Overloaded},
		{sarama.ErrPolicyViolation, sluice.Rejected},
		{sarama.ErrOutOfOrderSequenceNumber, sluice.Rejected},
		{sarama.KError(9999), sluice.Rejected},
		{sarama.ErrOutOfBrokers, sluice.Unavailable},
		{io.EOF, sluice.Unavailable},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, sluice.Unavailable},
		{context.DeadlineExceeded, sluice.Unavailable},
		{&sluice.Error{Kind: sluice.UnknownPart}, sluice.UnknownPart},
		{context.Canceled, sluice.Internal},
		{errors.New("ours"), sluice.Internal},
	} {
		err := kafkaError("test", c.err)
		if got := sluice.KindOf(err); got != c.want {
			t.Errorf("%v: kind %q, want %q", c.err, got, c.want)
		}
		if !errors.Is(err, c.err) {
			t.Errorf("%v: the cause is lost", c.err)
		}
	}
}

// What is shown to callers is Kafka's text without a library's prefix.
func TestErrorTextIsKafkas(t *testing.T) {
	var e *sluice.Error
	if !errors.As(kafkaError("test", sarama.ErrPolicyViolation), &e) || e.Msg != "Request parameters do not satisfy the configured policy" {
		t.Errorf("Msg = %q", e.Msg)
	}
}
