package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"time"
)

// produceDemo posts an order and, now and then, a publication as FTMSG/1.0, until ctx ends: over HTTP, like any client.
func produceDemo(ctx context.Context, base string) error {
	tick := time.NewTicker(700 * time.Millisecond)
	defer tick.Stop()
	for n := 1; ; n++ {
		if err := post(ctx, base+"/topics/orders", "application/vnd.kafka.json.v2+json", order(n)); err != nil && ctx.Err() == nil {
			return err
		}
		if n%3 == 0 {
			if err := post(ctx, base+"/topics/NativeCmsPublicationEvents", "application/vnd.kafka.binary.v2+json", publication()); err != nil && ctx.Err() == nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

var goods = []string{"tea", "paper", "salt", "copper", "pepper", "wool"}

func order(n int) any {
	type line struct {
		Article string `json:"article"`
		Pieces  int    `json:"pieces"`
	}
	customer := fmt.Sprintf("customer-%d", mathrand.IntN(50))
	return records{Records: []any{map[string]any{"key": customer, "value": map[string]any{
		"order": fmt.Sprintf("o-%06d", n), "customer": customer, "placed_at": time.Now().UTC().Format(time.RFC3339Nano),
		"lines": []line{{goods[mathrand.IntN(len(goods))], 1 + mathrand.IntN(9)}}, "total": float64(100+mathrand.IntN(20_000)) / 100,
	}}}}
}

// publication is a native content event as the content systems of a newspaper send it.
func publication() any {
	uuid := newUUID()
	body := fmt.Sprintf(`{"uuid":%q,"type":"Article","title":"Markets at noon","lastModified":%q}`, uuid, time.Now().UTC().Format(time.RFC3339))
	message := "FTMSG/1.0\r\n" +
		"Content-Type: application/json\r\n" +
		"Message-Id: " + newUUID() + "\r\n" +
		"Message-Timestamp: " + time.Now().UTC().Format("2006-01-02T15:04:05.000Z") + "\r\n" +
		"Message-Type: cms-content-published\r\n" +
		"Origin-System-Id: http://cmdb.ft.com/systems/cct\r\n" +
		"X-Request-Id: tid_" + uuid[:8] + "de\r\n\r\n" + body
	return records{Records: []any{map[string][]byte{"key": []byte(uuid), "value": []byte(message)}}} // []byte is base64 in JSON
}

type records struct {
	Records []any `json:"records"`
}

func post(ctx context.Context, url, contentType string, body any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the demo's produce answered %d", resp.StatusCode)
	}
	return nil
}

// newUUID is a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
