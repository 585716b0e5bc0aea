package main

import (
	"path/filepath"
	"strings"
)

// devSecret signs the deliveries to dev's own receiver. It is public on purpose: nothing but the receiver of `sluice
// dev` trusts it.
const devSecret = "whsec_c2x1aWNlLWRldi1yZWNlaXZlci1pcy1wdWJsaWM="

// places are where the parts of a dev gateway are found; data is the folder of --data, or empty.
type places struct{ base, hook, broker, registry, data string }

// pasteable is what dev prints: each line works as it stands, in any order.
func pasteable(at places) string {
	data := at.data
	kept := "Ctrl-C stops it; nothing is kept."
	if data != "" {
		if whole, err := filepath.Abs(data); err == nil {
			data = whole
		}
		kept = "Ctrl-C stops it; topics, records, subscriptions and their progress stay in\n" + data + "\nStart with the same --data to go on, or delete the folder to begin anew."
	}
	return strings.NewReplacer("{base}", at.base, "{hook}", at.hook, "{broker}", at.broker, "{registry}", at.registry, "{secret}", devSecret, "{kept}", kept).Replace(`
Sluice is up, with a Kafka, a Redis and a schema registry of its own. Paste any of these, in any order:

  a page that tails orders and produces to it
    {base}/

  produce a record
    curl -s {base}/topics/orders -H 'Content-Type: application/vnd.kafka.json.v2+json' -d '{"records":[{"key":"customer-42","value":{"total":12.50}}]}'

  produce Avro, with its schema
    curl -s {base}/topics/payments -H 'Content-Type: application/vnd.kafka.avro.v2+json' -d '{"value_schema":"{\"type\":\"record\",\"name\":\"Payment\",\"fields\":[{\"name\":\"amount\",\"type\":\"double\"},{\"name\":\"note\",\"type\":[\"null\",\"string\"]}]}","records":[{"value":{"amount":12.5,"note":{"string":"thanks"}}}]}'

  see what the schema registry has of it
    curl -s {registry}/subjects/payments-value/versions/latest

  tail it over SSE, from the first record on
    curl -sN '{base}/topics/orders/events?from=earliest'

  have it delivered to a webhook (the receiver prints a line for each delivery here)
    curl -s {base}/subscriptions -H 'Content-Type: application/json' -d '{"name":"dev","source":{"topics":["orders"],"start_from":"earliest"},"endpoint":{"url":"{hook}"},"signing":{"secret":"{secret}"}}'

  pull it with a consumer instance
    i=$(curl -s -X POST {base}/consumers/readers -H 'Content-Type: application/vnd.kafka.v2+json' -d '{"format":"json","auto.offset.reset":"earliest"}' | sed 's/.*"base_uri":"\([^"]*\)".*/\1/'); curl -s -X POST $i/subscription -H 'Content-Type: application/vnd.kafka.v2+json' -d '{"topics":["orders"]}'; curl -s $i/records -H 'Accept: application/vnd.kafka.json.v2+json'; echo; curl -s -X DELETE $i

  or with any Kafka tool
    kcat -C -b {broker} -t orders -o beginning -e

{kept}

`)
}
