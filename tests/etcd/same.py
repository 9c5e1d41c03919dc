"""The same requests to etcd and to Weir, one by one: every answer, every error and every event has to be the same.

usage: same.py ETCD_PORT WEIR_PORT SEED REQUESTS

Requests are made by chance from a few keys, so that they meet: ranges with all their options, puts, deletions, transactions in transactions,
leases, compaction. Between them watches from the past are read. What may differ is blanked: ids of cluster and member, the term. Prints each
difference with the request, and ends with status 1.
"""
import random
import re
import sys

import grpc
from etcd3 import etcdrpc as rpc

KEYS = [b'a', b'a\x00', b'a/1', b'a/2', b'b', b'b\xff', b'c', b'\xff']
ENDS = [b'', b'', b'', b'\x00', b'b', b'c', b'a0', b'\xff\xff']
LEASES = [101, 102, 103]


class Server:
    def __init__(self, port):
        self.channel = grpc.insecure_channel(f'127.0.0.1:{port}')
        self.kv, self.lease, self.watch = rpc.KVStub(self.channel), rpc.LeaseStub(self.channel), rpc.WatchStub(self.channel)

    def ask(self, service, method, message):
        try:
            return plain(getattr(getattr(self, service), method)(message, timeout=20))
        except grpc.RpcError as e:
            return f'{e.code().name}: {e.details()}'

    def events(self, create, enough):
        """What a watch from the past tells, until enough(all of it) or its end."""
        def requests():
            yield rpc.WatchRequest(create_request=create)
            done.wait(20)
        import threading
        done, out = threading.Event(), []
        for r in self.watch.Watch(requests(), timeout=20):
            if r.created:
                out.append('created' + (' canceled' if r.canceled else ''))
            elif r.canceled:
                out.append(f'canceled {r.compact_revision}')
            out += [str(e) for e in r.events]
            if r.canceled or enough(r):
                break
        done.set()
        return '\n'.join(out)


def plain(m):
    h = getattr(m, 'header', None)
    if h is not None:
        h.cluster_id = h.member_id = h.raft_term = 0
    return f'{type(m).__name__}\n{m}'


def a_range(r, revision):
    near = r.choice([0, 0, 0, revision, revision - r.randrange(12), revision + r.choice([1, 3]), -1])
    bounds = {f: r.randrange(1, revision + 2) for f in ('min_mod_revision', 'max_mod_revision', 'min_create_revision', 'max_create_revision') if r.random() < .08}
    order, target = r.randrange(3), r.randrange(5)
    limit = 0 if target and not order else r.choice([0, 0, 0, 1, 2, 3])  # without an order etcd sorts limit + 1 keys, and then leaves one out
    return rpc.RangeRequest(key=r.choice(KEYS + [b'0', b'']), range_end=r.choice(ENDS), limit=limit, revision=near, sort_order=order, sort_target=target,
                            keys_only=r.random() < .1, count_only=r.random() < .1,
                            serializable=r.random() < .2, **bounds)


def a_put(r):
    ignore_value, ignore_lease = r.random() < .06, r.random() < .06
    return rpc.PutRequest(key=r.choice(KEYS + [b''] if r.random() < .1 else KEYS), prev_kv=r.random() < .4, ignore_value=ignore_value, ignore_lease=ignore_lease,
                          value=b'' if ignore_value and r.random() < .8 else r.choice([b'', b'1', b'22', b'333', bytes(range(256))]),
                          lease=0 if ignore_lease and r.random() < .8 else r.choice([0, 0, 0] + LEASES))


def a_delete(r, ends=ENDS):
    return rpc.DeleteRangeRequest(key=r.choice(KEYS), range_end=r.choice(ends), prev_kv=r.random() < .5)


def a_compare(r, revision):
    c = rpc.Compare(key=r.choice(KEYS + [b'']) if r.random() < .1 else r.choice(KEYS), result=r.randrange(4), target=r.randrange(5))
    if 'range_end' in c.DESCRIPTOR.fields_by_name and r.random() < .3:
        c.range_end = r.choice(ENDS)
    number = r.choice([0, 1, 2, revision, revision - r.randrange(9)] + LEASES)
    names = {0: 'version', 1: 'create_revision', 2: 'mod_revision', 4: 'lease'}
    if c.target == 3:
        c.value = r.choice([b'', b'1', b'22'])
    else:
        setattr(c, names[c.target], number)
    return c


def a_txn(r, revision, depth=0):
    def op():
        kind = r.randrange(4 if depth < 2 else 3)
        if kind == 0:
            return rpc.RequestOp(request_range=a_range(r, revision))
        if kind == 1:
            return rpc.RequestOp(request_put=a_put(r))
        if kind == 2:
            return rpc.RequestOp(request_delete_range=a_delete(r, [e for e in ENDS if e != b'\x00']))  # etcd does not see that such a range has a key that is put
        return rpc.RequestOp(request_txn=a_txn(r, revision, depth + 1))
    few = [0, 1, 1, 2, 3]
    return rpc.TxnRequest(compare=[a_compare(r, revision) for _ in range(r.choice([0, 1, 1, 2]))],
                          success=[op() for _ in range(r.choice(few))], failure=[op() for _ in range(r.choice(few))])


def a_request(r, revision, compacted):
    kind = r.random()
    if kind < .3:
        return 'kv', 'Range', a_range(r, revision)
    if kind < .55:
        return 'kv', 'Put', a_put(r)
    if kind < .65:
        return 'kv', 'DeleteRange', a_delete(r)
    if kind < .88:
        return 'kv', 'Txn', a_txn(r, revision)
    if kind < .93:
        return 'lease', 'LeaseGrant', rpc.LeaseGrantRequest(TTL=r.choice([1000, 2000, 10**10]), ID=r.choice(LEASES))
    if kind < .95:
        return 'lease', 'LeaseRevoke', rpc.LeaseRevokeRequest(ID=r.choice(LEASES))
    if kind < .97:
        return 'lease', 'LeaseTimeToLive', rpc.LeaseTimeToLiveRequest(ID=r.choice(LEASES), keys=True)
    if kind < .98:
        return 'lease', 'LeaseLeases', rpc.LeaseLeasesRequest()
    return 'kv', 'Compact', rpc.CompactionRequest(revision=max(1, r.choice([revision - 20, revision - 5, compacted, revision + 1])), physical=True)


def a_watch(r, revision, compacted):
    key, end = r.choice([(b'0', b'\x00'), (b'a', b'b'), (b'a', b''), (b'b', b'\x00')])
    return rpc.WatchCreateRequest(key=key, range_end=end, start_revision=max(1, r.randrange(max(1, compacted - 2), revision + 1)), prev_kv=r.random() < .5,
                                  filters=r.choice([[], [], [0], [1]]))


def without_own(text):
    """Weir's own objects have leases as well."""
    return re.sub(r'leases {\n  ID: (\d+)\n}\n', lambda m: m[0] if int(m[1]) in LEASES else '', text)


def in_order(text):
    """Leases, and the keys of a lease, are listed in no order that is promised."""
    return '\n'.join(sorted(text.split('\n')))


def forget_time(text):
    """The remaining time of a lease is not the same at two moments."""
    return '\n'.join(line for line in text.split('\n') if not line.startswith('TTL: ') or line == 'TTL: -1')


def begin_alike(etcd, weir):
    """Weir has objects and events of its own in the store: etcd gets them in the same transactions. The revision after them."""
    last = weir.kv.Range(rpc.RangeRequest(key=b'a'), timeout=20).header.revision
    create = rpc.WatchCreateRequest(key=b'\0', range_end=b'\0', start_revision=1)
    for r in weir.watch.Watch(iter([rpc.WatchRequest(create_request=create)]), timeout=20):
        for revision in sorted({e.kv.mod_revision for e in r.events}):
            puts = [e.kv for e in r.events if e.kv.mod_revision == revision]
            etcd.kv.Txn(rpc.TxnRequest(success=[rpc.RequestOp(request_put=rpc.PutRequest(key=kv.key, value=kv.value)) for kv in puts]), timeout=20)
            if revision == last:
                return last


def main():
    servers = [Server(p) for p in sys.argv[1:3]]
    r, n, wrong, revision, compacted, errors = random.Random(int(sys.argv[3])), int(sys.argv[4]), 0, 1, 0, set()
    revision = begin_alike(*servers)

    def compare(what, answers):
        nonlocal wrong
        if answers[0] != answers[1]:
            wrong += 1
            print(f'--- {what}\netcd: {answers[0]}\nWeir: {answers[1]}\n', flush=True)

    for i in range(n):
        service, method, message = a_request(r, revision, compacted)
        answers = [s.ask(service, method, message) for s in servers]
        if method == 'LeaseTimeToLive':
            answers = [forget_time(a) for a in answers]
        if method in ('LeaseLeases', 'LeaseTimeToLive'):
            answers = [in_order(without_own(a)) for a in answers]
        compare(f'{i} {method} {message}', answers)
        if ': ' in answers[0].split('\n')[0]:
            errors.add(answers[0])
        elif method == 'Compact':
            compacted = message.revision
        else:
            revision = max([revision] + [int(line.split(':')[1]) for line in answers[0].split('\n') if line.startswith('  revision: ')])
        if i % 100 == 99:
            # the last event is one that every watch sees
            watch = a_watch(r, revision, compacted)
            mark = [s.ask('kv', 'Txn', rpc.TxnRequest(success=[rpc.RequestOp(request_put=rpc.PutRequest(key=k, value=b'mark')) for k in (b'a', b'b')])) for s in servers]
            compare('mark', mark)
            gone = [s.ask('kv', 'Txn', rpc.TxnRequest(success=[rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=k)) for k in (b'a', b'b')])) for s in servers]
            compare('gone', gone)
            revision += 2
            last = revision if 1 not in watch.filters else revision - 1
            compare(f'{i} watch {watch}', [s.events(watch, lambda x: any(e.kv.mod_revision == last for e in x.events)) for s in servers])
        if wrong > 5:
            break
    print(f'{i + 1} requests, revision {revision}, errors met: {len(errors)}, {wrong} differences')
    for e in sorted(errors):
        print(f'  {e}')
    return 1 if wrong else 0


sys.exit(main())
