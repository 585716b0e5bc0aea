package peers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const v2 = "application/vnd.kafka.v2+json"

// Instance is a pull consumer of the classic API, v2.
type Instance struct {
	Base string // base_uri
	Seen *Seen
}

// NewInstance creates an instance in group and subscribes it to the topic from the earliest record on.
func NewInstance(ctx context.Context, base, group, topic string) (*Instance, error) {
	var made struct {
		BaseURI string `json:"base_uri"`
	}
	create := []byte(`{"format":"binary","auto.offset.reset":"earliest","auto.commit.enable":"false"}`)
	if err := Call(ctx, http.MethodPost, base+"/consumers/"+group, v2, create, http.StatusOK, &made); err != nil {
		return nil, err
	}
	i := &Instance{Base: made.BaseURI, Seen: NewSeen()}
	subscribe := fmt.Appendf(nil, `{"topics":[%q]}`, topic)
	return i, Call(ctx, http.MethodPost, i.Base+"/subscription", v2, subscribe, http.StatusNoContent, nil)
}

// Read makes one read and notes what it brought.
func (i *Instance) Read(ctx context.Context) (int, error) {
	var got []struct {
		Partition int32  `json:"partition"`
		Offset    int64  `json:"offset"`
		Key       []byte `json:"key"`
		Value     []byte `json:"value"`
	}
	if err := Call(ctx, http.MethodGet, i.Base+"/records", "", nil, http.StatusOK, &got); err != nil {
		return 0, err
	}
	for _, r := range got {
		i.Seen.Add(Record{Place: Place{r.Partition, r.Offset}, Key: r.Key, Value: r.Value})
	}
	return len(got), nil
}

// Commit commits what was read.
func (i *Instance) Commit(ctx context.Context) error {
	return Call(ctx, http.MethodPost, i.Base+"/offsets", v2, nil, http.StatusOK, nil)
}

// Poll reads and commits until ctx ends. An answer of 5xx is asked again after a second: Kafka may be away.
func (i *Instance) Poll(ctx context.Context) error {
	for {
		n, err := i.Read(ctx)
		if err == nil && n > 0 {
			err = i.Commit(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		var status *StatusError
		if errors.As(err, &status) && status.Status >= 500 {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Second):
				continue
			}
		}
		if err != nil {
			return err
		}
	}
}

// Delete ends the instance.
func (i *Instance) Delete(ctx context.Context) error {
	return Call(ctx, http.MethodDelete, i.Base, "", nil, http.StatusNoContent, nil)
}
