"""A service that does what the query of a request says, on one port or on several; each port is an endpoint with a name of its own.

usage: origin.py NAME:PORT...      (a NAME of "-" is the host's name)

The answer is JSON: who answered, on which of its connections, and what it was sent. In the query:

  ms=N        answered after N ms                     status=S    with this status
  drop=1      not answered: the connection ends       on=NAME     the three above hold at this endpoint only
  fail=N      they hold for the first N requests of this key only
  key=K       what the request is counted under (or the field X-Key)
  text=T      the body, instead of the JSON           size=N      the body: N bytes of text
  h=NAME:VALUE   a field of the answer                type=T      Content-Type
  gap=N       the last byte of the body comes N ms after the others
  trailer=NAME:VALUE   a field behind the body, which is chunked then

  GET /_/count?key=K   requests of that key by endpoint, and the most at once         GET /_/connections   open now, by endpoint
  GET /_/call?url=U&h=NAME:VALUE   what http://host/path says to this process: how one service calls another
"""
import asyncio
import collections
import http.client
import json
import os
import sys
from urllib.parse import parse_qs, urlsplit

seen = collections.defaultdict(collections.Counter)
now, peak, failed, opened, last = (collections.Counter() for _ in range(5))


def call(query):
    to = urlsplit(query['url'][0])
    fields = dict(h.split(':', 1) for h in query.get('h', []))
    c = http.client.HTTPConnection(to.hostname, to.port or 80, timeout=10)
    c.request('GET', (to.path or '/') + ('?' + to.query if to.query else ''), headers=fields)
    r = c.getresponse()
    return {'status': r.status, 'headers': {k.lower(): v for k, v in r.getheaders()}, 'text': r.read().decode()}


async def body_of(reader, fields):
    if fields.get('transfer-encoding', '').lower() != 'chunked':
        return await reader.readexactly(int(fields.get('content-length', 0)))
    body = b''
    while size := int((await reader.readline()).split(b';')[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    while (await reader.readline()).strip():
        pass
    return body


async def answer(name, connection, method, target, fields, body):
    """Status, fields and body; or None: none."""
    url = urlsplit(target)
    query = parse_qs(url.query, keep_blank_values=True)
    one = lambda k, other='': query.get(k, [other])[0]
    key = one('key') or fields.get('x-key', '')
    if url.path == '/_/count':
        return 200, [], json.dumps({'seen': seen[key], 'peak': peak[key]})
    if url.path == '/_/connections':
        return 200, [], json.dumps(opened)
    if url.path == '/_/call':
        return 200, [], json.dumps(await asyncio.get_running_loop().run_in_executor(None, call, query))
    seen[key][name] += 1
    now[key] += 1
    peak[key] = max(peak[key], now[key])
    here = one('on', name) == name
    if here and 'fail' in query:
        failed[key] += 1
        here = failed[key] <= int(one('fail'))
    try:
        if here:
            await asyncio.sleep(int(one('ms', '0')) / 1000)
    finally:
        now[key] -= 1
    if here and one('drop'):
        return None
    status = int(one('status', '200')) if here else 200
    out = [h.split(':', 1) for h in query.get('h', [])] + [('Content-Type', one('type', 'application/json'))]
    if 'text' in query:
        return status, out, one('text')
    if 'size' in query:
        return status, out, ('a line of text that repeats itself, ' * (int(one('size')) // 36 + 1))[:int(one('size'))]
    return status, out, json.dumps({'name': name, 'connection': connection, 'method': method, 'path': target, 'headers': fields,
                                    'body': body.decode('utf-8', 'replace')})


async def serve(name, reader, writer):
    last[name] += 1
    opened[name] += 1
    connection = last[name]
    try:
        while True:
            head = (await reader.readuntil(b'\r\n\r\n')).decode('latin-1').split('\r\n')
            method, target, _ = head[0].split(' ')
            fields = {}
            for line in head[1:-2]:
                k, v = line.split(':', 1)
                k, v = k.lower(), v.strip()
                fields[k] = fields[k] + ', ' + v if k in fields else v
            body = await body_of(reader, fields)
            said = await answer(name, connection, method, target, fields, body)
            if not said:
                break
            status, out, text = said
            data = text.encode()
            lines = [f'HTTP/1.1 {status} Said'] + [f'{k}: {v}' for k, v in out]
            query = parse_qs(urlsplit(target).query)
            trailers = query.get('trailer')
            if trailers:
                lines.append('Transfer-Encoding: chunked')
            elif status not in (204, 304):
                lines.append(f'Content-Length: {len(data)}')
            if trailers:
                data = b'%x\r\n%b\r\n0\r\n' % (len(data), data) + ''.join(t + '\r\n' for t in trailers).encode() + b'\r\n'
            data = b'' if method == 'HEAD' or status in (204, 304) else data
            gap = int(query.get('gap', ['0'])[0])
            writer.write('\r\n'.join(lines + ['', '']).encode() + (data[:-1] if gap else data))
            if gap:
                await writer.drain()
                await asyncio.sleep(gap / 1000)
                writer.write(data[-1:])
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError, ValueError):
        pass
    opened[name] -= 1
    writer.close()


async def main():
    for arg in sys.argv[1:]:
        name, port = arg.split(':')
        name = os.uname().nodename if name == '-' else name
        await asyncio.start_server(lambda r, w, n=name: serve(n, r, w), '0.0.0.0', int(port), backlog=256)
    await asyncio.Event().wait()


asyncio.run(main())
