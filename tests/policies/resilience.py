"""What happens when services are slow, refuse, fail or are too busy: limits, retries, timeouts, lifetimes, hedges, mirrors, faults, shedding."""
import collections
import socket
import struct
import time

from client import ask, calls, connect, counted, flagged, gate, log, logged, metric, opened, run, same, say, spread, together, wait_for


def at_once(n, call, gap=0.0):
    def one(i):
        time.sleep(i * gap)
        return call()
    return together([lambda i=i: one(i) for i in range(n)])


def statuses(answers):
    return dict(collections.Counter(a.status for a in answers))


def refused(answers, status=503):
    return next((a for a in answers if a.status == status), answers[0])


def breakers():
    got = at_once(3, lambda: ask('conns.fleet', '/?ms=500&key=conns'), 0.1)
    same('maxConnections 1, http1MaxPendingRequests 1: of three, one waits and one is refused', {200: 2, 503: 1}, statuses(got))
    flagged('maxConnections: the refusal is UO', refused(got), 503, 'UO', 'wait for a connection')
    same('maxConnections: one connection, one request at once', 1, counted('conns')['peak'])
    say('maxConnections: who waited was answered after the first', max(a.seconds for a in got) > 0.7, got)
    got = at_once(3, lambda: ask('reqs.fleet', '/?ms=400'), 0.05)
    same('http2MaxRequests 2: the third is refused', {200: 2, 503: 1}, statuses(got))
    flagged('http2MaxRequests: the refusal is UO', refused(got), 503, 'UO', 'in flight')
    got = at_once(4, lambda: ask('queue.fleet', '/?ms=200'))
    same('maxConnections: waiting for one is not connecting', {200: 4}, statuses(got))
    got = at_once(40, lambda: ask('queue.fleet'))
    same('maxConnections: all workers share it', {200: 40}, statuses(got))
    c = connect()
    got = [ask('turns.fleet', conn=c) for _ in range(9)]
    same('maxConnections: all endpoints share it', dict(a=3, b=3, c=3), dict(collections.Counter(a.name for a in got)))
    say('maxConnections: nobody waits for what is at rest', max(a.seconds for a in got) < 1, got)
    say('and afterwards there is room', all(ask('reqs.fleet').status == 200 for _ in range(4)))


def retry_limits():
    before = metric('weir_upstream_retries_refused_total')
    got = at_once(3, lambda: ask('maxretry.fleet', '/?ms=300&status=503&key=maxretry'))
    same('maxRetries 1: of three failures at once one is tried again', 4, calls('maxretry'))
    flags = sorted(logged(a).get('flags') for a in got)
    same('maxRetries: the log says who may not be tried again (UO), and who was (URX)', ['UO', 'UO', 'URX'], flags)
    say('maxRetries: they are counted', metric('weir_upstream_retries_refused_total') >= before + 2)
    a = ask('budget.fleet', '/?status=503&key=budget')
    flagged('retryBudget: none in it, none made', a, 503, 'UO')
    same('retryBudget: one call', 1, calls('budget'))


def retries():
    a = ask('r503.fleet', '/?status=503&fail=2&key=r503')
    same('retries: the third attempt answers', (200, 3, 3), (a.status, calls('r503'), logged(a).get('tries')))
    a = ask('r503.fleet', '/?status=503&key=r503b')
    flagged('retries: after the last the answer is the service\'s, and the log says URX', a, 503, 'URX')
    same('retries: two beyond the first', 3, calls('r503b'))
    c = counted('r503b')['seen']
    same('retries: each at another endpoint', 3, len(c))
    a = ask('r503.fleet', '/?status=503&fail=1&key=r503p', method='POST', body='x' * 2000)
    same('retries: a status that is named holds for POST too, body and all', (200, 2, 'x' * 2000), (a.status, calls('r503p'), a.json['body']))
    before = metric('weir_upstream_replay_overflow_total')
    a = ask('r503.fleet', '/?status=503&fail=1&key=r503l', method='POST', body='x' * 200000)
    same('retries: not of a body that is not kept, and that is counted', (503, 1, 1), (a.status, calls('r503l'), metric('weir_upstream_replay_overflow_total') - before))
    a = ask('r503.fleet', '/?status=500&key=r500')
    same('retries: a status that is not named is not tried again', (500, 1), (a.status, calls('r500')))
    a = ask('rgw.fleet', '/?status=500&key=rgw500')
    b = ask('rgw.fleet', '/?status=504&fail=1&key=rgw504')
    same('retries: gateway-error', (500, 1, 200, 2), (a.status, calls('rgw500'), b.status, calls('rgw504')))
    a = ask('rreset.fleet', '/?drop=1&fail=1&key=rreset', method='POST', body='y')
    same('retries: reset holds for POST', (200, 2), (a.status, calls('rreset')))
    a = ask('r4xx.fleet', '/?status=409&fail=1&key=r409')
    b = ask('r4xx.fleet', '/?status=404&fail=1&key=r404')
    same('retries: retriable-4xx is 409', (200, 2, 404, 1), (a.status, calls('r409'), b.status, calls('r404')))
    a = ask('rnone.fleet', '/?status=503&key=rnone')
    same('retries: attempts 0', (503, 1), (a.status, calls('rnone')))
    flagged('a service that closes in place of an answer', ask('rnone.fleet', '/?drop=1&key=drop', method='POST', body='z'), 502, 'UC')
    got = [ask('half.fleet', method='POST', body='w').status for _ in range(10)]
    same('retries: connect-failure', [200] * 10, got)
    flagged('nobody listens', ask('nobody.fleet'), 503, 'UF')


def slowly():
    for piece in b'ab', b'cd', b'ef':
        yield piece
        time.sleep(0.2)


def timeouts():
    a = ask('pertry.fleet', '/?ms=1000&fail=1&key=pertry')
    same('perTryTimeout: the second attempt answers', (200, 2), (a.status, calls('pertry')))
    say('perTryTimeout: in its time', 0.2 < a.seconds < 0.9, a)
    a = ask('pertry.fleet', '/?ms=1500&key=pertry3')
    flagged('perTryTimeout: all attempts too slow', a, 504, 'UT')
    say('perTryTimeout: three attempts of 250 ms', calls('pertry3') == 3 and 0.7 < a.seconds < 1.4, a)
    a = ask('pertry.fleet', '/?key=pertryup', method='POST', headers={'Content-Length': '6'}, body=slowly())
    same('perTryTimeout: a client that takes longer to send its body is not the service', (200, 1), (a.status, calls('pertryup')))
    a = ask('pertry.fleet', '/?ms=1000&fail=1&key=pertryup2', method='POST', headers={'Content-Length': '6'}, body=slowly())
    same('perTryTimeout: which has its time then, and the next attempt the body', (200, 2, 'abcdef'), (a.status, calls('pertryup2'), a.json.get('body')))
    a = ask('total.fleet', '/?ms=2000')
    flagged('timeout: 504', a, 504, 'UT')
    say('timeout: after 300 ms', 0.28 < a.seconds < 0.9, a)
    a = ask('backoff.fleet', '/?status=503&key=backoff')
    say('back-off: two pauses of at least 150 ms', calls('backoff') == 3 and 0.3 <= a.seconds < 2, a)


def lifetimes():
    c = connect()
    got = [ask('perconn.fleet', conn=c).json['connection'] for _ in range(6)]
    same('maxRequestsPerConnection: two each', [2, 2, 2], list(collections.Counter(got).values()))
    begun = time.monotonic()
    first = ask('age.fleet', conn=c).json['connection']
    same('maxConnectionDuration: a connection is kept before', first, ask('age.fleet', conn=c).json['connection'])
    changed = wait_for(4, lambda: ask('age.fleet', conn=c).json['connection'] != first)
    say('maxConnectionDuration: and changes after it', changed and 0.5 < time.monotonic() - begun < 2, time.monotonic() - begun)
    say('maxConnectionDuration: one at rest is closed', wait_for(4, lambda: opened('e') == 0), opened('e'))


def idle():
    ask('idle.fleet')
    begun = time.monotonic()
    same('idleTimeout: a kept connection is there', 1, opened('f'))
    say('idleTimeout: and is closed after it', wait_for(4, lambda: opened('f') == 0) and 0.5 < time.monotonic() - begun < 3, f'{opened("f")} after {time.monotonic() - begun}')


def hedges():
    for host in 'hedged.pods', 'patient.pods':
        slow = gate(host).name
        before, won = metric('weir_hedged_requests_total'), metric('weir_hedged_requests_won_total')
        got = [gate(host, f'/?on={slow}&ms=1500&key={host}') for _ in range(20)]
        say(f'hedging ({host}): the slow endpoint is not waited for', all(a.status == 200 and a.seconds < 1.2 and a.name != slow for a in got), [(a.seconds, a.name) for a in got])
        say(f'hedging ({host}): it is counted', metric('weir_hedged_requests_total') > before and metric('weir_hedged_requests_won_total') > won)
    def seen_in_pods(key):  # each replica counts for itself
        total = collections.Counter()
        for _ in range(30):
            total.update({})
            a = gate('hedged.pods', f'/_/count?key={key}').json['seen']
            for k, v in a.items():
                total[k] = v
            if len(total) > 1:
                break
        return sum(total.values())
    a = gate('hedged.pods', '/?ms=400&key=posted', method='POST', body='once')
    same('hedging: a POST is sent once', (200, 1), (a.status, seen_in_pods('posted')))


def mirrors():
    a = ask('mirrored.fleet', '/?key=mirror&on=d&ms=1500', method='POST', body='hello')
    say('mirror: the client does not wait for it', a.status == 200 and a.seconds < 1 and a.name in 'abc', a)
    say('mirror: it has the request', wait_for(4, lambda: counted('mirror')['seen'].get('d') == 1), counted('mirror'))
    a = ask('mirrored.fleet', '/?key=mirror2&on=d&drop=1')
    say('mirror: one that fails harms nobody', a.status == 200, a)
    c = connect()
    for _ in range(120):
        ask('mirrorhalf.fleet', '/?key=half', conn=c)
    wait_for(3, lambda: calls('half') > 170)
    n = counted('half')['seen'].get('d', 0)
    say('mirrorPercentage 50', 36 <= n <= 84, n)


def faults():
    a = ask('fault.fleet', headers={'X-Test': 'delay'})
    flagged('fault: a delay', a, 200, 'DI')
    say('fault: of 300 ms', 0.28 < a.seconds < 1.2, a)
    c = connect()
    got = [ask('fault.fleet', headers={'X-Test': 'abort'}, conn=c) for _ in range(100)]
    n = statuses(got)
    say('fault: half are aborted', set(n) == {200, 418} and 25 <= n[418] <= 75, n)
    flagged('fault: an abort', refused(got, 418), 418, 'FI')
    a = ask('fault.fleet', '/?key=fboth', headers={'X-Test': 'both'})
    flagged('fault: delay, then abort', a, 503, 'DI,FI')
    say('fault: in this order', a.seconds > 0.28, a)
    same('fault: what is aborted has no mirror', {}, counted('fboth')['seen'])
    a = ask('fault.fleet', '/?key=flate', method='POST', body='hello', headers={'X-Test': 'mirrored'})
    say('fault: behind a delay there is one', a.status == 200 and wait_for(4, lambda: sorted(counted('flate')['seen'].values()) == [1, 1]) and counted('flate')['seen'].get('d') == 1, (a, counted('flate')))
    say('fault: without the field, none', all(ask('fault.fleet', conn=c).status == 200 for _ in range(20)))


def busy():
    got = at_once(12, lambda: gate('adaptive.pods', '/?ms=300&key=adaptive'), 0.01)
    say('adaptive concurrency: a limited number at once, the others refused', statuses(got).get(503, 0) >= 5 and counted('adaptive')['peak'] <= 3, (statuses(got), counted('adaptive')))
    flagged('adaptive concurrency: the refusal is OM', refused(got), 503, 'OM')
    say('adaptive concurrency: all is well when it is quiet', all(gate('adaptive.pods').status == 200 for _ in range(5)))

    def one(i):
        time.sleep([0, 0, 0, 0.15, 0.15, 0.3, 0.45][i])
        return gate('shed.pods', '/?ms=900', headers={'X-Prio': ['high', 'high', 'high', 'low', 'other', 'high', 'high'][i]})
    got = together([lambda i=i: one(i) for i in range(7)])
    same('shedding: the less important are refused first, then all', [200, 200, 200, 503, 503, 200, 503], [a.status for a in got])
    flagged('shedding: low priority is OM', got[3], 503, 'OM')
    flagged('shedding: so is an unknown one', got[4], 503, 'OM')
    flagged('shedding: above the limit it is UO', got[6], 503, 'UO')


def slow():
    """A service that is slow: with the limit that adaptive concurrency finds, the less important requests go first."""
    def many(priority):
        return [gate('mixed.pods', '/?ms=80', headers={'X-Prio': priority}) for _ in range(8)]
    got = together([lambda p=p: many(p) for p in ['high'] + ['low'] * 6])
    high, low = got[0], sum(got[1:], [])
    same('shedding under load: the important are all served', {200: 8}, statuses(high))
    say('shedding under load: the others in part', statuses(low).get(503, 0) >= 5 and statuses(low).get(200, 0) > 0, statuses(low))
    shed = [a for a in low if 'priority' in a.text] or low  # others came when the limit itself was reached
    flagged('shedding under load: with OM', refused(shed), 503, 'OM', 'priority is low')


def leaving():
    c = connect()
    c.request('GET', '/gone?ms=3000&key=gone', headers={'Host': 'r503.fleet', 'X-Request-Id': 'gone'})
    wait_for(3, lambda: calls('gone') == 1)
    c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    c.close()
    say('a client that leaves is logged with DC', wait_for(5, lambda: (log.find('gone') or {}).get('flags') == 'DC'), log.find('gone'))


run([breakers, retry_limits, retries, timeouts], [lifetimes, idle, hedges, faults, mirrors], busy, slow, leaving)
