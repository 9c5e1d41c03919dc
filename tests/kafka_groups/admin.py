#!/usr/bin/env python3
"""What administration tells of groups that have consumed a topic to its end: members, states, committed offsets; and deleting them.

usage: admin.py BOOTSTRAP TOPIC COUNT GROUP...      exits with 1 and a line for each thing that is not as it must be
"""
import sys
import time

import kafka
from kafka.admin import KafkaAdminClient
from kafka.structs import OffsetAndMetadata, TopicPartition

bootstrap, topic, count, groups = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
wrong = []


def must(what, holds):
    if not holds:
        wrong.append(what)


def committed(group):
    return sum(o.offset for o in admin.list_consumer_group_offsets(group).values())


admin = KafkaAdminClient(bootstrap_servers=bootstrap)
must('all groups are listed', {g for g, _ in admin.list_consumer_groups()} >= set(groups))
end = time.monotonic() + 10
while time.monotonic() < end and any(committed(g) != count for g in groups):
    time.sleep(0.1)
for g in groups:
    must(f'{g}: {committed(g)} of {count} are committed', committed(g) == count)
for d in admin.describe_consumer_groups(groups):
    must(f'{d.group} is {d.state}', d.state in ('Stable', 'PreparingRebalance', 'CompletingRebalance') and d.protocol_type == 'consumer')
    must(f'{d.group} has {len(d.members)} members', 1 <= len(d.members) <= 3)
results = dict((g, e.__name__) for g, e in admin.delete_consumer_groups(groups[:1] + ['nobody']))
must(f'deleting says {results}', results == {groups[0]: 'NonEmptyGroupError', 'nobody': 'GroupIdNotFoundError'})

simple = kafka.KafkaConsumer(bootstrap_servers=bootstrap, group_id='simple', enable_auto_commit=False)
part = TopicPartition(topic, 2)
simple.assign([part])
simple.commit({part: OffsetAndMetadata(7, 'by hand')})
must('metadata comes back', simple.committed(part, metadata=True) == OffsetAndMetadata(7, 'by hand'))
simple.close(autocommit=False)
results = dict((g, e.__name__) for g, e in admin.delete_consumer_groups(['simple']))
must(f'deleting a simple group says {results}', results == {'simple': 'NoError'})
must('it is gone', 'simple' not in {g for g, _ in admin.list_consumer_groups()} and admin.list_consumer_group_offsets('simple') == {})
print('\n'.join(wrong))
sys.exit(bool(wrong))
