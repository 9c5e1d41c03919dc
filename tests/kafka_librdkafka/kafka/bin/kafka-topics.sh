#!/usr/bin/python3
"""kafka-topics.sh for librdkafka's tests, which call the script of Apache Kafka's distribution where KAFKA_PATH says: topics are made, grown and removed
with Debian's python3-kafka.

usage: kafka-topics.sh --bootstrap-server HOST:PORT (--create|--alter|--delete) --topic NAME [--partitions N] [--replication-factor N] [--config NAME=VALUE]...
"""
import argparse

from kafka.admin import KafkaAdminClient, NewPartitions, NewTopic

p = argparse.ArgumentParser()
p.add_argument('--bootstrap-server', required=True)
for what in ('create', 'alter', 'delete'):
    p.add_argument('--' + what, action='store_true')
p.add_argument('--topic', required=True)
p.add_argument('--partitions', type=int, default=1)
p.add_argument('--replication-factor', type=int, default=1)
p.add_argument('--config', action='append', default=[])
a = p.parse_args()
admin = KafkaAdminClient(bootstrap_servers=a.bootstrap_server)
if a.create:
    admin.create_topics([NewTopic(a.topic, a.partitions, a.replication_factor, topic_configs=dict(c.split('=', 1) for c in a.config))])
elif a.alter:
    admin.create_partitions({a.topic: NewPartitions(a.partitions)})
else:
    admin.delete_topics([a.topic])
