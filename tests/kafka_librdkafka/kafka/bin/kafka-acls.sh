#!/usr/bin/python3
"""kafka-acls.sh for librdkafka's tests, which call the script of Apache Kafka's distribution where KAFKA_PATH says: rules of one topic are added and
removed with Debian's python3-kafka.

usage: kafka-acls.sh --bootstrap-server HOST:PORT (--add|--remove --force) (--allow-principal P --allow-host H | --deny-principal P --deny-host H)
       --operation NAME --topic NAME
"""
import argparse

from kafka.admin import ACL, ACLFilter, ACLOperation, ACLPermissionType, KafkaAdminClient, ResourcePattern, ResourcePatternFilter, ResourceType
from kafka.admin.acl_resource import ACLResourcePatternType

p = argparse.ArgumentParser()
p.add_argument('--bootstrap-server', required=True)
for what in ('add', 'remove', 'force'):
    p.add_argument('--' + what, action='store_true')
for what in ('allow', 'deny'):
    p.add_argument(f'--{what}-principal')
    p.add_argument(f'--{what}-host', default='*')
p.add_argument('--operation', required=True)
p.add_argument('--topic', required=True)
a = p.parse_args()
kind = ACLPermissionType.ALLOW if a.allow_principal else ACLPermissionType.DENY
who = a.allow_principal or a.deny_principal, a.allow_host if a.allow_principal else a.deny_host
operation = ACLOperation[a.operation.upper()]
admin = KafkaAdminClient(bootstrap_servers=a.bootstrap_server)
if a.add:
    done = admin.create_acls([ACL(*who, operation, kind, ResourcePattern(ResourceType.TOPIC, a.topic))])
    raise SystemExit(1 if done['failed'] else 0)
gone = admin.delete_acls([ACLFilter(*who, operation, kind, ResourcePatternFilter(ResourceType.TOPIC, a.topic, ACLResourcePatternType.LITERAL))])
raise SystemExit(0 if gone[0][1] else 1)
