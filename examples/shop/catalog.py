"""catalog: what is for sale, at what price, and how much of it is in stock.

GET /api/products -> {"currency", "products": [{"sku", "name", "about", "price_cents", "stock"}], "served_by"}

Names and prices come from PRODUCTS (a key of the ConfigMap). The stock belongs to inventory, whose replicas each hold a
share of the units and answer for their own share only: catalog asks until it has heard each share once, or often enough,
and adds them up. A share that it did not meet this time counts with what it said last, if that is fresh.

Environment: PRODUCTS, CURRENCY, INVENTORY_URL, INVENTORY_SHARES, PORT.
"""
import json
import os
import threading
import time

from common import REPLICA, Answer, Away, serve

INVENTORY_URL = os.environ.get('INVENTORY_URL', 'http://inventory')
SHARES = int(os.environ.get('INVENTORY_SHARES', '2'))
CURRENCY = os.environ.get('CURRENCY', 'EUR')
PRODUCTS = json.loads(os.environ.get('PRODUCTS') or '[]')
ASKS_MAX = 4 * SHARES
FRESH_SECONDS = 30

heard = {}  # share -> (when, {sku: units})
heard_lock = threading.Lock()


def ask_inventory(request):
    """{sku: units} over all shares; None when inventory is away and nothing fresh is known."""
    met, away = set(), None
    for _ in range(ASKS_MAX):
        if len(met) >= SHARES:
            break
        try:
            status, body = request.call('GET', INVENTORY_URL + '/stock')
        except Away as e:
            away = e
            break
        if status == 200:
            met.add(body['share'])
            with heard_lock:
                heard[body['share']] = (time.monotonic(), body['stock'])
    total = {}
    with heard_lock:
        now = time.monotonic()
        for share in [s for s, (when, _) in heard.items() if s not in met and (now - when > FRESH_SECONDS or len(met) >= SHARES)]:
            del heard[share]
        for _, stock in heard.values():
            for sku, units in stock.items():
                total[sku] = total.get(sku, 0) + units
        return None if away and not heard else total


def products(request):
    """The list is worth showing without its stock: when inventory is away, stock is null and the answer says so."""
    stock = ask_inventory(request)
    rows = [{**p, 'stock': None if stock is None else stock.get(p['sku'], 0)} for p in PRODUCTS]
    body = {'currency': CURRENCY, 'products': rows, 'served_by': REPLICA}
    if stock is None:
        body['missing'] = ['stock']
    return Answer(200, body, {'Cache-Control': 'no-store'})


if __name__ == '__main__':
    serve('catalog', {('GET', '/api/products'): products})
