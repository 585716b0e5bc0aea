package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// Codes that sarama v1.61.1 has no name for (KIP-516, KIP-848).
const (
	errUnknownTopicID      sarama.KError = 100
	errInconsistentTopicID sarama.KError = 103
	errFencedMemberEpoch   sarama.KError = 110
	errStaleMemberEpoch    sarama.KError = 113
)

// retryAfter is the advice that goes with Unavailable and Overloaded: an election and a broker restart take seconds.
const retryAfter = 2 * time.Second

// kafkaError is the one switch that gives sarama's and Kafka's errors their Kind. doing says what was being done
// ("describe topic"); it stands in the log with the cause, never in Msg. An error that has its Kind already keeps it,
// and one that has none (a cancelled context, a fault of ours) gets none.
func kafkaError(doing string, err error) error {
	if err == nil {
		return nil
	}
	cause := fmt.Errorf("%s: %w", doing, err)
	if _, ok := errors.AsType[*sluice.Error](err); ok {
		return cause
	}
	if code, ok := errors.AsType[sarama.KError](err); ok {
		return kafkaCode(code, cause)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &sluice.Error{Kind: sluice.Unavailable, Msg: "Kafka did not answer in time.", RetryAfter: retryAfter, Err: cause}
	case unreachable(err):
		return &sluice.Error{Kind: sluice.Unavailable, Msg: "No Kafka broker could be reached.", RetryAfter: retryAfter, Err: cause}
	}
	return cause
}

// kafkaCode is the half of the switch for the codes that brokers answer with.
func kafkaCode(code sarama.KError, cause error) error {
	e := &sluice.Error{Msg: brokerText(code), Err: cause}
	switch code {
	case sarama.ErrUnknownTopicOrPartition, sarama.ErrInvalidTopic, errUnknownTopicID, errInconsistentTopicID:
		e.Kind, e.Msg = sluice.UnknownTopic, "Topic not found."
	case sarama.ErrLeaderNotAvailable:
		e.Kind, e.Msg = sluice.NoLeader, "Leader not available."
	case sarama.ErrOffsetOutOfRange:
		e.Kind = sluice.OutOfRange
	case sarama.ErrMessageSizeTooLarge, sarama.ErrMessageSetSizeTooLarge, sarama.ErrOffsetMetadataTooLarge, sarama.ErrInvalidCommitOffsetSize:
		e.Kind = sluice.TooLarge
	case sarama.ErrSASLAuthenticationFailed, sarama.ErrUnsupportedSASLMechanism, sarama.ErrIllegalSASLState:
		e.Kind = sluice.Unauthorized
	case sarama.ErrTopicAuthorizationFailed, sarama.ErrGroupAuthorizationFailed, sarama.ErrClusterAuthorizationFailed,
		sarama.ErrTransactionalIDAuthorizationFailed, sarama.ErrDelegationTokenAuthorizationFailed:
		e.Kind = sluice.Forbidden
	case sarama.ErrIllegalGeneration, sarama.ErrUnknownMemberId, sarama.ErrRebalanceInProgress, sarama.ErrFencedInstancedId,
		errFencedMemberEpoch, errStaleMemberEpoch:
		e.Kind = sluice.StaleSession
	case sarama.ErrGroupIDNotFound:
		e.Kind = sluice.NotFound
	case sarama.ErrNonEmptyGroup, sarama.ErrTopicAlreadyExists:
		e.Kind = sluice.Conflict
	case sarama.ErrThrottlingQuotaExceeded:
		e.Kind, e.RetryAfter = sluice.Overloaded, retryAfter
	case sarama.ErrBrokerNotAvailable:
		e.Kind, e.RetryAfter = sluice.Unavailable, retryAfter
	default:
		e.Kind = sluice.Rejected
		if retriable(code) {
			e.Kind = sluice.Retriable
		}
	}
	return e
}

// brokerText is Kafka's own text, without sarama's prefix.
func brokerText(code sarama.KError) string {
	return strings.TrimPrefix(code.Error(), "kafka server: ")
}

// retriable reports whether the same call may succeed later without any change: Kafka's RetriableException, and a
// broker that could not be reached. It says nothing about whether a write took place.
func retriable(err error) bool {
	code, ok := errors.AsType[sarama.KError](err)
	if !ok {
		return unreachable(err)
	}
	switch code {
	case sarama.ErrUnknownTopicOrPartition, sarama.ErrInvalidMessage, sarama.ErrInvalidMessageSize,
		sarama.ErrRequestTimedOut, sarama.ErrNetworkException, sarama.ErrBrokerNotAvailable, sarama.ErrNotController,
		sarama.ErrKafkaStorageError, sarama.ErrThrottlingQuotaExceeded,
		errUnknownTopicID, errInconsistentTopicID:
		return true
	case sarama.ErrOffsetsLoadInProgress, sarama.ErrConsumerCoordinatorNotAvailable, sarama.ErrUnstableOffsetCommit,
		sarama.ErrConcurrentTransactions, sarama.ErrFetchSessionIDNotFound, sarama.ErrInvalidFetchSessionEpoch:
		return true
	case sarama.ErrNotEnoughReplicas, sarama.ErrNotEnoughReplicasAfterAppend:
		return true
	}
	return leaderMoved(code) || coordinatorMoved(code)
}

// leaderMoved reports whether the partition must be looked up again before the next try.
func leaderMoved(err error) bool {
	code, _ := errors.AsType[sarama.KError](err)
	switch code {
	case sarama.ErrNotLeaderForPartition, sarama.ErrLeaderNotAvailable, sarama.ErrReplicaNotAvailable,
		sarama.ErrFencedLeaderEpoch, sarama.ErrUnknownLeaderEpoch, sarama.ErrOffsetNotAvailable,
		sarama.ErrPreferredLeaderNotAvailable, sarama.ErrEligibleLeadersNotAvailable, sarama.ErrListenerNotFound:
		return true
	}
	return false
}

// coordinatorMoved reports whether the group's coordinator must be looked up again before the next try.
func coordinatorMoved(err error) bool {
	code, _ := errors.AsType[sarama.KError](err)
	return code == sarama.ErrNotCoordinatorForConsumer || code == sarama.ErrConsumerCoordinatorNotAvailable
}

// unreachable reports whether err is the network's or sarama's word for "no broker answered", not a broker's answer.
func unreachable(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	for _, target := range []error{
		sarama.ErrOutOfBrokers, sarama.ErrNotConnected, sarama.ErrBrokerNotFound, sarama.ErrClosedClient,
		sarama.ErrControllerNotAvailable, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
