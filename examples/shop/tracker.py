"""tracker: the read model of orders. Reads `orders`, `payments` and `shipments`, keeps `order-status`, a compacted topic that
has the newest state of each order.

The four topics have the same number of partitions and the same keys, and the assignment is by range: whoever has partition
3 of one has partition 3 of all, and so all events of an order. Their order across topics is not given: an event may be seen
before the one that caused it, so a state only ever gains. What a partition holds is read again by whoever gets it.

Environment: KAFKA_BOOTSTRAP_SERVERS, PORT.
"""
from common import serve
from events import Follower, Reactor

RANK = {'requested': 0, 'paid': 1, 'declined': 1, 'shipped': 2}
STATE = {'OrderRequested': 'requested', 'PaymentTaken': 'paid', 'PaymentDeclined': 'declined', 'OrderShipped': 'shipped'}
KEPT = ('sku', 'quantity', 'total_cents', 'currency', 'created', 'charge', 'parcel')

states = {}  # order -> its state, of the partitions that this replica has


def assigned(partitions):
    states.clear()
    if partitions:
        Follower('order-status', states.__setitem__, partitions).close()


def happened(topic, order, event, traceparent):
    was = states.get(order, {})
    now = {**was, **{k: event[k] for k in KEPT if k in event}, 'id': order}
    state = STATE[event['type']]
    if 'state' not in was or RANK[state] > RANK[was['state']]:
        now['state'] = state
    if now == was:
        return []
    states[order] = now
    return [('order-status', order, now)]


if __name__ == '__main__':
    reactor = Reactor('tracker', ['orders', 'payments', 'shipments'], happened, assigned).start()
    serve('tracker', {})
    reactor.stop()
