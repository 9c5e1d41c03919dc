"""Debian's python3-etcd3 does what its users do.

usage: client.py PORT
"""
import sys
import threading

import etcd3

c = etcd3.client(host='127.0.0.1', port=int(sys.argv[1]), timeout=20)

c.put('py/a', 'one')
value, meta = c.get('py/a')
assert value == b'one' and meta.key == b'py/a' and meta.version == 1, (value, meta)
assert c.get('py/none') == (None, None)
assert c.put_if_not_exists('py/a', 'two') is False and c.put_if_not_exists('py/b', 'two') is True
assert c.replace('py/b', 'two', 'three') is True and c.replace('py/b', 'two', 'four') is False
assert [v for v, _ in c.get_prefix('py/', sort_order='descend')] == [b'three', b'one']
assert [m.key for _, m in c.get_range('py/a', 'py/b')] == [b'py/a']

ok, answers = c.transaction(compare=[c.transactions.value('py/a') == 'one', c.transactions.version('py/b') > 1],
                            success=[c.transactions.put('py/c', 'x'), c.transactions.get('py/a')], failure=[c.transactions.delete('py/a')])
assert ok and answers[1][0][0] == b'one', (ok, answers)

# a watch sees what others do, in order, and ends when it is told to
events, cancel = c.watch_prefix('py/w/')
other = etcd3.client(host='127.0.0.1', port=int(sys.argv[1]))
for i in range(200):
    other.put(f'py/w/{i % 7}', str(i))
other.delete_prefix('py/w/')
seen = [next(events) for _ in range(207)]
assert [e.value for e in seen[:200]] == [str(i).encode() for i in range(200)]
assert all(isinstance(e, etcd3.events.DeleteEvent) for e in seen[200:])
cancel()

# leases: what hangs on one goes with it
lease = c.lease(60)
c.put('py/l', 'x', lease)
assert list(c.get_lease_info(lease.id).keys) == [b'py/l'] and lease.granted_ttl == 60 and 0 < lease.remaining_ttl <= 60
assert [r.TTL for r in lease.refresh()] == [60]
gone = threading.Event()
c.add_watch_callback('py/l', lambda r: gone.set() if any(isinstance(e, etcd3.events.DeleteEvent) for e in r.events) else None)
lease.revoke()
assert gone.wait(20) and c.get('py/l') == (None, None)

# a lock keeps two apart
held, order = c.lock('py', ttl=30), []
held.acquire()


def second():
    with etcd3.client(host='127.0.0.1', port=int(sys.argv[1])).lock('py', ttl=30):
        order.append('second')


t = threading.Thread(target=second)
t.start()
order.append('first')
held.release()
t.join(20)
assert order == ['first', 'second'], order

revision = c.get('py/a')[1].response_header.revision
c.compact(revision)
events, cancel = c.watch('py/a', start_revision=1)
try:
    next(events)
    raise AssertionError('a watch of the compacted past goes on')
except etcd3.exceptions.RevisionCompactedError as e:
    assert e.compacted_revision == revision, e
s = c.status()
assert s.version == '3.5.0' and s.db_size > 0 and s.leader.name
assert [m.name for m in c.members] == [s.leader.name]
assert c.delete_prefix('py/').deleted >= 3
print('all of it')
