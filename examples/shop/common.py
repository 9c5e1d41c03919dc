"""What the shop's three Python services share: an HTTP/1.1 server that drains, a client, one JSON log line per request.

A service hands serve() a table {(method, path): function}, a path /a/* being any one name below /a; a function takes a Request and returns an Answer, or raises
Refused. The server keeps connections open between requests. On SIGTERM it stops accepting, closes connections that wait
for a request, lets those in the middle of one finish, and ends. Nothing but Python's standard library (events.py is what
needs more).
"""
import http.client
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

REPLICA = os.environ.get('HOSTNAME') or socket.gethostname()
PORT = int(os.environ.get('PORT', '8080'))
BODY_BYTES_MAX = 64 * 1024
CALL_SECONDS = 3.0
GRACE_SECONDS = 20.0


class Refused(Exception):
    """Ends a request with this status and a JSON body that says why."""

    def __init__(self, status, error, **more):
        super().__init__(error)
        self.status, self.body, self.headers = status, dict(error=error, **more), {}


class Away(Exception):
    """A dependency could not be reached (503), or gave an answer that makes no sense (502)."""

    def __init__(self, status, service, why):
        super().__init__(f'{service}: {why}')
        self.status, self.service, self.why = status, service, why


class Answer:
    def __init__(self, status, body, headers=None, content_type='application/json'):
        self.status, self.headers, self.content_type = status, headers or {}, content_type
        self.bytes = body if isinstance(body, bytes) else json.dumps(body).encode() + b'\n'


class Request:
    """One request as a handler sees it, and the identity that its own calls carry on."""

    def __init__(self, method, path, headers, body):
        self.method, self.path, self.headers, self.body = method, path, headers, body
        self.trace_id, self.flags = trace_of(headers.get('traceparent'))
        self.span_id = secrets.token_hex(8)
        self.request_id = headers.get('x-request-id') or secrets.token_hex(16)

    def json(self):
        try:
            value = json.loads(self.body or b'')
        except ValueError:
            raise Refused(400, 'the body is not JSON') from None
        if not isinstance(value, dict):
            raise Refused(400, 'the body is not a JSON object')
        return value

    def call(self, method, url, body=None, headers=None):
        """(status, parsed JSON) of a call to another service, with the trace and the request id of this request."""
        return call(method, url, body, {'traceparent': f'00-{self.trace_id}-{self.span_id}-{self.flags}',
                                        'x-request-id': self.request_id, **(headers or {})})


def trace_of(header):
    """(trace id, flags) of a W3C traceparent, or new ones when there is none or it is malformed."""
    parts = (header or '').split('-')
    if len(parts) >= 4 and [len(p) for p in parts[:4]] == [2, 32, 16, 2] and parts[0] != 'ff':
        try:
            if all(int(p, 16) for p in parts[1:3]) and int(parts[3], 16) >= 0:
                return parts[1], parts[3]
        except ValueError:
            pass
    return secrets.token_hex(16), '01'


def call(method, url, body=None, headers=None):
    """One request on a connection of its own: on one machine that costs little, and nothing has to be guessed when a kept
    connection breaks in the middle of something that must not happen twice."""
    where = urlsplit(url)
    data = None if body is None else json.dumps(body).encode()
    headers = {**(headers or {}), 'Accept': 'application/json', 'Connection': 'close'}
    if data is not None:
        headers['Content-Type'] = 'application/json'
    conn = http.client.HTTPConnection(where.hostname, where.port or 80, timeout=CALL_SECONDS)
    try:
        conn.request(method, where.path or '/', body=data, headers=headers)
        answer = conn.getresponse()
        text = answer.read(BODY_BYTES_MAX)
    except (OSError, http.client.HTTPException) as e:
        raise Away(503, where.hostname, str(e) or type(e).__name__) from None
    finally:
        conn.close()
    if answer.status in (502, 503, 504):
        raise Away(503, where.hostname, f'answered {answer.status}')
    try:
        return answer.status, json.loads(text)
    except ValueError:
        raise Away(502, where.hostname, f'answered {answer.status} without JSON') from None


def log(**fields):
    sys.stdout.write(json.dumps({'time': time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime()) + 'Z', 'replica': REPLICA, **fields}) + '\n')
    sys.stdout.flush()


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True
    block_on_close = False

    def __init__(self, name, routes):
        self.name, self.routes = name, routes
        self.draining = False
        self.lock = threading.Lock()
        self.open = {}  # connection -> True while a request is being served on it
        super().__init__(('0.0.0.0', PORT), Handler)

    def handle_error(self, request, client_address):
        """A peer that vanished is its own affair; anything else is a defect and is logged."""
        e = sys.exc_info()[1]
        if not isinstance(e, (ConnectionError, TimeoutError)):
            log(service=self.name, level='error', error=repr(e))

    def mark(self, conn, busy):
        """Notes whether conn serves a request; False when it should not begin one any more."""
        with self.lock:
            self.open[conn] = busy
            return not self.draining

    def forget(self, conn):
        with self.lock:
            self.open.pop(conn, None)

    def drain(self):
        """Stops accepting, ends waiting connections, waits for the others."""
        self.shutdown()
        self.socket.close()
        with self.lock:
            self.draining = True
            for conn, busy in self.open.items():
                if not busy:
                    try:
                        conn.shutdown(socket.SHUT_RD)
                    except OSError:
                        pass
        end = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < end:
            with self.lock:
                if not self.open:
                    return
            time.sleep(0.02)


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    wbufsize = -1  # head and body leave in one piece
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.server.mark(self.connection, False)

    def finish(self):
        try:
            super().finish()
        finally:
            self.server.forget(self.connection)

    def version_string(self):
        return 'shop'

    def log_message(self, format, *args):
        """Access is logged by serve(), as JSON."""

    def do_any(self):
        self.server.mark(self.connection, True)
        self.serve()
        if not self.server.mark(self.connection, False):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_any

    def serve(self):
        started = time.monotonic()
        request = Request(self.command, urlsplit(self.path).path, self.headers, b'')
        answer = self.answer(request)
        if self.server.draining:
            self.close_connection = True
        self.write(request, answer)
        if request.path != '/healthz':
            log(service=self.server.name, method=request.method, path=self.path, status=answer.status,
                ms=round((time.monotonic() - started) * 1000, 2), trace_id=request.trace_id, span_id=request.span_id,
                request_id=request.request_id)

    def answer(self, request):
        try:
            request.body = self.read_body()
            return self.route(request)
        except Refused as e:
            return Answer(e.status, e.body, e.headers)
        except Away as e:
            log(service=self.server.name, level='warn', error=str(e), trace_id=request.trace_id)
            return Answer(e.status, {'error': f'{e.service} is away', 'why': e.why}, {'Retry-After': '1'})
        except Exception as e:  # a defect answers 500 and is logged; the connection and the service go on
            log(service=self.server.name, level='error', error=repr(e), trace_id=request.trace_id)
            return Answer(500, {'error': 'internal error'})

    def route(self, request):
        if request.path == '/healthz':
            return Answer(200, {'ok': True})
        method = 'GET' if request.method == 'HEAD' else request.method
        below = request.path.rsplit('/', 1)[0] + '/*'  # a path that ends with /* is any one name there
        handler = self.server.routes.get((method, request.path)) or self.server.routes.get((method, below))
        if handler:
            return handler(request)
        allowed = sorted(m for m, p in self.server.routes if p in (request.path, below))
        if not allowed:
            raise Refused(404, f'no such path: {request.path}')
        refused = Refused(405, f'{request.method} is not allowed here')
        refused.headers = {'Allow': ', '.join(allowed)}
        raise refused

    def read_body(self):
        if self.headers.get('Transfer-Encoding'):
            return self.read_chunked()
        length = self.headers.get('Content-Length') or '0'
        if not length.isdigit():
            self.close_connection = True
            raise Refused(400, 'Content-Length is not a number')
        return self.read_bytes(int(length))

    def read_bytes(self, n):
        if n > BODY_BYTES_MAX:
            self.close_connection = True
            raise Refused(413, f'the body is larger than {BODY_BYTES_MAX} bytes')
        data = self.rfile.read(n)
        if len(data) < n:
            self.close_connection = True
            raise ConnectionResetError('the client left in the middle of a body')
        return data

    def read_chunked(self):
        """RFC 9112 section 7.1; extensions and trailers are read and dropped."""
        body = b''
        while True:
            size = self.rfile.readline(256).split(b';')[0].strip()
            try:
                n = int(size, 16)
            except ValueError:
                self.close_connection = True
                raise Refused(400, 'a malformed chunk') from None
            if n == 0:
                while self.rfile.readline(8192) not in (b'\r\n', b'\n', b''):
                    pass
                return body
            body += self.read_bytes(n if len(body) + n <= BODY_BYTES_MAX else BODY_BYTES_MAX + 1)
            self.rfile.readline(8)

    def write(self, request, answer):
        self.send_response(answer.status)
        self.send_header('Content-Type', answer.content_type)
        self.send_header('Content-Length', str(len(answer.bytes)))
        self.send_header('X-Served-By', REPLICA)
        self.send_header('X-Trace-Id', request.trace_id)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header('Connection', 'close')
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(answer.bytes)
        self.wfile.flush()


def serve(name, routes):
    """Runs the service until SIGTERM or SIGINT, then drains."""
    stop = threading.Event()
    for s in (signal.SIGTERM, signal.SIGINT):
        signal.signal(s, lambda *_: stop.set())
    server = Server(name, routes)
    threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.1}, daemon=True).start()
    log(service=name, level='info', message=f'listening on port {PORT}')
    stop.wait()
    log(service=name, level='info', message='draining')
    server.drain()
    log(service=name, level='info', message='stopped')
