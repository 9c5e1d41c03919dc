"""cashier: charges what was ordered. Reacts to OrderRequested in `orders`, publishes to `payments`.

    OrderRequested -> PaymentTaken | PaymentDeclined

payment remembers a charge under the order's id, so an order whose transaction was aborted after the charge is not charged
twice. When payment is away, the event waits: the transaction is aborted and begun again.

Environment: PAYMENT_URL, PAYMENT_KEY, KAFKA_BOOTSTRAP_SERVERS, PORT.
"""
import os

from common import Away, call, log, serve
from events import Reactor

PAYMENT_URL = os.environ.get('PAYMENT_URL', 'http://payment')
PAYMENT_KEY = os.environ.get('PAYMENT_KEY', '')


def requested(topic, order, event, traceparent):
    status, body = call('POST', PAYMENT_URL + '/charge', {'order': order, 'amount_cents': event['total_cents'], 'card': event['card']},
                        {'Authorization': 'Bearer ' + PAYMENT_KEY, 'traceparent': traceparent})
    log(service='cashier', order=order, status=status, trace_id=traceparent.split('-')[1])
    if status == 200:
        return [('payments', order, {'type': 'PaymentTaken', 'order': order, 'charge': body['charge']})]
    if status == 402:
        return [('payments', order, {'type': 'PaymentDeclined', 'order': order, 'held': event['held']})]
    raise Away(502, 'payment', f'answered {status} to a charge')


if __name__ == '__main__':
    reactor = Reactor('cashier', ['orders'], requested).start()
    serve('cashier', {})
    reactor.stop()
