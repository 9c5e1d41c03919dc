// A member of a consumer group by kafkajs; says what member.py says.
//
// usage: NODE_PATH=.../node_modules node member.js BOOTSTRAP GROUP TOPIC [INSTANCE]
'use strict'
const { Kafka, logLevel } = require('kafkajs')

const [bootstrap, groupId, topic] = process.argv.slice(2)
const say = (...words) => process.stdout.write(words.join(' ') + '\n')

const kafka = new Kafka({ brokers: [bootstrap], clientId: 'js', logLevel: logLevel.NOTHING, retry: { retries: 30, initialRetryTime: 100, maxRetryTime: 500 } })
const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 500, rebalanceTimeout: 10000, maxWaitTimeInMs: 200, retry: { retries: 30, maxRetryTime: 500 } })

async function main () {
  consumer.on('consumer.group_join', ({ payload }) => {
    const mine = payload.memberAssignment[topic] || []
    say('assigned', mine.slice().sort((a, b) => a - b).join(','))
  })
  consumer.on('consumer.crash', ({ payload }) => say('error', payload.error.type || payload.error.name))
  for (;;) {
    try {
      await consumer.connect()
      break
    } catch (e) {
      say('error', e.name)
    }
  }
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachBatch: async ({ batch, heartbeat, isRunning, isStale }) => {
      if (!isRunning() || isStale() || batch.messages.length === 0) return
      const next = (BigInt(batch.lastOffset()) + 1n).toString()
      for (const m of batch.messages) say('got', batch.partition, m.offset, m.value.toString())
      await consumer.commitOffsets([{ topic, partition: batch.partition, offset: next }])
      await heartbeat()
    }
  })
}

process.on('SIGTERM', async () => {
  await consumer.disconnect()
  process.exit(0)
})
main().catch(e => { say('error', e.message); process.exit(1) })
