"""Kafka clients in processes of their own, while the engine under them is killed again and again; then whether the event log kept its word.

usage: kill.py BROKER LOGS SECONDS SEED COMMAND...
       kill.py --role NAME BROKER LOG NUMBER
       kill.py --self-test         histories with each of the faults below: each is found, and nothing in a good one

COMMAND starts the node. Its engine is killed (SIGKILL), which its supervisor starts again; and now and then all of the node is, before the supervisor waits long
between two starts. Each client writes a line of JSON for all it does and sees into LOGS, before it goes on:
that is the history, as Jepsen has it for its Kafka workload. When the time is over the killing stops, the clients finish what they do and end, every
topic is read once more from beginning to end, and the history is compared with that. "ok NAME" or "not ok NAME (WHY)" for each:

  lost            an acknowledged record is not at its offset
  two values      one offset was seen, by whomever and whenever, with different values
  duplicate       an idempotent producer's value is at two offsets
  order           an idempotent producer's records of a partition are not in the order in which they were sent
  aborted read    a value of an aborted transaction was seen by a reader of committed ones
  torn            of a transaction some values are visible and others are not
  lost commit     a transaction's commit was acknowledged and a value of it is not visible
  once            consume-transform-produce: an input before the committed offset has no output, or two; one behind it has an output
  skipped         a reader went past a record that is there (within one assignment), or back
  gap             a group has committed an offset and nobody of it has seen a record before it

Librdkafka through python3-confluent-kafka. soak.py has the same clients and the same judgement, for half an hour.
"""
import collections
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 4
TOPICS = {'plain': PARTITIONS, 'idem': PARTITIONS, 'txn-a': PARTITIONS, 'txn-b': PARTITIONS, 'out': PARTITIONS}
GROUPS = {'member': ['plain', 'idem', 'txn-a']}  # roles that are members of a group, and what it reads
ENDS = [('plain', 'idem', 'txn'), ('ctp',), ('member', 'watcher')]  # who is told to end, in this order
PACE_S = 0.01  # between two bursts of 20 records of a producer
TXN_PACE_S = 0  # between two transactions
LIFE = ''  # of a client that is killed itself and started again: what it sends then has other names
LAST_S = 45  # in which clients finish what they do, once nobody is killed any more
QUICK = {'reconnect.backoff.ms': 20, 'reconnect.backoff.max.ms': 200, 'retry.backoff.ms': 50, 'log_level': 0, 'topic.metadata.refresh.interval.ms': 2000}
TOLD = []  # SIGTERM came: finish
FAILED = []  # what was said not to be as it should


class Log:
    def __init__(self, path):
        self.f = open(path, 'a', buffering=1)

    def __call__(self, **what):
        self.f.write(json.dumps(what) + '\n')


def say(good, text):
    print(('ok ' if good else 'not ok ') + text, flush=True)
    if not good:
        FAILED.append(text)


def free_ports(n):
    held = []
    while len(held) < n:
        s = socket.socket()
        try:
            s.bind(('127.0.0.1', random.randrange(20000, 21000)))
            held.append(s)
        except OSError:
            s.close()
    return [s.getsockname()[1] for s in held]


def value_of(m):
    """A record's value, without what makes it longer."""
    return m.value().decode().split(' ', 1)[0]


def conf(broker, **more):
    return {'bootstrap.servers': broker, **QUICK, **{k.replace('_', '.'): v for k, v in more.items()}}


# ---- producers ------------------------------------------------------------------------------------------------------------------


def role_producer(broker, log, n, name, acks='all', longer='', **more):
    """Sends numbered values, each in one partition; tells what became of each. A producer that fails for good is replaced by another with other values."""
    count, good = 0, 'gone' if acks == '0' else 'ack'  # without an acknowledgement nothing is promised
    for life in range(1000):
        p = Producer(conf(broker, acks=acks, linger_ms=2, message_timeout_ms=120000, **more))

        def told(e, m):
            log(ev=good if e is None else 'fail', topic=name, p=m.partition(), o=m.offset(), v=value_of(m), e=e and e.name())
        broken = False
        while not TOLD and not broken:
            for _ in range(20):
                value = f'{name}{n}{LIFE}.{life}:{count}'
                log(ev='send', topic=name, p=count % PARTITIONS, v=value)
                try:
                    p.produce(name, (value + longer).encode(), partition=count % PARTITIONS, on_delivery=told)
                except (BufferError, KafkaException) as e:
                    log(ev='unsent', v=value, e=str(e))
                    broken = isinstance(e, KafkaException)
                count += 1
            p.poll(0)
            time.sleep(PACE_S)
            while len(p) > 2000 and not TOLD:
                p.poll(0.05)
        p.flush(LAST_S - 10)
        if TOLD:
            return


def role_plain(broker, log, n):
    role_producer(broker, log, n, 'plain')


def role_idem(broker, log, n):
    role_producer(broker, log, n, 'idem', enable_idempotence=True)


def insist(log, what, f, *args):
    """Calls f until it works; False: the transaction has to be aborted. A fatal error is raised."""
    while True:
        try:
            f(*args)
            return True
        except KafkaException as e:
            error = e.args[0]
            log(ev='trouble', at=what, e=str(error), fatal=error.fatal(), retriable=error.retriable(), abort=error.txn_requires_abort())
            if error.fatal():
                raise
            if error.txn_requires_abort():
                return False
            if not error.retriable():
                raise
            time.sleep(0.05)


def txn_client(broker, log, tid):
    while True:
        p = Producer(conf(broker, transactional_id=tid, linger_ms=2, transaction_timeout_ms=60000))
        try:
            if insist(log, 'init', p.init_transactions, 5):
                return p
        except KafkaException:
            time.sleep(0.1)


def end_txn(log, t, p, commit):
    """Commits, or aborts; tells which of the two it was as soon as it is known."""
    if commit and insist(log, 'commit', p.commit_transaction, 5):
        log(ev='committed', t=t)
        return True
    if insist(log, 'abort', p.abort_transaction, 5):
        log(ev='aborted', t=t)
    return False


def role_txn(broker, log, n):
    """Transactions of some values in two topics; each fourth is aborted."""
    p, count = txn_client(broker, log, f'txn-{n}'), 0
    while not TOLD:
        time.sleep(TXN_PACE_S)
        t = f'txn{n}{LIFE}:{count}'
        values = [(topic, part, f'{t}:{i}') for i, (topic, part) in enumerate((topic, (count + j) % PARTITIONS) for topic in ('txn-a', 'txn-b') for j in range(2))]
        log(ev='begin', t=t, values=[list(v) for v in values])
        count += 1
        try:
            p.begin_transaction()
            for topic, part, value in values:
                p.produce(topic, value.encode(), partition=part)
            p.poll(0)
            end_txn(log, t, p, commit=count % 4 != 0)
        except KafkaException as e:
            log(ev='end', t=t, e=str(e))  # unknown: whichever it is, it must be whole
            p = txn_client(broker, log, f'txn-{n}')


def role_ctp(broker, log, n):
    """Reads idem, writes out, with the offsets in the transaction: each input has one output, however often it dies in between."""
    group = conf(broker, group_id='ctp', auto_offset_reset='earliest', enable_auto_commit=False, isolation_level='read_committed', session_timeout_ms=6000, heartbeat_interval_ms=200,
                 fetch_wait_max_ms=100)
    while not TOLD:
        c, p, t = Consumer(group), txn_client(broker, log, f'ctp-{n}'), ''
        c.subscribe(['idem'])
        try:
            while not TOLD:
                got = [m for m in c.consume(500, 0.1) if not m.error()]
                if not got:
                    continue
                t = f'ctp{n}:{got[0].partition()}:{got[0].offset()}'
                p.begin_transaction()
                for m in got:
                    p.produce('out', m.value(), partition=m.partition())
                if not insist(log, 'offsets', p.send_offsets_to_transaction, c.position(c.assignment()), c.consumer_group_metadata(), 5) or not end_txn(log, t, p, True):
                    raise KafkaException(KafkaError(KafkaError._STATE, 'the transaction did not commit: what was read is read again'))
            break
        except KafkaException as e:
            log(ev='again', e=str(e))
        finally:
            c.close()
    c.close()


# ---- readers ---------------------------------------------------------------------------------------------------------------------


def polled(c):
    """Records that are there, one call for each: librdkafka's consume() of many forgets what it has already taken when a cooperative rebalance comes while it waits for more."""
    got = [c.poll(0.1)]
    while got[-1] is not None and len(got) < 200:
        got.append(c.poll(0))
    return [m for m in got if m is not None]


def member(broker, log, group, stay_s, **more):
    """A member of a group: reads, tells, then commits. It leaves and comes back now and then."""
    while not TOLD:
        c = Consumer(conf(broker, group_id=group + 's', auto_offset_reset='earliest', enable_auto_commit=False, isolation_level='read_committed', fetch_wait_max_ms=100, **more))
        c.subscribe(GROUPS[group], on_assign=lambda c, parts: log(ev='assigned', parts=[[p.topic, p.partition] for p in parts]), on_revoke=lambda c, parts: log(ev='revoked'))
        until = time.monotonic() + stay_s
        while not TOLD and time.monotonic() < until:
            seen = {}
            for m in polled(c):
                if m.error():
                    log(ev='error', e=str(m.error()))
                    continue
                log(ev='read', topic=m.topic(), p=m.partition(), o=m.offset(), v=value_of(m))
                seen[m.topic(), m.partition()] = m.offset() + 1
            if not seen:
                continue
            try:
                c.commit(offsets=[TopicPartition(t, p, o) for (t, p), o in seen.items()], asynchronous=False)
                log(ev='commit', offsets=[[t, p, o] for (t, p), o in seen.items()])
            except KafkaException as e:
                log(ev='uncommitted', e=str(e))
        c.close()


def role_member(broker, log, n):
    member(broker, log, 'member', 6 + n * 3, session_timeout_ms=6000, heartbeat_interval_ms=200)


def role_watcher(broker, log, n):
    """Reads everything, in no group, as far as it is committed (0), or all of it (1)."""
    c = Consumer(conf(broker, group_id=f'watcher-{n}', auto_offset_reset='error', enable_auto_commit=False, isolation_level=('read_committed', 'read_uncommitted')[n], fetch_wait_max_ms=50))
    c.assign([TopicPartition(t, p, 0) for t, count in TOPICS.items() for p in range(count)])
    log(ev='assigned', parts=[[t, p] for t, count in TOPICS.items() for p in range(count)])
    while not TOLD:
        for m in c.consume(500, 0.1):
            if m.error():
                log(ev='error', e=str(m.error()))
            else:
                log(ev='read', topic=m.topic(), p=m.partition(), o=m.offset(), v=value_of(m))
    c.close()


# ---- killing ---------------------------------------------------------------------------------------------------------------------


class Node:
    """The node that is killed."""

    def __init__(self, command, log):
        self.command, self.log, self.process, self.lives = command, log, None, 0

    def start(self):
        with open(self.log, 'a', encoding='utf-8') as f:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=f, stderr=f)
        self.lives = 0

    def engine(self):
        """The process of the engine, or 0: the supervisor's child of that name."""
        pid = self.process.pid
        try:
            for child in pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split():
                if b'engine' in pathlib.Path(f'/proc/{child}/cmdline').read_bytes():
                    return int(child)
        except OSError:
            pass
        return 0

    def kill(self):
        """The engine; each fourth time all. The supervisor would wait longer and longer before it started an engine that dies so soon."""
        engine = self.engine()
        self.lives += 1
        if self.lives % 4 == 0:
            self.process.kill()
        if engine:
            os.kill(engine, signal.SIGKILL)
        if self.lives % 4 == 0:
            self.process.wait()
            self.start()
        return bool(engine)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            say(False, 'the node stops')


def serves(broker):
    try:
        AdminClient(conf(broker)).list_topics(timeout=0.5)
        return True
    except KafkaException:
        return False


def kill_often(broker, node, seconds, chance):
    """Kills until the time is over, each time a moment after the node came back, or before it served anybody. How often."""
    end, kills = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        if chance.random() < 0.8:
            while not serves(broker) and time.monotonic() < end:
                pass
        time.sleep(chance.uniform(0.05, 0.6))
        kills += node.kill()
    return kills


# ---- looking ----------------------------------------------------------------------------------------------------------------------


def read_all(broker, isolation, reset='error'):
    """{(topic, partition): {offset: value}}, in the order of offsets."""
    c = Consumer(conf(broker, group_id='last-' + isolation, auto_offset_reset=reset, enable_auto_commit=False, isolation_level=isolation, enable_partition_eof=True))
    parts = [(t, p) for t, count in TOPICS.items() for p in range(count)]
    c.assign([TopicPartition(t, p, 0) for t, p in parts])
    logs, left, end = {part: {} for part in parts}, set(parts), time.monotonic() + 60
    while left:
        if time.monotonic() > end:
            raise SystemExit(f'not ok the log can be read to its end ({isolation}: {sorted(left)})')
        for m in c.consume(1000, 0.2):
            if m.error() and m.error().code() == KafkaError._PARTITION_EOF:
                left.discard((m.topic(), m.partition()))
            elif m.error():
                raise SystemExit(f'not ok the log can be read ({m.error()})')
            else:
                logs[m.topic(), m.partition()][m.offset()] = value_of(m)
    c.close()
    return logs


def histories(logs):
    for path in sorted(pathlib.Path(logs).glob('*.jsonl')):
        yield path.stem, [json.loads(line) for line in path.read_text().split('\n') if line]


class Found:
    def __init__(self):
        self.faults = collections.defaultdict(list)

    def __call__(self, kind, *what):
        self.faults[kind].append(' '.join(map(str, what)))

    def tell(self, kind, name):
        found = self.faults[kind]
        say(not found, f'{name} ({len(found)}: {"; ".join(found[:4])})' if found else name)


def check_offsets(found, history, final):
    """lost, two values."""
    acked = 0
    seen = {(t, p, o): v for (t, p), log in final.items() for o, v in log.items()}
    for who, events in history:
        for e in events:
            if e['ev'] == 'ack':
                acked += 1
                if seen.get((e['topic'], e['p'], e['o'])) != e['v']:
                    found('lost', who, e, 'there is', seen.get((e['topic'], e['p'], e['o'])))
            elif e['ev'] == 'read' and seen.setdefault((e['topic'], e['p'], e['o']), e['v']) != e['v']:
                found('two values', who, e, 'there is', seen[e['topic'], e['p'], e['o']])
    return acked


def check_idempotent(found, final):
    """duplicate, order."""
    for p in range(PARTITIONS):
        where, last = {}, {}
        for o, v in final['idem', p].items():
            who, n = v.split(':')
            if v in where:
                found('duplicate', v, 'at', where[v], o)
            if int(n) < last.get(who, -1):
                found('order', v, 'after', last[who])
            where[v] = o
            last[who] = int(n)


def check_transactions(found, history, committed):
    """aborted read, torn, lost commit. How many transactions there were, and of how many the end is not known."""
    visible = {v for (t, p), log in committed.items() for v in log.values()}
    begun, ends, counts = {}, {}, collections.Counter()
    read = {e['v'] for who, events in history if who.startswith((*GROUPS, 'watcher0')) for e in events if e['ev'] == 'read'} | visible
    for who, events in history:
        for e in events if who.startswith('txn') else ():
            if e['ev'] == 'begin':
                begun[e['t']] = [v for _, _, v in e['values']]
            elif e['ev'] in ('committed', 'aborted'):
                ends[e['t']] = e['ev']
    for t, values in begun.items():
        there = [v in visible for v in values]
        counts[ends.get(t, 'unknown')] += 1
        if any(there) and not all(there):
            found('torn', t, there)
        if ends.get(t) == 'committed' and not all(there):
            found('lost commit', t, there)
        if ends.get(t) == 'aborted' and any(v in read for v in values):
            found('aborted read', t)
        if ends.get(t) != 'committed' and not any(there) and any(v in read for v in values):
            found('aborted read', t, 'was seen and is not there')
    for (topic, p), log in committed.items():
        if topic.startswith('txn') and len(set(log.values())) != len(log):
            found('duplicate', topic, p, 'a value of a transaction is there twice')
    return counts


def check_once(found, committed, ends):
    """once. ends: {partition: what the group has committed}."""
    for p in range(PARTITIONS):
        out = collections.Counter(committed['out', p].values())
        for o, v in committed['idem', p].items():
            n = out.pop(v, 0)
            if n != (o < ends[p]):
                found('once', v, 'at', o, 'of partition', p, 'has', n, 'outputs; committed is', ends[p])
        for v in out:
            found('once', v, 'has no input')


def check_readers(found, history, final, committed):
    """skipped, gap."""
    lists = {True: {k: sorted(v) for k, v in committed.items()}, False: {k: sorted(v) for k, v in final.items()}}
    places = {kind: {k: {o: i for i, o in enumerate(v)} for k, v in all_.items()} for kind, all_ in lists.items()}
    read, done = collections.defaultdict(set), collections.defaultdict(int)
    for who, events in history:
        if not who.startswith((*GROUPS, 'watcher')):
            continue
        group = who.rstrip('0123456789')
        place, at = places[who != 'watcher1'], {}
        for e in events:
            if e['ev'] in ('assigned', 'revoked'):
                at = {}
            elif e['ev'] == 'read':
                k, here = (e['topic'], e['p']), place[e['topic'], e['p']].get(e['o'])
                if here is None:
                    found('two values', who, e, 'is not there')
                    continue
                if k in at and here != at[k] + 1:
                    found('skipped', who, e, 'after', lists[who != 'watcher1'][k][at[k]])
                at[k] = here
                if group in GROUPS:
                    read[group, *k].add(e['o'])
            elif e['ev'] == 'commit':
                for t, p, o in e['offsets']:
                    done[group, t, p] = max(done[group, t, p], o)
            elif e['ev'] == 'error' and 'reset' in e['e'].lower():
                found('skipped', who, e)
    for (group, *k), end in done.items():
        for o in lists[True][tuple(k)]:
            if o < end and o not in read[group, *k]:
                found('gap', group, *k, 'offset', o, 'of', end)
    return sum(len(v) for v in read.values())


# ---- all of it ----------------------------------------------------------------------------------------------------------------------


def clients(broker, logs):
    roles = ['plain0', 'idem0', 'idem1', 'txn0', 'txn1', 'ctp0', 'ctp1', 'member0', 'member1', 'watcher0', 'watcher1']
    return [subprocess.Popen([sys.executable, __file__, '--role', r[:-1], broker, f'{logs}/{r}.jsonl', r[-1]], stdin=subprocess.DEVNULL) for r in roles]


def end_clients(running):
    """Producers first; what reads goes on until nothing comes any more."""
    end = time.monotonic() + LAST_S
    for order in ENDS:
        now = [c for c in running if c.args[3] in order]
        for c in now:
            c.send_signal(signal.SIGTERM)
        for c in now:
            try:
                c.wait(max(1.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                say(False, f'{c.args[3]}{c.args[6]} ends when it is told to')
                c.kill()
                c.wait()


def until_begun(running, logs):
    """Each has something to tell: a group that is killed before it stands for the first time may never come to stand on a busy machine."""
    end, silent = time.monotonic() + 30, running
    while silent and time.monotonic() < end:
        time.sleep(0.05)
        told = {f.stem for f in pathlib.Path(logs).glob('*.jsonl') if f.stat().st_size}
        silent = [c for c in running if c.args[3] + c.args[6] not in told]
    for c in silent:
        say(False, f'{c.args[3]}{c.args[6]} begins')


def until_serves(broker):
    end = time.monotonic() + 20
    while not serves(broker):
        if time.monotonic() > end:
            raise SystemExit('not ok the node serves')


def main(broker, logs, seconds, seed, command):
    chance = random.Random(seed)
    os.makedirs(logs, exist_ok=True)
    node = Node(command, logs + '/../node.log')
    node.start()
    running = []
    try:
        until_serves(broker)
        admin = AdminClient(conf(broker))
        for f in admin.create_topics([NewTopic(t, n, 1) for t, n in TOPICS.items()]).values():
            f.result(20)
        running = clients(broker, logs)
        until_begun(running, logs)
        kills = kill_often(broker, node, seconds, chance)
        until_serves(broker)
        end_clients(running)
        look(broker, logs, seconds, kills)
    finally:
        for c in running:
            if c.poll() is None:
                c.kill()
        node.stop()


def look(broker, logs, seconds, kills):
    final, committed = read_all(broker, 'read_uncommitted'), read_all(broker, 'read_committed')
    history = list(histories(logs))
    acked, counts, read = judge(broker, history, final, committed, f'{kills} kills; ')
    enough = kills >= seconds / 3 and acked > 1000 and counts['committed'] > 20 and counts['aborted'] > 5 and read > 1000
    say(enough, 'there was enough of everything to say so')


def judge(broker, history, final, committed, title):
    """Says what holds of the history. How many records were acknowledged, how many transactions ended how, how many records were read by groups."""
    found = Found()
    acked = check_offsets(found, history, final)
    check_idempotent(found, final)
    counts = check_transactions(found, history, committed)
    c = Consumer(conf(broker, group_id='ctp'))
    check_once(found, committed, {t.partition: t.offset for t in c.committed([TopicPartition('idem', p) for p in range(PARTITIONS)], 20)})
    c.close()
    read = check_readers(found, history, final, committed)
    print(f'# {title}{acked} acknowledged records, {sum(map(len, final.values()))} in the log; transactions: {dict(counts)}; {sum(len(v) for (t, _), v in committed.items() if t == "out")} transformed; '
          f'{read} read by groups', flush=True)
    for kind, name in (('lost', 'no acknowledged record is lost'), ('two values', 'no offset has two values'), ('duplicate', 'nothing of an idempotent producer is there twice'),
                       ('order', 'what an idempotent producer sent is in order'), ('aborted read', 'nothing of an aborted transaction is read'), ('torn', 'each transaction is whole, or not there'),
                       ('lost commit', 'what was committed is there'), ('once', 'consume, transform, produce: each record once'), ('skipped', 'no reader skips a record'),
                       ('gap', 'no gap in what the group has committed')):
        found.tell(kind, name)
    return acked, counts, read


# ---- whether faults are found ------------------------------------------------------------------------------------------------------------


def self_test():
    """A small good history, and changes of it that each are one fault."""
    def kinds_of(change):
        idem = {0: 'i:0', 1: 'i:4', 2: 'i:8'}
        world = {'final': {(t, p): {} for t in TOPICS for p in range(PARTITIONS)}, 'ends': dict.fromkeys(range(PARTITIONS), 0)}
        world['final'].update({('idem', 0): dict(idem), ('out', 0): {0: 'i:0', 1: 'i:4'}, ('txn-a', 0): {0: 'a0', 1: 'b0'}, ('txn-b', 0): {0: 'a1', 1: 'b1'}})
        world['committed'] = {k: {o: v for o, v in log.items() if v[0] != 'b'} for k, log in world['final'].items()}
        world['ends'][0] = 2
        world['idem0'] = [{'ev': 'ack', 'topic': 'idem', 'p': 0, 'o': o, 'v': v} for o, v in idem.items()]
        world['txn0'] = [{'ev': 'begin', 't': 'a', 'values': [['txn-a', 0, 'a0'], ['txn-b', 0, 'a1']]}, {'ev': 'committed', 't': 'a'},
                         {'ev': 'begin', 't': 'b', 'values': [['txn-a', 0, 'b0'], ['txn-b', 0, 'b1']]}, {'ev': 'aborted', 't': 'b'}]
        world['member0'] = [{'ev': 'read', 'topic': 'idem', 'p': 0, 'o': o, 'v': v} for o, v in list(idem.items())[:2]] + [{'ev': 'commit', 'offsets': [['idem', 0, 2]]}]
        change(world)
        history, found = [(who, world[who]) for who in ('idem0', 'txn0', 'member0')], Found()
        check_offsets(found, history, world['final'])
        check_idempotent(found, world['final'])
        check_transactions(found, history, world['committed'])
        check_once(found, world['committed'], world['ends'])
        check_readers(found, history, world['final'], world['committed'])
        return set(found.faults)

    def put(which, key, offset, value):
        def change(world):
            world[which][key][offset] = value
            world[which][key] = dict(sorted(world[which][key].items()))
        return change

    def both(a, b):
        return lambda world: (a(world), b(world))
    wanted = {
        'good': (lambda world: None, set()),
        'lost': (lambda world: world['idem0'].append({'ev': 'ack', 'topic': 'idem', 'p': 1, 'o': 7, 'v': 'i:1'}), {'lost'}),
        'two values': (lambda world: world['member0'][1].update(v='other'), {'two values'}),
        'duplicate': (put('final', ('idem', 0), 3, 'i:8'), {'duplicate'}),
        'order': (both(put('final', ('idem', 0), 3, 'i:2'), put('committed', ('idem', 0), 3, 'i:2')), {'order'}),
        'aborted read': (lambda world: world['member0'].append({'ev': 'read', 'topic': 'txn-a', 'p': 0, 'o': 0, 'v': 'b0'}), {'aborted read', 'two values'}),
        'torn': (both(put('committed', ('txn-a', 0), 1, 'b0'), lambda world: world['txn0'].pop()), {'torn'}),
        'lost commit': (lambda world: [world['committed'][t, 0].clear() for t in ('txn-a', 'txn-b')], {'lost commit'}),
        'once: none': (lambda world: world['ends'].update({0: 3}), {'once'}),
        'once: two': (put('committed', ('out', 0), 2, 'i:4'), {'once'}),
        'skipped': (lambda world: world['member0'].insert(2, {'ev': 'read', 'topic': 'idem', 'p': 0, 'o': 0, 'v': 'i:0'}), {'skipped'}),
        'gap': (lambda world: world['member0'].pop(1), {'gap'}),
    }
    for name, (change, kinds) in wanted.items():
        got = kinds_of(change)
        print(f'ok self-test: {name}' if got == kinds else f'not ok self-test: {name} (found {sorted(got)})')


def run_role(role, broker, log, n):
    signal.signal(signal.SIGTERM, lambda *_: TOLD.append(1))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    role(broker, Log(log), int(n))
    os._exit(0)


if __name__ == '__main__':
    if sys.argv[1] == '--role':
        run_role(globals()['role_' + sys.argv[2]], *sys.argv[3:])
    if sys.argv[1] == '--self-test':
        self_test()
        raise SystemExit
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4], sys.argv[5:])
