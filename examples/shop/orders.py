"""orders: takes an order, reserves its units, charges the card; undoes the first when the second fails.

POST /api/orders {"sku", "quantity", "card"}, optionally with Idempotency-Key
    201 the order          400 bad input            402 declined (the units are released)
    409 sold out           422 a key used for something else
    502, 503 inventory, payment or the log is away or makes no sense (the units are released)
    202 with `Prefer: respond-async` (RFC 7240): the units are reserved and OrderRequested is in the log; cashier and
        shipping take it from there, Location tells where the order's state is
GET  /api/orders           the orders that THIS replica took; X-Served-By says which one that is
GET  /api/orders/ID        the state of an order that was taken asynchronously, by any replica: from the topic order-status

Units lie in shares, one per inventory replica, and the balancer picks the replica. So orders gathers: it asks for what it
still needs until it has all, or until every share has said that it has none, or ASKS_MAX times. Each reservation has a
name of its own and only the share that made it knows it, so giving it back asks until that share answers.

Orders and keys are kept in memory, by this replica alone; README.md says what follows from that. States come from the log,
which every replica follows. An order that was declined gives its units back: the group `orders` reacts to PaymentDeclined.

Environment: INVENTORY_URL, INVENTORY_SHARES, PAYMENT_URL, PAYMENT_KEY, PRODUCTS, CURRENCY, KAFKA_BOOTSTRAP_SERVERS, PORT.
"""
import hashlib
import json
import os
import secrets
import threading
import time
from collections import OrderedDict

from confluent_kafka import KafkaException

from common import REPLICA, Answer, Away, Refused, call, log, serve
from events import Follower, Publisher, Reactor, patiently

INVENTORY_URL = os.environ.get('INVENTORY_URL', 'http://inventory')
PAYMENT_URL = os.environ.get('PAYMENT_URL', 'http://payment')
PAYMENT_KEY = os.environ.get('PAYMENT_KEY', '')
SHARES = int(os.environ.get('INVENTORY_SHARES', '2'))
CURRENCY = os.environ.get('CURRENCY', 'EUR')
PRICES = {p['sku']: p['price_cents'] for p in json.loads(os.environ.get('PRODUCTS') or '[]')}
ASKS_MAX = 8 * SHARES      # a share is missed by all of these once in 2^15 with two shares
RELEASE_ASKS_MAX = 16 * SHARES
RELEASE_AWAYS_MAX = 2      # so often may inventory be away before giving up
QUANTITY_MAX = 100
ORDERS_KEPT = 1000         # older ones are forgotten, keys with them
KEY_CHARS_MAX = 200
REPEAT_WAIT_SECONDS = 15   # a repeated request waits this long for the first one's answer

orders = OrderedDict()     # order id -> order
keys = OrderedDict()       # idempotency key -> Once
lock = threading.Lock()    # guards both
states = {}                # order id -> what order-status says; written by the follower's thread


class Once:
    """The one answer that belongs to an idempotency key."""

    def __init__(self, fingerprint):
        self.fingerprint, self.answer, self.done = fingerprint, None, threading.Event()


def read_order(request):
    """(sku, quantity, card), or Refused 400 with all that is wrong."""
    body = request.json()
    sku, quantity, card = body.get('sku'), body.get('quantity'), body.get('card')
    wrong = [f'unknown field {k}' for k in sorted(body) if k not in ('sku', 'quantity', 'card')]
    if not isinstance(sku, str) or sku not in PRICES:
        wrong.append('sku: one of ' + ', '.join(sorted(PRICES)))
    if type(quantity) is not int or not 1 <= quantity <= QUANTITY_MAX:
        wrong.append(f'quantity: a whole number from 1 to {QUANTITY_MAX}')
    if not isinstance(card, str) or not card.isascii() or not card.isdigit() or not 12 <= len(card) <= 19:
        wrong.append('card: 12 to 19 digits')
    if wrong:
        raise Refused(400, 'the order is not valid', details=wrong)
    return sku, quantity, card


def gather(request, order_id, sku, quantity):
    """[{"id", "share", "units"}] that add up to quantity. Gives back what it has and raises Refused 409, or Away."""
    held, empty = [], set()
    try:
        for ask in range(ASKS_MAX):
            need = quantity - sum(h['units'] for h in held)
            if need == 0:
                return held
            if len(empty) >= SHARES:
                break
            name = f'{order_id}.{ask}'
            held.append({'id': name, 'share': None, 'units': 0})  # so that it is given back should the answer get lost
            status, body = request.call('POST', INVENTORY_URL + '/reserve', {'reservation': name, 'sku': sku, 'quantity': need})
            if status == 200 and body['units'] > 0:
                held[-1] = {'id': name, 'share': body['share'], 'units': body['units']}
            else:
                held.pop()
            if status not in (200, 409):
                raise Away(502, 'inventory', f'answered {status} to a reservation')
            if status == 409 or body['units'] < need:
                empty.add(body['share'])
        if sum(h['units'] for h in held) == quantity:
            return held
    except Away:
        give_back(request, held)
        raise
    give_back(request, held)
    raise Refused(409, 'sold out', sku=sku)


def give_back(request, held):
    """Releases each reservation; the share that made it is met by asking. One that no share knows was never made. One whose
    share stays out of reach is logged: its units come back when that replica of inventory is started anew."""
    for h in held:
        if not release(request, h['id']):
            log(service='orders', level='warn', error=f"reservation {h['id']} could not be released", trace_id=request.trace_id)


def release(request, reservation):
    """True when the reservation is gone."""
    strangers, aways = set(), 0
    for _ in range(RELEASE_ASKS_MAX):
        try:
            status, body = request.call('POST', INVENTORY_URL + '/release', {'reservation': reservation})
        except Away:
            aways += 1
            if aways > RELEASE_AWAYS_MAX:
                return False
            continue
        if status == 200:
            return True
        strangers.add(body.get('share'))
        if len(strangers) >= SHARES:
            return True
    return False


def charge(request, order_id, cents, card):
    """The charge, or Refused 402, or Away."""
    status, body = request.call('POST', PAYMENT_URL + '/charge', {'order': order_id, 'amount_cents': cents, 'card': card},
                                {'Authorization': 'Bearer ' + PAYMENT_KEY})
    if status == 402:
        raise Refused(402, 'the card was declined', served_by={'payment': body.get('served_by')})
    if status != 200:
        raise Away(502, 'payment', f'answered {status} to a charge')
    return body


def hand_over(request, order_id, sku, quantity, card, held):
    """202: from here on the order is the log's. When it can't be said whether the event is there, the units stay reserved."""
    event = {'type': 'OrderRequested', 'order': order_id, 'sku': sku, 'quantity': quantity, 'card': card, 'total_cents': PRICES[sku] * quantity,
             'currency': CURRENCY, 'created': now(), 'held': [h['id'] for h in held]}
    try:
        publisher.publish('orders', order_id, event, f'00-{request.trace_id}-{request.span_id}-{request.flags}')
    except KafkaException as e:
        raise Away(503, 'the log', str(e)) from None
    return Answer(202, {'id': order_id, 'state': 'requested'}, {'Location': f'/api/orders/{order_id}', 'Preference-Applied': 'respond-async'})


def take_order(request):
    sku, quantity, card = read_order(request)
    order_id = 'o-' + secrets.token_hex(8)
    held = gather(request, order_id, sku, quantity)
    if 'respond-async' in request.headers.get('Prefer', ''):
        return hand_over(request, order_id, sku, quantity, card, held)
    try:
        paid = charge(request, order_id, PRICES[sku] * quantity, card)
    except (Refused, Away):
        give_back(request, held)
        raise
    order = {'id': order_id, 'sku': sku, 'quantity': quantity, 'total_cents': PRICES[sku] * quantity, 'currency': CURRENCY,
             'charge': paid['charge'], 'created': now(), 'trace_id': request.trace_id,
             'served_by': {'orders': REPLICA, 'inventory': [h['share'] for h in held], 'payment': paid['served_by']}}
    with lock:
        orders[order_id] = order
        while len(orders) > ORDERS_KEPT:
            orders.popitem(last=False)
    return Answer(201, order, {'Location': '/api/orders'})


def now():
    return time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())


def claim(key, fingerprint):
    """(Once, True) when this request is the first with its key; (Once, False) when it repeats one."""
    with lock:
        once = keys.get(key)
        if once:
            return once, False
        keys[key] = once = Once(fingerprint)
        while len(keys) > ORDERS_KEPT:
            keys.popitem(last=False)
        return once, True


def create(request):
    """With a key, the first final answer is kept and given again; failures that may pass (5xx) are not kept."""
    key = request.headers.get('Idempotency-Key')
    if key is None:
        return take_order(request)
    if not 1 <= len(key) <= KEY_CHARS_MAX:
        raise Refused(400, f'Idempotency-Key has 1 to {KEY_CHARS_MAX} characters')
    once, first = claim(key, hashlib.sha256(request.body).digest())
    if not first:
        return repeat(request, once)
    try:
        try:
            once.answer = take_order(request)
        except Refused as e:
            once.answer = Answer(e.status, e.body, e.headers)
        return once.answer
    finally:
        if once.answer is None:
            with lock:
                keys.pop(key, None)
        once.done.set()


def repeat(request, once):
    if once.fingerprint != hashlib.sha256(request.body).digest():
        raise Refused(422, 'this Idempotency-Key was used for a different order')
    if not once.done.wait(REPEAT_WAIT_SECONDS) or once.answer is None:
        raise Refused(503, 'the first request with this Idempotency-Key has not succeeded; try again')
    a = once.answer
    return Answer(a.status, a.bytes, {**a.headers, 'Idempotent-Replayed': 'true'})


def listing(request):
    with lock:
        mine = list(orders.values())
    return Answer(200, {'orders': mine[::-1][:50], 'served_by': REPLICA}, {'Cache-Control': 'no-store'})


def state(request):
    order = states.get(request.path.removeprefix('/api/orders/'))
    if not order:
        raise Refused(404, 'no such order, or nothing has happened with it yet')
    return Answer(200, order, {'Cache-Control': 'no-store'})


class Back:
    """A request of nobody's, to give units back with."""

    def __init__(self, traceparent):
        self.traceparent, self.trace_id = traceparent, traceparent.split('-')[1]

    def call(self, method, url, body):
        return call(method, url, body, {'traceparent': self.traceparent})


def declined(topic, order, event, traceparent):
    if event['type'] == 'PaymentDeclined':
        give_back(Back(traceparent), [{'id': name} for name in event['held']])
    return []


if __name__ == '__main__':
    publisher = patiently(Publisher)
    patiently(lambda: Follower('order-status', states.__setitem__)).start()
    reactor = Reactor('orders', ['payments'], declined).start()
    serve('orders', {('POST', '/api/orders'): create, ('GET', '/api/orders'): listing, ('GET', '/api/orders/*'): state})
    reactor.stop()
