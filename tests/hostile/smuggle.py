"""smuggle.py GATEWAY TLS ADMIN LOG_H1 LOG_H2 REDIRECT: requests in which two readers could see two different things, and answers of that kind.

In each there is a second request, for /smuggled-N, where only a reader that is mistaken would find it. What counts is what the origins wrote
down: none ever saw it, none saw a framing that is not plain, and what was refused they did not see at all. After each refusal a request on a
new connection is served.
"""
import json
import sys

from wire import *

GATEWAY, TLS, ADMIN = map(int, sys.argv[1:4])
LOGS, REDIRECT = sys.argv[4:6], int(sys.argv[6])
case = 0


def records(text=''):
    out = []
    for path in LOGS:
        with open(path) as f:
            out += [json.loads(line) for line in f if text in line]
    return out


def seen(path):
    """What the origins saw of a target."""
    return [r for r in records(path) if path + ' ' in r['head'] or path + '"' in r['head'] or ':path: ' + path in r['head'] or r['head'].startswith(path)]


def probe(host, what):
    s = connect(GATEWAY)
    s.sendall(b'GET /probe HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' % host)
    got, _ = read_all(s, 5)
    s.close()
    if statuses(got) != [200] or b'poison' in got:
        say(what + ': the next request is served', False, got[:200])
        return False
    return True


class Case:
    def __init__(self, name, host):
        global case
        case += 1
        self.name, self.host, self.path = f'{name} [{host.decode()}]', host, f'/c{case}x'
        self.smuggled = b'GET /smuggled-c%d HTTP/1.1\r\nHost: %s\r\n\r\n' % (case, host)

    def fill(self, data):
        return data.replace(b'{P}', self.path.encode()).replace(b'{H}', self.host).replace(b'{S}', self.smuggled).replace(b'{N}', b'%d' % len(self.smuggled)) \
            .replace(b'{X}', b'%x' % len(self.smuggled))

    def judge(self, good, why):
        if good and probe(self.host, self.name):
            return
        if not good:
            say(self.name, False, why)
        failures.append(self.name)


failures = []


def h1(name, data, want, host, begun=False, bodies=None, lacks=()):
    """want: the statuses that must come. Refused: the origin sees nothing of it (begun: a head and a body that is cut). Served: it
    sees these bodies, and none of lacks in the heads."""
    c = Case(name, host)
    s = connect(GATEWAY)
    try_send(s, c.fill(data))
    refused = want[-1] >= 400
    got, how = read_all(s, 4, None if refused else lambda g: len(statuses(g)) >= len(want) and g.endswith((b'}', b'0\r\n\r\n')))
    s.close()
    if statuses(got) != want or (refused and how not in ('end', 'reset')):
        c.judge(False, f'{statuses(got)} {how} {got[:160]}')
        return
    saw = seen(c.path)
    if bodies is None:
        c.judge(begun or not saw, f'the origin saw {saw}')
        return
    bodies = [c.fill(b).decode('latin-1') for b in bodies]
    c.judge([r['body'] for r in saw] == bodies and not any(x in r['head'].lower() for r in saw for x in lacks), f'the origin saw {saw}')


def h1_cases(host):
    def bad(name, data, codes=400, **more):
        h1(name, data, [codes], host, **more)

    post = b'POST {P} HTTP/1.1\r\nHost: {H}\r\n'
    get = b'GET {P} HTTP/1.1\r\nHost: {H}\r\n'
    # -- two framings
    bad('CL.TE', post + b'Content-Length: {N}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}')
    bad('TE.CL', post + b'Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{X}\r\n{S}\r\n0\r\n\r\n')
    for te in (b'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity', b'Transfer-Encoding: chunked\r\nTransfer-encoding: x', b'Transfer-Encoding: xchunked',
               b'Transfer-Encoding : chunked', b'Transfer-Encoding: chunked, identity', b'Transfer-Encoding: \x0bchunked', b'Transfer-Encoding: chunked\0',
               b'Transfer-Encoding: "chunked"', b'Transfer-Encoding: chunked, chunked', b'Transfer-Encoding:', b'Transfer-Encoding\r\n : chunked',
               b'X: y\nTransfer-Encoding: chunked', b'X: y\rTransfer-Encoding: chunked', b' Transfer-Encoding: chunked', b'Transfer-Encoding:\r\n chunked',
               b'Transfer-Encoding: identity', b'Transfer-Encoding: ,chunked', b'\0Transfer-Encoding: chunked', b'Transfer Encoding: chunked',
               b'Transfer-Encoding: chunk\xc5\xbfed'):
        bad('TE.TE ' + repr(te), post + te + b'\r\n\r\n0\r\n\r\n{S}')
        bad('CL.TE ' + repr(te), post + b'Content-Length: {N}\r\n' + te + b'\r\n\r\n0\r\n\r\n{S}')
    for te in (b'gzip, chunked', b'chunked;q=1, chunked'):
        bad('TE ' + repr(te), post + b'Transfer-Encoding: ' + te + b'\r\n\r\n0\r\n\r\n{S}', 501)
    bad('TE in HTTP/1.0', b'POST {P} HTTP/1.0\r\nHost: {H}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{S}')
    for cl in (b'+5', b'-5', b'0x5', b'5,5', b'5, 6', b'5 5', b'', b'1e1', b'99999999999999999999', b'9223372036854775808', b'5;', b'\x0b5', b'5\0', b'"5"', b'5\r\n 6', b'5.0', b'\xd9\xa5', b'0_5'):
        bad('Content-Length ' + repr(cl), post + b'Content-Length: ' + cl + b'\r\n\r\nhello{S}')
    for cl in (b'Content-Length: 5\r\nContent-Length: 5', b'Content-Length: 0\r\nContent-Length: 5', b'Content-Length : 5', b'Content-Length: 0\r\n Content-Length: 5',
               b'X: y\nContent-Length: 5', b'Content-Length: 5\n', b'Content_Length\t: 5', b'Content-Length\0: 5', b'X\r\nContent-Length: 5'):
        bad(repr(cl), post + cl + b'\r\n\r\nhello{S}')
    # -- heads
    for head in (b'GET  {P} HTTP/1.1', b'GET {P}  HTTP/1.1', b'GET {P} HTTP/1.1 ', b'GET {P}\tHTTP/1.1', b'GET {P} x HTTP/1.1', b'GET {P}\r', b'GET {P} HTTP/1.1\rX: y',
                 b'GET\0 {P} HTTP/1.1', b'G(T {P} HTTP/1.1', b'GET {P} HTTP/1,1', b'GET {P} http/1.1', b'GET {P} HTTP/11', b'GET {P}#f HTTP/1.1', b'GET a{P} HTTP/1.1',
                 b'GET {P}\x7f HTTP/1.1', b'GET http://u@{H}{P} HTTP/1.1', b'GET ftp://{H}{P} HTTP/1.1', b'GET http:///{P} HTTP/1.1', b' GET {P} HTTP/1.1', b'\r\n\r\nGET {P} HTTP/1.1'):
        bad(repr(head), head + b'\r\nHost: {H}\r\n\r\n{S}')
    for target in (b'/../x', b'/%2e%2E/x', b'/.', b'/.%2e', b'/..%2fx', b'/%2e%2e%2Fx', b'/a%2f..', b'/a%2F%2e%2e/x', b'/..%5cx', b'/..\\x', b'/a\\..'):
        bad('dot segments ' + repr(target), b'GET {P}' + target + b' HTTP/1.1\r\nHost: {H}\r\nConnection: close\r\n\r\n')
    bad('HTTP/0.9', b'GET {P}\r\n\r\n')
    bad('HTTP/2.0 in the request line', b'GET {P} HTTP/2.0\r\nHost: {H}\r\n\r\n{S}', 505)
    bad('LF everywhere', b'GET {P} HTTP/1.1\nHost: {H}\n\n{S}')
    bad('LF ends the head', get + b'X: y\r\n\n{S}')
    bad('TRACE', b'TRACE {P} HTTP/1.1\r\nHost: {H}\r\nConnection: close\r\n\r\n', 501)
    bad('CONNECT', b'CONNECT {H}:80 HTTP/1.1\r\nHost: {H}:80\r\nConnection: close\r\n\r\n', 501)
    for line in (b'X\r\n', b': x\r\n', b'X y: z\r\n', b'X\t: z\r\n', b'X: a\0b\r\n', b'X: a\x08b\r\n', b'\tX: y\r\n', b'X: y\r\n\tz\r\n', b'X: a\rb\r\n', b'X: a\nSet: b\r\n', b'X\x80: y\r\n', b'X: \x7f\r\n', b'(X): y\r\n'):
        bad('line ' + repr(line), get + line + b'\r\n{S}')
    for line in (b'Host: {H}\r\n', b'Host: other\r\n', b'hOST: {H}\r\n'):
        bad('second ' + repr(line), get + line + b'\r\n{S}')
    for name in (b'', b'{H}, other', b'{H}:99999', b'{H}:0', b'u@{H}', b'{H}/x', b'{H} x', b'{H}?', b'{H}:8x', b'[::1', b'a"b', b'{H}\\x', b'a;b=c:80:80'):
        bad('Host ' + repr(name), b'GET {P} HTTP/1.1\r\nHost: ' + name + b'\r\n\r\n{S}')
    bad('no Host', b'GET {P} HTTP/1.1\r\nX: y\r\n\r\n{S}')
    # -- chunks: the head may have gone on already; then the origin's connection is cut
    for chunks in (b'0x{X}\r\n{S}\r\n0\r\n\r\n', b'+1\r\na\r\n0\r\n\r\n{S}', b'-1\r\n{S}', b' 1\r\na\r\n0\r\n\r\n{S}', b'\r\n1\r\na\r\n0\r\n\r\n{S}', b'1;a\nb\r\na\r\n0\r\n\r\n{S}', b'1\na\n0\n\n{S}',
                   b'1\r\nab\r\n0\r\n\r\n{S}', b'1\r\na0\r\n\r\n{S}', b'1\r\na\n0\r\n\r\n{S}', b'fffffffffffffffff\r\na\r\n', b'8000000000000000\r\na\r\n', b'10000000000000001\r\na\r\n0\r\n\r\n{S}',
                   b'1g\r\na\r\n0\r\n\r\n{S}', b'1,1\r\na\r\n0\r\n\r\n{S}', b'1\0\r\na\r\n0\r\n\r\n{S}', b'1;\0\r\na\r\n0\r\n\r\n{S}', b'1;' + b'a' * 70000 + b'\r\na\r\n0\r\n\r\n{S}', b'1\r\r\na\r\n0\r\n\r\n{S}',
                   b'1;a=\x08\r\na\r\n0\r\n\r\n{S}', b'\xef\xbc\x91\r\na\r\n0\r\n\r\n{S}'):
        bad('chunks ' + repr(chunks[:40]), post + b'Transfer-Encoding: chunked\r\n\r\n' + chunks, begun=True)
    for trailer in (b'X\n', b'X: y\nZ: w\r\n', b'X : y\r\n', b' X: y\r\n', b'X: a\0\r\n', b'X\r\n'):
        bad('trailer ' + repr(trailer), post + b'Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n' + trailer + b'\r\n{S}', begun=True)


def h1_served(host):
    def good(name, data, bodies, want=(200,), **more):
        h1(name, data, list(want), host, bodies=bodies, **more)

    post = b'POST {P} HTTP/1.1\r\nHost: {H}\r\n'
    good('a body that looks like a request', post + b'Content-Length: {N}\r\n\r\n{S}', [b'{S}'])
    good('chunks that look like one', post + b'Transfer-Encoding: chunked\r\n\r\n{X};a=b;c="d"\r\n{S}\r\n00\r\n\r\n', [b'{S}'], lacks=['a=b'])
    good('GET with a body', b'GET {P} HTTP/1.1\r\nHost: {H}\r\nContent-Length: {N}\r\n\r\n{S}', [b'{S}'])
    good('TE with white space and case', post + b'tRANSFER-eNCODING:\t chunKED \r\n\r\n{X}\r\n{S}\r\n0\r\n\r\n', [b'{S}'])
    good('trailers that frame', post + b'Transfer-Encoding: chunked\r\n\r\n{X}\r\n{S}\r\n0\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\nHost: evil\r\nX: y\r\n\r\n', [b'{S}'])
    for option in (b'close, Content-Length', b'Transfer-Encoding', b'Host', b'Content-Length, X-Forwarded-For, Via, Forwarded'):
        good('Connection: ' + option.decode(), post + b'Content-Length: {N}\r\nConnection: ' + option + b'\r\n\r\n{S}', [b'{S}'])
    good('h2c upgrade', post + b'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nContent-Length: {N}\r\n\r\n{S}', [b'{S}'],
         lacks=['upgrade', 'http2-settings'])
    good('what a gateway says itself', post + b'Content-Length: 0\r\nProxy-Connection: keep-alive\r\nKeep-Alive: 5\r\nX-Forwarded-Proto: "\r\nForwarded: for="a\r\nVia: "x\r\n\r\n', [b''],
         lacks=['proxy-connection', 'keep-alive', 'for="a\r', 'x-forwarded-proto: "'])
    good('absolute form and another Host', b'GET http://{H}{P} HTTP/1.1\r\nHost: other.test\r\n\r\n', [b''], lacks=['other.test'])
    good('two in a row', b'GET {P} HTTP/1.1\r\nHost: {H}\r\n\r\nGET {P} HTTP/1.1\r\nHost: {H}\r\n\r\n', [b'', b''], (200, 200))
    good('bytes that a log has to mind', b'GET {P}"\\ HTTP/1.1\r\nHost: {H}\r\nUser-Agent: a"b\\c\xff\xc0\x80\xed\xa0\x80\xe2\x80\xa8<\r\nX-Request-Id: "\\\xff\r\n\r\n', [b''])
    good('one empty line before', b'\r\nGET {P} HTTP/1.1\r\nHost: {H}\r\n\r\n', [b''])
    # an upgrade that the origin does not agree to: what follows is a request, looked at as any other
    c = Case('upgrade refused', host)
    s = connect(GATEWAY)
    s.sendall(c.fill(b'GET {P} HTTP/1.1\r\nHost: {H}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n'
                     b'GET /smuggled-c%d/../x HTTP/1.1\r\nHost: {H}\r\n\r\n' % case))
    got, _ = read_all(s, 3, lambda g: len(statuses(g)) >= 2)
    s.close()
    c.judge(200 not in statuses(got)[1:], got)


def h2(name, fs, want, host, body=None, tls=None, bodies=None, has=(), lacks=()):
    """want: 'rst' (the stream is refused), 'goaway' (the connection), or a status."""
    c = Case('h2 ' + name, host)
    fill = lambda v: c.fill(v if isinstance(v, bytes) else v.encode())
    k = H2(TLS if tls else GATEWAY, tls)
    n = k.request([(fill(a), fill(b)) for a, b in fs], [c.fill(p) for p in body] if body is not None else None)
    st = k.answer(n)
    if want == 'rst':
        fine = st['rst'] == PROTOCOL_ERROR and st['status'] is None
    elif want == 'goaway':
        fine = k.goaway not in (None, NO_ERROR)
    else:
        fine = st['status'] == want and st['end']
    alive = True
    if want != 'goaway':  # one bad stream is no reason to end the others
        m = k.request(fields('GET', '/probe', host.decode()))
        alive = k.answer(m)['status'] == 200
    k.close()
    saw = seen(c.path)
    if bodies is None:  # a head may have gone on before DATA that does not fit it came: then without a body
        c.judge(fine and alive and not (saw and not body) and not any(r['body'] for r in saw), f'{st} goaway {k.goaway}, alive {alive}, the origin saw {saw}')
        return
    wanted = [c.fill(b).decode('latin-1') for b in bodies]
    heads = ''.join(r['head'].lower() for r in saw)
    c.judge(fine and alive and [r['body'] for r in saw] == wanted and all(x in heads for x in has) and not any(x in heads for x in lacks), f'{st} the origin saw {saw}')


def h2_cases(host, tls=None):
    def bad(name, fs, want='rst', body=None):
        h2(name, fs, want, host, body, tls)

    scheme = 'https' if tls else 'http'
    base = [(':method', 'POST'), (':scheme', scheme), (':path', '{P}'), (':authority', '{H}')]
    bad('H2.CL too short', base + [('content-length', '0')], body=[b'{S}'])
    bad('H2.CL too long', base + [('content-length', '1{N}')], body=[b'{S}'])
    bad('H2.CL and no body', base + [('content-length', '5')])
    for cl in ('+0', '-0', '0x0', '0, 0', ' ', '99999999999999999999'):
        bad('content-length ' + repr(cl), base + [('content-length', cl)])
    bad('content-length twice', base + [('content-length', '0'), ('content-length', '{N}')], body=[b'{S}'])
    for te in ('chunked', 'identity', 'gzip, chunked', ''):
        bad('H2.TE ' + te, base + [('transfer-encoding', te)], body=[b'0\r\n\r\n{S}'])
    for n, v in (('connection', 'close'), ('connection', 'Upgrade'), ('keep-alive', '5'), ('proxy-connection', 'close'), ('upgrade', 'h2c'), ('te', 'gzip'), ('te', 'trailers, gzip'), ('te', 'chunked')):
        bad(f'{n}: {v}', base + [(n, v)])
    for v in (b'a\r\nTransfer-Encoding: chunked', b'a\nX: y', b'a\rX: y', b'a\0b', b'a\r\n\r\n{S}', b' a', b'a ', b'\ta', b'a\x08', b'\x7f'):
        bad('value ' + repr(v), base + [('x-a', v)])
        bad(':path ' + repr(v), [base[0], base[1], (':path', b'{P}' + v), base[3]])
        bad(':authority ' + repr(v), base[:3] + [(':authority', b'{H}' + v)])
        bad(':method ' + repr(v), [(':method', b'GET' + v)] + base[1:])
        bad(':scheme ' + repr(v), [base[0], (':scheme', b'http' + v)] + base[2:])
        bad('cookie ' + repr(v), base + [('cookie', 'a=b'), ('cookie', v)])
    for n in (b'X-Upper', b'x a', b'x:a', b'x\r\na', b'x\na', b'x\0', b'', b'x\x80', b'x(', b':x', b'x: y\r\nz', b':', b' x', b'content-length '):
        bad('name ' + repr(n), base + [(n, b'1')])
    for path in ('{P} HTTP/1.1', '{P} HTTP/1.1\r\nHost: x\r\n\r\n', '{P}\tx', '{P}#x', '', '*', 'x', 'http://x/', '{P}\r\n'):
        bad(':path ' + repr(path), [base[0], base[1], (':path', path), base[3]])
    for i, name in enumerate((':method', ':scheme', ':path', ':authority')):
        bad('two of ' + name, base + [base[i]])
        bad('two different of ' + name, base[:i + 1] + [(name, '/smuggled' if i == 2 else 'GET')] + base[i + 1:])
        if i < 3:
            bad('no ' + name, base[:i] + base[i + 1:])
        bad(name + ' behind a field', base[:i] + base[i + 1:] + [('x-a', 'b'), base[i]])
        bad('empty ' + name, base[:i] + [(name, '')] + base[i + 1:])
    bad('no authority', base[:3])
    bad('host is another', base + [('host', 'other.test')])
    bad('two hosts', base[:3] + [('host', '{H}'), ('host', '{H}')])
    for a in ('u@{H}', '{H}:99999', '{H}/x', '{H} x', '{H}:80:80', '{H}\\x'):
        bad(':authority ' + a, base[:3] + [(':authority', a)])
    bad(':status in a request', base + [(':status', '200')])
    bad(':unknown', base + [(':unknown', 'x')])
    bad(':protocol without CONNECT', base + [(':protocol', 'websocket')])
    bad('method with a space', [(':method', 'GET /smuggled HTTP/1.1\r\nX:')] + base[1:])
    bad('ftp', [base[0], (':scheme', 'ftp')] + base[2:])
    bad('trailing CONNECT', [(':method', 'CONNECT'), (':authority', '{H}:80'), (':path', '{P}')])
    bad('dot segments', [(':method', 'GET'), base[1], (':path', '{P}/../x'), base[3]], 400)


def h2_served(host, tls=None):
    scheme = 'https' if tls else 'http'
    base = [(':method', 'POST'), (':scheme', scheme), (':path', '{P}'), (':authority', '{H}')]
    h2('a body that looks like a request', base + [('content-length', '{N}')], 200, host, [b'{S}'], tls, [b'{S}'])
    h2('the same without a length', base, 200, host, [b'{S}', b''], tls, [b'{S}'])
    h2('chunks as a body', base, 200, host, [b'0\r\n\r\n{S}'], tls, [b'0\r\n\r\n{S}'])
    h2('cookies in crumbs', base + [('cookie', 'a=1'), ('x-a', 'b'), ('cookie', 'b=2')], 200, host, [b''], tls, [b''], has=['cookie: a=1; b=2'])
    h2('te: trailers', base + [('te', 'trailers')], 200, host, [b''], tls, [b''])
    h2('many crumbs', base + [('cookie', 'c')] * 300 + [('x-late', 'still here')], 200, host, [b''], tls, [b''], has=['x-late: still here'])


def answers():
    """Answers in which a second one is hidden: refused, or their connection is not used again."""
    for name in ANSWERS:
        for version in (1, 2):
            what = f'answer {name} to HTTP/{version}'
            if version == 1:
                s = connect(GATEWAY)
                s.sendall(b'GET /answer/%s HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n' % name.encode())
                got, _ = read_all(s, 5)
                s.close()
                first = (statuses(got) or [0])[-1]
            else:
                k = H2(GATEWAY)
                st = k.answer(k.request(fields('GET', '/answer/' + name)))
                got, first = st['data'], st['status'] or 0
                k.close()
            said = name.startswith(('tail', 'chunk'))
            fine = b'poison' not in got and b'evil' not in got and (first in (200, 204, 304, 0, 502) if said else first == 502)
            for _ in range(3):  # the next ones get their own
                t = connect(GATEWAY)
                t.sendall(b'GET /after HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n')
                after, _ = read_all(t, 5)
                t.close()
                fine = fine and b'{"target": "/after"}' in after
            if not fine:
                failures.append(what)
                say(what, False, f'{first} {got[:200]} then {after[:100]}')


def redirects():
    """Where a listener sends everybody to https: the place that was asked for, in whatever form that was."""
    for target, want in ((b'/x?y=1', b'https://a.test/x?y=1'), (b'//evil.test/x', b'https://a.test//evil.test/x'), (b'http://a.test/x', b'https://a.test/x'),
                         (b'http://evil.test', b'https://evil.test/'), (b'/%0d%0aX:y', b'https://a.test/%0d%0aX:y'), (b'*', b'https://a.test/')):
        s = connect(REDIRECT)
        s.sendall(b'OPTIONS %s HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n' % target)
        got, _ = read_all(s, 5)
        s.close()
        if statuses(got) != [301] or b'\r\nLocation: ' + want + b'\r\n' not in got:
            failures.append('redirect')
            say('redirect of ' + repr(target), False, got[:200])


def part(name, run, *args):
    before, began = len(failures), case
    run(*args)
    if len(failures) == before:
        say(f'{name}: {case - began} cases' if case > began else name, True)


sys.path.insert(0, sys.path[0])
from origin import ANSWERS  # noqa: E402

A, B = b'a.test', b'b.test'
part('HTTP/1 to HTTP/1, refused', h1_cases, A)
part('HTTP/1 to HTTP/1, served as one', h1_served, A)
part('HTTP/1 to HTTP/2, refused', h1_cases, B)
part('HTTP/1 to HTTP/2, served as one', h1_served, B)
part('HTTP/2 to HTTP/1, refused', h2_cases, A)
part('HTTP/2 to HTTP/1, served as one', h2_served, A)
part('HTTP/2 to HTTP/2, refused', h2_cases, B)
part('HTTP/2 to HTTP/2, served as one', h2_served, B)
part('HTTP/2 over TLS, refused', h2_cases, A, 'a.test')
part('HTTP/2 over TLS, served as one', h2_served, A, 'a.test')
part(f'answers that hide another: {2 * len(ANSWERS)} cases', answers)
part('redirects to https', redirects)
odd = [r for r in records() if r['bad'] and not r['bad'].startswith('the end inside')]
say('the origins never saw a framing that is not plain', not odd, odd[:3])
say('the origins never saw a hidden request', not [r for r in records('smuggled') if 'smuggled' in r['head']], '')
