"""What librdkafka does, through Debian's python3-confluent-kafka: idempotent and transactional producers, static and cooperative members, statistics.

usage: confluent.py HOST:PORT
"""
import os
import socket
import struct
import sys
import threading
import time

from confluent_kafka import OFFSET_BEGINNING, TIMESTAMP_CREATE_TIME, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic

from checks import check, equal, refused, run, truth, until

BROKER = sys.argv[1]
LOUD = {'bootstrap.servers': BROKER, 'log_level': 0}


def done(futures):
    return {k: f.result(15) for k, f in futures.items()}


ADMIN = AdminClient(LOUD)


def topic(name, partitions=1, **settings):
    done(ADMIN.create_topics([NewTopic(name, partitions, 1, config={k.replace('_', '.'): v for k, v in settings.items()})]))
    return name


def code(e):
    return e.args[0].code()


class Sender:
    """A producer that keeps what came of its messages: offsets, or errors."""

    def __init__(self, **conf):
        self.p = Producer({**LOUD, 'linger.ms': 5, **{k.replace('_', '.'): v for k, v in conf.items()}})
        self.offsets, self.errors = [], []

    def told(self, error, m):
        if error:
            self.errors.append(error.code())
        else:
            self.offsets.append((m.partition(), m.offset()))

    def send(self, name, *args, **kw):
        while True:
            try:
                return self.p.produce(name, *args, on_delivery=self.told, **kw)
            except BufferError:
                self.p.poll(0.1)

    def flush(self):
        equal(0, self.p.flush(20), 'still unsent')


def consumer(group, **conf):
    return Consumer({**LOUD, 'group.id': group, 'auto.offset.reset': 'earliest', 'session.timeout.ms': 10000, 'heartbeat.interval.ms': 300, 'fetch.wait.max.ms': 100,
                     **{k.replace('_', '.'): v for k, v in conf.items()}})


def take(c, count, seconds=20):
    """So many messages, and no more of them within a moment."""
    got, end = [], time.monotonic() + seconds
    while len(got) < count:
        m = c.poll(0.2)
        if m is not None and m.error():
            raise KafkaException(m.error())
        if m is not None:
            got.append(m)
        truth(time.monotonic() < end, f'{len(got)} of {count} messages came')
    return got


def read(name, count, partitions=1, **conf):
    c = consumer(f'read-{name}-{time.monotonic()}', **conf)
    c.assign([TopicPartition(name, p, OFFSET_BEGINNING) for p in range(partitions)])
    got = take(c, count)
    equal(None, c.poll(0.3), 'one more')
    c.close()
    return got


# ---- administration ----------------------------------------------------------------------------------------------------------


@check('librdkafka: topics and settings')
def _():
    a = ADMIN
    topic('cf-life', 2, cleanup_policy='compact')
    equal(KafkaError.TOPIC_ALREADY_EXISTS, code(refused(KafkaException, topic, 'cf-life', 2)))
    done(a.create_partitions([NewPartitions('cf-life', 4)]))
    until('four partitions', lambda: len(a.list_topics('cf-life', 10).topics['cf-life'].partitions) == 4)
    r = ConfigResource('topic', 'cf-life')
    equal('compact', done(a.describe_configs([r]))[r]['cleanup.policy'].value)
    done(a.alter_configs([ConfigResource('topic', 'cf-life', set_config={'retention.ms': '5000'})]))
    equal(('delete', '5000'), tuple(done(a.describe_configs([r]))[r][k].value for k in ('cleanup.policy', 'retention.ms')))
    equal(KafkaError.INVALID_CONFIG, code(refused(KafkaException, done, a.alter_configs([ConfigResource('topic', 'cf-life', set_config={'retention.ms': 'x'})]))))
    done(a.delete_topics(['cf-life']))
    equal(KafkaError.UNKNOWN_TOPIC_OR_PART, code(refused(KafkaException, done, a.delete_topics(['cf-life']))))


# ---- producing -----------------------------------------------------------------------------------------------------------------


@check('librdkafka: every compression with every acks')
def _():
    topic('cf-codecs')
    want = []
    for codec in ('none', 'gzip', 'snappy', 'lz4', 'zstd'):
        for acks in ('all', '1', '0'):
            s = Sender(compression_codec=codec, acks=acks)
            values = [f'{codec}/{acks}/{i}/'.encode() + b'x' * i * 10 for i in range(20)]
            for v in values:
                s.send('cf-codecs', v)
            s.flush()
            equal([], s.errors)
            want += values
            c = consumer('cf-codecs')
            until('it arrived', lambda: c.get_watermark_offsets(TopicPartition('cf-codecs', 0), 10) == (0, len(want)))
            c.close()
    equal(want, [m.value() for m in read('cf-codecs', len(want), check_crcs=True)])


@check('librdkafka: an idempotent producer: ten thousand records, each once, in order')
def _():
    topic('cf-order', 6)
    s = Sender(enable_idempotence=True, compression_codec='lz4', batch_num_messages=50)
    for i in range(10000):
        s.send('cf-order', b'%d' % i, b'key-%d' % (i % 40))
        s.p.poll(0)
    s.flush()
    equal(([], 10000), (s.errors, len(set(s.offsets))))
    last = {}
    for m in read('cf-order', 10000, 6):
        truth(last.get(m.key(), -1) < int(m.value()), m.value())
        last[m.key()] = int(m.value())


@check('librdkafka: headers, null and empty keys and values, timestamps')
def _():
    topic('cf-shapes')
    s = Sender()
    for key, value, headers in ((b'k', None, None), (None, b'v', None), (b'', b'', None), (None, b'h', [('a', b'1'), ('b', None), ('b', b'')])):
        s.send('cf-shapes', value, key, headers=headers, timestamp=1600000000000)
    s.flush()
    got = read('cf-shapes', 4)
    equal([(b'k', None), (None, b'v'), (b'', b''), (None, b'h')], [(m.key(), m.value()) for m in got])
    equal([('a', b'1'), ('b', None), ('b', b'')], got[3].headers())
    equal([(TIMESTAMP_CREATE_TIME, 1600000000000)] * 4, [m.timestamp() for m in got])


@check('librdkafka: what the topic does not take: too large, too far in the future, no key where keys are needed')
def _():
    topic('cf-picky', 1, max_message_bytes='1000', cleanup_policy='compact')
    s = Sender(message_max_bytes=10000000)
    s.send('cf-picky', b'x' * 2000, b'k')
    s.flush()
    s.send('cf-picky', b'x', b'k', timestamp=int(time.time() * 1000) + 7200000)
    s.flush()
    s.send('cf-picky', b'x')
    s.flush()
    equal([KafkaError.MSG_SIZE_TOO_LARGE, 32, 87], s.errors)
    s.send('cf-picky', b'x', b'k')
    s.flush()
    equal([(0, 0)], s.offsets)


# ---- quotas ---------------------------------------------------------------------------------------------------------------------


def text(s):
    return struct.pack('>h', len(s)) + s.encode()


def quota(client_id, key, value):
    """AlterClientQuotas (API 49, KIP-546) version 0, for one client id; None: the quota is removed. No client in Debian has it."""
    body = struct.pack('>ii', 1, 1) + text('client-id') + text(client_id) + struct.pack('>i', 1) + text(key) + struct.pack('>d?', value or 0, value is None) + b'\0'
    request = struct.pack('>hhi', 49, 0, 7) + text('quotas') + body
    with socket.create_connection(BROKER.split(':'), 10) as s:
        s.sendall(struct.pack('>i', len(request)) + request)
        f = s.makefile('rb')
        answer = f.read(struct.unpack('>i', f.read(4))[0])
    equal((7, 1, 0), (struct.unpack('>i', answer[:4])[0], struct.unpack('>i', answer[8:12])[0], struct.unpack('>h', answer[12:14])[0]))


@check('librdkafka: a producer beyond its quota is told to wait, and is slowed down to it')
def _():
    topic('cf-quota')
    quota('cf-slow', 'producer_byte_rate', 200000.0)
    told = []
    s = Sender()
    s.p = Producer({**LOUD, 'client.id': 'cf-slow', 'linger.ms': 5, 'batch.size': 50000, 'throttle_cb': lambda e: told.append(e.throttle_time)})
    began = time.monotonic()
    for _ in range(100):
        s.send('cf-quota', os.urandom(8000))
    s.flush()
    s.send('cf-quota', b'requests on their way at once may all be served; who comes after them pays for all')
    s.flush()
    took = time.monotonic() - began
    truth(took > 1.5, f'800 kB at 200 kB/s, after a burst of a second: {took} s')
    truth(any(t > 0 for t in told), told)
    equal(([], 101), (s.errors, len(s.offsets)))
    quota('cf-slow', 'producer_byte_rate', None)
    s = Sender(client_id='cf-slow')
    began = time.monotonic()
    for _ in range(100):
        s.send('cf-quota', os.urandom(8000))
    s.flush()
    truth(time.monotonic() - began < took / 2, 'it is still slow')


# ---- transactions -----------------------------------------------------------------------------------------------------------------


@check('librdkafka: commit, abort, and what readers of each isolation see')
def _():
    topic('cf-txn', 2)
    s = Sender(transactional_id='cf-txn')
    s.p.init_transactions(15)
    for value, end in ((b'yes', s.p.commit_transaction), (b'no', s.p.abort_transaction), (b'yes too', s.p.commit_transaction)):
        s.p.begin_transaction()
        for part in (0, 1):
            s.send('cf-txn', value, partition=part)
        s.p.flush(15)
        end(15)
    equal([b'yes', b'yes', b'yes too', b'yes too'], sorted(m.value() for m in read('cf-txn', 4, 2)))
    equal([b'no'] * 2, sorted(m.value() for m in read('cf-txn', 6, 2, isolation_level='read_uncommitted'))[:2])


@check('librdkafka: consume, transform, produce; the second of an id fences the first')
def _():
    topic('cf-in', 2)
    topic('cf-out', 2)
    s = Sender()
    for i in range(30):
        s.send('cf-in', b'%d' % i, b'k%d' % i)
    s.flush()
    t, c = Sender(transactional_id='cf-ctp'), consumer('cf-ctp', enable_auto_commit=False)
    t.p.init_transactions(15)
    c.subscribe(['cf-in'])
    for turn in range(3):
        t.p.begin_transaction()
        for m in take(c, 10):
            t.send('cf-out', b'%d' % (int(m.value()) * 2), m.key())
        t.p.send_offsets_to_transaction(c.position(c.assignment()), c.consumer_group_metadata(), 15)
        t.p.commit_transaction(15)
    equal(sorted(i * 2 for i in range(30)), sorted(int(m.value()) for m in read('cf-out', 30, 2)))
    equal(30, sum(p.offset for p in c.committed([TopicPartition('cf-in', 0), TopicPartition('cf-in', 1)], 10)))
    t.p.begin_transaction()
    t.send('cf-out', b'late')
    t.p.flush(15)
    u = Sender(transactional_id='cf-ctp')
    u.p.init_transactions(15)
    e = refused(KafkaException, t.p.commit_transaction, 15)
    truth(e.args[0].fatal() or code(e) == KafkaError._FENCED, e)
    read('cf-out', 30, 2)
    c.close()


# ---- groups ---------------------------------------------------------------------------------------------------------------------------


class Member(threading.Thread):
    """A member of a group. moves: how often something was given to or taken from it."""

    def __init__(self, group, name, **conf):
        super().__init__(daemon=True)
        self.parts, self.moves, self.told, self.error, self.values, self.errors = set(), [], threading.Event(), None, [], []
        self.c = consumer(group, **conf)
        self.cooperative = 'cooperative' in conf.get('partition_assignment_strategy', '')
        self.c.subscribe([name], on_assign=self.given, on_revoke=self.taken)
        self.start()

    def given(self, c, parts):
        self.moves.append(('+', len(parts)))
        self.parts |= {p.partition for p in parts}
        (c.incremental_assign if self.cooperative else c.assign)(parts)

    def taken(self, c, parts):
        self.moves.append(('-', len(parts)))
        self.parts -= {p.partition for p in parts}
        c.incremental_unassign(parts) if self.cooperative else c.unassign()

    def run(self):
        try:
            while not self.told.is_set():
                m = self.c.poll(0.1)
                if m is not None and m.error():
                    self.errors.append(m.error().code())
                elif m is not None:
                    self.values.append(m.value())
            self.c.close()
        except Exception as e:  # looked at by who waits for this member
            self.error = e

    def leave(self):
        self.told.set()
        self.join(15)
        equal(None, self.error)


@check('librdkafka: cooperative members give up only what moves')
def _():
    topic('cf-coop', 4)
    conf = {'partition_assignment_strategy': 'cooperative-sticky'}
    a = Member('cf-coop', 'cf-coop', **conf)
    until('the first has all', lambda: len(a.parts) == 4)
    b = Member('cf-coop', 'cf-coop', **conf)
    until('two each', lambda: len(a.parts) == 2 and len(b.parts) == 2)
    equal([('+', 4), ('-', 2)], [m for m in a.moves if m[1]])
    s = Sender()
    for p in range(4):
        s.send('cf-coop', b'%d' % p, partition=p)
    s.flush()
    until('each has its own', lambda: (sorted(a.values), sorted(b.values)) == tuple([b'%d' % p for p in sorted(m.parts)] for m in (a, b)))
    b.leave()
    until('all come back', lambda: len(a.parts) == 4)
    a.leave()


@check('librdkafka: a static member that comes back finds what it had, and nobody else notices')
def _():
    topic('cf-static', 4)
    a, b = (Member('cf-static', 'cf-static', group_instance_id=i, session_timeout_ms=20000) for i in ('one', 'two'))
    until('two each', lambda: len(a.parts) == 2 and len(b.parts) == 2)
    had, moves = set(a.parts), list(b.moves)
    a.leave()
    c = Member('cf-static', 'cf-static', group_instance_id='one', session_timeout_ms=20000)
    until('it has what it had', lambda: c.parts == had)
    equal(moves, b.moves, 'the other one was disturbed')
    d = consumer('cf-static', group_instance_id='one')
    d.subscribe(['cf-static'])
    until('the one that was replaced is told so', lambda: d.poll(0.1) or KafkaError.FENCED_INSTANCE_ID in c.errors or KafkaError._FATAL in c.errors)
    d.close()
    for m in (b, c):
        m.told.set()
        m.join(15)


@check('librdkafka: commits, positions, offsets by time, watermarks')
def _():
    topic('cf-offsets')
    s, at = Sender(), 1600000000000
    for i in range(5):
        s.send('cf-offsets', b'%d' % i, timestamp=at + i * 1000)
        s.flush()
    t = TopicPartition('cf-offsets', 0)
    c = consumer('cf-offsets', enable_auto_commit=False)
    c.assign([t])
    take(c, 3)
    c.commit(asynchronous=False)
    equal((3, 3), (c.position([t])[0].offset, c.committed([t], 10)[0].offset))
    equal([0, 2, -1], [c.offsets_for_times([TopicPartition('cf-offsets', 0, at + ms)], 10)[0].offset for ms in (-1, 1001, 4001)])
    equal((0, 5), c.get_watermark_offsets(t, 10))
    c.close()
    d = consumer('cf-offsets', enable_auto_commit=False)
    d.assign([t])
    equal([b'3', b'4'], [m.value() for m in take(d, 2)])
    d.close()


@check('librdkafka: reading from an offset that is not there: reset, or an error')
def _():
    topic('cf-reset')
    s = Sender()
    for i in range(3):
        s.send('cf-reset', b'%d' % i)
    s.flush()
    c = consumer('cf-reset')
    c.assign([TopicPartition('cf-reset', 0, 100)])
    equal([b'0', b'1', b'2'], [m.value() for m in take(c, 3)])
    c.close()
    c = consumer('cf-reset', auto_offset_reset='error')
    c.assign([TopicPartition('cf-reset', 0, 100)])
    m = until('an error', lambda: c.poll(0.2))
    equal(KafkaError._AUTO_OFFSET_RESET, m.error().code())
    c.close()


run()
os._exit(0)  # clients that are left have threads
