"""Which endpoint a request goes to: round robin, weights, load, hashes, sessions, localities, slow starts, ejections, panic."""
import collections
import os
import time

from client import GATE, ask, apply, connect, counted, flagged, gate, metric, run, same, say, spread, together, wait_for

PORTS = dict(zip('abcd', (os.environ[k] for k in 'ABCD')))


def on_one(n, host, path='/'):
    """n calls over one connection, so that one worker chooses."""
    c = connect()
    names = [ask(host, path, conn=c) for _ in range(n)]
    c.close()
    return [x.name if x.status == 200 else x.status for x in names]


def fleet(name, letters, policy, weights={}):
    """The manifest of NAME.fleet with the endpoints of these letters."""
    ends = ', '.join(f'{{ address: 127.0.0.1, ports: {{ http: {PORTS[x]} }}, weight: {weights.get(x, 1)} }}' for x in letters)
    return f'''apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{ name: {name} }}
spec: {{ hosts: [ {name}.fleet ], ports: [ {{ number: 80, name: http, protocol: HTTP }} ], resolution: STATIC, endpoints: [ {ends} ] }}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{ name: {name} }}
spec: {{ host: {name}.fleet, trafficPolicy: {{ {policy} }} }}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{ name: {name} }}
spec: {{ hosts: [ {name}.fleet ], gateways: [ door ], http: [ {{ route: [ {{ destination: {{ host: {name}.fleet }} }} ] }} ] }}
---
'''


def round_robin():
    names = on_one(40, 'rr.fleet')
    say('round robin: each in turn', all(len(set(names[i:i + 4])) == 4 for i in range(0, 40, 4)), names)


def weights():
    names = collections.Counter(on_one(100, 'weights.fleet'))
    same('weights: exact shares of 1, 2, 3 and 4', dict(a=10, b=20, c=30, d=40), dict(names))


def least_request():
    together([lambda: [ask('least.fleet', '/?key=least&on=a&ms=300') for _ in range(10)]] * 6)
    got = counted('least')['seen']
    say('least request: who is slow gets less', 0 < got.get('a', 0) < 12 and len(got) == 4, got)


def ring():
    def where(n):
        return {i: ask('ring.fleet', '/', headers={'X-User': f'user {i}'}).name for i in range(n)}
    first, again = where(40), where(40)
    same('ring hash on a header: one user, one endpoint', first, again)
    same('ring hash: users are spread over all', 4, len(set(first.values())))
    say('ring hash: without the header, anywhere', len(spread(40, lambda i: ask('ring.fleet'))) == 4)


def maglev():
    def where(n):
        return {i: ask('maglev.fleet', f'/?user=user-{i}').name for i in range(n)}
    first = where(40)
    same('Maglev on a query parameter: one user, one endpoint', first, where(40))
    same('Maglev: users are spread over all', 4, len(set(first.values())))


def jar():
    first = ask('jar.fleet', '/')
    cookie = first.fields['set-cookie']
    say('a cookie to hash on is made when it is absent', cookie.startswith('jar=') and 'Max-Age=60' in cookie and 'Path=/shop' in cookie and 'HttpOnly' in cookie, cookie)
    same('who brings it back stays where it was', {first.name: 10}, dict(spread(10, lambda i: ask('jar.fleet', headers={'Cookie': 'x=y; ' + cookie.split(';')[0]}))))
    say('and is given no other', 'set-cookie' not in ask('jar.fleet', headers={'Cookie': cookie.split(';')[0]}).fields)
    say('others get other places', len(spread(40, lambda i: ask('jar.fleet'))) == 4)


def source():
    there = [spread(4, lambda i: ask('source.fleet', source=f'127.0.0.{10 + n}')) for n in range(16)]
    say('hash of the source address: one address, one endpoint', all(len(t) == 1 for t in there), there)
    say('and addresses are spread', len(set(next(iter(t)) for t in there)) > 2, there)


def moves():
    """What moves when one of four goes."""
    policies = {'shrinkr': 'loadBalancer: { consistentHash: { httpHeaderName: X-User, ringHash: { minimumRingSize: 4096 } } }',
                'shrinkm': 'loadBalancer: { consistentHash: { httpHeaderName: X-User, maglev: { tableSize: 10007 } } }'}
    apply(''.join(fleet(k, 'abcd', p) for k, p in policies.items()))

    def where(host):
        c = connect()
        return [ask(host, headers={'X-User': f'u{i}'}, conn=c).name for i in range(200)]
    for host, (kind, most) in {'shrinkr': ('ring hash', 0), 'shrinkm': ('Maglev', 20)}.items():
        wait_for(5, lambda: ask(f'{host}.fleet').status == 200)
        before = where(f'{host}.fleet')
        apply(fleet(host, 'abc', policies[host]))
        wait_for(5, lambda: 'd' not in where(f'{host}.fleet'))
        after = where(f'{host}.fleet')
        moved = sum(x != y and x != 'd' for x, y in zip(before, after))
        say(f'{kind}: when one of four goes, its share moves and at most {most} of 150 others', 20 < before.count('d') < 90 and 'd' not in after and moved <= most,
            f'{moved} moved, {before.count("d")} of 200 were of d')


def sticky():
    first = gate('sticky.pods')
    cookie = first.fields['set-cookie']
    say('sessions: a cookie with its lifetime', cookie.startswith('seat=') and 'Max-Age=3600' in cookie, cookie)
    same('sessions: the client stays', {first.name: 20}, dict(spread(20, lambda i: gate('sticky.pods', headers={'Cookie': cookie.split(';')[0]}))))
    say('sessions: no new cookie for who stays', 'set-cookie' not in gate('sticky.pods', headers={'Cookie': cookie.split(';')[0]}).fields)
    other = gate('sticky.pods', headers={'Cookie': 'seat=0123456789abcdef'})
    say('sessions: a cookie of nobody is replaced', other.status == 200 and other.fields['set-cookie'].startswith('seat='), other)
    first = gate('token.pods')
    same('sessions by header', {first.name: 10}, dict(spread(10, lambda i: gate('token.pods', headers={'X-Seat': first.fields['x-seat']}))))


def ewma():
    names = sorted(spread(30, lambda i: gate('ewma.pods')))
    slow = names[0]
    got = together([lambda: spread(10, lambda i: gate('ewma.pods', f'/?on={slow}&ms=200'))] * 3)
    got = sum(got, collections.Counter())
    say('peak EWMA: who is slow gets little', len(names) == 3 and got[slow] <= 8, f'{slow}: {got}')


def bound():
    got = sum(together([lambda: spread(3, lambda i: gate('bound.pods', '/?ms=150', headers={'X-User': 'one'}))] * 6), collections.Counter())
    say('bounded load: one key overflows to others', len(got) > 1, got)
    same('bounded load: without load one key has one endpoint', 1, len(spread(6, lambda i: gate('bound.pods', headers={'X-User': 'one'}))))


def warmup():
    """An endpoint that comes later begins with a small share and has its own after the window."""
    policy = 'loadBalancer: { simple: ROUND_ROBIN, warmup: { duration: 4s, minimumPercent: 5 } }'
    apply(fleet('warm', 'abc', policy))
    wait_for(5, lambda: ask('warm.fleet').status == 200)
    time.sleep(4)
    apply(fleet('warm', 'abcd', policy))
    begun = time.monotonic()
    early = collections.Counter(on_one(80, 'warm.fleet'))
    took = time.monotonic() - begun
    say('slow start: a new endpoint begins with little', early['d'] <= 10 or took > 1.5, f'{early} in {took:.1f} s')
    say('slow start: and has its share after the window', wait_for(8, lambda: collections.Counter(on_one(40, 'warm.fleet'))['d'] == 10))


def eject(host, path, sick, n):
    """Sends until each of the sick has had n failures; then who still answers 24 more requests with which status."""
    c = connect()
    for i in range(8 * n):
        ask(host, path, conn=c)
    c.close()
    return collections.Counter(on_one(24, host, '/'))


def outliers():
    got = eject('outlierg.fleet', '/?on=a&status=500', 'a', 2)
    say('outliers: a 500 is no gateway error', got['a'] == 6, got)
    got = eject('outlierg.fleet', '/?on=a&status=503', 'a', 2)
    say('outliers: consecutiveGatewayErrors', got['a'] == 0 and got['b'] == 8, got)
    got = eject('outliero.fleet', '/?on=b&status=502', 'b', 2)
    say('outliers: the old name consecutiveErrors', got['b'] == 0 and got['c'] == 8, got)
    c = connect()
    for i in range(20):  # a, b and c fail; two of four may be out
        ask('outlierc.fleet', f'/?on={"abc"[i % 3]}&status=500', conn=c)
    for x in 'abc' * 3:
        for i in range(8):
            ask('outlierc.fleet', f'/?on={x}&status=500', conn=c)
    got = collections.Counter(on_one(24, 'outlierc.fleet'))
    say('outliers: maxEjectionPercent', sorted(got.values()) == [12, 12], got)


def outlier_rates():
    """One of three replicas fails two requests of three, never in a row."""
    for host, what in (('failing', 'failurePercentage'), ('lagging', 'successRate')):
        sick, c = gate(f'{host}.pods').name, connect(GATE)

        def ejected():
            for i in range(30):
                gate(f'{host}.pods', f'/?on={sick}&status={200 if i % 9 < 3 else 500}', conn=c)
            return metric('weir_cluster_endpoints', cluster=f'default/{host}:80', state='ejected') == 1
        out = wait_for(6, ejected)
        say(f'outliers: {what}', out and sick not in spread(12, lambda i: gate(f'{host}.pods', conn=c)), (sick, out))


def outlier_local():
    got = [ask('local.fleet').status for _ in range(30)]
    same('outliers: who refuses connections is left out', (1, 200), (metric('weir_cluster_endpoints', cluster='default/local.fleet:80', state='ejected'), got[-1]))


def outlier_time():
    """Ejected for the base time, longer the second time, and back after it. The interval is long: at the end of one that finds it in use, the first time is forgiven."""
    def out():
        c, begun = connect(), None
        for i in range(60):
            if ask('outlier5.fleet', '/?on=a&status=500', conn=c).status == 500:
                begun = time.monotonic()
        away = begun is not None and 'a' not in on_one(8, 'outlier5.fleet')
        back = wait_for(8, lambda: 'a' in on_one(8, 'outlier5.fleet'))
        return away, back, time.monotonic() - begun
    away, back, first = out()
    say('outliers: consecutive5xxErrors ejects', away)
    say('outliers: and it comes back', back and 0.7 < first < 3, first)
    away, back, second = out()
    say('outliers: the second time is longer', away and back and second > first + 0.5, f'{first:.2f} s, {second:.2f} s')


def panic():
    for x in 'abcd':
        eject('panic.fleet', f'/?on={x}&status=500', x, 2)
        eject('nopanic.fleet', f'/?on={x}&status=500', x, 2)
    got = collections.Counter(on_one(24, 'panic.fleet'))
    say('panic: below minHealthPercent all are used', len(got) == 4, got)
    flagged('without panic: nobody is left, and the answer says so', ask('nopanic.fleet'), 503, 'UH', 'ejected')


def locality():
    same('locality: the own subzone first', {'a': 20}, dict(collections.Counter(on_one(20, 'near.fleet'))))
    got = eject('near.fleet', '/?on=a&status=500', 'a', 2)
    same('locality: then the own zone', {'b': 24}, dict(got))
    got = eject('near.fleet', '/?on=b&status=500', 'b', 2)
    same('locality: then the own region', {'c': 24}, dict(got))
    got = collections.Counter(on_one(200, 'share.fleet'))
    say('locality: distribute', got['c'] == 0 and 15 <= got['d'] <= 70 and abs(got['a'] - got['b']) < 40, got)


run([round_robin, weights, ring, maglev, jar, source], [least_request, sticky, ewma, bound], [moves, warmup, outliers, outlier_time, outlier_rates, outlier_local, panic, locality])
