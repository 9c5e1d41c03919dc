"""Talks to the gateway as no good client would, with the origin of peer.py behind it, and prints "ok NAME" or "not ok NAME WHY".

usage: checks.py GATEWAY_PORT PEER_PORT ADMIN_PORT ENGINE_PID
"""
import re
import socket
import sys
import threading
import time
import urllib.request

GATEWAY, PEER, ADMIN, ENGINE = map(int, sys.argv[1:5])
RSS_MAX = 8 << 20
MEBI = 1 << 20


def say(name, good, why=''):
    print(('ok ' if good else 'not ok ') + name + ('' if good else f' ({str(why)[:300]})'), flush=True)


def connect(port=GATEWAY, rcvbuf=0):
    s = socket.socket()
    if rcvbuf:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    s.settimeout(30)
    s.connect(('127.0.0.1', port))
    return s


def read_all(s, seconds=15):
    """What comes until the end; and how it ended: 'end', 'reset', 'time'."""
    got, end = [], time.monotonic() + seconds
    while True:
        s.settimeout(max(0.01, end - time.monotonic()))
        try:
            piece = s.recv(MEBI)
        except TimeoutError:
            return b''.join(got), 'time'
        except OSError:
            return b''.join(got), 'reset'
        if not piece:
            return b''.join(got), 'end'
        got.append(piece)


def ask(data, seconds=15, port=GATEWAY):
    with connect(port) as s:
        s.sendall(data)
        return read_all(s, seconds)


def get(path, fields='', version='1.1', method='GET', close=True):
    return f'{method} {path} HTTP/{version}\r\nHost: peers.test\r\n{"Connection: close" if close else "X: y"}\r\n{fields}\r\n'.encode()


def post(path, body, fields='', close=True):
    return get(path, f'Content-Length: {len(body)}\r\n{fields}', method='POST', close=close) + body


def statuses(answer):
    return [int(m) for m in re.findall(rb'HTTP/1\.1 (\d{3}) ', answer)]


def metrics():
    with urllib.request.urlopen(f'http://127.0.0.1:{ADMIN}/metrics', timeout=5) as r:
        return r.read().decode()


def metric(name, part=''):
    return sum(float(line.rsplit(' ', 1)[1]) for line in metrics().splitlines() if re.match(name + r'[{ ]', line) and part in line)


def rss():
    with open(f'/proc/{ENGINE}/statm') as f:
        return int(f.read().split()[1]) * 4096


def serves(name):
    answer, how = ask(get('/ok'))
    say(name, statuses(answer) == [200] and answer.endswith(b'ok') and how == 'end', answer)


def misbehaves(path, status, flag, method='GET', seconds=15, cut=False, body=b''):
    """One request to it has this status and counts under this flag; cut: the answer is seen to be incomplete."""
    before = metric('istio_requests_total', f'response_flags="{flag}"')
    answer, how = ask(get(path, method=method) if method == 'GET' else post(path, body), seconds)
    whole = answer.endswith(b'0\r\n\r\n') or (b'Content-Length: 1000\r\n' in answer and len(answer) > 1000)
    good = [s for s in statuses(answer) if s >= 200] == [status] and (not cut or not whole) and how != 'time'
    say(f'{path} of an origin is {status}{", cut" if cut else ""}', good, (how, answer[:200], answer[-100:]))
    after, end = before, time.monotonic() + 5
    while after == before and time.monotonic() < end:  # it is counted behind its answer
        after = metric('istio_requests_total', f'response_flags="{flag}"')
    say(f'{path} counts as {flag}', after == before + 1, (before, after))


def origins():
    misbehaves('/silent', 502, 'UC')
    misbehaves('/cut-head', 502, 'UC')
    misbehaves('/garbage', 502, 'UPE')
    misbehaves('/two-lengths', 502, 'UPE')
    misbehaves('/both-lengths', 502, 'UPE')
    misbehaves('/control', 502, 'UPE')
    misbehaves('/switch', 502, 'UPE')
    misbehaves('/flood', 502, 'UPE')
    misbehaves('/huge-head', 502, 'UPE')
    misbehaves('/hang', 504, 'UT')
    misbehaves('/cut-body', 200, 'UC', cut=True)
    misbehaves('/cut-chunk', 200, 'UC', cut=True)
    misbehaves('/cut-open', 200, 'UC', cut=True)
    misbehaves('/extensions', 200, 'UC', cut=True)
    misbehaves('/trailers', 200, 'UC', cut=True)
    answer, how = ask(get('/cut-open', version='1.0'))
    say('an answer without length that is cut reaches HTTP/1.0 as a reset', how == 'reset', (how, answer))
    answer, how = ask(get('/banner'))
    say('an answer from before the request is taken for it and no other', statuses(answer) in ([200], [502]) and answer.count(b'banner') <= 1, answer)
    answer, how = ask(get('/drip'))
    say('an answer that drips arrives whole', answer.count(b'1\r\nd\r\n') + answer.count(b'd') > 0 and answer.endswith(b'0\r\n\r\n'), answer)
    for n, status in ((65000, 200), (65536, 502)):
        answer, _ = ask(get(f'/big-head?{n}'))
        say(f'an answer with a field of {n} bytes is {status}', statuses(answer) == [status], answer[:100])
    answer, _ = ask(get('/hints'))
    say('interim answers pass', statuses(answer) == [103, 103, 103, 200], answer)
    answer, _ = ask(get('/hints', version='1.0'))
    say('... but not to HTTP/1.0', statuses(answer) == [200], answer)
    answer, _ = ask(get('/good-trailers', 'TE: trailers\r\n'))
    say('trailers pass, those of framing and routing do not', answer.endswith(b'0\r\nX-Sum: 7\r\n\r\n'), answer)


def splitting():
    """What an origin sends beyond its answer is never somebody else's."""
    for path in ('/twice', '/twice-late'):
        with connect() as s:
            s.sendall(get(path, close=False))
            time.sleep(0.4)
            s.sendall(get('/ok') * 1)
            answer, _ = read_all(s)
        say(f'{path}: the second answer goes nowhere', statuses(answer) == [200, 200] and b'evil' not in answer, answer)
    evil = 0
    for _ in range(20):
        answer, _ = ask(get('/twice', close=False) * 3 + get('/ok'))
        evil += b'evil' in answer or statuses(answer) != [200] * 4
    say('... nor in a pipeline', evil == 0, evil)


def repetition():
    """GET is tried again, POST never."""
    for method, tries in (('GET', b'3'), ('POST', b'1')):
        key = f'{method}-{time.monotonic_ns()}'
        ask(get(f'/silent?{key}') if method == 'GET' else post(f'/silent?{key}', b'abc'))
        answer, _ = ask(b'GET /count?%s HTTP/1.1\r\nHost: x\r\n\r\n' % key.encode(), 1, PEER)
        say(f'{method} reaches a closing origin {tries.decode()} times', answer.endswith(b'\r\n\r\n' + tries), answer)
    for _ in range(3):  # on a kept connection
        ask(get('/ok'))
        key = f'kept-{time.monotonic_ns()}'
        ask(post(f'/silent?{key}', b'abc'))
        answer, _ = ask(b'GET /count?%s HTTP/1.1\r\nHost: x\r\n\r\n' % key.encode(), 1, PEER)
        say('POST on a kept connection reaches it once', answer.endswith(b'\r\n\r\n1'), answer)


def early():
    big = b'x' * (4 * MEBI)
    for path in ('/early', '/early-open'):
        with connect() as s:
            s.sendall(get(path, f'Content-Length: {len(big)}\r\n', method='POST', close=False))
            try:
                s.sendall(big)
            except OSError:
                pass
            answer, how = read_all(s, 5)
        say(f'{path}: an answer before the body was read arrives', statuses(answer) == [413] and answer.endswith(b'big'), (how, answer))
        say(f'{path}: and ends the connection', how != 'time' and b'Connection: close' in answer, (how, answer))
    with connect() as s:
        s.sendall(get('/early', 'Content-Length: 5\r\nExpect: 100-continue\r\n', method='POST', close=False))
        answer, how = read_all(s, 5)
    say('a final answer instead of 100 arrives, and closes', statuses(answer) == [413] and b'Connection: close' in answer and how == 'end', (how, answer))
    with connect() as s:
        s.sendall(get('/continue', 'Content-Length: 5\r\nExpect: 100-continue\r\n', method='POST'))
        first = s.recv(1000)
        s.sendall(b'12345')
        answer, how = read_all(s, 5)
    say('100 comes from the origin, then the answer', statuses(first + answer) == [100, 200] and answer.endswith(b'5'), first + answer)
    answer, _ = ask(get('/continue', 'Content-Length: 5\r\nExpect: 100-continue\r\n', version='1.0', method='POST') + b'12345')
    say('HTTP/1.0 gets no 100', statuses(answer) == [200], answer)
    with connect() as s:
        s.sendall(get('/never-read', f'Content-Length: {64 * MEBI}\r\n', method='POST'))
        before = rss()
        s.settimeout(1)
        sent = 0
        try:
            while sent < 64 * MEBI:
                sent += s.send(big[:65536])
        except OSError:
            pass
        grown = rss() - before
        answer, how = read_all(s, 10)
    say('an origin that never reads stops the client', sent < 32 * MEBI and grown < RSS_MAX, (sent, grown))
    say('... and is 504', statuses(answer) == [504], (how, answer))


def clients():
    """Clients that are slow, leave, or never read."""
    before = rss()
    crowd = [connect() for _ in range(200)]
    for s in crowd:
        s.sendall(b'GET /ok HTTP/1.1\r\nHost: x\r\nX-Slow: ')
    lazy = []
    for _ in range(100):  # a pipeline of a gibibyte of answers, never read
        s = connect(rcvbuf=4096)
        s.setblocking(False)
        try:
            for _ in range(50):
                s.send(get(f'/big?{MEBI}', close=False) * 20)
        except OSError:
            pass
        lazy.append(s)
    time.sleep(3)
    grown = rss() - before
    say('200 half heads and 100 clients that do not read cost less than 64 MiB', grown < 64 * MEBI, grown)
    serves('others are served meanwhile')
    refused = metric('weir_requests_refused_total', 'slow_head')
    patient, start = connect(rcvbuf=4096), time.monotonic()  # slower than the time that a closing connection lingers
    patient.sendall(get(f'/big?{MEBI}'))
    slow, how = read_all(crowd[0], 15)
    say('a slow head is 408', statuses(slow) == [408] and how == 'end', (how, slow))
    end = time.monotonic() + 10  # the others came later, and so is their time over
    while (counted := metric('weir_requests_refused_total', 'slow_head') - refused) < 200 and time.monotonic() < end:
        time.sleep(0.1)
    say('... and counted', counted == 200, counted)
    time.sleep(max(0, start + 5 - time.monotonic()))
    answer, how = read_all(patient)
    say('a closing answer waits for a slow reader', len(answer) > MEBI and how == 'end', (how, len(answer)))
    for s in crowd + lazy + [patient]:
        s.close()
    end = time.monotonic() + 10
    while metric('weir_downstream_connections') > 1 and time.monotonic() < end:
        time.sleep(0.2)
    say('their connections are gone', metric('weir_downstream_connections') <= 1, metric('weir_downstream_connections'))
    with connect() as s:
        s.sendall(get('/ok', close=False) * 3)
        s.shutdown(socket.SHUT_WR)
        answer, how = read_all(s)
    say('half-closing behind a pipeline is leaving: whole answers or none', set(statuses(answer)) <= {200} and how == 'end', (how, answer))
    for n in range(40):  # leave at every point of a request
        s = connect()
        s.sendall((get('/hang') + b'x')[:n * 3])
        s.close()
    for path in ('/big?50000000', '/drip', '/hang', '/flood'):
        s = connect()
        s.sendall(get(path))
        time.sleep(0.05)
        s.close()
    attack = b'GET /ok HTTP/1.1\r\nHost: x\r\nConnection: close, ' + b'a,' * 30000 + b'\r\n' + b'X-Y: z\r\n' * 90 + b'\r\n'
    start = time.monotonic()
    for _ in range(20):
        answer, _ = ask(attack)
    took = time.monotonic() - start
    say('a Connection field of 30,000 names is refused quickly', statuses(answer) == [431] and took < 1, (took, answer[:100]))


def heads():
    answer, _ = ask(get('/head', 'Forwarded: for="unclosed\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Port: 1\r\nTE: trailers\r\nKeep-Alive: 9\r\nProxy-Connection: x\r\n'
                        'Connection: X-Hop\r\nX-Hop: 1\r\nUpgrade: h2c\r\n'))
    seen = answer.split(b'\r\n\r\n', 1)[1]
    say('an open quote in Forwarded swallows nothing', b'\r\nforwarded: for=127.0.0.1;host="peers.test";proto=http\r\n' in seen, seen)
    say('X-Forwarded-For is a chain', b'\r\nx-forwarded-for: 1.2.3.4, 127.0.0.1\r\n' in seen, seen)
    say('hop-by-hop fields stay behind', not re.search(rb'(?i)\n(x-hop|keep-alive|proxy-connection|upgrade|x-forwarded-port):', seen), seen)
    with connect() as s:
        s.sendall(get('/sink', 'Transfer-Encoding: chunked\r\n', method='POST'))
        time.sleep(0.1)
        s.sendall(b'3\r\nabc\r\n')
        time.sleep(0.1)
        s.sendall(b'0\r\nX-Sum: 7\r\nX-Forwarded-For: 6.6.6.6\r\nHost: evil\r\n\r\n')
        answer, _ = read_all(s)
    say('request trailers pass, those that name the client or the host do not', answer.endswith(b'3 X-Sum: 7'), answer)
    answer, _ = ask(get('/sink', 'Transfer-Encoding: chunked\r\n', method='POST') + b'3\r\nabc\r\n0\r\nX-Sum: 7\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n')
    say('... also when all comes at once', answer.endswith(b'3 X-Sum: 7'), answer)


def claims():
    """What only Weir says of who the client is, said by the client in each way that a service might hear."""
    names = ('X-Forwarded-Client-Cert', 'X-Forwarded-For', 'X-Forwarded-Proto', 'X-Forwarded-Host', 'X-Forwarded-Port', 'Forwarded')
    ways = [(lambda n: n.replace('-', '_'), 'with underscores'), (lambda n: n.replace('-', '_').upper(), 'with underscores, in upper case'),
            (lambda n: n.replace('-', '_', 1).lower(), 'with one underscore')]
    for way, how in ways:
        fields = ''.join(f'{way(n)}: 6.6.6.6\r\n' for n in names if way(n).lower() != n.lower())
        seen = ask(get('/head', fields))[0].split(b'\r\n\r\n', 1)[1]
        say(f'claims {how} are dropped', b'6.6.6.6' not in seen and b'x-forwarded-for: 127.0.0.1' in seen, seen)
        answer, _ = ask(get('/sink', 'Transfer-Encoding: chunked\r\n', method='POST') + b'3\r\nabc\r\n0\r\n' + fields.encode() + b'X_Sum: 7\r\n\r\n')
        say(f'claims {how} in trailers are dropped, others pass', answer.endswith(b'3 X_Sum: 7'), answer)
    seen = ask(get('/head', 'X-FORWARDED-CLIENT-CERT: Hash=1\r\nx-forwarded-client-cert: Hash=2\r\nConnection: x-forwarded-client-cert\r\nX_Other: kept\r\nxForwarded_For: kept\r\n'))[0]
    seen = seen.split(b'\r\n\r\n', 1)[1].lower()
    say('twice, in other case, named by Connection: dropped', b'hash=' not in seen, seen)
    say('other names with underscores pass', b'\nx_other: kept' in seen and b'\nxforwarded_for: kept' in seen, seen)
    answer = ask(get('/sink', 'Transfer-Encoding: chunked\r\n', method='POST') + b'0\r\nX-Forwarded-Client-Cert: Hash=1\r\ntraceparent: 00-1\r\nVia: x\r\nX-Request-Id: x\r\n\r\n')[0]
    say('nothing of it comes in trailers', answer.endswith(b'0 '), answer)


def gibibyte():
    n, block = 1 << 30, b'x' * MEBI
    ask(get(f'/big?{8 * MEBI}'))
    before = rss()
    peak = [before]
    over = threading.Event()

    def watch():
        while not over.wait(0.02):
            peak[0] = max(peak[0], rss())
    watcher = threading.Thread(target=watch)
    watcher.start()
    with connect() as s:
        s.sendall(get(f'/big?{n}'))
        got = 0
        view = memoryview(bytearray(MEBI))
        while k := s.recv_into(view):
            got += k
    say('a gibibyte comes down', got > n, got)
    say('... and costs less than 8 MiB of memory', peak[0] - before < RSS_MAX, peak[0] - before)
    with connect() as s:
        s.sendall(get('/sink', f'Content-Length: {n}\r\n', method='POST'))
        for _ in range(n // MEBI):
            s.sendall(block)
        answer, _ = read_all(s)
    say('a gibibyte goes up', answer.endswith(b'\r\n\r\n%d ' % n), answer)
    say('... and costs less than 8 MiB of memory, too', peak[0] - before < RSS_MAX, peak[0] - before)
    with connect() as s:
        s.sendall(get('/sink', 'Transfer-Encoding: chunked\r\n', method='POST'))
        chunk = b'fffff\r\n' + b'x' * 0xfffff + b'\r\n'
        for _ in range(64):
            s.sendall(chunk)
        s.sendall(b'0\r\n\r\n')
        answer, _ = read_all(s)
    say('so does a chunked body', answer.endswith(b'\r\n\r\n%d ' % (64 * 0xfffff)), answer)
    over.set()
    watcher.join()


def at_rest():
    end = time.monotonic() + 15
    while time.monotonic() < end:
        left = [metric('weir_requests_in_flight'), metric('weir_downstream_connections')]
        if left == [0, 0]:
            break
        time.sleep(0.3)
    say('nothing is in flight at the end', left == [0, 0], left)


serves('the gateway serves')
start_rss = rss()
for part in (origins, splitting, repetition, early, heads, claims, clients, gibibyte):
    part()
    serves(f'the next request is served after {part.__name__}')
at_rest()
say('the engine has not grown by more than 32 MiB in all', rss() - start_rss < 32 * MEBI, rss() - start_rss)
