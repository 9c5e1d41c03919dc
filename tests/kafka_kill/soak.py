"""The event log for half an hour: everything that clients do at once, an engine that is killed or restarted each minute, and what then is lost or has grown.

usage: soak.py --weir FILE --minutes N [--seed N] [--library FILE]
       soak.py --role NAME BROKER LOG NUMBER LIFE

    producers     acks 0, 1 and all, all compressions, idempotent, transactional; consume-transform-produce
    topics        kept (their whole history is judged), short (retention takes them away within half a minute), keyed (compacted, with tombstones),
                  brief (made, filled, read, deleted, again and again)
    groups        eager, cooperative-sticky, static, and of the consumer protocol (KIP-848) with the librdkafka of --library; their members leave, come back,
                  and are killed every few seconds; one that is too slow for the retention of what it reads, and one that has nothing to read until the end
    the engine    killed (SIGKILL), killed with its supervisor, stopped and started; once left alone for a fifth of the time

The clients are those of kill.py or made as they are; each writes its history, and kill.py judges it: nothing acknowledged is lost, nothing is there twice, no gap in
what groups have committed. What keyed and brief say is judged by their clients at once. The node is watched: memory, descriptors and threads of both
processes at the same age of each engine's life, in the first third of the run and in the last, and within the long life; bytes on disk of what
retention and compaction bound. The last line is the verdict. Librdkafka through Debian's python3-confluent-kafka.
"""
import argparse
import collections
import os
import pathlib
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

import kill
from kill import PARTITIONS, TOLD, conf, member, role_producer, say, value_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 1 << 20
LONGER = ' ' + 'x' * 10000
SHORT = {'segment.bytes': MIB, 'retention.bytes': 4 * MIB, 'file.delete.delay.ms': 1000}
KEPT = {'segment.ms': 60000}
COMPACTED = {'cleanup.policy': 'compact', 'segment.bytes': MIB, 'segment.ms': 10000, 'min.cleanable.dirty.ratio': 0.2, 'delete.retention.ms': 1000, 'file.delete.delay.ms': 1000}
BRIEF = {'segment.bytes': MIB, 'segment.ms': 500, 'file.delete.delay.ms': 500}
KEYED, KEYED_PARTITIONS = 100, 2  # keys; each has values of 2 KB
# Bytes of the folders whose names begin so, at most. short: retention, the segment that is written, what comes within 5 s and what waits for its removal, for each
# partition. keyed: what lives is 200 KB; two segments that were not compacted yet, what a compaction writes beside what it reads, what waits for its removal.
# brief: three of a thing that is some 100 KB. The internal ones are compacted: segments of 20 s.
DISK = {'short.': PARTITIONS * 9 * MIB, 'keyed.': KEYED_PARTITIONS * 8 * MIB, 'brief-': 4 * MIB, '__consumer_offsets.': 16 * MIB, '__transaction_state.': 16 * MIB}
INTERNAL = {'cleanup.policy': 'compact', 'segment.bytes': MIB, 'segment.ms': 20000, 'file.delete.delay.ms': 1000}
THREADS_MAX = 32  # the engine's: two pools of it grow as they are needed
READY_S = 30  # within which a node that was killed serves again

kill.PACE_S, kill.TXN_PACE_S, kill.LAST_S = 0.4, 0.1, 60
kill.TOPICS.update({'one': PARTITIONS, 'short': PARTITIONS})
kill.GROUPS.update({'member': ['plain', 'idem', 'txn-a'], 'coop': ['idem', 'one', 'txn-b'], 'static': ['plain', 'one'], 'modern': ['idem', 'plain', 'txn-a']})
kill.ENDS = [('plain', 'one', 'zero', 'idem', 'short', 'txn', 'keyed', 'brief'), ('ctp',), ('member', 'coop', 'static', 'modern', 'slow', 'idle', 'watcher')]
ROLES = ['plain0', 'one0', 'zero0', 'idem0', 'idem1', 'short0', 'txn0', 'txn1', 'ctp0', 'ctp1', 'keyed0', 'brief0', 'member0', 'member1', 'coop0', 'coop1', 'coop2', 'static0',
         'static1', 'modern0', 'modern1', 'slow0', 'idle0', 'watcher0', 'watcher1']
MORTAL = ('ctp', 'txn', 'member', 'coop', 'static', 'modern')  # are killed and started again
STAY_S = 25  # how long a member of a group stays before it leaves


# ---- the clients that kill.py has not ------------------------------------------------------------------------------------------------


def role_plain(broker, log, n):
    role_producer(broker, log, n, 'plain', compression_type='lz4')


def role_one(broker, log, n):
    role_producer(broker, log, n, 'one', acks='1', compression_type='snappy')


def role_zero(broker, log, n):
    role_producer(broker, log, n, 'zero', acks='0')


def role_idem(broker, log, n):
    role_producer(broker, log, n, 'idem', enable_idempotence=True, compression_type=('zstd', 'gzip')[n])


def role_short(broker, log, n):
    role_producer(broker, log, n, 'short', longer=LONGER)


def role_member(broker, log, n):
    member(broker, log, 'member', STAY_S + n * 7, session_timeout_ms=6000, heartbeat_interval_ms=500)


def role_coop(broker, log, n):
    member(broker, log, 'coop', STAY_S + n * 7, session_timeout_ms=6000, heartbeat_interval_ms=500, partition_assignment_strategy='cooperative-sticky')


def role_static(broker, log, n):
    member(broker, log, 'static', STAY_S + n * 7, session_timeout_ms=6000, heartbeat_interval_ms=500, group_instance_id=f'static-{n}')


def role_modern(broker, log, n):
    member(broker, log, 'modern', STAY_S + n * 7, group_protocol='consumer')


def role_slow(broker, log, n):
    """Reads less than comes: retention takes records away before it has them, and it goes on with what is there."""
    c = Consumer(conf(broker, group_id='slow', auto_offset_reset='earliest', queued_min_messages=1, fetch_message_max_bytes=50000, session_timeout_ms=6000))
    c.subscribe(['short'])
    while not TOLD:
        for m in c.consume(3, 0.5):
            if not m.error():
                log(ev='read', topic=m.topic(), p=m.partition(), o=m.offset(), v=value_of(m))
        time.sleep(0.3)
    c.close()


def role_idle(broker, log, n):
    """Is a member of a group for whose topic nothing comes, but at the end."""
    c = Consumer(conf(broker, group_id='idle', auto_offset_reset='earliest', session_timeout_ms=6000))
    c.subscribe(['quiet'])
    while not TOLD:
        for m in c.consume(10, 0.5):
            if not m.error():
                log(ev='read', topic=m.topic(), p=m.partition(), o=m.offset(), v=value_of(m))
    c.close()


def until_it_works(f, good=()):
    """Calls f, which returns futures, until all of them succeed, or fail with one of the errors that say that it was done before."""
    end = time.monotonic() + kill.LAST_S
    while True:
        try:
            for future in f().values():
                try:
                    future.result(15)
                except KafkaException as e:
                    if e.args[0].code() not in good:
                        raise
            return
        except KafkaException:
            if TOLD or time.monotonic() > end:
                raise
            time.sleep(0.3)


def read_parts(broker, parts):
    """All records of these partitions, in each one's order: (partition, offset, key, value)."""
    c = Consumer(conf(broker, group_id='reads', auto_offset_reset='error', enable_auto_commit=False, enable_partition_eof=True, fetch_wait_max_ms=20))
    c.assign([TopicPartition(t, p, 0) for t, p in parts])
    try:
        left, end, read = set(parts), time.monotonic() + 60, []
        while left:
            if time.monotonic() > end:
                raise RuntimeError(f'cannot be read to the end: {sorted(left)}')
            for m in c.consume(500, 0.2):
                if not m.error():
                    read.append((m.partition(), m.offset(), m.key(), m.value()))
                elif m.error().code() == KafkaError._PARTITION_EOF:
                    left.discard((m.topic(), m.partition()))
                elif m.error().code() in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET, KafkaError.UNKNOWN_TOPIC_OR_PART):
                    raise RuntimeError(str(m.error()))
        return read
    finally:
        c.close()


def role_brief(broker, log, n):
    """Topics that are made, filled, read and deleted: what was acknowledged is there until the topic is deleted, and then it is gone for good."""
    admin, count, gone, codecs = AdminClient(conf(broker)), 0, [], ('none', 'gzip', 'snappy', 'lz4', 'zstd')
    while not TOLD:
        name, count = f'brief-{count}', count + 1
        try:
            until_it_works(lambda: admin.create_topics([NewTopic(name, 3, 1, config={k: str(v) for k, v in BRIEF.items()})], operation_timeout=10), [KafkaError.TOPIC_ALREADY_EXISTS])
            acked = {}
            p = Producer(conf(broker, acks='all', compression_type=codecs[count % 5], enable_idempotence=count % 2 == 0))
            for i in range(100):
                p.produce(name, b'%d' % i + b' ' * 1000, partition=i % 3, on_delivery=lambda e, m: e or acked.update({(m.partition(), m.offset()): m.value()}))
            p.flush(kill.LAST_S)
            there = {(part, o): v for part, o, _, v in read_parts(broker, [(name, part) for part in range(3)])}
            lost = [k for k, v in acked.items() if there.get(k) != v]
            if lost or len(acked) != 100:
                log(ev='fault', what=f'{name}: {len(acked)} were acknowledged, {len(lost)} of them are not there: {lost[:5]}')
            until_it_works(lambda: admin.delete_topics([name], operation_timeout=10), [KafkaError.UNKNOWN_TOPIC_OR_PART])
            gone = (gone + [name])[-50:]
            back = set(gone) & set(admin.list_topics(timeout=10).topics)
            if back:
                log(ev='fault', what=f'deleted, and there: {back}')
            log(ev='round', name=name, acked=len(acked))
        except RuntimeError as e:
            log(ev='fault', what=f'{name}: {e}')
        except KafkaException as e:
            log(ev='trouble', e=str(e))
        time.sleep(2)


def keyed_write(p, state, sent, where, keys, count):
    """One value, or none, for each of these keys. sent: offsets of what was acknowledged."""
    for key in keys:
        count += 1
        value = None if random.random() < 0.1 else b'%d ' % count + b'k' * 2000
        state[key] = value

        def told(e, m, value=value):
            if e is None:
                where[m.partition(), m.offset()] = value
                sent['acked'] += 1
            else:
                sent['failed'] += 1
        p.produce('keyed', value, b'%d' % key, partition=key % KEYED_PARTITIONS, on_delivery=told)
    return count


def role_keyed(broker, log, n):
    """A compacted topic: the last value of each key is there, whatever was compacted and whoever was killed; and no offset changes its value."""
    p = Producer(conf(broker, acks='all', enable_idempotence=True, message_timeout_ms=300000))
    state, sent, where, count = {}, collections.Counter(), {}, 0
    while not TOLD:
        until = time.monotonic() + 15
        while time.monotonic() < until and not TOLD:
            count = keyed_write(p, state, sent, where, random.choices(range(KEYED), k=20), count)
            p.poll(0)
            time.sleep(kill.PACE_S / 2)
        if p.flush(kill.LAST_S) or sent['failed']:
            log(ev='fault', what=f'{sent["failed"]} records of the idempotent producer failed, {len(p)} wait for ever')
            return
        try:
            last, read = {}, read_parts(broker, [('keyed', part) for part in range(KEYED_PARTITIONS)])
        except (RuntimeError, KafkaException) as e:
            log(ev='fault', what=str(e))
            continue
        for part, o, k, v in read:
            last[int(k)] = v
            if where.get((part, o), v) != v:
                log(ev='fault', what=f'offset {o} of partition {part} has another value than what was acknowledged there')
        for key, value in state.items():
            if last.get(key) != value:
                log(ev='fault', what=f'key {key}: there is {(last.get(key) or b"nothing")[:12]}, and {(value or b"nothing")[:12]} was acknowledged')
        log(ev='round', records=len(read), acked=sent['acked'])
        for k in list(where)[:-20000]:
            del where[k]


# ---- the clients and their ends ---------------------------------------------------------------------------------------------------------


class Clients:
    def __init__(self, broker, logs, library, chance):
        self.broker, self.logs, self.library, self.chance = broker, logs, library, chance
        self.running, self.lives, self.dead, self.kills = {}, collections.Counter(), {}, 0
        for name in ROLES:
            if library or not name.startswith('modern'):
                self.start(name)

    def start(self, name):
        environment = dict(os.environ, LD_PRELOAD=self.library) if name.startswith('modern') else None
        life, self.lives[name] = self.lives[name], self.lives[name] + 1
        with open(f'{self.logs}/{name}.err', 'a', encoding='utf-8') as f:
            self.running[name] = subprocess.Popen([sys.executable, __file__, '--role', name[:-1], self.broker, f'{self.logs}/{name}.jsonl', name[-1], str(life)],
                                                  stdin=subprocess.DEVNULL, stderr=f, env=environment)

    def one_dies(self):
        """Somebody who may is killed, and comes back soon or when it has been given up."""
        name = self.chance.choice([name for name in self.running if name.startswith(MORTAL)])
        c = self.running.pop(name)
        c.kill()
        c.wait()
        self.kills += 1
        self.dead[name] = time.monotonic() + self.chance.choice([0.2, 2, 9])

    def come_back(self):
        for name in [name for name, at in self.dead.items() if at <= time.monotonic()]:
            del self.dead[name]
            self.start(name)

    def ended(self):
        """Clients that ended though nobody told them to."""
        return [name for name, c in self.running.items() if c.poll() is not None]

    def all(self):
        return list(self.running.values())


# ---- the node, watched -------------------------------------------------------------------------------------------------------------------


def descriptors_of(pid):
    """How many of each kind: of files of the log's partitions, of files that are gone, of all else (sockets above all)."""
    kinds = collections.Counter(segments=0, deleted=0, fds=0)
    for fd in os.listdir(f'/proc/{pid}/fd'):
        try:
            to = os.readlink(f'/proc/{pid}/fd/{fd}')
        except OSError:
            continue
        kinds['deleted' if to.endswith((' (deleted)', '.deleted')) else 'segments' if re.search(r'/log/[^/]+/\d{20}\.', to) else 'fds'] += 1
    return kinds


def looked_at(pid):
    """Memory, descriptors and threads of a process, or None."""
    try:
        status = pathlib.Path(f'/proc/{pid}/status').read_text()
        return dict(descriptors_of(pid), rss=int(re.search(r'VmRSS:\s+(\d+)', status).group(1)) << 10, threads=int(re.search(r'Threads:\s+(\d+)', status).group(1)))
    except (OSError, AttributeError):
        return None


def segments_in(folder):
    """Files of segments that there are."""
    return sum(bool(re.match(r'\d{20}\.', f)) for _, _, files in os.walk(folder) for f in files)


def disk_of(folder):
    """{name up to the first dot, with it: bytes on disk}, the brief topics' together."""
    used = collections.Counter()
    for path, _, files in os.walk(folder):
        name = os.path.relpath(path, folder)
        name = 'brief-' if name.startswith('brief-') else name.split('.')[0] + '.'
        for f in files:
            try:
                used[name] += os.stat(os.path.join(path, f)).st_blocks * 512
            except OSError:
                pass
    return used


class Watched(kill.Node):
    """The node: its lives, and samples of both processes in them."""

    def __init__(self, command, log, data):
        super().__init__(command, log)
        self.data, self.samples, self.disk = pathlib.Path(data), [], []
        self.ends, self.slowest = collections.Counter(), collections.Counter()  # how often its lives ended how; seconds
        self.number, self.began, self.since = 0, time.monotonic(), 0.0
        self.pid = 0

    def now(self):
        return time.monotonic() - self.began

    def sample(self, long):
        for what, p in (('engine', self.engine()), ('sup', self.process.pid)):
            s = looked_at(p) if p else None
            if s:
                s['files'] = segments_in(self.data / 'log') if what == 'engine' else 0
                self.samples.append(dict(s, of=what, life=self.number, at=self.now(), age=self.now() - self.since, long=long))
        if len(self.samples) % 10 < 2:
            self.disk.append((self.now(), disk_of(self.data / 'log')))

    def end_life(self, how, broker):
        """Kills or restarts; waits until it serves again."""
        engine = self.engine()
        self.ends[how] += 1
        began = time.monotonic()
        if how == 'stopped':
            self.stop()
            self.slowest['stop'] = max(self.slowest['stop'], time.monotonic() - began)
            began = time.monotonic()
            self.start()
        else:
            if how == 'killed whole':
                self.process.kill()
            os.kill(engine, signal.SIGKILL)
            if how == 'killed whole':
                self.process.wait()
                self.start()
        while not kill.serves(broker):
            if time.monotonic() > began + READY_S:
                raise SystemExit(f'not ok the node serves within {READY_S} s after it was {how}')
            time.sleep(0.05)
        self.slowest[how] = max(self.slowest[how], time.monotonic() - began)
        self.number += 1
        self.lives_now()

    def lives_now(self):
        self.pid, self.since = self.engine(), self.now()


# ---- the run --------------------------------------------------------------------------------------------------------------------------------


def make_topics(broker):
    admin = AdminClient(conf(broker))
    topics = {t: (n, KEPT) for t, n in kill.TOPICS.items()}
    topics.update({'short': (PARTITIONS, SHORT), 'zero': (PARTITIONS, SHORT), 'keyed': (KEYED_PARTITIONS, COMPACTED), 'quiet': (PARTITIONS, {})})
    for f in admin.create_topics([NewTopic(t, n, 1, config={k: str(v) for k, v in c.items()}) for t, (n, c) in topics.items()]).values():
        f.result(20)


def set_internal(broker):
    """So that the broker's own topics are compacted within such a run."""
    admin = AdminClient(conf(broker))
    for topic in ('__consumer_offsets', '__transaction_state'):
        until_it_works(lambda: admin.alter_configs([ConfigResource('topic', topic, set_config={k: str(v) for k, v in INTERNAL.items()})]))


def run(broker, node, clients, minutes, chance):
    """Until the time is over: members die, the engine dies, and all is looked at each second. What should not have happened."""
    whole, wrong, long = minutes * 60, [], False
    base = max(10.0, min(55.0, whole / 25))
    end_of_life = base
    next_death = 4.0
    while node.now() < whole:
        time.sleep(1)
        node.sample(long)
        clients.come_back()
        if node.now() >= next_death and clients.running:
            clients.one_dies()
            next_death = node.now() + chance.uniform(3, 8)
        wrong = clients.ended() + (['the engine'] if node.engine() != node.pid else [])
        if wrong:
            break
        if node.now() >= end_of_life:
            node.end_life(chance.choice(['killed', 'killed', 'killed', 'killed whole', 'stopped', 'stopped']), broker)
            long = not long and 0.4 < node.now() / whole < 0.7 and not any(s['long'] for s in node.samples)
            end_of_life = node.now() + (whole / 5 if long else chance.uniform(0.7, 1.4) * base)
    return wrong, base


def tell_grown(name, first, last, limit):
    if not first or not last:
        say(False, f'{name}: there is nothing to compare')
        return
    first, last = statistics.median(first), statistics.median(last)
    say(last - first <= limit(first), f'{name}: {first:.0f} first, {last:.0f} last, at most {limit(first):.0f} more')


# A segment is open once it has been read or written, and stays so (the log's own bound is files_max): those may be as many as there are files, see
# judge_segments(). Nothing else may grow.
LIMITS = {('engine', 'rss'): lambda first: 4 * MIB + first * 0.1, ('engine', 'fds'): lambda first: 48 + first * 0.1, ('engine', 'deleted'): lambda first: 16,
          ('sup', 'rss'): lambda first: MIB, ('sup', 'fds'): lambda first: 2, ('sup', 'threads'): lambda first: 0}


def judge_growth(node, whole, base):
    for (what, key), limit in LIMITS.items():
        same_age = [s for s in node.samples if s['of'] == what and not s['long'] and 0.4 * base <= s['age'] <= 0.7 * base]
        tell_grown(f'{what}, {key}, at the same age of its lives', [s[key] for s in same_age if s['at'] < whole / 3], [s[key] for s in same_age if s['at'] > whole * 2 / 3], limit)
        long = [s for s in node.samples if s['of'] == what and s['long'] and s['age'] > whole / 50]
        tell_grown(f'{what}, {key}, within a long life', [s[key] for s in long if s['age'] < whole / 15], [s[key] for s in long if s['age'] > whole / 7.5], limit)
    most = max([s['threads'] for s in node.samples if s['of'] == 'engine'], default=0)
    say(0 < most <= THREADS_MAX, f'engine: {most} threads at most, the bound is {THREADS_MAX}')


def judge_segments(node):
    """No file of a segment is open twice, or when it is gone."""
    worst = max((s for s in node.samples if s['of'] == 'engine'), key=lambda s: s['segments'] - s['files'])
    say(worst['segments'] <= worst['files'] + 8, f"engine: {worst['segments']} files of segments are open where {worst['files']} are on disk, and 8 may have come or gone between the looks")


def judge_disk(node):
    most = collections.Counter()
    for at, used in node.disk:
        most |= used
    for name, bound in DISK.items():
        say(0 < most[name] <= bound, f'on disk {name}*: {most[name] / MIB:.1f} MiB at most, the bound is {bound / MIB:.0f}')
    for _ in range(60):  # what is gone is removed soon
        left = [n for n in os.listdir(node.data / 'log') if n.startswith('brief-')]
        if not left:
            break
        time.sleep(1)
    say(not left, f'nothing of deleted topics is left on disk {left[:4]}')


def table(node, whole):
    print('# minutes  engine KiB  fds  deleted  segments of files  threads  sup KiB  fds   disk MiB: ' + ' '.join(DISK))
    for i in range(10):
        def part(of, key):
            return statistics.median([s[key] for s in node.samples if s['of'] == of and i <= s['at'] * 10 / whole < i + 1] or [0])
        used = [u for at, u in node.disk if i <= at * 10 / whole < i + 1]
        print(f'# {whole / 60 * (i + 1) / 10:7.1f} {part("engine", "rss") / 1024:11.0f} {part("engine", "fds"):4.0f} {part("engine", "deleted"):8.0f} {part("engine", "segments"):9.0f} {part("engine", "files"):8.0f} {part("engine", "threads"):8.0f} {part("sup", "rss") / 1024:8.0f} {part("sup", "fds"):4.0f}   '
              + ' '.join(f'{statistics.median([u[name] for u in used] or [0]) / MIB:.1f}' for name in DISK), flush=True)


def last_of_all(broker, clients, logs):
    """The idle consumer gets what comes at last; then all end."""
    p = Producer(conf(broker, acks='all'))
    p.produce('quiet', b'at last')
    p.flush(20)
    for _ in range(40):
        if os.path.exists(f'{logs}/idle0.jsonl') and 'at' in pathlib.Path(f'{logs}/idle0.jsonl').read_text():
            break
        time.sleep(0.5)
    else:
        say(False, 'the idle consumer gets what comes at last')
    for name in list(clients.dead):
        clients.dead[name] = 0
    clients.come_back()
    kill.end_clients(clients.all())


def history_of(broker, logs):
    """kill.py's, with what retention took away as those saw it who read all the time."""
    final, committed = (kill.read_all(broker, isolation, 'earliest') for isolation in ('read_uncommitted', 'read_committed'))
    history = list(kill.histories(logs))
    for who, events in history:
        for e in events if who.startswith('watcher') else ():
            if e['ev'] == 'read' and e['topic'] == 'short':
                for log in (final, committed):
                    log['short', e['p']].setdefault(e['o'], e['v'])
    for log in (final, committed):
        for p in range(PARTITIONS):
            log['short', p] = dict(sorted(log['short', p].items()))
    return history, final, committed


def judge_clients(history):
    """What keyed and brief found by themselves, and whether there was enough of everything."""
    counts = collections.Counter()
    for who, events in history:
        for e in events:
            counts[who, e['ev']] += 1
            if e['ev'] == 'fault':
                say(False, f'{who}: {e["what"]}')
    for who in ('keyed0', 'brief0'):
        say(counts[who, 'round'] > 0, f'{who}: {counts[who, "round"]} rounds, nothing wrong')
    for who in sorted({w for w, _ in counts if w.rstrip('0123456789') in kill.GROUPS}):
        say(counts[who, 'commit'] > 10 and counts[who, 'assigned'] > 1, f'{who}: {counts[who, "assigned"]} assignments, {counts[who, "read"]} records, {counts[who, "commit"]} commits')
    say(counts['slow0', 'read'] > 10, f'slow0: {counts["slow0", "read"]} records')
    say(counts['zero0', 'gone'] > 100, f'zero0: {counts["zero0", "gone"]} records sent')


def soak(args, folder, broker, command):
    chance, logs = random.Random(args.seed), f'{folder}/history'
    os.makedirs(logs, exist_ok=True)
    node, clients, whole = Watched(command, f'{folder}/node.log', args.data), None, args.minutes * 60
    node.start()
    try:
        kill.until_serves(broker)
        node.lives_now()
        make_topics(broker)
        clients = Clients(broker, logs, args.library, chance)
        set_internal(broker)
        wrong, base = run(broker, node, clients, args.minutes, chance)
        kill.until_serves(broker)
        say(not wrong, f'nobody ended by itself {wrong}')
        last_of_all(broker, clients, logs)
        table(node, whole)
        print(f'# the engine: {dict(node.ends)}; slowest, until it serves again, and of a stop: ' + ', '.join(f'{how} {s:.1f} s' for how, s in node.slowest.items())
              + f'; clients killed: {clients.kills}', flush=True)
        history, final, committed = history_of(broker, logs)
        acked, counts, read = kill.judge(broker, history, final, committed, '')
        say(acked > whole * 20 and counts['committed'] > whole / 2 and counts['aborted'] > whole / 20 and read > whole * 20, 'there was enough of everything to say so')
        judge_clients(history)
        judge_growth(node, whole, base)
        judge_segments(node)
        judge_disk(node)
    except SystemExit as e:
        say(False, str(e).removeprefix('not ok '))
    finally:
        for c in clients.all() if clients else ():
            if c.poll() is None:
                c.kill()
        node.stop()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--weir', default=str(ROOT / 'build/weir'))
    ap.add_argument('--minutes', type=float, default=30)
    ap.add_argument('--seed', type=int, default=int.from_bytes(os.urandom(4), 'big'))
    ap.add_argument('--library', default='')
    args = ap.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print('seed', args.seed, flush=True)
    if not args.library:
        print('skip the consumer protocol: no librdkafka that has it (--library)')
    os.makedirs(ROOT / 'build', exist_ok=True)
    folder, args.data = tempfile.mkdtemp(prefix='soak-log.', dir=ROOT / 'build'), tempfile.mkdtemp(prefix='weir-soak-log-')
    admin, kafka = kill.free_ports(2)
    pathlib.Path(f'{folder}/m.yaml').write_text('apiVersion: v1\nkind: Namespace\nmetadata: { name: soaked }\n', encoding='utf-8')
    command = [os.path.abspath(args.weir), 'up', '--data', args.data, '--admin', f'127.0.0.1:{admin}', '--kafka', f'127.0.0.1:{kafka}', '--etcd', 'off', '--access-log', 'off', '--kafka-set',
               'auto.create.topics.enable=false', f'{folder}/m.yaml']
    soak(args, folder, f'127.0.0.1:{kafka}', command)
    shutil.rmtree(args.data, ignore_errors=True)
    if kill.FAILED:
        print(f'FAILED: {len(kill.FAILED)} of what should hold does not: {"; ".join(kill.FAILED)[:400]}. What everybody did and said is in {folder}')
    else:
        shutil.rmtree(folder)
        print(f'GOOD: nothing was lost, nothing was there twice, nothing grew ({args.minutes:g} minutes)')
    sys.exit(1 if kill.FAILED else 0)


if __name__ == '__main__':
    if len(sys.argv) > 1 and sys.argv[1] == '--role':
        kill.LIFE = f'.{sys.argv[6]}'
        name = 'role_' + sys.argv[2]
        kill.run_role(globals().get(name) or getattr(kill, name), *sys.argv[3:6])
    main()
