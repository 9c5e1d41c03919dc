"""What routes do to requests and answers: splits, delegates, redirects, rewrites, CORS, headers, bodies, compression, files, aggregation."""
import gzip
import json
import socket
import subprocess
import time
from urllib.parse import quote

from client import GATE, ask, connect, flagged, gate, metric, run, same, say


def where(host, headers=None, path='/'):
    return ask(host, path, headers=headers).name


def splits():
    same('a split by cookie', list('adaad'), [where('cookie.t', h) for h in (None, {'Cookie': 'x=1; group=beta'}, {'Cookie': 'group=betas'}, {'Cookie': 'mygroup=beta'}, {'Cookie': 'group=beta; y=2'})])
    same('a canary by the group of a user', list('ddaa'), [where('canary.t', {'X-User-Group': g}) for g in ('staff', 'beta', 'staffs', 'all')])
    inner = lambda host: gate(host, '/_/call?url=' + quote('http://who.t/')).json
    same('a split by who calls', list('da'), [json.loads(inner(h)['text'])['name'] for h in ('sticky.pods', 'back.t')])


def delegates():
    same('a delegate: its rule', 'd', where('root.t', path='/shop/cart/1'))
    a = ask('root.t', '/shop')
    same('a delegate: its last rule', (202, 'shop'), (a.status, a.text))
    same('a delegate: a match that cannot hold with the root\'s is none', 'a', where('root.t', path='/other'))


def to(answer):
    return answer.status, answer.fields['location']


def redirects():
    same('VirtualService: redirect', (307, 'https://new.t:8443/new'), to(ask('moved.t', '/whole')))
    same('VirtualService: redirect to a port', (301, 'http://moved.t:8080/port/x?y=z'), to(ask('moved.t', '/port/x?y=z')))
    same('VirtualService: redirect to https and its port', (301, 'https://moved.t/derive'), to(ask('moved.t', '/derive', headers={'Host': 'moved.t:1234'})))
    same('HTTPRoute: redirect to https', (301, 'https://redirect.t/scheme/x?y=z'), to(gate('redirect.t', '/scheme/x?y=z')))
    same('HTTPRoute: redirect to a host and a port', (302, 'http://other.t:8443/port'), to(gate('redirect.t', '/port')))
    same('HTTPRoute: redirect of a prefix', (308, f'http://redirect.t:{GATE}/new/a/b?c'), to(gate('redirect.t', '/prefix/a/b?c')))
    same('HTTPRoute: redirect of the whole path', (303, f'http://redirect.t:{GATE}/all?q=1'), to(gate('redirect.t', '/full/x?q=1')))
    flagged('no route', gate('nobody.t'), 404, 'NR')


def rewrites():
    a = gate('rewrite.t', '/full/x?q=1').json
    same('URLRewrite: the whole path, and the host', ('/one?q=1', 'inner.t'), (a['path'], a['headers']['host']))
    same('URLRewrite: a prefix', ['/to', '/to/x', '/to/x?y'], [gate('rewrite.t', p).json['path'] for p in ('/prefix/of', '/prefix/of/x', '/prefix/of/x?y')])
    same('URLRewrite: a prefix to /', ['/', '/x', '/'], [gate('rewrite.t', p).json['path'] for p in ('/strip', '/strip/x', '/strip/')])
    same('URLRewrite: only whole elements', 404, gate('rewrite.t', '/stripes').status)
    a = ask('regex.t', '/users/jo/posts/42?x').json
    same('rewrite by regular expression', '/p/42/of/jo?x', a['path'])
    a = ask('regex.t', '/strip/a/b').json
    same('VirtualService: rewrite of a prefix, and the host', ('/a/b', 'inner.t'), (a['path'], a['headers']['host']))
    same('VirtualService: a prefix that ends in a slash, and one that ends inside an element', ['/v2/x/y', '/v2/', '/thing7/x?q', '/thing'],
         [ask('regex.t', p).json['path'] for p in ('/deep/x/y', '/deep/', '/item7/x?q', '/item')])
    same('a regular expression matches', 'd', where('regex.t', path='/aaab'))
    before = metric('weir_regex_overruns_total')
    a = ask('regex.t', '/' + 'a' * 3000 + 'cb')
    say('a regular expression that would work for ever is no match, and is counted', a.status == 404 and a.seconds < 1 and metric('weir_regex_overruns_total') > before, a)


def preflight(origin, host, call):
    return call(host, method='OPTIONS', headers={'Origin': origin, 'Access-Control-Request-Method': 'PUT', 'Access-Control-Request-Headers': 'x-one'})


def cors():
    for host, call, kind in (('cors.t', gate, 'HTTPRoute'), ('shared.t', ask, 'VirtualService')):
        for origin in ('https://a.t', 'https://x.b.t'):
            f = preflight(origin, host, call)
            say(f'CORS of {kind}: a preflight from {origin}', f.status in (200, 204) and f.fields['access-control-allow-origin'] == origin and f.fields['access-control-allow-credentials'] == 'true'
                and 'PUT' in f.fields['access-control-allow-methods'] and 'x-one' in f.fields['access-control-allow-headers'].lower() and f.fields['access-control-max-age'] == '600', f)
        f = call(host, headers={'Origin': 'https://a.t'})
        say(f'CORS of {kind}: an answer', f.status == 200 and f.fields['access-control-allow-origin'] == 'https://a.t' and f.fields['access-control-expose-headers'].lower() == 'x-three'
            and 'origin' in f.fields['vary'].lower(), f)
        for origin in ('https://evil.t', 'https://a.t.evil', 'null'):
            f = preflight(origin, host, call)
            say(f'CORS of {kind}: not for {origin}', 'access-control-allow-origin' not in f.fields, f)
        f = call(host, '/?h=Access-Control-Allow-Origin:*', headers={'Origin': 'https://evil.t'})
        same(f'CORS of {kind}: what the service says to others is ' + ('dropped' if host == 'cors.t' else 'its own affair (FORWARD)'), '' if host == 'cors.t' else '*', f.fields['access-control-allow-origin'])
    f = preflight('https://a.t', 'corsmoved.t', gate)
    say('CORS: a preflight is not redirected', f.status == 204 and f.fields['access-control-allow-methods'] == 'PUT', f)
    f = gate('corsmoved.t', headers={'Origin': 'https://a.t'})
    say('CORS: a redirect can be read', f.status == 302 and f.fields['access-control-allow-origin'] == 'https://a.t', f)
    f = gate('corsbroken.t', headers={'Origin': 'https://a.t'})
    say('CORS: a fault can be read', f.status == 500 and f.fields['access-control-allow-origin'] == 'https://a.t', f)
    f = gate('open.t', headers={'Origin': 'https://any.t'})
    same('CORS: everybody', '*', f.fields['access-control-allow-origin'])


def fields():
    sent = {'X-Set': 'old', 'X-Add': 'one', 'X-Gone': 'y'}
    for host, call in (('fields.t', ask), ('modify.t', gate)):
        a = call(host, '/?h=X-Secret:1&h=Server:theirs&h=X-Answer:one', headers=sent)
        h = a.json['headers']
        same(f'headers of the request ({host})', ('new', 'one, more', False), (h['x-set'], h['x-add'], 'x-gone' in h))
        same(f'headers of the answer ({host})', ('mine', False), (a.fields['server'], 'x-secret' in a.fields))
    same('headers: added to an answer', 'one, two', ask('fields.t', '/?h=X-Answer:one').fields['x-answer'])
    same('headers of one backendRef', 'a', gate('modify.t').json['headers']['x-backend'])


def direct():
    a = ask('direct.t')
    same('VirtualService: a direct response', (503, 'closed for today'), (a.status, a.text))
    a = gate('hello.t')
    same('HTTPFilter: a direct response', (203, {'hello': 1}, 'application/json'), (a.status, a.json, a.fields['content-type']))


def bodies():
    a = gate('edit.t', '/x12?a=34', method='POST', headers={'Content-Type': 'application/json'}, body='{"secret":1,"n":1.10,"big":12345678901234567890}')
    j = a.json
    same('transform: the request', '{"n":1.10,"big":12345678901234567890,"who":"weir"}', j['body'].replace(' ', ''))
    same('transform: the answer', ('POST', [1, 2], '/x#?a=#', False, False), (j.get('verb'), j['extra']['deep'], j['path'], 'headers' in j, 'method' in j))
    with socket.create_connection(('127.0.0.1', GATE), timeout=10) as s:  # the body comes later than the head, in pieces
        s.sendall(b'POST / HTTP/1.1\r\nHost: edit.t\r\nContent-Type: application/json\r\nContent-Length: 25\r\nConnection: close\r\n\r\n')
        for piece in b'{"secret":1,', b'"later":tru', b'e}':
            time.sleep(0.05)
            s.sendall(piece)
        whole = b''
        while piece := s.recv(65536):
            whole += piece
    same('transform: a body in pieces', '{"later":true,"who":"weir"}', json.loads(whole.split(b'\r\n\r\n')[1])['body'])
    a = gate('edit.t', '/?h=ETag:%22one%22')
    same('transform: an entity tag becomes weak', 'W/"one"', a.fields['etag'])
    a = gate('edit.t', '/', method='POST', headers={'Content-Type': 'application/json'}, body='{"x":')
    same('transform: a malformed request', 400, a.status)
    a = gate('edit.t', '/', method='POST', headers={'Content-Type': 'application/json'}, body='[' + '1,' * 4000 + '1]')
    same('transform: one that is too large', 413, a.status)
    flagged('transform: a malformed answer', gate('edit.t', '/?text=%7B'), 502, 'UPE')
    a = gate('edit.t', '/', method='POST', headers={'Content-Type': 'text/plain'}, body='{"x":')
    same('transform: what is no JSON passes', '{"x":', a.json['body'])
    a = gate('text.t', '/?size=5000&type=text/plain', headers={'Accept-Encoding': 'gzip'})
    say('transform: text, then compressed', gzip.decompress(a.body).startswith(b'a line of text that <ea> itself') and b'<ea>' in gzip.decompress(a.body), a)


def unpack(coding, data):
    if coding == 'gzip':
        return gzip.decompress(data)
    return subprocess.run({'br': ['brotli', '-dc'], 'zstd': ['zstd', '-dc']}[coding], input=data, capture_output=True, check=True).stdout


def compression():
    path = '/?size=20000&type=text/plain&h=ETag:%22v%22'
    plain = gate('gz.t', path)
    say('compression: not for who does not ask, but Vary', 'content-encoding' not in plain.fields and 'Accept-Encoding' in plain.fields['vary'] and plain.fields['etag'] == '"v"', plain)
    for accept, coding in (('gzip', 'gzip'), ('br', 'br'), ('zstd', 'zstd'), ('gzip;q=0.5, br;q=0.9, zstd;q=0.1', 'br'), ('gzip, br, zstd', 'zstd'), ('gzip, br', 'br'), ('*', 'zstd'), ('*;q=0.1, gzip', 'gzip'),
                           ('gzip;q=0, br;q=0, zstd;q=0, *', ''), ('identity, gzip;q=0.5', ''), ('deflate', ''), ('GZIP', 'gzip'), ('gzip;q=0', '')):
        a = gate('gz.t', path, headers={'Accept-Encoding': accept})
        good = a.fields['content-encoding'] == coding and 'Accept-Encoding' in a.fields['vary']
        if good and coding:
            good = unpack(coding, a.body) == plain.body and a.fields['etag'] == 'W/"v"' and len(a.body) < 2000
        say(f'compression: {accept}', good, (a.fields, len(a.body)))
    for why, more in (('an image', '&type=image/png'), ('little', '&type=text/plain&x'), ('encoded already', '&type=text/plain&h=Content-Encoding:br'), ('no-transform', '&type=text/plain&h=Cache-Control:no-transform')):
        a = gate('gz.t', f'/?size={100 if why == "little" else 20000}{more}', headers={'Accept-Encoding': 'gzip'})
        say(f'compression: not of {why}', a.fields['content-encoding'] in ('', 'br') and len(a.body) in (100, 20000), (a.fields, len(a.body)))
    same('compression: only what the filter names', '', gate('gzonly.t', path, headers={'Accept-Encoding': 'br'}).fields['content-encoding'])
    a = gate('gz.t', path, method='HEAD', headers={'Accept-Encoding': 'gzip'})
    say('compression: HEAD has no body', a.status == 200 and not a.body, a)
    for more, want in (('', 'Accept-Encoding'), ('&type=image/png', '')):
        same(f'compression: 304{more}', (304, want), (lambda x: (x.status, x.fields['vary']))(gate('gz.t', '/?status=304' + (more or '&type=text/html'))))
    for host in 'gz.t', 'edit.t':
        for asked, more, want in (('W/"v"', '', 'W/"v"'), ('"x", W/"v"', '', 'W/"v"'), ('"v"', '&type=application/json', '"v"'), ('', '&type=application/json', 'W/"v"'), ('', '&type=image/png', '"v"'), ('*', '&type=application/json', 'W/"v"')):
            a = gate(host, f'/?status=304&h=ETag:%22v%22{more}', headers={'Accept-Encoding': 'gzip', **({'If-None-Match': asked} if asked else {})})
            say(f'a changed body: the tag of a 304: {host}, {asked or "no tag"}, {more or "no type"}', (a.status, a.fields['etag'], a.fields['content-encoding']) == (304, want, ''), a.fields)
    said = lambda x: [x.fields[k] for k in ('vary', 'content-encoding', 'etag', 'content-type')]
    for host, p in (('gz.t', path), ('text.t', path), ('gz.t', '/?size=20000&type=image/png'), ('gz.t', '/?size=20000&type=text/plain&h=Cache-Control:no-transform')):
        for accept in ('gzip', 'identity'):
            head, got = (gate(host, p, method=m, headers={'Accept-Encoding': accept}) for m in ('HEAD', 'GET'))
            say(f'compression: HEAD has the fields of GET: {host}{p}, {accept}', said(head) == said(got) and (head.fields['content-length'] == str(len(got.body)) or not head.fields['content-length']),
                (head.fields, got.fields))


def answered(host, path):
    """The whole answer as it comes over the connection."""
    with socket.create_connection(('127.0.0.1', GATE), timeout=10) as s:
        s.sendall(f'GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: gzip\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n'.encode())
        whole = b''
        while piece := s.recv(65536):
            whole += piece
    return whole.decode('latin-1').lower()


def trailers():
    behind = '&trailer=X-Sum:7&trailer=Repr-Digest:x'
    for host, path, changed in (('gz.t', '/?size=20000&type=text/plain', True), ('gz.t', '/?size=20000&type=image/png', False), ('edit.t', '/?x=1', True), ('edit.t', '/?size=20000&type=text/plain', False)):
        for gap in '', '&gap=100':
            said = answered(host, path + behind + gap)
            good = said.startswith('http/1.1 200') and said.endswith('\r\n\r\n') and said.count('\r\nx-sum: 7\r\n') == 1 and ('\r\nrepr-digest: x' in said) != changed
            say(f'trailers behind a body that is {"changed" if changed else "left alone"}: {host}{path}{gap}', good, said[-300:])


def files():
    whole = open('www/big.txt', 'rb').read()
    c = connect(GATE)
    get = lambda path, **h: gate('files.t', path, conn=c, headers={k.replace('_', '-'): v for k, v in h.items()})
    a = get('/static/big.txt')
    tag, date = a.fields['etag'], a.fields['last-modified']
    say('files: the whole', a.status == 200 and a.body == whole and a.fields['content-type'].startswith('text/plain') and a.fields['cache-control'] == 'max-age=60' and a.fields['accept-ranges'] == 'bytes', a.fields)
    say('files: a strong entity tag', tag.startswith('"') and date.endswith('GMT'), a.fields)
    a = get('/static/big.txt', Range='bytes=100-199')
    same('files: a range', (206, whole[100:200], f'bytes 100-199/{len(whole)}'), (a.status, a.body, a.fields['content-range']))
    a = get('/static/big.txt', Range='bytes=-10')
    same('files: a suffix', (206, whole[-10:]), (a.status, a.body))
    a = get('/static/big.txt', Range=f'bytes={len(whole) - 5}-')
    same('files: an open range', (206, whole[-5:]), (a.status, a.body))
    a = get('/static/big.txt', Range=f'bytes={len(whole)}-')
    same('files: a range beyond the end', (416, f'bytes */{len(whole)}'), (a.status, a.fields['content-range']))
    a = get('/static/big.txt', Range='bytes=0-1,5-6')
    same('files: of several ranges, all', (200, len(whole)), (a.status, len(a.body)))
    same('files: If-None-Match', (304, b''), (lambda x: (x.status, x.body))(get('/static/big.txt', If_None_Match=f'"x", {tag}')))
    same('files: If-Modified-Since', 304, get('/static/big.txt', If_Modified_Since=date).status)
    same('files: If-Match of another', 412, get('/static/big.txt', If_Match='"x"').status)
    same('files: If-Range of another', 200, get('/static/big.txt', If_Range='"x"', Range='bytes=0-1').status)
    same('files: If-Range of this', 206, get('/static/big.txt', If_Range=tag, Range='bytes=0-1').status)
    same('files: the index', (200, '<h1>index</h1>'), (lambda x: (x.status, x.text))(get('/static/')))
    a = get('/static/sub')
    same('files: a folder without its slash', (301, True), (a.status, a.fields['location'].endswith('/static/sub/')))
    same('files: HEAD', (200, b'', str(len(whole))), (lambda x: (x.status, x.body, x.fields['content-length']))(gate('files.t', '/static/big.txt', method='HEAD')))
    same('files: nothing else', 405, gate('files.t', '/static/big.txt', method='POST', body='x').status)
    a = get('/static/app.js', Accept_Encoding='gzip')
    say('files: a compressed neighbour', a.fields['content-encoding'] == 'gzip' and gzip.decompress(a.body) == b'let a = 1;' and 'javascript' in a.fields['content-type'] and 'Accept-Encoding' in a.fields['vary'], a)
    same('files: not for who does not ask', 'let a = 1;', get('/static/app.js').text)
    for path in ('/static/../outside.txt', '/static/..%2foutside.txt', '/static/%2e%2e/outside.txt', '/static/.hidden/x', '/static/link.txt', '/static//../outside.txt', '/static/sub/..%5c..%5coutside.txt',
                 '/static/big.txt%00', '/static/%252e%252e/outside.txt', '/static/sub/../../outside.txt', '/staticoutside.txt/../x'):
        a = gate('files.t', path)
        say(f'files: {path}', a.status in (400, 404) and b'secret' not in a.body and b'hidden' not in a.body, a)
    same('files: fallback', (200, '<h1>index</h1>'), (lambda x: (x.status, x.text))(gate('files.t', '/some/page')))
    same('files: not there', 404, get('/static/none').status)


def aggregation():
    a = gate('page.t', '/user/jo?ms=0')
    j = a.json
    same('aggregation: what arrived, by name and pointer, as declared', (200, 'jo', [1, 2], 1, True), (a.status, j['user'], j['slow'], j['a'], j['partial']))
    missing = {m['part']: m['reason'] for m in j['missing']}
    say('aggregation: what is missing is null, and listed with the reason', j['gone'] is None and j['page'] is None and missing == {'gone': 'refused', 'page': 'not JSON'}, j)
    before = metric('weir_aggregate_partial_total')
    a = gate('page.t', '/user/jo?ms=2000')
    j = a.json
    say('aggregation: a slow part is not waited for', a.status == 200 and j['slow'] is None and 0.35 < a.seconds < 1.5 and 'timeout' in a.text, a)
    same('aggregation: it is counted', before + 1, metric('weir_aggregate_partial_total'))
    a = gate('page.t', '/must?how=x&ms=0')
    same('aggregation: nothing is missing', (200, {'one': 1, 'two': 2}), (a.status, a.json))
    flagged('aggregation: a required part that fails', gate('page.t', '/must?how=status&ms=0'), 502, 'UPE', 'status 5xx')
    flagged('aggregation: a required part that is late', gate('page.t', '/must?how=x&ms=2000'), 504, 'UT', 'timeout')
    flagged('aggregation: a placeholder without a value', gate('page.t', '/must?how=x'), 502, 'UPE', 'query:ms')
    same('aggregation: it can only be read', 405, gate('page.t', '/user/x', method='POST', body='x').status)


run([splits, delegates, redirects, rewrites, cors], [fields, direct, bodies, compression, trailers, files, aggregation])
