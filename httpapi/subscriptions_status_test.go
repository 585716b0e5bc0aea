package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/sluicegate/sluice/subscriptions"
)

func TestASubscriptionSaysWhyNothingIsSent(t *testing.T) {
	var health *subscriptions.Health
	h := withSubscriptions(t, func(n *Needs) { health = n.Health })
	topic := h.broker.Topic(t, "orders", 1)
	a := h.call("POST", "/subscriptions", fmt.Sprintf(`{"source":{"topics":[%q]},"endpoint":{"url":"https://example.com/hook"}}`, topic), "Content-Type", "application/json")
	var shown struct {
		ID     string `json:"id"`
		Status struct {
			Reason string `json:"reason"`
		} `json:"status"`
	}
	if err := json.Unmarshal([]byte(a.body), &shown); err != nil || a.status != 201 {
		t.Fatalf("%d %s %v", a.status, a.body, err)
	}
	health.Report(t.Context(), shown.ID, "a", subscriptions.LaneHealth{At: subscriptions.Time{Time: time.Now()}, Reason: subscriptions.GroupHijacked})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := health.Run(ctx); err != nil { // writes what waits, and ends
		t.Fatal(err)
	}
	a = h.call("GET", "/subscriptions/"+shown.ID, "")
	if err := json.Unmarshal([]byte(a.body), &shown); err != nil || shown.Status.Reason != "group_hijacked" {
		t.Errorf("%d %s %v", a.status, a.body, err)
	}
}
