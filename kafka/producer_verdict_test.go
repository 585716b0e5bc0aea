package kafka

import (
	"errors"
	"strings"
	"testing"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// A caller reads what became of the record, not what a library says of a code that it meant for itself.
func TestARecordThatFoundNoLeaderIsSaidNotToBeWritten(t *testing.T) {
	for _, cause := range []error{sarama.ErrBrokerNotAvailable, sarama.ErrOutOfBrokers, nil} {
		err := notWritten(cause)
		e, ok := errors.AsType[*sluice.Error](err)
		if !ok || e.Kind != sluice.Retriable || !strings.Contains(e.Msg, "not written") {
			t.Errorf("%v became %v", cause, err)
		}
	}
}
