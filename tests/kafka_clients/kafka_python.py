"""What a service in Python does with Debian's python3-kafka: administration, producers, consumers with and without groups, refusals.

usage: kafka_python.py HOST:PORT
"""
import logging
import os
import sys
import threading
import time

import kafka
from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka import errors as E
from kafka.admin import ACL, ACLFilter, ACLOperation, ACLPermissionType, ConfigResource, ConfigResourceType, NewPartitions, NewTopic, ResourcePattern, ResourcePatternFilter, ResourceType

from kafka.admin.acl_resource import ACLResourcePatternType

from checks import check, equal, refused, run, truth, until

BROKER = sys.argv[1]
logging.disable(logging.CRITICAL)


def admin():
    return KafkaAdminClient(bootstrap_servers=BROKER, client_id='kafka-python')


def topic(name, partitions=1, **settings):
    a = admin()
    a.create_topics([NewTopic(name, partitions, 1, topic_configs={k.replace('_', '.'): v for k, v in settings.items()})])
    a.close()
    return name


def producer(**conf):
    return KafkaProducer(bootstrap_servers=BROKER, **conf)


def consumer(*topics, **conf):
    return KafkaConsumer(*topics, bootstrap_servers=BROKER, **{'auto_offset_reset': 'earliest', 'heartbeat_interval_ms': 300, 'session_timeout_ms': 10000, **conf})


def read(name, count, **conf):
    """So many records of a topic, from its beginning; and none more."""
    c = consumer(**conf)
    c.assign([TopicPartition(name, p) for p in sorted(c.partitions_for_topic(name))])
    got = []

    def more():
        for records in c.poll(timeout_ms=200).values():
            got.extend(records)
        return len(got) >= count
    until(f'{name} has {count} records', more)
    equal(count, len(got))
    c.close()
    return got


# ---- administration ----------------------------------------------------------------------------------------------------------


@check('kafka-python: topics are created, described, grown and deleted')
def _():
    a = admin()
    a.create_topics([NewTopic('py-life', 3, 1)])
    refused(E.TopicAlreadyExistsError, a.create_topics, [NewTopic('py-life', 3, 1)])
    d = a.describe_topics(['py-life'])[0]
    equal((0, 3, False), (d['error_code'], len(d['partitions']), d['is_internal']))
    a.create_partitions({'py-life': NewPartitions(5)})
    equal(5, len(a.describe_topics(['py-life'])[0]['partitions']))
    truth('py-life' in a.list_topics(), 'not listed')
    a.delete_topics(['py-life'])
    truth('py-life' not in a.list_topics(), 'still listed')
    refused(E.UnknownTopicOrPartitionError, a.delete_topics, ['py-life'])
    a.close()


@check('kafka-python: settings of topics and of the node')
def _():
    topic('py-set', retention_ms='1234567')
    a = admin()

    def settings():
        return {e[0]: e[1] for e in a.describe_configs([ConfigResource(ConfigResourceType.TOPIC, 'py-set')])[0].resources[0][4]}
    equal(('1234567', 'delete'), (settings()['retention.ms'], settings()['cleanup.policy']))
    a.alter_configs([ConfigResource(ConfigResourceType.TOPIC, 'py-set', configs={'max.message.bytes': '2000000'})])
    equal(('604800000', '2000000'), (settings()['retention.ms'], settings()['max.message.bytes']))
    node = a.describe_cluster()['brokers'][0]['node_id']
    names = {e[0] for e in a.describe_configs([ConfigResource(ConfigResourceType.BROKER, str(node))])[0].resources[0][4]}
    truth({'num.partitions', 'auto.create.topics.enable', 'message.max.bytes'} <= names, names)
    a.close()


@check('kafka-python: defaults of topics, changed at the node while it runs')
def _():
    a = admin()
    topic('py-default')
    p = producer(max_request_size=5000000)
    refused(E.MessageSizeTooLargeError, p.send('py-default', b'x' * 1500000).get, 30)
    node = ConfigResource(ConfigResourceType.BROKER, str(a.describe_cluster()['brokers'][0]['node_id']), configs={'message.max.bytes': '1600000', 'log.retention.ms': '7200000'})

    def setting(kind, name, key):
        return {e[0]: e[1] for e in a.describe_configs([ConfigResource(kind, name)])[0].resources[0][4]}[key]
    equal(0, a.alter_configs([node]).resources[0][0])
    equal(('1600000', '7200000'), (setting(ConfigResourceType.BROKER, node.name, 'message.max.bytes'), setting(ConfigResourceType.TOPIC, 'py-default', 'retention.ms')))
    p.send('py-default', b'x' * 1500000).get(30) # others do what they do meanwhile: so nothing gets less
    code, why = a.alter_configs([ConfigResource(ConfigResourceType.BROKER, node.name, configs={'num.io.threads': '16'})]).resources[0][:2]
    equal((E.InvalidRequestError.errno, 'Cannot update these configs dynamically: num.io.threads'), (code, why))
    equal(0, a.alter_configs([ConfigResource(ConfigResourceType.BROKER, node.name, configs={})]).resources[0][0])
    equal('604800000', setting(ConfigResourceType.TOPIC, 'py-default', 'retention.ms'))
    refused(E.MessageSizeTooLargeError, p.send('py-default', b'x' * 1500000).get, 30)
    p.close()
    a.close()


@check('kafka-python: groups are listed, described, and removed')
def _():
    topic('py-group')
    p = producer()
    p.send('py-group', b'x').get(30)
    c = consumer('py-group', group_id='py-group')
    until('a record', lambda: c.poll(timeout_ms=200))
    c.commit()
    a = admin()
    truth(('py-group', 'consumer') in a.list_consumer_groups(), 'not listed')
    d = a.describe_consumer_groups(['py-group'])[0]
    equal(('Stable', 1), (d.state, len(d.members)))
    equal({TopicPartition('py-group', 0): OffsetAndMetadata(1, '')}, a.list_consumer_group_offsets('py-group'))
    equal(E.NonEmptyGroupError, a.delete_consumer_groups(['py-group'])[0][1])
    c.close()
    equal('Empty', a.describe_consumer_groups(['py-group'])[0].state)
    equal(E.NoError, a.delete_consumer_groups(['py-group'])[0][1])
    equal(E.GroupIdNotFoundError, a.delete_consumer_groups(['py-group'])[0][1])
    a.close()


@check('kafka-python: ACLs are created, found, obeyed and removed')
def _():
    topic('py-acl')
    a = admin()
    here = ResourcePattern(ResourceType.TOPIC, 'py-acl')
    rules = [ACL('User:ANONYMOUS', '*', ACLOperation.DESCRIBE, ACLPermissionType.ALLOW, here), ACL('User:ANONYMOUS', '*', ACLOperation.WRITE, ACLPermissionType.DENY, here)]
    equal(rules, a.create_acls(rules)['succeeded'])
    mine = ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, ResourcePatternFilter(ResourceType.TOPIC, 'py-acl', ACLResourcePatternType.MATCH))
    found, error = a.describe_acls(mine)
    equal((2, E.NoError), (len(found), error))
    truth(all(r in found for r in rules), found)
    p = producer(retries=0)
    refused(E.TopicAuthorizationFailedError, p.send('py-acl', b'x').get, 30)
    equal(2, len(a.delete_acls([mine])[0][1]))
    equal(0, p.send('py-acl', b'x').get(30).offset)
    a.close()


# ---- producing and reading ------------------------------------------------------------------------------------------------------


@check('kafka-python: every compression with every acks')
def _():
    topic('py-codecs')
    want = []
    for codec in (None, 'gzip', 'snappy', 'lz4', 'zstd'):
        for acks in ('all', 1, 0):
            p = producer(compression_type=codec, acks=acks, linger_ms=20)
            values = [f'{codec}/{acks}/{i}/'.encode() + b'x' * i * 10 for i in range(20)]
            sent = [p.send('py-codecs', v) for v in values]
            p.flush(10)
            offsets = [f.get(30).offset for f in sent]
            equal(list(range(len(want), len(want) + 20)) if acks else [-1] * 20, offsets)
            p.close()
            want += values
            c = consumer()
            until('it arrived', lambda: c.end_offsets([TopicPartition('py-codecs', 0)])[TopicPartition('py-codecs', 0)] == len(want))
            c.close()
    equal(want, [r.value for r in read('py-codecs', len(want), check_crcs=True)])


@check('kafka-python: headers, null and empty keys and values, timestamps')
def _():
    topic('py-shapes')
    p = producer()
    for key, value, headers in ((b'k', None, []), (None, b'v', []), (b'', b'', []), (None, b'h', [('a', b'1'), ('b', b''), ('a', b'2')])):
        p.send('py-shapes', key=key, value=value, headers=headers, timestamp_ms=1600000000000)
    p.flush(10)
    got = read('py-shapes', 4)
    equal([(b'k', None), (None, b'v'), (b'', b''), (None, b'h')], [(r.key, r.value) for r in got])
    equal([('a', b'1'), ('b', b''), ('a', b'2')], got[3].headers)
    equal([(1600000000000, 0)] * 4, [(r.timestamp, r.timestamp_type) for r in got])


@check('kafka-python: the broker\'s time where the topic wants it')
def _():
    topic('py-append-time', message_timestamp_type='LogAppendTime')
    before, p = time.time() * 1000 - 1, producer()
    m = p.send('py-append-time', b'x', timestamp_ms=1000).get(30)
    got = read('py-append-time', 1)[0]
    equal((1, m.timestamp), (got.timestamp_type, got.timestamp))
    truth(before <= got.timestamp <= time.time() * 1000 + 1, got.timestamp)


@check('kafka-python: offsets by time, at the beginning and at the end')
def _():
    topic('py-time')
    t, p, c = TopicPartition('py-time', 0), producer(), consumer()
    for i in range(3):
        p.send('py-time', b'x', timestamp_ms=1600000000000 + i * 1000).get(30)
    equal([0, 1, 2], [c.offsets_for_times({t: 1600000000000 + ms})[t].offset for ms in (-5, 1, 2000)])
    equal(None, c.offsets_for_times({t: 1600000002001})[t])
    equal((0, 3), (c.beginning_offsets([t])[t], c.end_offsets([t])[t]))
    c.assign([t])
    c.seek(t, 2)
    equal([2], [r.offset for rs in until('one', lambda: c.poll(timeout_ms=200)).values() for r in rs])
    c.close()


@check('kafka-python: ten thousand records arrive in the order of their keys')
def _():
    topic('py-order', 6)
    p = producer(linger_ms=10, acks='all', max_in_flight_requests_per_connection=1)
    for i in range(10000):
        p.send('py-order', key=b'key-%d' % (i % 40), value=b'%d' % i)
    p.flush(20)
    last, home = {}, {}
    for r in read('py-order', 10000):
        truth(last.get(r.key, -1) < int(r.value) and home.setdefault(r.key, r.partition) == r.partition, r)
        last[r.key] = int(r.value)
    equal(40, len(last))


@check('kafka-python: a record that is too large is refused, and the fetch grows for one that is not')
def _():
    topic('py-large', max_message_bytes='5000000')
    p = producer(max_request_size=20000000)
    p.send('py-large', b'a' * 4000000).get(30)
    refused(E.MessageSizeTooLargeError, p.send('py-large', b'b' * 6000000).get, 30)
    p.send('py-large', b'c').get(30)
    equal([4000000, 1], [len(r.value) for r in read('py-large', 2, max_partition_fetch_bytes=1000, fetch_max_bytes=1000)])


# ---- groups ------------------------------------------------------------------------------------------------------------------------


class Member(threading.Thread):
    """A consumer in a group that reads until it is told to leave."""

    def __init__(self, group, name, **conf):
        super().__init__(daemon=True)
        self.values, self.parts, self.told, self.error = [], set(), threading.Event(), None
        self.conf, self.group, self.topic = conf, group, name

    def run(self):
        member = self

        class Listen(ConsumerRebalanceListener):
            def on_partitions_revoked(self, revoked):
                member.parts = set()

            def on_partitions_assigned(self, assigned):
                member.parts = {p.partition for p in assigned}
        try:
            c = consumer(group_id=self.group, enable_auto_commit=False, **self.conf)
            c.subscribe([self.topic], listener=Listen())
            while not self.told.is_set():
                for records in c.poll(timeout_ms=100).values():
                    self.values += [r.value for r in records]
                    c.commit()
            c.close()
        except Exception as e:  # looked at by who waits for this member
            self.error = e

    def leave(self):
        self.told.set()
        self.join(15)


@check('kafka-python: members come and go, and nothing is read twice')
def _():
    topic('py-share', 4)
    a, b, p = Member('py-share', 'py-share'), Member('py-share', 'py-share'), producer()
    a.start()
    until('the first has all', lambda: len(a.parts) == 4)
    for i in range(40):
        p.send('py-share', b'%d' % i, partition=i % 4)
    p.flush(10)
    until('it read them', lambda: len(a.values) == 40)
    b.start()
    until('two each', lambda: len(a.parts) == 2 and len(b.parts) == 2)
    for i in range(40, 80):
        p.send('py-share', b'%d' % i, partition=i % 4)
    p.flush(10)
    until('both read', lambda: len(a.values) == 60 and len(b.values) == 20)
    a.leave()
    until('the second has all', lambda: len(b.parts) == 4)
    for i in range(80, 120):
        p.send('py-share', b'%d' % i, partition=i % 4)
    p.flush(10)
    until('it read the rest', lambda: len(b.values) == 60)
    equal(sorted(b'%d' % i for i in range(120)), sorted(a.values + b.values))
    b.leave()
    equal((None, None), (a.error, b.error))


@check('kafka-python: a commit with its words; a commit of a member that is none is refused')
def _():
    topic('py-commit')
    t = TopicPartition('py-commit', 0)
    c = consumer(group_id='py-commit', enable_auto_commit=False)
    c.assign([t])
    c.commit({t: OffsetAndMetadata(7, 'ünder way')})
    equal((7, 'ünder way'), (c.committed(t), c.committed(t, metadata=True).metadata))
    m = Member('py-commit', 'py-commit')
    m.start()
    until('it is in', lambda: m.parts == {0})
    refused(E.CommitFailedError, c.commit, {t: OffsetAndMetadata(8, '')})
    m.leave()
    equal(7, c.committed(t))
    c.close()


equal('2.0.2', kafka.__version__)
run()
os._exit(0)  # clients that are left have threads
