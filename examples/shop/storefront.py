"""storefront: the page. One file, no build step, nothing loaded from elsewhere; the page calls /api on its own origin.

Environment: SHOP_TITLE, PORT.
"""
import html
import os

from common import REPLICA, Answer, serve

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'storefront.html'), encoding='utf-8') as f:
    PAGE = f.read().replace('{{TITLE}}', html.escape(os.environ.get('SHOP_TITLE', 'The shop'))).replace('{{REPLICA}}', html.escape(REPLICA)).encode()


def page(request):
    return Answer(200, PAGE, {'Cache-Control': 'no-store', 'Content-Security-Policy': "default-src 'self' 'unsafe-inline'"},
                  'text/html; charset=utf-8')


if __name__ == '__main__':
    serve('storefront', {('GET', '/'): page})
