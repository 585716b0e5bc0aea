package kafka

import (
	"context"
	"errors"
	"slices"

	"github.com/IBM/sarama"

	"github.com/sluicegate/sluice"
)

// Describe says how groups stand, so that a foreign member in one of ours is seen. A group that is missing in the answer
// could not be described; the error is that of one of them. The others are right.
func (o *Offsets) Describe(ctx context.Context, groups []string) (map[string]sluice.GroupState, error) {
	states := make(map[string]sluice.GroupState, len(groups))
	found := &reading{}
	var trouble error
	for addr, here := range o.byCoordinator(ctx, groups, found) {
		for batch := range slices.Chunk(here, groupBatch) {
			ask := &sarama.DescribeGroupsRequest{Version: 5, Groups: batch}
			answer, err := exchange(ctx, o, slotOf(batch[0]), addr, (*sarama.Broker).DescribeGroups, ask)
			if err != nil {
				o.forgetAll(batch)
				trouble = errors.Join(trouble, err)
				continue
			}
			for _, one := range answer.Groups {
				switch {
				case one.Err == sarama.ErrNoError:
					states[one.GroupId] = sluice.GroupState{State: one.State, Protocol: one.ProtocolType, Members: len(one.Members)}
				case one.Err == sarama.ErrGroupIDNotFound: // what older versions of the request call dead
					states[one.GroupId] = sluice.GroupState{State: "Dead"}
				default:
					if elsewhere(one.Err) {
						o.forget(one.GroupId)
					}
					trouble = one.Err
				}
			}
		}
	}
	if len(found.again) > 0 && trouble == nil {
		trouble = sarama.ErrConsumerCoordinatorNotAvailable
	}
	return states, kafkaError("describe groups", trouble)
}
