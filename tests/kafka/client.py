"""client.py ADDRESS: python3-kafka publishes, consumes as a group, commits, and goes on from there."""
import sys

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

server = sys.argv[1]
admin = KafkaAdminClient(bootstrap_servers=server)
admin.create_topics([NewTopic('python', 2, 1, topic_configs={'retention.ms': '60000'})])
producer = KafkaProducer(bootstrap_servers=server, acks='all', retries=3)
told = [producer.send('python', key=b'k%d' % (i % 5), value=b'v%d' % i, headers=[('n', b'%d' % i)]).get(10) for i in range(20)]
producer.flush()
assert sorted({t.partition for t in told}) == [0, 1], told


def read(n):
    consumer = KafkaConsumer('python', bootstrap_servers=server, group_id='py', auto_offset_reset='earliest', enable_auto_commit=False,
                             consumer_timeout_ms=8000, session_timeout_ms=10000)
    got = []
    for record in consumer:
        got.append(record)
        if len(got) == n:
            break
    consumer.commit()
    places = [consumer.position(p) for p in sorted(consumer.assignment())]
    consumer.close()
    return got, places


got, places = read(20)
assert sorted(int(r.value[1:]) for r in got) == list(range(20)), got
assert all(r.headers == [('n', r.value[1:])] for r in got)
producer.send('python', value=b'v20').get(10)
got, _ = read(1)
assert [r.value for r in got] == [b'v20'], got
consumer = KafkaConsumer(bootstrap_servers=server)
ends = consumer.end_offsets([TopicPartition('python', 0), TopicPartition('python', 1)])
assert sum(ends.values()) == 21, ends
consumer.close()
admin.delete_topics(['python'])
admin.close()
