// A service of 2015: the kafka-rest library from npm, used as its README says. It takes the gateway's URL, a topic with
// two partitions, a consumer group, and perhaps a topic for Avro; it prints what it saw as one JSON document. What it saw
// is judged by the test that runs it.
'use strict';

const KafkaRest = require('kafka-rest');
const [url, topicName, group, avroName] = process.argv.slice(2);
const kafka = new KafkaRest({ url });
const saw = {};

// The library calls back with (error, result).
const call = (f) => new Promise((resolve, reject) => f((err, res) => (err ? reject(err) : resolve(res))));
const text = (bytes) => (bytes === null ? null : bytes.toString('utf8'));

// read subscribes an instance and waits until so many messages have come.
function read(instance, topic, count) {
  const got = [];
  return new Promise((resolve, reject) => {
    const stream = instance.subscribe(topic, { requestDelay: 10 });
    stream.on('error', reject);
    stream.on('data', (messages) => {
      got.push(...messages);
      if (got.length >= count) resolve(got);
    });
  });
}

async function metadata() {
  saw.brokers = (await call((cb) => kafka.brokers.list(cb))).map((b) => b.id);
  saw.listed = (await call((cb) => kafka.topics.list(cb))).some((t) => t.name === topicName);
  saw.topic = (await call((cb) => kafka.topics.get(topicName, cb))).toString();
  saw.partitions = (await call((cb) => kafka.topic(topicName).partitions.list(cb))).map((p) => p.toString());
  saw.partition = (await call((cb) => kafka.topic(topicName).partitions.get(1, cb))).raw.partition;
}

async function produce() {
  const topic = kafka.topic(topicName);
  saw.produced = [
    await call((cb) => topic.produce({ key: 'key1', value: 'msg1', partition: 0 }, cb)),
    await call((cb) => topic.produce([{ partition: 0, value: Buffer.from([0, 255]) }, { partition: 0, key: 'gone', value: null }], cb)),
    await call((cb) => topic.partition(1).produce('one', { key: 'k', value: 'two' }, cb)),
  ];
}

async function consume() {
  const settings = { format: 'binary', 'auto.offset.reset': 'smallest', 'auto.commit.enable': 'false' };
  const first = await call((cb) => kafka.consumer(group).join(settings, cb));
  saw.uri = first.uri;
  saw.messages = (await read(first, topicName, 5)).map((m) => ({ key: text(m.key), value: text(m.value), partition: m.partition, offset: m.offset }));
  saw.committed = await call((cb) => first.commit(cb));
  await call((cb) => first.shutdown(cb));

  // A second one in the group goes on where the first has committed.
  const second = await call((cb) => kafka.consumer(group).join(settings, cb));
  await call((cb) => kafka.topic(topicName).produce({ partition: 1, value: 'later' }, cb));
  saw.later = (await read(second, topicName, 1)).map((m) => text(m.value));
  await call((cb) => second.shutdown(cb));
  saw.gone = await call((cb) => first.commit(cb)).catch((err) => `${err}`);
  saw.simple = await call((cb) => kafka.topic(topicName).partition(1).messages({ offset: 1, count: 2, format: 'binary' }, cb));
  saw.unknown = await call((cb) => kafka.topics.get(`${topicName}-unknown`, cb)).catch((err) => ({ status: err.status, message: err.message, code: err.data.error_code }));
}

async function avro() {
  const id = new KafkaRest.AvroSchema('int');
  const user = new KafkaRest.AvroSchema({ name: 'UserInfo', type: 'record', fields: [{ name: 'id', type: 'int' }, { name: 'name', type: 'string' }] });
  const topic = kafka.topic(avroName);
  const receipts = [
    await call((cb) => topic.produce(id, user, { key: 1, value: { id: 1, name: 'Bob' } }, cb)),
    await call((cb) => topic.produce(id, user, { key: 2, value: { id: 2, name: 'Eve' } }, cb)), // sends the ids it was given
  ];
  saw.schemas = receipts.map((r) => [r.key_schema_id, r.value_schema_id]);
  const instance = await call((cb) => kafka.consumer(group).join({ format: 'avro', 'auto.offset.reset': 'smallest', 'auto.commit.enable': 'true' }, cb));
  saw.users = (await read(instance, avroName, 2)).map((m) => [m.key, m.value]);
  await call((cb) => instance.shutdown(cb));
}

(async () => {
  await metadata();
  await produce();
  await consume();
  if (avroName) await avro();
  console.log(JSON.stringify(saw));
})().catch((err) => {
  console.error(err);
  process.exit(1);
});
