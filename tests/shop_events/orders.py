#!/usr/bin/env python3
"""Orders by event, and what became of them.

orders.py place URL FILE SECONDS   places orders one after the other from four threads; each that was accepted (202) is a line of FILE:
                                   its id and whether its card is good. An order without a clear answer is not counted as accepted
orders.py settled URL FILE         0 when the state of each accepted order is final
orders.py judge SERVERS FILE       reads the topics with isolation read_committed; prints what is lost or doubled, nothing when all is well
"""
import collections
import json
import sys
import threading
import time
import urllib.error
import urllib.request

THREADS = 4
GOOD, BAD = '4242424242424242', '4000000000000002'


def place(url, path, seconds):
    end = time.monotonic() + seconds
    lock = threading.Lock()
    out = open(path, 'w')

    def one(i):
        n = 0
        while time.monotonic() < end:
            n += 1
            card = BAD if n % 5 == 0 else GOOD
            body = json.dumps({'sku': 'mug', 'quantity': 1, 'card': card}).encode()
            rq = urllib.request.Request(url + '/api/orders', body, {'Content-Type': 'application/json', 'Prefer': 'respond-async'})
            try:
                with urllib.request.urlopen(rq, timeout=20) as answer:
                    if answer.status == 202:
                        with lock:
                            out.write(f"{json.load(answer)['id']} {'good' if card == GOOD else 'bad'}\n")
            except (OSError, ValueError):
                time.sleep(0.05)
            time.sleep(0.02)
    threads = [threading.Thread(target=one, args=(i,)) for i in range(THREADS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    out.close()


def accepted(path):
    return dict(line.split() for line in open(path))


def settled(url, path):
    for order, card in accepted(path).items():
        try:
            with urllib.request.urlopen(f'{url}/api/orders/{order}', timeout=5) as answer:
                state = json.load(answer)['state']
        except urllib.error.HTTPError:
            return f'{order}: unknown'
        if state != ('shipped' if card == 'good' else 'declined'):
            return f'{order}: {state}'
    return None


def read(servers, topic):
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
    c = Consumer({'bootstrap.servers': servers, 'group.id': 'judge', 'enable.auto.commit': False, 'isolation.level': 'read_committed', 'enable.partition.eof': True})
    partitions = c.list_topics(topic, timeout=10).topics[topic].partitions
    c.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
    waiting, events = set(partitions), []
    while waiting:
        m = c.poll(10)
        if m is None:
            raise SystemExit(f'{topic}: no end after 10 s')
        if m.error():
            waiting.discard(m.partition())
        else:
            events.append((m.key().decode(), json.loads(m.value())['type'] if topic != 'order-status' else json.loads(m.value())['state']))
    c.close()
    return events


def judge(servers, path):
    wrong = []
    want = accepted(path)
    seen = {t: collections.Counter(read(servers, t)) for t in ('orders', 'payments', 'shipments')}
    requested = {o for o, _ in seen['orders']}
    for topic, counter in seen.items():
        wrong += [f'{topic}: {kind} of {order} {n} times' for (order, kind), n in counter.items() if n != 1]
        wrong += [f'{topic}: {order} was never ordered' for order, _ in counter if order not in requested]
    for order, card in want.items():
        if (order, 'OrderRequested') not in seen['orders']:
            wrong.append(f'{order}: accepted and not in orders')
        if (order, 'PaymentTaken' if card == 'good' else 'PaymentDeclined') not in seen['payments']:
            wrong.append(f'{order}: no payment')
        if card == 'good' and (order, 'OrderShipped') not in seen['shipments']:
            wrong.append(f'{order}: not shipped')
    both = {o for o, k in seen['payments'] if k == 'PaymentTaken'} & {o for o, k in seen['payments'] if k == 'PaymentDeclined'}
    wrong += [f'{o}: taken and declined' for o in both]
    return wrong


if __name__ == '__main__':
    what, where, path = sys.argv[1:4]
    if what == 'place':
        place(where, path, float(sys.argv[4]))
    elif what == 'settled':
        why = settled(where, path)
        if why:
            print(why)
            sys.exit(1)
    else:
        wrong = judge(where, path)
        print('\n'.join(wrong[:10]))
        sys.exit(bool(wrong))
