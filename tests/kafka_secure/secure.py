"""secure.py ADDRESS CA MECHANISM USER PASSWORD: logs in over TLS, publishes and reads one record; prints it, or why not."""
import sys
import time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

address, ca, mechanism, user, password = sys.argv[1:6]
failure = []
conf = {'bootstrap.servers': address, 'security.protocol': 'SASL_SSL', 'ssl.ca.location': ca, 'sasl.mechanisms': mechanism,
        'sasl.username': user, 'sasl.password': password, 'error_cb': failure.append}
p = Producer({**conf, 'message.timeout.ms': 8000})
told = []
p.produce('secured', f'{user} by {mechanism}', on_delivery=lambda e, m: told.append(e or m.offset()))
end = time.monotonic() + 10
while not told and time.monotonic() < end and all(e.code() != KafkaError._AUTHENTICATION for e in failure):
    p.poll(0.1)
if not told or not isinstance(told[0], int):
    print(failure[0].str() if failure else told[0].str() if told else 'no answer')
    sys.exit(1)
c = Consumer({**conf, 'group.id': 'secure'})
c.assign([TopicPartition('secured', 0, told[0])])
m = c.poll(8)
print(m.value().decode() if m and not m.error() else m and m.error())
c.close()
