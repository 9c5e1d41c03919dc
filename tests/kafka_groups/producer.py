#!/usr/bin/env python3
"""Makes a topic and publishes numbered records into it, steadily, through whatever happens to the broker, until SIGTERM.

usage: producer.py BOOTSTRAP TOPIC PARTITIONS PER_SECOND      prints "made", then "published COUNT" when all were acknowledged
"""
import signal
import sys
import time

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

bootstrap, topic, partitions, rate = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
admin = AdminClient({'bootstrap.servers': bootstrap})
admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result()
print('made', flush=True)
failed = []
p = Producer({'bootstrap.servers': bootstrap, 'enable.idempotence': True, 'linger.ms': 5, 'reconnect.backoff.max.ms': 500})
start, count = time.monotonic(), 0
while not ended:
    while count < (time.monotonic() - start) * rate:
        p.produce(topic, str(count).encode(), callback=lambda e, _: e and failed.append(str(e)))
        count += 1
    p.flush()
    time.sleep(0.05)
left = p.flush(30)
print(f'published {count}' if not failed and not left else f'{left} left, failed: {failed[:3]}')
