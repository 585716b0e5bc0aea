// Package formats turns the JSON of the REST API into the bytes of a record and back (rest-api.md 4.2), and reads JSON
// as strictly as that needs (1.3): Go's decoder lets duplicate keys, other letter case and broken UTF-8 through, and
// rewrites numbers.
//
// An embedded format says what stands in the key and value of a record: binary is base64, json is any JSON value, kept
// to the byte but for white space between tokens. Kafka's null is null in every format; zero bytes are not null.
//
// Avro, JSON Schema and Protobuf need a schema: a Registry finds it, by the text or the id that a request names or by the
// id in front of a record (Confluent's wire format). A Schema turns JSON into framed bytes, a Reader shows them.
//
// The Scanner works in the memory of the document: strings are unescaped, base64 is decoded and JSON is compacted where
// they stand, because none of them ever grows. So a body of 24 MiB costs 24 MiB, and what a Scanner hands out is a part
// of the document it was given.
//
// Faults come in two sorts. A document fault (syntax, UTF-8, depth, an unknown or repeated field) ends the scan; it is
// a *sluice.Error of Kind Malformed or Invalid. A content fault belongs to one value, behind which the scan goes on.
package formats
