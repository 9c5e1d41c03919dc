"""shipping: sends what was paid. Reacts to PaymentTaken in `payments`, publishes OrderShipped to `shipments`.

The parcel's number is made of the order's id: whoever ships it, and however often it is tried, it is one parcel.

Environment: KAFKA_BOOTSTRAP_SERVERS, PORT.
"""
import hashlib

from common import log, serve
from events import Reactor


def paid(topic, order, event, traceparent):
    if event['type'] != 'PaymentTaken':
        return []
    parcel = 'p-' + hashlib.sha256(order.encode()).hexdigest()[:12]
    log(service='shipping', order=order, parcel=parcel, trace_id=traceparent.split('-')[1])
    return [('shipments', order, {'type': 'OrderShipped', 'order': order, 'parcel': parcel})]


if __name__ == '__main__':
    reactor = Reactor('shipping', ['payments'], paid).start()
    serve('shipping', {})
    reactor.stop()
