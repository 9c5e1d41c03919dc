#!/usr/bin/python3
"""sasl.py - Debian's python3-kafka and librdkafka prove who they are, and may do what ACLs say.

usage: sasl.py PORT SASL_PORT [CA]  PORT: a super user's; CA: SASL_PORT speaks TLS with a certificate of that file, and only the proofs are tried; users alice and bob exist with the passwords "wonder land" and "builder"
"""
import sys

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import ACL, ACLFilter, ACLOperation, ACLPermissionType, ACLResourcePatternType, NewTopic, ResourcePattern, ResourcePatternFilter, ResourceType
from kafka.errors import KafkaError, NoBrokersAvailable

PORT, SASL = (f'127.0.0.1:{p}' for p in sys.argv[1:3])
CA = sys.argv[3] if len(sys.argv) > 3 else None
OVER = ' over TLS' if CA else ''
MECHANISMS = ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512']
failed = []


def check(name, good):
    print('ok' if good else 'not ok', name)
    if not good:
        failed.append(name)


def proof(mechanism, user, password, patience_ms):
    return {'bootstrap_servers': SASL, 'security_protocol': 'SASL_SSL' if CA else 'SASL_PLAINTEXT', 'ssl_cafile': CA, 'sasl_mechanism': mechanism, 'sasl_plain_username': user, 'sasl_plain_password': password,
            'api_version_auto_timeout_ms': patience_ms}


def rd(mechanism, user, password, **more):
    over = {'security.protocol': 'SASL_SSL', 'ssl.ca.location': CA} if CA else {'security.protocol': 'SASL_PLAINTEXT'}
    return dict({'bootstrap.servers': SASL, 'sasl.mechanism': mechanism, 'sasl.username': user, 'sasl.password': password, 'log_level': 0}, **over, **more)


def acl(principal, operation, kind, name):
    return ACL(principal=principal, host='*', operation=operation, permission_type=ACLPermissionType.ALLOW, resource_pattern=ResourcePattern(kind, name))


def python_writes(mechanism, user, password, topic, patience_ms=10000):
    """It tries to get in for as long as patience_ms, whatever it is answered."""
    try:
        p = KafkaProducer(**proof(mechanism, user, password, patience_ms), retries=0, max_block_ms=10000)
    except NoBrokersAvailable:
        return 'refused'
    try:
        p.send(topic, b'x').get(10)
        return 'written'
    except KafkaError as e:
        return type(e).__name__
    finally:
        p.close(1)


def rd_writes(mechanism, user, password, topic):
    said = []
    p = Producer(rd(mechanism, user, password, **{'message.timeout.ms': 8000, 'error_cb': lambda e: said.append(e.name())}))
    p.produce(topic, b'x', callback=lambda e, m: said.append(e.name() if e else 'written'))
    for _ in range(100):
        if said:
            break
        p.poll(0.1)
    p.purge()
    p.flush(1)
    return said[0] if said else 'nothing'


def rd_reads(user, password, topic, group):
    c = Consumer(rd('SCRAM-SHA-256', user, password, **{'group.id': group, 'auto.offset.reset': 'earliest', 'enable.auto.commit': False, 'enable.partition.eof': True}))
    c.assign([TopicPartition(topic, 0, 0)])
    for _ in range(50):
        m = c.poll(0.2)
        if m:
            c.close()
            return m.error().name() if m.error() else 'read'
    return 'nothing'


def main():
    root = KafkaAdminClient(bootstrap_servers=PORT)
    if not CA:
        root.create_topics([NewTopic('open', 1, 1), NewTopic('closed', 1, 1)])
    root.create_acls([acl('User:alice', ACLOperation.WRITE, ResourceType.TOPIC, 'open'), acl('User:bob', ACLOperation.READ, ResourceType.TOPIC, 'open'), acl('User:*', ACLOperation.READ, ResourceType.GROUP, '*'),
                      acl('User:alice', ACLOperation.WRITE, ResourceType.TRANSACTIONAL_ID, 'hers')])
    for m in MECHANISMS:
        check(f'python3-kafka with {m}{OVER}', python_writes(m, 'alice', 'wonder land', 'open') == 'written')
        check(f'librdkafka with {m}{OVER}', rd_writes(m, 'alice', 'wonder land', 'open') == 'written')
        check(f'python3-kafka with {m}{OVER} and a wrong password is refused', python_writes(m, 'alice', 'wonderland', 'open', 800) == 'refused')
        check(f'librdkafka with {m}{OVER} and a wrong password is refused', rd_writes(m, 'alice', 'wonderland', 'open') == '_AUTHENTICATION')
    if CA:
        sys.exit(1 if failed else 0)
    check('an unknown user is refused', rd_writes('SCRAM-SHA-256', 'nobody', 'x', 'open') == '_AUTHENTICATION')
    check('who may read may not write', python_writes('PLAIN', 'bob', 'builder', 'open') == 'TopicAuthorizationFailedError')
    check('nobody may write where no ACL is', rd_writes('PLAIN', 'alice', 'wonder land', 'closed') == 'TOPIC_AUTHORIZATION_FAILED')
    check('who may read reads', rd_reads('bob', 'builder', 'open', 'g') == 'read')
    check('who may write may not read', rd_reads('alice', 'wonder land', 'open', 'g') == 'TOPIC_AUTHORIZATION_FAILED')
    for name, want in (('hers', True), ('his', False)):
        p = Producer(rd('SCRAM-SHA-512', 'alice', 'wonder land', **{'transactional.id': name}))
        try:
            p.init_transactions(10)
            p.begin_transaction()
            p.produce('open', b'y')
            p.commit_transaction(5)
            got = True
        except KafkaException as e:
            got = e.args[0].name() != 'TRANSACTIONAL_ID_AUTHORIZATION_FAILED'
        check(f'transactional id "{name}" is {"" if want else "not "}hers', got == want)
    found, _ = root.describe_acls(ACLFilter(principal='User:alice', host=None, operation=ACLOperation.ANY, permission_type=ACLPermissionType.ANY,
                                            resource_pattern=ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)))
    check('describe_acls finds two', len(found) == 2)
    root.delete_acls([ACLFilter(principal='User:alice', host=None, operation=ACLOperation.ANY, permission_type=ACLPermissionType.ANY,
                                resource_pattern=ResourcePatternFilter(ResourceType.TOPIC, None, ACLResourcePatternType.ANY))])
    check('after delete_acls she may not write', rd_writes('PLAIN', 'alice', 'wonder land', 'open') == 'TOPIC_AUTHORIZATION_FAILED')
    sys.exit(1 if failed else 0)


main()
