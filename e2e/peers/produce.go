package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// entry is a record of the classic API in the binary format: encoding/json writes []byte as base64.
type entry struct {
	Key       []byte `json:"key"`
	Value     []byte `json:"value"`
	Partition *int32 `json:"partition,omitempty"`
}

type slot struct {
	Partition *int32 `json:"partition"`
	Offset    *int64 `json:"offset"`
	ErrorCode *int   `json:"error_code"`
	Error     string `json:"error"`
}

// Produce sends the records in one POST and fills in where each went. A slot with an error is an error of the call.
func Produce(ctx context.Context, base, topic string, records []Record) error {
	body := struct {
		Records []entry `json:"records"`
	}{}
	for _, r := range records {
		body.Records = append(body.Records, entry{Key: r.Key, Value: r.Value})
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	var answer struct {
		Offsets []slot `json:"offsets"`
	}
	err = Call(ctx, http.MethodPost, base+"/topics/"+topic, "application/vnd.kafka.binary.v2+json", raw, http.StatusOK, &answer)
	if err != nil {
		return fmt.Errorf("produce to %s: %w", topic, err)
	}
	if len(answer.Offsets) != len(records) {
		return fmt.Errorf("produce to %s: %d receipts for %d records", topic, len(answer.Offsets), len(records))
	}
	for i, s := range answer.Offsets {
		if s.ErrorCode != nil || s.Partition == nil || s.Offset == nil {
			return fmt.Errorf("produce to %s: record %d: %v %s", topic, i, s.ErrorCode, s.Error)
		}
		records[i].Place = Place{*s.Partition, *s.Offset}
	}
	return nil
}

// Call makes one request and decodes the answer into into, if that is not nil. Another status than want is an error
// with the body's text.
func Call(ctx context.Context, method, url, contentType string, body []byte, want int, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	if resp.StatusCode != want {
		return &StatusError{Status: resp.StatusCode, Body: string(raw), Call: method + " " + url}
	}
	if into == nil || len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s %s: %w in %.200q", method, url, err, raw)
	}
	return nil
}

// StatusError is an answer with another status than was asked for.
type StatusError struct {
	Status int
	Body   string
	Call   string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s answered %d: %.300s", e.Call, e.Status, e.Body)
}
