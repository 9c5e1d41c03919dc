#!/usr/bin/env python3
"""A member of a consumer group, by Debian's librdkafka or python3-kafka: tells on stdout what happens to it, one line each.

usage: member.py rdkafka|python BOOTSTRAP GROUP TOPIC [NAME=VALUE...]

Lines: "assigned 0,1,2", "revoked 0,1", "got PARTITION OFFSET VALUE" (printed before its offset is committed), "error ...".
SIGTERM: leaves the group and ends. NAME=VALUE: settings of librdkafka, or arguments of KafkaConsumer.
"""
import signal
import sys

ended = False


def say(*words):
    print(*words, flush=True)


def end(_signal, _frame):
    global ended
    ended = True


def partitions(ps):
    return ','.join(str(p) for p in sorted(x.partition for x in ps))


def rdkafka(bootstrap, group, topic, settings):
    import confluent_kafka as ck
    conf = {'bootstrap.servers': bootstrap, 'group.id': group, 'auto.offset.reset': 'earliest', 'enable.auto.commit': False,
            'session.timeout.ms': 6000, 'heartbeat.interval.ms': 500, 'reconnect.backoff.max.ms': 500}
    conf.update(settings)
    c = ck.Consumer(conf)
    c.subscribe([topic], on_assign=lambda _, ps: say('assigned', partitions(ps)), on_revoke=lambda _, ps: say('revoked', partitions(ps)),
                on_lost=lambda _, ps: say('lost', partitions(ps)))
    unsure = False
    while not ended:
        # One by one: consume() of many in this librdkafka (2.0.2) may drop what it has gathered when a rebalance comes within, and commits go past it.
        m, n = c.poll(0.1), 0
        while m:
            if m.error():
                say('error', m.error().name())
            else:
                say('got', m.partition(), m.offset(), m.value().decode())
                unsure = True
            n += 1
            m = c.poll(0) if n < 100 else None
        if not unsure:
            continue
        try:
            c.commit(asynchronous=False)
            unsure = False
        except ck.KafkaException as e:
            say('error', e.args[0].name())
            unsure = e.args[0].name() not in ('ILLEGAL_GENERATION', 'UNKNOWN_MEMBER_ID', '_NO_OFFSET', 'FENCED_INSTANCE_ID')  # then somebody gets them again
    c.close()


def python(bootstrap, group, topic, settings):
    import kafka
    import kafka.errors

    class Listener(kafka.ConsumerRebalanceListener):
        def on_partitions_revoked(self, revoked):
            say('revoked', partitions(revoked))

        def on_partitions_assigned(self, assigned):
            say('assigned', partitions(assigned))

    c = kafka.KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, auto_offset_reset='earliest', enable_auto_commit=False,
                            session_timeout_ms=6000, heartbeat_interval_ms=500, **settings)
    c.subscribe([topic], listener=Listener())
    while not ended:
        batch = c.poll(timeout_ms=100)
        if not batch:
            continue
        for messages in batch.values():
            for m in messages:
                say('got', m.partition, m.offset, m.value.decode())
        try:
            c.commit()
        except kafka.errors.KafkaError as e:
            say('error', type(e).__name__)
    c.close(autocommit=False)


def main():
    signal.signal(signal.SIGTERM, end)
    client, bootstrap, group, topic = sys.argv[1:5]
    settings = dict(a.split('=', 1) for a in sys.argv[5:])
    {'rdkafka': rdkafka, 'python': python}[client](bootstrap, group, topic, settings)


main()
