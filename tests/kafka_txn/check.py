#!/usr/bin/python3
"""check.py - transactions of real clients (librdkafka) against a broker that is killed over and over; then what was seen is judged as Jepsen's Kafka workload does.

usage: check.py BROKER DIR PORT SECONDS

Producers with a transactional id write unique numbers to random partitions and commit or abort. A reader of committed records follows from the beginning all
the while. The broker (broker_alone DIR PORT) gets SIGKILL every second or so and starts again on its data. At the end everything is read once more.

  aborted read        a value of an aborted transaction was seen
  lost                a committed value is not there
  torn                of a transaction whose commit was not answered some values are there and some are not
  duplicate           one value at two offsets
  two values          one offset with two values
  disorder            values of one producer in one partition not in the order in which they were sent
  hanging             the last stable offset stays behind the high watermark
"""
import os
import random
import signal
import subprocess
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 4
PRODUCERS = 3
TOPIC = 'checked'


class Broker:
    def __init__(self, binary, folder, port):
        self.argv = [binary, folder, str(port), '2']
        self.log = open(folder + '.log', 'a')
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.argv, stdout=self.log, stderr=self.log)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        return self.process.wait(20)


class Writer(threading.Thread):
    """One transactional id. deeds: [values, fate], fate: committed, aborted, unknown."""

    def __init__(self, number, conf, end):
        super().__init__()
        self.number, self.conf, self.end = number, conf, end
        self.deeds, self.fences, self.random = [], 0, random.Random(number)

    def producer(self):
        p = Producer(dict(self.conf, **{'transactional.id': f'writer-{self.number}', 'transaction.timeout.ms': 5000, 'linger.ms': 0,
                                        'reconnect.backoff.max.ms': 200, 'retry.backoff.ms': 20}))
        while True:
            try:
                p.init_transactions(10)
                return p
            except KafkaException as e:
                if time.time() > self.end + 10 or e.args[0].fatal():
                    raise

    def finish(self, p, commit, deed):
        """Tries until the broker has decided. Returns whether p can go on."""
        while time.time() < self.end + 15:
            try:
                if commit:
                    p.commit_transaction(10)
                    deed[1] = 'committed'
                else:
                    p.abort_transaction(10)
                    deed[1] = 'aborted' if deed[1] == 'open' else deed[1]
                return True
            except KafkaException as e:
                error = e.args[0]
                if error.fatal():
                    self.fences += 1
                    return False
                if commit:
                    deed[1] = 'unknown'
                if error.txn_requires_abort():
                    commit = False  # what the commit did is not known: fate stays unknown
        return False

    def run(self):
        p, n = self.producer(), 0
        while time.time() < self.end:
            values = []
            deed = [values, 'open']
            self.deeds.append(deed)
            try:
                p.begin_transaction()
                for _ in range(self.random.randint(1, 6)):
                    n += 1
                    value, partition = f'{self.number}-{n}', self.random.randrange(PARTITIONS)
                    values.append((partition, value))
                    p.produce(TOPIC, value.encode(), partition=partition)
                good = self.finish(p, self.random.random() < 0.8, deed)
            except KafkaException as e:
                good = not e.args[0].fatal() and self.finish(p, False, deed)
            if not good:
                p = self.producer()
            if deed[1] == 'open':
                deed[1] = 'aborted'  # never asked to commit; the next init ended it
        p.flush(5)


class Reader(threading.Thread):
    def __init__(self, conf):
        super().__init__()
        self.conf, self.seen, self.done = conf, {}, False
        self.faults = []

    def run(self):
        c = Consumer(dict(self.conf, **{'group.id': 'none', 'isolation.level': 'read_committed', 'enable.auto.commit': False, 'auto.offset.reset': 'earliest',
                                        'reconnect.backoff.max.ms': 200, 'topic.metadata.refresh.interval.ms': 500}))
        c.assign([TopicPartition(TOPIC, i, 0) for i in range(PARTITIONS)])
        while not self.done:
            m = c.poll(0.1)
            if m is None or m.error():
                continue
            key, value = (m.partition(), m.offset()), m.value().decode()
            if self.seen.setdefault(key, value) != value:
                self.faults.append(f'two values at {key}: {self.seen[key]} and {value}')
        c.close()


def read_all(conf):
    """Everything, from the beginning to the high watermark: read_committed can only get there when no transaction hangs."""
    c = Consumer(dict(conf, **{'group.id': 'none', 'isolation.level': 'read_committed', 'enable.auto.commit': False, 'enable.partition.eof': True}))
    at_end, seen, last = set(), {}, time.time() + 30
    c.assign([TopicPartition(TOPIC, i, 0) for i in range(PARTITIONS)])
    while len(at_end) < PARTITIONS and time.time() < last:
        m = c.poll(0.2)
        if m is None:
            continue
        if m.error():
            _, high = c.get_watermark_offsets(TopicPartition(TOPIC, m.partition()), 5)
            if m.error().name() == '_PARTITION_EOF' and m.offset() >= high:
                at_end.add(m.partition())
            elif m.error().name() == '_PARTITION_EOF':
                time.sleep(0.05)  # the stable offset was behind: it is told again when that moves
            continue
        seen[(m.partition(), m.offset())] = m.value().decode()
    c.close()
    return seen, [i for i in range(PARTITIONS) if i not in at_end]


def judge(writers, live, seen, hanging):
    faults = [f'hanging: partition {i}' for i in hanging] + live.faults
    where = {}
    for (partition, offset), value in seen.items():
        if value in where:
            faults.append(f'duplicate: {value} at {where[value]} and {(partition, offset)}')
        where[value] = (partition, offset)
    for key, value in live.seen.items():
        if seen.get(key) != value:
            faults.append(f'two values: at {key} {value} was read, and later {seen.get(key)}')
    for w in writers:
        last = {}
        for values, fate in w.deeds:
            there = [v for p, v in values if v in where]
            if fate == 'committed' and len(there) != len(values):
                faults.append(f'lost: {set(v for _, v in values) - set(there)}')
            if fate == 'aborted' and there:
                faults.append(f'aborted read: {there}')
            if fate == 'unknown' and there and len(there) != len(values):
                faults.append(f'torn: {there} of {values}')
            for partition, v in values:
                if v in where:
                    if where[v][1] < last.get(partition, -1) or where[v][0] != partition:
                        faults.append(f'disorder: {v} at {where[v]}')
                    last[partition] = where[v][1]
    return faults


def main():
    broker = Broker(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    try:
        faults = run(broker, int(sys.argv[3]), float(sys.argv[4]))
    except BaseException:
        broker.kill()  # it must not stay behind, with the port
        raise
    sys.stdout.flush()
    os._exit(1 if faults else 0)


def run(broker, port, seconds):
    conf = {'bootstrap.servers': f'127.0.0.1:{port}', 'log_level': 0}
    admin = AdminClient(conf)
    for f in admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)]).values():
        f.result(10)
    end = time.time() + seconds
    writers, live, kills = [Writer(i, conf, end) for i in range(PRODUCERS)], Reader(conf), 0
    for t in writers + [live]:
        t.start()
    chance = random.Random(port)
    while time.time() < end - 1:
        time.sleep(chance.uniform(0.6, 1.6))
        broker.kill()
        kills += 1
        time.sleep(chance.uniform(0, 0.2))
        broker.start()
    for w in writers:
        w.join(40)
    seen, hanging = read_all(conf)
    live.done = True
    live.join()
    status = broker.stop()
    faults = judge(writers, live, seen, hanging)
    if status != 0:
        faults.append(f'the broker ended with status {status}')
    fates = [d[1] for w in writers for d in w.deeds]
    print(f'{kills} kills; {len(fates)} transactions: {fates.count("committed")} committed, {fates.count("aborted")} aborted, {fates.count("unknown")} unknown; '
          f'{len(seen)} values; {sum(w.fences for w in writers)} fatal errors')
    for f in faults[:20]:
        print('FAULT', f)
    if fates.count('committed') < 10 or kills < 2:
        print('FAULT too little happened')
        faults.append('')
    return faults


main()
