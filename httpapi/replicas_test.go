package httpapi

import (
	"testing"

	"github.com/sluicegate/sluice/consumers"
	"github.com/sluicegate/sluice/sandbox/backend"
)

// Nobody but a replica with the same secret can speak as one: not for a read, and receipts have no path at all.
func TestOnlyReplicasSpeakAsReplicas(t *testing.T) {
	const secret = "a secret of the replicas"
	for name, configured := range map[string]string{"with a secret": secret, "without": ""} {
		t.Run(name, func(t *testing.T) {
			p := pullers(t, func(_ *Config, c *consumers.Config) { c.ReplicaSecret = configured })
			topic := p.k.Topic(t, "orders", 1)
			p.produce(topic, 0, "a")
			base := p.consumer(backend.Unique("g"), earliestJSON, topic)
			const forbidden = `{"error_code":403,"message":"HTTP 403 Forbidden"}`
			for _, headers := range [][]string{
				{headerReplicaSignature, "AAAA"},
				{headerReplicaSignature, "AAAA", headerReplicaTime, "1"},
			} {
				p.want(403, forbidden, "GET", base+"/records", "", headers...)
				p.want(403, forbidden, "POST", "/consumers/g", "", headers...)
				p.want(404, `{"error_code":404,"message":"HTTP 404 Not Found"}`, "POST", base+"/answers/1", "", headers...)
			}
			p.want(404, `{"error_code":404,"message":"HTTP 404 Not Found"}`, "POST", base+"/answers/1", "")
			p.wantValues(p.readSome(base, "", 1), "a")
		})
	}
}
