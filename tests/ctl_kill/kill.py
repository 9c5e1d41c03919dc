#!/usr/bin/env python3
"""Clients and watchers of a control store whose engine is killed; then, whether everything that it answered is true.

usage: kill.py HOST:PORT HISTORY KILLS SEED COMMAND...      COMMAND starts the node
       kill.py --self-test

Six clients use registers (puts, compare-and-set, deletes), sets, lists and leases through the etcd API. Each writes down what it asked, when, what was answered, and when;
a call whose answer did not come is open. HISTORY is all of it, for the search for an order (src/ctl/linear_test.h). Three watchers follow everything, and come again at the revision
behind the last that they know; one of them leaves its stream every few events. History is compacted behind them.

Events have to be each of a transaction that somebody asked for, once, in order, those of a revision in one response, all of them (each key's version counts up by one), the same for every watcher;
what was acknowledged has to be among them at its revision; and what they add up to is what is in the store at the end. One who watches from the compacted past is told from where there is history,
and then sees the same from there on.
"""
import os, random, signal, subprocess, sys, threading, time
from collections import Counter

CLIENTS, WATCHERS = 6, 3
REGISTERS, MEMBERS, ITEMS, LEASE_KEYS, LEASES = 3, 12, 120, 3, 2
PART = 300          # so many calls, and the next keys are used: histories of one key stay short
TTL = 2

def say(good, name, why=''):
    print(('ok ' if good else 'not ok ') + name, flush=True)
    if not good:
        print('#   ' + str(why)[:1500], flush=True)

# ---- events -------------------------------------------------------------------------------------------------------------

def events_check(seen):
    """What is wrong with a watcher's events [(revision, key, value or None, create_revision, version)]; '' nothing."""
    state, last = {}, (0, '')
    for rev, key, value, create, version in seen:
        if rev < last[0]: return f'{key} at {rev} behind revision {last[0]}'
        if rev == last[0] and key in last[1]: return f'{key} twice at {rev}'
        last = (rev, last[1] + [key] if rev == last[0] else [key])
        old = state.get(key)
        if value is None:
            if not old and key in state: return f'{key} was deleted at {rev}, and it was not there'
            state[key] = None
        else:
            if key in state or version == 1:
                want = (old[1], old[2] + 1) if old else (rev, 1)
                if (create, version) != want: return f'{key} at {rev} was created at {create} and has version {version}: {want} follows what was seen'
            state[key] = (value, create, version)
    return ''

def final(seen):
    state = {}
    for rev, key, value, create, version in seen:
        if value is None: state.pop(key, None)
        else: state[key] = (value, rev, create, version)
    return state

def self_test():
    good = [(2, 'a', '1', 2, 1), (3, 'a', '2', 2, 2), (3, 'b', 'x', 3, 1), (5, 'a', None, 0, 0), (6, 'a', '3', 6, 1)]
    bad = {'one is left out': good[:1] + good[2:3] + [(4, 'a', '5', 2, 3)], 'one comes twice': good[:2] + good[1:], 'two are exchanged': [good[1], good[0]] + good[2:],
           'a deletion is left out': good[:3] + good[4:], 'deleted twice': good[:4] + [(6, 'a', None, 0, 0)]}
    say(events_check(good) == '', 'events that are right pass', events_check(good))
    for name, seen in bad.items():
        say(events_check(seen) != '', f'the check of events sees that {name}')

# ---- clients ---------------------------------------------------------------------------------------------------------------

class Run:
    def __init__(self, address, seed):
        self.address, self.lock, self.lines, self.changes, self.open_values = address, threading.Lock(), [], [], []
        self.calls, self.stop, self.last, self.leases, self.chance = 0, False, {}, [], random.Random(seed)
        self.errors = Counter()
        self.expiries, self.keeps, self.broken = [], [], []

    def number(self):
        with self.lock:
            self.calls += 1
            return self.calls

class Client(threading.Thread):
    def __init__(self, run, seed):
        super().__init__(daemon=True)
        self.run_, self.chance = run, random.Random(seed)
        self.channel = grpc.insecure_channel(run.address, options=[('grpc.initial_reconnect_backoff_ms', 20), ('grpc.min_reconnect_backoff_ms', 20), ('grpc.max_reconnect_backoff_ms', 50)])
        self.kv, self.lease = rpc.KVStub(self.channel), rpc.LeaseStub(self.channel)

    def run(self):
        kinds = [self.register] * 4 + [self.set] * 2 + [self.list] * 2 + [self.leased] * 2
        try:
            while not self.run_.stop:
                self.n = self.run_.number()
                self.part = self.n // PART
                self.chance.choice(kinds)()
                time.sleep(self.chance.random() * .004)
        except Exception as e: # an answer that none of these calls may have
            self.run_.broken.append(repr(e))

    def call(self, kind, key, what, a, b, fn, result, changed=()):
        """Asks and writes down. result(answer): (number, list). changed: (key, value) that the answer's revision has to have, when it did something."""
        asked, answered, number, items = time.monotonic_ns(), '-', -1, []
        try:
            answer = fn()
            answered = time.monotonic_ns()
            number, items = result(answer)
        except grpc.RpcError as e:
            text = e.details() or ''
            if e.code() == grpc.StatusCode.NOT_FOUND or 'lease already exists' in text:
                answered, number = time.monotonic_ns(), 0
            elif e.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL):
                raise
            else:
                with self.run_.lock: self.run_.errors[f'{e.code().name} {text[:60]}'] += 1
        if answered == '-' and what in ('read', 'members', 'items', 'keys'):
            return None # it changed nothing, and nobody saw it
        line = f'{kind} {key} {asked} {answered} {what} {a} {b} {number}' + (' ' + ','.join(map(str, items)) if items else '')
        with self.run_.lock:
            self.run_.lines.append(line)
            for k, v in changed:
                if answered == '-': self.run_.open_values.append((k, v))
                elif number != 0 or what not in ('cas', 'hang'): self.run_.changes.append((answer.header.revision, k, v))
        return (asked, answered, number)

    def put(self, key, value, **more):
        return lambda: self.kv.Put(rpc.PutRequest(key=key.encode(), value=str(value).encode(), **more), timeout=5, wait_for_ready=True)

    def range(self, prefix, **more):
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        return lambda: self.kv.Range(rpc.RangeRequest(key=prefix.encode(), range_end=end.encode(), **more), timeout=5, wait_for_ready=True)

    def register(self):
        key = self.part * REGISTERS + self.chance.randrange(REGISTERS)
        name, what, last = f'k/r{key}', self.chance.random(), self.run_.last.get(key, 0)
        if what < .4:
            def value(a):
                v = int(a.kvs[0].value) if a.kvs else 0
                self.run_.last[key] = v
                return v, []
            self.call('register', key, 'read', 0, 0, lambda: self.kv.Range(rpc.RangeRequest(key=name.encode()), timeout=5, wait_for_ready=True), value)
        elif what < .65:
            self.call('register', key, 'write', self.n, 0, self.put(name, self.n, prev_kv=True), lambda a: (int(a.prev_kv.value or 0), []), [(name, str(self.n))])
        elif what < .72:
            self.call('register', key, 'clear', 0, 0, lambda: self.kv.DeleteRange(rpc.DeleteRangeRequest(key=name.encode()), timeout=5, wait_for_ready=True), lambda a: (a.deleted, []))
        else:
            compare = rpc.Compare(key=name.encode(), target=rpc.Compare.VALUE, result=rpc.Compare.EQUAL, value=str(last).encode())
            then = rpc.RequestOp(request_put=rpc.PutRequest(key=name.encode(), value=str(self.n).encode()))
            if last: self.call('register', key, 'cas', last, self.n, lambda: self.kv.Txn(rpc.TxnRequest(compare=[compare], success=[then]), timeout=5, wait_for_ready=True),
                               lambda a: (int(a.succeeded), []), [(name, str(self.n))])

    def set(self):
        a, b, what, prefix = self.chance.randrange(MEMBERS), self.chance.randrange(MEMBERS), self.chance.random(), f'k/s{self.part}/'
        name = f'{prefix}{a:02}'
        if what < .3:
            self.call('set', self.part, 'members', 0, 0, self.range(prefix), lambda r: (-1, [int(k.key.split(b'/')[-1]) for k in r.kvs]))
        elif what < .6 or a == b:
            self.call('set', self.part, 'add', a, 0, self.put(name, self.n, prev_kv=True), lambda r: (int(r.HasField('prev_kv')), []), [(name, str(self.n))])
        elif what < .8:
            self.call('set', self.part, 'remove', a, 0, lambda: self.kv.DeleteRange(rpc.DeleteRangeRequest(key=name.encode()), timeout=5, wait_for_ready=True), lambda r: (r.deleted, []))
        else:
            to = f'{prefix}{b:02}'
            ops = [rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=name.encode())), rpc.RequestOp(request_put=rpc.PutRequest(key=to.encode(), value=str(self.n).encode()))]
            self.call('set', self.part, 'move', a, b, lambda: self.kv.Txn(rpc.TxnRequest(success=ops), timeout=5, wait_for_ready=True),
                      lambda r: (r.responses[0].response_delete_range.deleted, []), [(to, str(self.n))])

    def list(self):
        prefix = f'k/l{self.part}/'
        a = self.n % PART
        if self.chance.random() < .4 or a > 250:
            self.call('list', self.part, 'items', 0, 0, self.range(prefix, sort_order=rpc.RangeRequest.ASCEND, sort_target=rpc.RangeRequest.CREATE),
                      lambda r: (-1, [int(k.key.split(b'/')[-1]) for k in r.kvs]))
        else:
            self.call('list', self.part, 'append', a, 0, self.put(f'{prefix}{a}', self.n), lambda r: (-1, []), [(f'{prefix}{a}', str(self.n))])

    def leased(self):
        lease = self.part * LEASES + self.chance.randrange(LEASES)
        what, a, prefix = self.chance.choice(['grant', 'grant', 'revoke', 'keep', 'hang', 'hang', 'hang', 'put', 'keys', 'keys', 'keys']), self.chance.randrange(LEASE_KEYS), f'k/h{lease}/'
        name, one = f'{prefix}{a}', lambda r: (1, [])
        if what == 'grant':
            seen = self.call('lease', lease, what, 0, 0, lambda: self.lease.LeaseGrant(rpc.LeaseGrantRequest(ID=lease + 1, TTL=TTL), timeout=5, wait_for_ready=True), one)
            if seen and seen[2] != 0: self.run_.expiries.append((lease, seen[0], seen[1]))
        elif what == 'revoke':
            self.call('lease', lease, what, 0, 0, lambda: self.lease.LeaseRevoke(rpc.LeaseRevokeRequest(ID=lease + 1), timeout=5, wait_for_ready=True), one)
        elif what == 'keep':
            keep = lambda: next(iter(self.lease.LeaseKeepAlive(iter([rpc.LeaseKeepAliveRequest(ID=lease + 1)]), timeout=5, wait_for_ready=True)))
            seen = self.call('lease', lease, what, 0, 0, keep, lambda r: (int(r.TTL > 0), []))
            if seen and seen[2] == 1: self.run_.keeps.append((lease, seen[0], seen[1]))
        elif what == 'hang':
            self.call('lease', lease, what, a, 0, self.put(name, self.n, lease=lease + 1), one, [(name, str(self.n))])
        elif what == 'put':
            self.call('lease', lease, what, a, 0, self.put(name, self.n), one, [(name, str(self.n))])
        else:
            self.call('lease', lease, 'keys', 0, 0, self.range(prefix), lambda r: (-1, [2 * int(k.key.split(b'/')[-1]) + (k.lease != 0) for k in r.kvs]))

    def read_all(self):
        """Once more everything: what was acknowledged has to be there."""
        parts = self.run_.calls // PART + 1
        for key in range(parts * REGISTERS):
            self.call('register', key, 'read', 0, 0, lambda: self.kv.Range(rpc.RangeRequest(key=f'k/r{key}'.encode()), timeout=5), lambda a: (int(a.kvs[0].value) if a.kvs else 0, []))
        for part in range(parts):
            numbers = lambda r: (-1, [int(k.key.split(b'/')[-1]) for k in r.kvs])
            self.call('set', part, 'members', 0, 0, self.range(f'k/s{part}/'), numbers)
            self.call('list', part, 'items', 0, 0, self.range(f'k/l{part}/', sort_order=rpc.RangeRequest.ASCEND, sort_target=rpc.RangeRequest.CREATE), numbers)
        for lease in range(parts * LEASES):
            self.call('lease', lease, 'keys', 0, 0, self.range(f'k/h{lease}/'), lambda r: (-1, [2 * int(k.key.split(b'/')[-1]) + (k.lease != 0) for k in r.kvs]))

def expire_lines(run):
    """A lease that was granted may go by itself once, and not before its time is over: that of its grant, or of the last time it was kept alive, if that was asked for behind the grant and
    answered before the time was over. The engine's restarts only give it more."""
    ttl = TTL * 1000000000
    for lease, asked, answered in run.expiries:
        due = asked + ttl
        for of, kept, told in sorted(run.keeps, key=lambda k: k[2]):
            if of == lease and answered != '-' and kept > answered and told < due: due = max(due, kept + ttl)
        yield f'lease {lease} {due} - expire 0 0 -1'

# ---- watchers ------------------------------------------------------------------------------------------------------------------

class Watcher(threading.Thread):
    def __init__(self, run, number, start=1):
        super().__init__(daemon=True)
        self.run_, self.number, self.next, self.events, self.torn, self.streams, self.compacted, self.over = run, number, start, [], '', 0, [], False
        self.channel = grpc.insecure_channel(run.address, options=[('grpc.initial_reconnect_backoff_ms', 20), ('grpc.min_reconnect_backoff_ms', 20), ('grpc.max_reconnect_backoff_ms', 50)])

    def take(self, response):
        first = response.events[0].kv.mod_revision
        if first < self.next: self.torn = f'revision {first} again, or in two responses; {self.next} was next'
        for e in response.events:
            k = e.kv
            gone = e.type == 1
            self.events.append((k.mod_revision, k.key.decode(), None if gone else k.value.decode(), k.create_revision, k.version))
        self.next = response.events[-1].kv.mod_revision + 1

    def run(self):
        while not self.over:
            leave = threading.Event()
            def asks():
                yield rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=b'k/', range_end=b'k0', start_revision=self.next))
                leave.wait()
            responses, n = rpc.WatchStub(self.channel).Watch(asks(), wait_for_ready=True), 0
            self.streams += 1
            try:
                for r in responses:
                    if r.canceled:
                        self.compacted.append((self.next, r.compact_revision))
                        self.next = max(self.next, r.compact_revision)
                        break
                    if r.events: self.take(r)
                    n += len(r.events)
                    if self.over or (self.number == 0 and n > 40): break # one leaves its stream again and again
            except grpc.RpcError:
                pass
            leave.set()
            responses.cancel()

# ---- the node ---------------------------------------------------------------------------------------------------------------------

def engine_of(pid):
    lines = subprocess.run(['ps', '-o', 'pid=,args=', '--ppid', str(pid)], capture_output=True, text=True).stdout.splitlines()
    found = [int(l.split()[0]) for l in lines if 'weir: engine' in l]
    return found[0] if found else None

def until(what, seconds=20):
    end = time.time() + seconds
    while time.time() < end:
        if what(): return True
        time.sleep(.01)
    return False

class Node:
    """The node; its engine is killed, and every fourth time all of it: the supervisor waits the longer the more engines in a row live only for a moment."""
    def __init__(self, command):
        self.command = command
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr)

    def kill(self, turn):
        pid = engine_of(self.process.pid)
        if not pid: return False
        if turn % 4 == 3:
            self.process.kill()
            self.process.wait()
            self.start()
        else:
            os.kill(pid, signal.SIGKILL)
        return until(lambda: engine_of(self.process.pid) not in (None, pid))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try: self.process.wait(30)
        except subprocess.TimeoutExpired: self.process.kill()

def kills(run, node, n):
    done = 0
    for turn in range(n):
        before, some = len(run.changes), 40 + run.chance.randrange(60)
        if not until(lambda: len(run.changes) >= before + some): break
        time.sleep(run.chance.random() * .01)
        if not node.kill(turn): break
        done += 1
    before = len(run.changes)
    until(lambda: len(run.changes) >= before + 200)
    return done

def compactor(run, watchers, kv, counted):
    while not run.stop:
        at = min(w.next for w in watchers) - 100
        if at > 1:
            try:
                kv.Compact(rpc.CompactionRequest(revision=at), timeout=5)
                counted.append(at)
            except grpc.RpcError:
                pass # killed, or it was compacted so far by a call whose answer did not come
        time.sleep(.4)

def ended(run, watchers, revision):
    """All watchers know everything."""
    until(lambda: all(w.next > revision or (w.events and w.events[-1][0] >= revision) for w in watchers))
    for w in watchers: w.over = True

def watchers_report(run, watchers, kvs):
    for w in watchers: say(not w.torn and not w.compacted and not events_check(w.events), f'watcher {w.number}: events once, in order, none left out ({len(w.events)} on {w.streams} streams)',
                           w.torn or w.compacted or events_check(w.events))
    say(all(w.events == watchers[0].events for w in watchers), 'all watchers saw the same')
    at = {(rev, key): value for rev, key, value, _, _ in watchers[0].events}
    lost = [c for c in run.changes if at.get((c[0], c[1])) != c[2]]
    say(run.changes and not lost, f'what was acknowledged is among them, at its revision ({len(run.changes)})', lost[:5])
    puts = Counter((key, value) for _, key, value, _, _ in watchers[0].events if value is not None)
    known = set((k, v) for _, k, v in run.changes) | set(run.open_values)
    say(max(puts.values()) == 1 and set(puts) <= known, 'no put was made twice, and none that nobody asked for', [p for p in puts if puts[p] > 1 or p not in known][:5])
    made = sum(p in puts for p in run.open_values)
    print(f'# {len(run.open_values)} puts without an answer, {made} of them made; {dict(run.errors)}')
    have = {k.key.decode(): (k.value.decode(), k.mod_revision, k.create_revision, k.version) for k in kvs}
    say(have == final(watchers[0].events), f'events add up to what is there ({len(have)} keys)', [k for k in set(have) ^ set(final(watchers[0].events))][:5])

def main(address, history, count, seed, command):
    run = Run(address, seed)
    node = Node(command)
    try:
        kv = rpc.KVStub(grpc.insecure_channel(address, options=[('grpc.max_reconnect_backoff_ms', 50), ('grpc.min_reconnect_backoff_ms', 20), ('grpc.initial_reconnect_backoff_ms', 20)]))
        kv.Put(rpc.PutRequest(key=b'first', value=b'x'), timeout=20, wait_for_ready=True)
        watchers, compactions = [Watcher(run, i) for i in range(WATCHERS)], []
        clients = [Client(run, seed * 100 + i) for i in range(CLIENTS)]
        helper = threading.Thread(target=compactor, args=(run, watchers, kv, compactions), daemon=True)
        for t in watchers + clients + [helper]: t.start()
        done = kills(run, node, count)
        run.stop = True
        for t in clients + [helper]: t.join(30)
        say(not run.broken, 'clients got no answers but those that their calls may have', run.broken)
        say(done == count, f'what was killed had a successor, {count} times', done)
        until(lambda: not kv.Range(rpc.RangeRequest(key=b'k/h', range_end=b'k/i'), timeout=5, wait_for_ready=True).kvs or
              not any(k.lease for k in kv.Range(rpc.RangeRequest(key=b'k/h', range_end=b'k/i'), timeout=5).kvs), TTL + 5)
        clients[0].read_all()
        everything = kv.Range(rpc.RangeRequest(key=b'k/', range_end=b'k0'), timeout=5)
        kv.Put(rpc.PutRequest(key=b'k/z', value=b'end'), timeout=5)
        run.changes.append((everything.header.revision + 1, 'k/z', 'end'))
        everything = kv.Range(rpc.RangeRequest(key=b'k/', range_end=b'k0'), timeout=5)
        ended(run, watchers, everything.header.revision)
        watchers_report(run, watchers, everything.kvs)
        late = Watcher(run, 'late', 1)
        late.start()
        ended(run, [late], everything.header.revision)
        start = late.compacted[0][1] if late.compacted else 0
        say(compactions and start >= max(compactions), f'who watches the compacted past is told from where there is history (revision {start})', (compactions, late.compacted))
        same = [e for e in watchers[0].events if e[0] >= start]
        say(same and late.events == same and not late.torn, 'the last watcher sees the same from there on', (len(same), len(late.events), late.torn))
        with open(history, 'w') as f:
            f.write('\n'.join(run.lines + list(expire_lines(run))) + '\n')
    finally:
        node.stop()

if __name__ == '__main__':
    if sys.argv[1:] == ['--self-test']:
        self_test()
    else:
        import grpc
        from etcd3 import etcdrpc as rpc
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
