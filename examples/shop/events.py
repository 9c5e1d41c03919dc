"""What the shop's event-driven services share: publishing, reacting in transactions, following a whole topic.

The log is reached at KAFKA_BOOTSTRAP_SERVERS, which Weir sets. Events are JSON objects; the key is the order's id, so all
events of an order have one sequence. The trace goes on in the header traceparent.

react() is exactly-once: what a function publishes and the position up to which its group has read are committed in one
transaction. A consumer that is killed in the middle leaves nothing behind that a reader with isolation read_committed sees,
and whoever takes its partitions over begins where the last transaction ended.
"""
import json
import os
import secrets
import threading
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition

from common import REPLICA, log

SERVERS = os.environ.get('KAFKA_BOOTSTRAP_SERVERS', '127.0.0.1:9092')
BATCH_MAX = 100           # events of one transaction
WAIT_SECONDS = 0.5        # for the first of them
TRANSACTION_MS = 10000    # a transaction whose owner has died is aborted after this
CALL_SECONDS = 10
AGAIN_SECONDS = 0.5       # after a failure, before everything is made anew


def traced(headers):
    """The traceparent among a record's headers, with a span of its own; a new one when there is none."""
    parent = next((v.decode() for k, v in headers or [] if k == 'traceparent'), '')
    parts = parent.split('-')
    trace = parts[1] if len(parts) == 4 else secrets.token_hex(16)
    return f'00-{trace}-{secrets.token_hex(8)}-01'


class Publisher:
    """Publishes one event at a time, durably: publish() returns when it is on disk, or raises KafkaException."""

    def __init__(self):
        self.producer = Producer({'bootstrap.servers': SERVERS, 'enable.idempotence': True, 'acks': 'all',
                                  'linger.ms': 1, 'message.timeout.ms': CALL_SECONDS * 1000})

    def publish(self, topic, key, event, traceparent):
        done, result = threading.Event(), []

        def told(error, _):
            result.append(error)
            done.set()
        self.producer.produce(topic, json.dumps(event), key, on_delivery=told, headers=[('traceparent', traceparent)])
        while not done.is_set():
            self.producer.poll(0.05)
        if result[0]:
            raise KafkaException(result[0])


class Reactor:
    """function(topic, key, event, traceparent) -> [(topic, key, event), ...], called for each event in order."""

    def __init__(self, group, topics, function, assigned=None):
        self.group, self.topics, self.function, self.assigned = group, topics, function, assigned
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, name=group)

    def start(self):
        self.thread.start()
        return self

    def stop(self):
        self.stopping.set()
        self.thread.join()

    def run(self):
        while not self.stopping.is_set():
            try:
                self.session()
            except Exception as e:  # whatever broke, the transaction is not committed: begin again from where the group stands
                log(service=self.group, level='warn', error=repr(e))
                self.stopping.wait(AGAIN_SECONDS)

    def session(self):
        """One life of a consumer and a producer."""
        consumer = Consumer({'bootstrap.servers': SERVERS, 'group.id': self.group, 'enable.auto.commit': False, 'auto.offset.reset': 'earliest',
                             'isolation.level': 'read_committed', 'session.timeout.ms': 6000, 'partition.assignment.strategy': 'range'})
        producer = Producer({'bootstrap.servers': SERVERS, 'transactional.id': f'{self.group}-{REPLICA}', 'transaction.timeout.ms': TRANSACTION_MS})
        try:
            producer.init_transactions(CALL_SECONDS)
            consumer.subscribe(self.topics, on_assign=self.on_assign)
            while not self.stopping.is_set():
                messages = consumer.consume(BATCH_MAX, WAIT_SECONDS)
                if messages:
                    self.transaction(consumer, producer, messages)
        finally:
            consumer.close()

    def on_assign(self, _, partitions):
        if self.assigned:
            self.assigned(sorted({p.partition for p in partitions}))

    def transaction(self, consumer, producer, messages):
        for m in messages:
            if m.error():
                raise KafkaException(m.error())
        producer.begin_transaction()
        try:
            for m in messages:
                traceparent = traced(m.headers())
                key = m.key().decode()
                for topic, out_key, event in self.function(m.topic(), key, json.loads(m.value()), traceparent):
                    producer.produce(topic, json.dumps(event), out_key, headers=[('traceparent', traceparent)])
            ends = {}
            for m in messages:
                ends[m.topic(), m.partition()] = m.offset() + 1
            producer.send_offsets_to_transaction([TopicPartition(t, p, o) for (t, p), o in ends.items()], consumer.consumer_group_metadata(), CALL_SECONDS)
            producer.commit_transaction(CALL_SECONDS)
        except BaseException:
            producer.abort_transaction(CALL_SECONDS)
            raise


class Follower:
    """Reads partitions of a topic (all, when none are named) from the beginning, without a group. The constructor returns when everything that was there has been given to
    function(key, event), what transactions under way had written included, once they are over. start() goes on on a thread."""

    def __init__(self, topic, function, partitions=None):
        self.topic, self.function = topic, function
        conf = {'bootstrap.servers': SERVERS, 'group.id': f'follower-{REPLICA}', 'enable.auto.commit': False}
        self.consumer = Consumer({**conf, 'isolation.level': 'read_committed', 'enable.partition.eof': True})
        if partitions is None:
            found = self.consumer.list_topics(topic, timeout=CALL_SECONDS).topics[topic]
            if found.error:
                raise KafkaException(found.error)
            partitions = sorted(found.partitions)
        asker = Consumer({**conf, 'isolation.level': 'read_uncommitted'})
        ends = {p: asker.get_watermark_offsets(TopicPartition(topic, p), CALL_SECONDS)[1] for p in partitions}
        asker.close()
        self.consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
        waiting = set(partitions)
        while waiting:
            m = self.consumer.poll(WAIT_SECONDS)
            if m is None:
                continue
            if not m.error():
                self.take(m)
            elif m.error().code() != KafkaError._PARTITION_EOF:
                raise KafkaException(m.error())
            elif m.offset() >= ends[m.partition()]:
                waiting.discard(m.partition())

    def take(self, m):
        if m.value() is not None:
            self.function(m.key().decode(), json.loads(m.value()))

    def start(self):
        threading.Thread(target=self.run, name=f'follow {self.topic}', daemon=True).start()
        return self

    def run(self):
        while True:
            m = self.consumer.poll(WAIT_SECONDS)
            if m is not None and not m.error():
                self.take(m)

    def close(self):
        self.consumer.close()


def patiently(make):
    """make(), again and again until the log answers."""
    while True:
        try:
            return make()
        except KafkaException as e:
            log(service='events', level='warn', error=repr(e))
            time.sleep(AGAIN_SECONDS)
