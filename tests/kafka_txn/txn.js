// txn.js - kafkajs: transactions with offsets, committed and aborted, and what a reader of committed records gets.
// usage: node txn.js PORT (NODE_PATH says where kafkajs is)
const { Kafka, logLevel } = require('kafkajs');

function same(name, want, got) {
  const good = JSON.stringify(want) === JSON.stringify(got);
  console.log(`${good ? 'ok' : 'not ok'} kafkajs: ${name}`);
  if (!good) console.log(`# wanted ${JSON.stringify(want)}, got ${JSON.stringify(got)}`);
  if (!good) process.exitCode = 1;
}

(async () => {
  const kafka = new Kafka({ clientId: 'js', brokers: [`127.0.0.1:${process.argv[2]}`], logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50, retries: 10 } });
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic: 'js', numPartitions: 3 }] });
  const producer = kafka.producer({ transactionalId: 'js-1', maxInFlightRequests: 1, idempotent: true });
  await producer.connect();
  for (let round = 0; round < 6; round++) {
    const t = await producer.transaction();
    await t.send({ topic: 'js', messages: [0, 1, 2].map(i => ({ value: `${round}-${i}`, partition: i })) });
    await t.sendOffsets({ consumerGroupId: 'gjs', topics: [{ topic: 'js', partitions: [{ partition: 0, offset: String(round) }] }] });
    await (round % 2 ? t.abort() : t.commit());
  }
  // fetchOffsets with kafkajs does not ask for stable offsets: the marker may be a moment away
  let offset;
  for (let i = 0; i < 100 && offset !== '4'; i++) {
    offset = (await admin.fetchOffsets({ groupId: 'gjs', topics: ['js'] }))[0].partitions.find(p => p.partition === 0).offset;
    await new Promise(r => setTimeout(r, 20));
  }
  same('the offset of the last committed transaction counts', '4', offset);
  const consumer = kafka.consumer({ groupId: 'cjs', readUncommitted: false });
  const got = [];
  await consumer.connect();
  await consumer.subscribe({ topics: ['js'], fromBeginning: true });
  await consumer.run({ eachMessage: async ({ message }) => { got.push(message.value.toString()); } });
  for (let i = 0; i < 400 && got.length < 9; i++) await new Promise(r => setTimeout(r, 20));
  same('what was committed is read, what was aborted is not', ['0-0', '0-1', '0-2', '2-0', '2-1', '2-2', '4-0', '4-1', '4-2'], got.sort());
  const second = kafka.producer({ transactionalId: 'js-1', maxInFlightRequests: 1, idempotent: true });
  await second.connect();
  await (await second.transaction()).commit().catch(() => {}); // its InitProducerId fences the first
  let fenced = false;
  try {
    const t = await producer.transaction();
    await t.send({ topic: 'js', messages: [{ value: 'zombie' }] });
    await t.commit();
  } catch (e) {
    fenced = /epoch|fenced|newer/i.test(e.message);
  }
  same('a producer whose id was taken is fenced', true, fenced);
  for (const c of [consumer, producer, second, admin]) await c.disconnect();
})().catch(e => {
  console.log('not ok kafkajs:', e.message);
  process.exit(1);
});
