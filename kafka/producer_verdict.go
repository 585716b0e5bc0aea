package kafka

import (
	"errors"
	"fmt"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// verdict is what the answer of a broker means for a batch.
type verdict byte

const (
	stored  verdict = iota // in the log
	again                  // refused; the same may pass later
	moved                  // refused; another broker leads, or the topic is gone
	unsure                 // may be written; the same batch again will tell
	lost                   // may be written; nothing will tell
	gap                    // refused: the sequence does not follow
	fenced                 // refused: the producer id is not valid any more
	spoiled                // refused: at least one record of it is bad
	denied                 // refused for good
)

// verdictOf gives every code of a produce answer its meaning. Kafka 4.1, measured: a resend among the last five batches of
// a partition succeeds with its true offset; an older one gets 45, just as a real gap does.
func verdictOf(code sarama.KError) verdict {
	switch code {
	case sarama.ErrNoError, sarama.ErrDuplicateSequenceNumber:
		return stored
	case sarama.ErrRequestTimedOut, sarama.ErrNetworkException, sarama.ErrNotEnoughReplicasAfterAppend, sarama.ErrKafkaStorageError:
		return unsure
	case sarama.ErrUnknown:
		return lost
	case sarama.ErrOutOfOrderSequenceNumber:
		return gap
	case sarama.ErrInvalidProducerEpoch, sarama.ErrUnknownProducerID, sarama.ErrInvalidProducerIDMapping, sarama.ErrProducerFenced:
		return fenced
	case sarama.ErrMessageSizeTooLarge, sarama.ErrMessageSetSizeTooLarge, sarama.ErrInvalidRecord, sarama.ErrInvalidTimestamp,
		sarama.ErrInvalidMessage, sarama.ErrInvalidMessageSize, sarama.ErrUnsupportedForMessageFormat:
		return spoiled
	case sarama.ErrUnknownTopicOrPartition, errUnknownTopicID, errInconsistentTopicID:
		return moved
	}
	switch {
	case leaderMoved(code):
		return moved
	case retriable(code):
		return again
	}
	return denied
}

// verdictOn is what a request came to for one of its batches: without an answer, it may be written.
func verdictOn(b *batch, answer *sarama.ProduceResponse, err error) (*sarama.ProduceResponseBlock, verdict, error) {
	if _, ours := errors.AsType[sarama.PacketEncodingError](err); ours {
		return nil, spoiled, fmt.Errorf("%w: %w", sarama.ErrInvalidRecord, err) // it was never sent
	}
	if err != nil {
		return nil, unsure, err
	}
	block := answer.GetBlock(b.queue.topic.name, b.queue.number)
	if block == nil {
		return nil, unsure, sarama.ErrIncompleteResponse
	}
	if block.Err == sarama.ErrDuplicateSequenceNumber {
		block.Offset = -1
	}
	return block, verdictOf(block.Err), block.Err
}

// spoilt is the error of one bad record.
func (q *queue) spoilt(cause error, text string) error {
	err := kafkaError("produce to "+q.String(), cause)
	e, ok := errors.AsType[*sluice.Error](err)
	switch {
	case !ok:
		return err
	case e.Kind == sluice.TooLarge:
		e.Msg = q.topic.tooLarge()
	case e.Kind == sluice.Retriable:
		e.Kind = sluice.Rejected // alone in its batch it was refused: a corrupt message is not the network's fault then
	}
	if text != "" {
		e.Msg = text
	}
	return e
}

// outcomeUnknown is the error of a record that was sent and not confirmed.
func outcomeUnknown(cause error) error {
	return &sluice.Error{Kind: sluice.OutcomeUnknown, Msg: "outcome unknown: Kafka did not confirm the record in time; it may be in the log", Err: cause}
}

// notWritten is the error of a record that was never sent, or that every attempt saw refused.
func notWritten(cause error) error {
	e := &sluice.Error{Kind: sluice.Retriable, Msg: "Kafka did not take the record in time; it was not written.", Err: cause}
	if code, ok := errors.AsType[sarama.KError](cause); ok && code != sarama.ErrBrokerNotAvailable { // no broker said that: it had no address
		switch verdictOf(code) {
		case again, moved, denied:
			e.Msg = brokerText(code)
		default: // what a broker said of others before it, and what leaves their outcome open, is not for this one
		}
	}
	return e
}
