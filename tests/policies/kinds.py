"""The kinds of the Gateway API, Istio and SMI: what matches first, what is mirrored, split, granted, refused; what get and explain say of them."""
import collections
import http.client
import json
import os
import subprocess
import time
from urllib.parse import quote

from client import apply, ask, calls, connect, counted, flagged, gate, log, logged, metric, run, same, say, wait_for, weir


def precedence():
    ask = lambda path, host='prec.t', **more: gate(host, path, **more).text
    same('a match: the default', 'one', ask('/other'))
    same('a match: a prefix', ['two', 'two', 'one'], [ask(p) for p in ('/a/', '/a/x', '/ab')])
    same('a match: exact before prefix', 'three', ask('/a'))
    same('a match: the longer prefix', ['four', 'four'], [ask('/a/b'), ask('/a/b/c')])
    same('a match: the method', 'five', ask('/a/x', method='POST'))
    same('a match: a header, its name in any case', ['six', 'two'], [ask('/a/x', headers={'x-ONE': v}) for v in ('1', '2')])
    same('a match: two headers before one, one by expression', ['seven', 'six'], [ask('/a/x', headers={'X-One': '1', 'X-Two': v}) for v in ('42', '42x')])
    same('a match: method before headers', 'five', ask('/a/x', method='POST', headers={'X-One': '1', 'X-Two': '1'}))
    same('a match: headers before query', 'six', ask('/a/x?q=a%20b', headers={'X-One': '1'}))
    same('a match: a query parameter, decoded', ['eight', 'eight', 'two', 'two'], [ask('/a/x?' + q) for q in ('q=a%20b', 'z&q=a+b', 'q=a', 'qq=a+b')])
    same('a match: an expression holds for the whole path', ['nine', 'one'], [ask('/r12'), ask('/r12/')])
    same('hostnames: exact, then wildcard', ['three', 'two', 'two', 'one'], [ask('/', h) for h in ('x.prec.t', 'y.prec.t', 'z.y.prec.t', 'prec.t:80')])


def cut(host, path):
    """The answer begins, and breaks off."""
    c = http.client.HTTPConnection('127.0.0.1', int(os.environ['GATE']), timeout=10)
    c.request('GET', path, headers={'Host': host})
    r = c.getresponse()
    try:
        r.read()
    except (http.client.IncompleteRead, ConnectionError):
        return r.status == 200
    return False


def times():
    a = gate('late.t', '/?ms=2000')
    flagged('HTTPRoute: timeouts.request', a, 504, 'UT')
    say('HTTPRoute: in its time', 0.28 < a.seconds < 1.8, a)
    a = gate('latetry.t', '/?ms=4000&key=latetry', method='POST', body='x')
    flagged('HTTPRoute: timeouts.backendRequest', a, 504, 'UT')
    say('HTTPRoute: of one try', 0.2 < a.seconds < 3.5, a)
    a = gate('latetries.t', '/?ms=4000&fail=1&key=latetries')
    say('HTTPRoute: with retry, another try after one out of time', a.status == 200 and calls('latetries') == 2 and a.seconds < 3.5, a)
    a = gate('latetries.t', '/?ms=4000&key=latetries2')
    say('HTTPRoute: as often as retry says', a.status == 504 and calls('latetries2') == 3 and a.seconds < 3.5, (a, calls('latetries2')))
    for host in ('latetry.t', 'latetries.t'):
        began = time.monotonic()
        say(f'HTTPRoute: timeouts.backendRequest: the end of the answer counts: {host}', cut(host, '/?size=2000&gap=4000') and time.monotonic() - began < 3.5)
    same('HTTPRoute: ReplacePrefixMatch without matches is for all', ['/under/', '/under/x?y'], [gate('under.t', p).json['path'] for p in ('/', '/x?y')])
    same('URLRewrite: OPTIONS * names no path', '*', gate('under.t', '*', method='OPTIONS').json['path'])
    a = gate('again.t', '/?status=503&fail=2&key=again')
    same('HTTPRoute: retry', (200, 3), (a.status, calls('again')))
    flagged('HTTPRoute: retry, no more', gate('again.t', '/?status=503&key=again2'), 503, 'URX')
    same('HTTPRoute: retry, another status', 500, gate('again.t', '/?status=500').status)


def shares():
    c = connect(int(os.environ['GATE']))
    a = gate('copy.t', '/?key=copy&on=d&ms=1000', conn=c)
    say('RequestMirror: nobody waits for it', a.name == 'a' and a.seconds < 0.7, a)
    say('RequestMirror: it has the request', wait_for(4, lambda: counted('copy')['seen'].get('d') == 1), counted('copy'))
    for _ in range(100):
        gate('copyhalf.t', '/?key=copyhalf', conn=c)
    wait_for(2, lambda: calls('copyhalf') > 135)
    say('RequestMirror: a fraction', 25 <= counted('copyhalf')['seen'].get('d', 0) <= 75, counted('copyhalf'))
    n = collections.Counter(gate('shares.t', conn=c).name for _ in range(200))
    say('HTTPRoute: weights', n['d'] == 0 and 20 <= n['b'] <= 85, n)
    n = collections.Counter(gate('smi.t', conn=c).name for _ in range(200))
    say('TrafficSplit', 20 <= n['d'] <= 85 and n['a'] + n['d'] == 200, n)


def gone():
    same('a Service that is there', 200, gate('short.t').status)
    code, out = weir('delete', 'service', 'short')
    say('a Service that is deleted', code == 0 and wait_for(5, lambda: gate('short.t').status != 200), out)
    flagged('and named by a route still', gate('short.t'), 500, 'NC')
    flagged('VirtualService: a host that is not there', ask('nowhere.t'), 503, 'NC')
    flagged('VirtualService: a subset that is not there', ask('nosubset.t'), 503, 'NC')
    same('conditions: a backend that is not there', ('False', 'BackendNotFound'), condition('httproute', 'short', 'ResolvedRefs'))
    code, out = weir('get', 'httproute', 'short', '-o', 'yaml')
    say('conditions: in YAML too', code == 0 and 'reason: BackendNotFound' in out, out)


def condition(kind, name, what, part='parents'):
    code, out = weir('get', kind, name, '-o', 'json')
    o = json.loads(out)
    o = o['items'][0] if 'items' in o else o
    of = o['status'] if part is None else o['status'][part][0]
    return next(((c['status'], c['reason']) for c in of['conditions'] if c['type'] == what), None)


def conditions():
    same('conditions: a Gateway is Accepted', ('True', 'Accepted'), condition('gateway', 'gate', 'Accepted', None))
    same('conditions: and Programmed', ('True', 'Programmed'), condition('gateway', 'gate', 'Programmed', None))
    same('conditions: so is its listener', ('True', 'Programmed'), condition('gateway', 'gate', 'Programmed', 'listeners'))
    same('conditions: a route is Accepted', ('True', 'Accepted'), condition('httproute', 'prec', 'Accepted'))
    same('conditions: its references are resolved', ('True', 'ResolvedRefs'), condition('httproute', 'prec', 'ResolvedRefs'))


def grants():
    flagged('ReferenceGrant: without it a backend of another namespace is refused', gate('granted.t'), 500, 'NC')
    same('ReferenceGrant: the route says so', ('False', 'RefNotPermitted'), condition('httproute', 'granted', 'ResolvedRefs'))
    apply('''apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: { name: from-default, namespace: other }
spec: { from: [ { group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default } ], to: [ { group: "", kind: Service, name: there } ] }
''')
    say('ReferenceGrant: with it the backend answers', wait_for(5, lambda: gate('granted.t').status == 200))
    same('ReferenceGrant: and the references are resolved', ('True', 'ResolvedRefs'), condition('httproute', 'granted', 'ResolvedRefs'))
    code, out = weir('delete', 'referencegrant', 'from-default', '-n', 'other')
    say('ReferenceGrant: taken back', code == 0 and wait_for(5, lambda: gate('granted.t').status == 500), out)


def inside(url):
    a = gate('back.t', '/_/call?url=' + quote(url))
    return json.loads(a.json['text'])['name'] if a.status == 200 and a.json['status'] == 200 else a.json['status'] if a.status == 200 else a.status


def mesh():
    same('ServiceEntry: a workload reaches its hosts', 'd', inside('http://right.t/'))
    say('ServiceEntry: in the metrics it is its host', metric('istio_requests_total', reporter='source', destination_service='right.t') > 0)
    same('ServiceEntry: nothing else', 502, inside('http://undeclared.t/'))
    same('HTTPRoute of a Service: decides about calls to it', ['d', 'b', 404], [inside('http://sb' + p) for p in ('/d', '/b', '/other')])


def refused():
    for kind, version, spec in (('EnvoyFilter', 'networking.istio.io/v1alpha3', 'configPatches: []'), ('WasmPlugin', 'extensions.istio.io/v1alpha1', 'url: oci://x')):
        code, out = weir('apply', '-', text=f'apiVersion: {version}\nkind: {kind}\nmetadata: {{ name: x }}\nspec: {{ {spec} }}\n')
        say(f'{kind} is refused by name', code == 2 and kind in out and 'error' in out, (code, out))
    code, out = weir('apply', '-', text='apiVersion: v1\nkind: Service\nmetadata: { name: stays }\nspec: { ports: [ { port: 1 } ] }\n---\napiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: { name: x }\nspec: {}\n')
    say('and nothing beside it is applied', code == 2 and weir('get', 'service', 'stays')[0] != 0, (code, out))
    route = 'apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: slowhello }\nspec: { parentRefs: [ { name: gate } ], rules: [ { filters: [ %s ] } ] }\n---\n' % ', '.join(
        '{ type: ExtensionRef, extensionRef: { group: weir.dev, kind: HTTPFilter, name: %s } }' % n for n in ('say-one', 'wait'))
    code, out = weir('apply', '--dry-run', '-', text=route + 'apiVersion: weir.dev/v1\nkind: HTTPFilter\nmetadata: { name: wait }\nspec: { fault: { delay: { duration: 1s } } }\n')
    say('a delay that would have no effect is told', code == 0 and 'has no effect' in out, (code, out))
    code, out = weir('get', 'sidecar', 'default', '-o', 'name')
    say('a Sidecar is accepted', code == 0 and 'default' in out, out)
    for old in ('apiVersion: networking.istio.io/v1alpha3\nkind: DestinationRule\nmetadata: { name: old }\nspec: { host: sa, trafficPolicy: { loadBalancer: { simple: LEAST_CONN }, outlierDetection: { consecutiveErrors: 7 } } }\n',
                'apiVersion: networking.istio.io/v1beta1\nkind: VirtualService\nmetadata: { name: old }\nspec: { hosts: [ sa ], http: [ { mirror: { host: sb }, mirror_percent: 5, route: [ { destination: { host: sa } } ] } ] }\n',
                'apiVersion: gateway.networking.k8s.io/v1beta1\nkind: HTTPRoute\nmetadata: { name: old }\nspec: { parentRefs: [ { name: gate } ], hostnames: [ old.t ], rules: [ { backendRefs: [ { name: sa, port: 80 } ] } ] }\n',
                'apiVersion: split.smi-spec.io/v1alpha2\nkind: TrafficSplit\nmetadata: { name: old }\nspec: { service: sa, backends: [ { service: sb, weight: 1 } ] }\n'):
        code, out = weir('apply', '--dry-run', '-', text=old)
        say('accepted: ' + ' '.join(old.split('\n')[:2]), code == 0 and 'error' not in out, out)


def explained():
    path = 'explain.yaml'
    with open(path, 'w') as f:
        f.write('''apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: { name: x }
spec:
  host: sa
  trafficPolicy:
    loadBalancer: { simple: PASSTHROUGH }
    connectionPool: { tcp: { maxConnections: 3 }, http: { useClientProtocol: true } }
    outlierDetection: { consecutiveErrors: 3, nonsense: 1 }
''')
    out = subprocess.run([os.environ['WEIR'], 'explain', path], capture_output=True, text=True).stdout

    def status_of(field):
        return next((words[1] for words in map(str.split, out.splitlines()) if len(words) > 2 and words[2].split(':')[0].endswith('.' + field)), out)
    same('explain: each field has its status', ['refused', 'honoured', 'ignored', 'honoured', 'unknown'],
         [status_of(f) for f in ('simple', 'maxConnections', 'useClientProtocol', 'consecutiveErrors', 'nonsense')])


def renewed():
    """A policy that wants connections begun in another way has none of those that stand: nothing goes in clear where TLS is asked for."""
    policy = 'apiVersion: weir.dev/v1\nkind: BackendPolicy\nmetadata: { name: renewed }\nspec: { targetRefs: [ { name: smi }, { name: smi-new } ], %s }\n'
    statuses = lambda: {gate('smi.t').status for _ in range(16)}
    same('a policy changes: before', {200}, statuses())
    apply(policy % 'tls: { insecureSkipVerify: true }, connectionPool: { connectTimeout: 50ms }')
    same('a policy changes: TLS, also for connections that stood', {503}, statuses())
    apply(policy % 'retryBudget: {}')
    same('a policy changes: in clear again', {200}, statuses())


def agreement():
    """What the access log counts by reason, the metrics count too. (Parts and mirrors are in the metrics only.)"""
    logged(gate('prec.t'))
    in_log = collections.Counter((str(e['status']), e['flags']) for e in log.lines.values() if e['flags'] in ('NR', 'NC', 'FI', 'DI', 'DI,FI', 'OM', 'UO', 'URX', 'UH'))
    wrong = {k: (n, metric('istio_requests_total', response_code=k[0], response_flags=k[1])) for k, n in in_log.items()}
    wrong = {k: v for k, v in wrong.items() if v[0] != v[1]}
    say(f'log and metrics agree about {len(in_log)} pairs of status and reason', len(in_log) > 2 and not wrong, wrong)


run([precedence, times, shares, refused], [conditions, mesh, explained], grants, gone, renewed, agreement)
