"""Clients that prove who they are, over TLS: python3-kafka and librdkafka, each mechanism; wrong passwords; what ACLs say of users.

usage: secure.py HOST:PORT SECURE_HOST:PORT CA       the user alice exists with the password "wonder land"
"""
import logging
import os
import sys

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import TopicPartition as Part
from kafka import errors as E
from kafka.admin import ACL, ACLOperation, ACLPermissionType, NewTopic, ResourcePattern, ResourceType

from checks import check, equal, refused, run, truth, until

BROKER, SECURE, CA = sys.argv[1:4]
MECHANISMS = ('PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512')
BIG = [os.urandom(900000) for _ in range(5)]  # sent back by the broker through TLS, from the file
logging.disable(logging.CRITICAL)


def plain_admin():
    return KafkaAdminClient(bootstrap_servers=BROKER)


def py(mechanism, password='wonder land'):
    return {'bootstrap_servers': SECURE, 'security_protocol': 'SASL_SSL', 'ssl_cafile': CA, 'ssl_check_hostname': True, 'sasl_mechanism': mechanism, 'sasl_plain_username': 'alice',
            'sasl_plain_password': password, 'api_version_auto_timeout_ms': 5000}


def rd(mechanism, password='wonder land', **more):
    return {'bootstrap.servers': SECURE, 'security.protocol': 'sasl_ssl', 'ssl.ca.location': CA, 'sasl.mechanism': mechanism, 'sasl.username': 'alice', 'sasl.password': password, 'log_level': 0,
            **more}


def kafka_python(mechanism):
    name = f'secure-py-{mechanism}'
    p = KafkaProducer(**py(mechanism), max_request_size=2000000)
    for v in BIG:
        p.send(name, v).get(15)
    c = KafkaConsumer(**py(mechanism), auto_offset_reset='earliest')
    c.assign([Part(name, 0)])
    got = []

    def more():
        got.extend(r.value for rs in c.poll(timeout_ms=200).values() for r in rs)
        return len(got) >= len(BIG)
    until('all came', more)
    truth(got == BIG, 'they are what was sent')


def librdkafka(mechanism):
    name = f'secure-rd-{mechanism}'
    p = Producer(rd(mechanism))
    for v in BIG:
        p.produce(name, v, partition=0)
    equal(0, p.flush(15))
    c = Consumer(rd(mechanism, **{'group.id': name, 'auto.offset.reset': 'earliest'}))
    c.assign([TopicPartition(name, 0, 0)])
    got = []

    def more():
        got.extend(m.value() for m in c.consume(10, 0.2) if not m.error())
        return len(got) >= len(BIG)
    until('all came', more)
    truth(got == BIG, 'they are what was sent')
    c.close()


def wrong(mechanism):
    refused((E.NoBrokersAvailable, E.AuthenticationFailedError, E.KafkaConnectionError), KafkaAdminClient, **py(mechanism, 'wrong'))
    errors = []
    p = Producer(rd(mechanism, 'wrong', error_cb=lambda e: errors.append(e.code())))
    until('librdkafka says so', lambda: p.poll(0.1) or KafkaError._AUTHENTICATION in errors)


for m in MECHANISMS:
    check(f'kafka-python: {m} over TLS: records of a megabyte go and come back')(lambda m=m: kafka_python(m))
    check(f'librdkafka: {m} over TLS: records of a megabyte go and come back')(lambda m=m: librdkafka(m))
    check(f'{m}: a wrong password is refused')(lambda m=m: wrong(m))


@check('who has proved to be alice may do what ACLs allow alice, and nobody else may')
def _():
    a = plain_admin()
    a.create_topics([NewTopic('alices', 1, 1)])
    a.create_acls([ACL('User:alice', '*', ACLOperation.ALL, ACLPermissionType.ALLOW, ResourcePattern(ResourceType.TOPIC, 'alices'))])
    KafkaProducer(**py('SCRAM-SHA-256')).send('alices', b'x').get(15)
    p, errors = Producer({'bootstrap.servers': BROKER, 'log_level': 0}), []
    try:
        p.produce('alices', b'y', partition=0, on_delivery=lambda e, m: errors.append(e and e.code()))
        p.flush(15)
    except KafkaException as e:
        errors.append(e.args[0].code())
    equal([KafkaError.TOPIC_AUTHORIZATION_FAILED], errors)


@check('without a proof nothing is answered at the door that wants one')
def _():
    c = {**rd('PLAIN'), 'security.protocol': 'ssl'}
    refused(KafkaException, AdminClient({k: v for k, v in c.items() if not k.startswith('sasl')}).list_topics, timeout=2)


run()
os._exit(0)  # clients that are left have threads
