#!/usr/bin/env python3
"""Side-by-side measurement of control stores: Weir and etcd, same work, same run, one core for the server.

  bench.py --peers weir,etcd --scenarios all --rounds 3 [--dur 3] [--out r.jsonl]
  bench.py --report r.jsonl [r2.jsonl ...]          tables from saved results
  bench.py --rows r.jsonl                           one table, a row for each scenario, as in docs/performance.md

The server is pinned to CPU --pcpu (etcd's Go runtime sees one CPU then, and runs as such), the generator (storegen.c) to --gcpu. Every round runs every peer once
in a random order, each with a fresh folder on the same disk, so drift of the machine falls on all alike; ratios are made within a round. Beside what a client
sees (answers per second, their times) stand answers per CPU-second of the server's process tree (utime + stime). Both are one member that has synced what it acknowledges.
"""
import argparse, json, os, random, shutil, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from servers import compiled, end, listening, memory, pin, tree
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get('BENCH_BIN') or os.path.join(HERE, 'build')
PORT = int(os.environ.get('BENCH_PORT', '2379'))

KEYS = 10000
FILL = ['-m', 'fill', '-k', str(KEYS)]
LIST = ['-t', 'list/', '-k', '1000']
MANY = ['-t', 'many/', '-k', '100000']
SCEN = {
    'P1': dict(title='puts of 256 B, 1 client', unit='puts', before=[FILL], args=['-m', 'put', '-C', '1', '-c', '1'], spin=False),
    'P1000': dict(title='puts of 256 B, 1,000 clients on 100 connections', unit='puts', before=[FILL], args=['-m', 'put']),
    'G1': dict(title='a key of 256 B, 1 client', unit='reads', before=[FILL], args=['-m', 'get', '-C', '1', '-c', '1'], spin=False),
    'G1000': dict(title='a key of 256 B, 1,000 clients on 100 connections', unit='reads', before=[FILL], args=['-m', 'get']),
    'G1000s': dict(title='the same, serializable', unit='reads', before=[FILL], args=['-m', 'get', '-z']),
    'L10': dict(title='1,000 keys of a prefix, 256 B each, 10 clients', unit='reads', before=[['-m', 'fill'] + LIST], args=['-m', 'list', '-C', '10', '-c', '10'] + LIST),
    'C1000': dict(title='a key of 100,000, 256 B each, 1,000 clients on 100 connections', unit='reads', before=[['-m', 'fill'] + MANY], args=['-m', 'get'] + MANY),
    'L1': dict(title='100,000 keys of a prefix, 256 B each, 1 client', unit='reads', before=[['-m', 'fill'] + MANY], args=['-m', 'list', '-C', '1', '-c', '1'] + MANY),
    'W1000': dict(title='an event for 1,000 watchers, each a stream, on 100 connections', unit='events', before=[], args=['-m', 'watch']),
    'W1000c': dict(title='the same, 1,000 watches on 10 streams', unit='events', before=[], args=['-m', 'watch', '-C', '10', '-u', '100']),
    'M28': dict(title='memory with 100,000 keys of 28 B', unit='puts', memory=True, args=['-m', 'fill', '-k', '100000', '-s', '28']),
    'M100': dict(title='memory with 100,000 keys of 100 B', unit='puts', memory=True, args=['-m', 'fill', '-k', '100000', '-s', '100']),
    'M256': dict(title='memory with 100,000 keys of 256 B', unit='puts', memory=True, args=['-m', 'fill', '-k', '100000', '-s', '256']),
}

def weir(run, port):
    binary = os.environ.get('WEIR', os.path.join(ROOT, 'build/weir'))
    manifest = os.path.join(run, 'weir.yaml')
    with open(manifest, 'w') as f:
        f.write('apiVersion: v1\nkind: Service\nmetadata: { name: nothing }\nspec: { type: ExternalName, externalName: localhost, ports: [ { port: 1 } ] }\n')
    return [binary, 'up', '--workers', '1', '--data', os.path.join(run, 'data'), '--admin', 'off', '--access-log', 'off', '--kafka', 'off', '--etcd', f'127.0.0.1:{port}', manifest]

def before(run, port):                # another tree's Weir, to compare with (WEIR_BEFORE=BINARY)
    return [os.environ['WEIR_BEFORE']] + weir(run, port)[1:]

def etcd(run, port):
    client, peer = f'http://127.0.0.1:{port}', f'http://127.0.0.1:{port + 1}'
    return ['etcd', '--data-dir', os.path.join(run, 'data'), '--listen-client-urls', client, '--advertise-client-urls', client, '--listen-peer-urls', peer,
            '--initial-advertise-peer-urls', peer, '--initial-cluster', f'default={peer}', '--log-level', 'error', '--logger', 'zap']

PEERS = {'weir': weir, 'before': before, 'etcd': etcd}

def build():
    os.makedirs(BUILD, exist_ok=True)
    compiled(os.path.join(BUILD, 'storegen'), [os.path.join(HERE, 'storegen.c'), os.path.join(ROOT, 'bench/measure.h')], '-lnghttp2')

class Server:
    def __init__(self, peer, args):
        self.run = tempfile.mkdtemp(prefix='store-', dir=args.dir)
        if listening(PORT): raise RuntimeError(f'port {PORT} is taken')
        self.log = open(os.path.join(self.run, 'out.log'), 'w')
        self.p = subprocess.Popen(['nice', '-n', str(args.nice), 'taskset', '-c', str(args.pcpu)] + PEERS[peer](self.run, PORT), stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        t = time.time()
        while not listening(PORT):
            if self.p.poll() is not None or time.time() - t > 20:
                why = open(os.path.join(self.run, 'out.log')).read()[-400:]
                self.stop(); raise RuntimeError(f'{peer} did not start: {why}')
            time.sleep(.01)
        time.sleep(1)                 # etcd elects itself
        pin(self.pids(), args.pcpu)
    def pids(self): return tree(self.p.pid)
    def stop(self):
        end(self.p, 5)
        self.log.close()
        shutil.rmtree(self.run, ignore_errors=True)

def storegen(server, args, extra):
    cmd = ['nice', '-n', str(args.nice), 'taskset', '-c', str(args.gcpu), os.path.join(BUILD, 'storegen'), '-p', str(PORT), '-x', ','.join(map(str, server.pids()))] + extra
    o = subprocess.run(cmd, capture_output=True, text=True, timeout=args.dur + args.warm + 200)
    if not o.stdout: raise RuntimeError(o.stderr[-300:])
    return json.loads(o.stdout.strip().splitlines()[-1])

def settle():
    """What the filling left to be done. etcd 3.4 copies what its last batches wrote for every read, until two batches came by that wrote no keys: grants of leases make them."""
    for _ in range(3):
        subprocess.run(['etcdctl', f'--endpoints=127.0.0.1:{PORT}', 'lease', 'grant', '600'], check=True, capture_output=True, env=dict(os.environ, ETCDCTL_API='3'), timeout=20)
        time.sleep(.3)

def measure(peer, name, args):
    s = SCEN[name]
    server = Server(peer, args)
    try:
        for fill in s.get('before', []):
            storegen(server, args, fill)
        if s.get('before'): settle()
        spin = ['-S'] if s.get('spin', True) and args.pcpu != args.gcpu else []
        r = storegen(server, args, s['args'] + spin + ['-d', str(args.dur), '-W', str(args.warm)])
        if s.get('memory'): time.sleep(3)
        r['rss_kib'] = memory(server.pids(), 'Rss:')
        r['own_kib'] = memory(server.pids(), 'Private_')  # without what is shared with files or other processes
    finally:
        server.stop()
    r.update(peer=peer, scen=name, ts=round(time.time()))
    return r

def report(rows, out=sys.stdout):
    peers = list(dict.fromkeys(r['peer'] for r in rows))
    def ratio(sel, key, a, b, low):   # of rounds: how many times better a is
        of = {p: {r['round']: r[key] for r in sel if r['peer'] == p} for p in (a, b)}
        q = sorted((of[b][k] / of[a][k] if low else of[a][k] / of[b][k]) for k in of[a] if of[b].get(k) and of[a][k])
        return f'{statistics.median(q):.2f}x [{q[0]:.2f}-{q[-1]:.2f}]' if q else '-'
    for name in [s for s in SCEN if any(r['scen'] == s for r in rows)]:
        sel, s = [r for r in rows if r['scen'] == name], SCEN[name]
        rivals = [p for p in peers if p != 'weir']
        print(f'\n### {name}: {s["title"]}', file=out)
        if s.get('memory'):
            print('| peer | n | resident MiB median [min-max] | private MiB | ' + ' | '.join(f'{p} : Weir' for p in rivals) + ' |\n' + '| --- ' * (4 + len(rivals)) + '|', file=out)
        else:
            print(f'| peer | n | {s["unit"]}/s median [min-max] | {s["unit"]}/CPU-s | util | p50 us | p99 us | errors | ' + ' | '.join(f'Weir : {p}, {s["unit"]}/s | /CPU-s' for p in rivals) +
                  ' |\n' + '| --- ' * (8 + 2 * len(rivals)) + '|', file=out)
        for p in peers:
            x = [r for r in sel if r['peer'] == p]
            if not x: continue
            med = lambda k: statistics.median(r[k] for r in x)
            if s.get('memory'):
                v = [r['rss_kib'] / 1024 for r in x]
                q = ' | '.join(ratio(sel, 'rss_kib', 'weir', o, True) if p == 'weir' else '' for o in rivals)
                print(f'| {p} | {len(x)} | {statistics.median(v):.1f} [{min(v):.1f}-{max(v):.1f}] | {med("own_kib") / 1024:.1f} | {q} |', file=out)
                continue
            v = [r['rps'] for r in x]
            q = ' | '.join(ratio(sel, 'rps', 'weir', o, False) + ' | ' + ratio(sel, 'req_per_cpu_s', 'weir', o, False) if p == 'weir' else ' | ' for o in rivals)
            print(f"| {p} | {len(x)} | {statistics.median(v):,.0f} [{min(v):,.0f}-{max(v):,.0f}] | {med('req_per_cpu_s'):,.0f} | {med('util'):.2f} | {med('p50_us'):,.0f} | "
                  f"{med('p99_us'):,.0f} | {sum(r['errors'] for r in x)} | {q} |", file=out)

def rows_of(rows, out=sys.stdout):
    """One table: medians of all rounds, and of the ratios made within a round; processor time of the server per operation beside them."""
    rivals = [p for p in dict.fromkeys(r['peer'] for r in rows) if p != 'weir']
    short = lambda v: f'{v:,.0f}' if v >= 100 else f'{v:.1f}'
    for rival in rivals:
        print(f'\n| | Weir | {rival} | Weir : {rival} | CPU us each, Weir and {rival} | ratio | p99 ms, Weir and {rival} |\n' + '| --- ' * 7 + '|', file=out)
        for name, s in SCEN.items():
            of = {p: {r['round']: r for r in rows if r['scen'] == name and r['peer'] == p} for p in ('weir', rival)}
            rounds = [k for k in of['weir'] if k in of[rival]]
            if not rounds: continue
            med = lambda p, f: statistics.median(f(of[p][k]) for k in rounds)
            def ratio(f):
                q = sorted(f(of['weir'][k]) / f(of[rival][k]) for k in rounds if f(of['weir'][k]) and f(of[rival][k]))
                return (f'**{statistics.median(q):.2f}** [{q[0]:.2f}-{q[-1]:.2f}]' if len(q) > 1 else f'**{q[0]:.2f}**') if q else '-'
            if s.get('memory'):
                mib = lambda r: r['rss_kib'] / 1024
                print(f"| {s['title']}, resident MiB | {med('weir', mib):.1f} | {med(rival, mib):.1f} | {ratio(lambda r: 1 / r['rss_kib'])} less | | | |", file=out)
                continue
            each = lambda r: 1e6 * r['cpu_s'] / r['done'] if r['done'] else 0
            print(f"| {s['unit']}/s: {s['title']} | {short(med('weir', lambda r: r['rps']))} | {short(med(rival, lambda r: r['rps']))} | {ratio(lambda r: r['rps'])} | "
                  f"{short(med('weir', each))} and {short(med(rival, each))} | {ratio(lambda r: r['req_per_cpu_s'])} | "
                  f"{med('weir', lambda r: r['p99_us']) / 1000:.2g} and {med(rival, lambda r: r['p99_us']) / 1000:.2g} |", file=out)
        n = sorted({len({r['round'] for r in rows if r['scen'] == s and r['peer'] == 'weir'}) for s in {r['scen'] for r in rows}})
        print(f"\nRounds: {' to '.join(map(str, n))}.", file=out)

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--peers', default='weir,etcd'); ap.add_argument('--scenarios', default='all')
    ap.add_argument('--rounds', type=int, default=3); ap.add_argument('--dur', type=float, default=3); ap.add_argument('--warm', type=float, default=1)
    ap.add_argument('--pcpu', type=int, default=0); ap.add_argument('--gcpu', type=int, default=1); ap.add_argument('--nice', type=int, default=-20 if os.geteuid() == 0 else 0)
    ap.add_argument('--dir', default=os.path.join(ROOT, 'build')); ap.add_argument('--out', default='results.jsonl'); ap.add_argument('--report', nargs='+'); ap.add_argument('--rows', nargs='+')
    ap.add_argument('--seed', type=int, default=1)
    args = ap.parse_args()
    if args.report:
        return report([json.loads(l) for f in args.report for l in open(f)])
    if args.rows:
        return rows_of([json.loads(l) for f in args.rows for l in open(f)])
    build(); random.seed(args.seed)
    os.makedirs(args.dir, exist_ok=True)
    rows, failures = [], 0
    with open(args.out, 'a') as f:
        for name in list(SCEN) if args.scenarios == 'all' else args.scenarios.split(','):
            for rnd in range(args.rounds):
                order = args.peers.split(','); random.shuffle(order)
                for p in order:
                    try: r = measure(p, name, args)
                    except Exception as e:
                        print(f'{name} {p}: {type(e).__name__} {str(e)[:300]}', file=sys.stderr); failures += 1; continue
                    r['round'] = f'{args.seed}.{rnd}'; rows.append(r); f.write(json.dumps(r) + '\n'); f.flush()
                    print(f"{name} r{rnd} {p:6} {r['rps']:10,.0f}/s {r['req_per_cpu_s']:10,.0f}/CPU-s util {r['util']:.2f} p50 {r['p50_us']:.0f} p99 {r['p99_us']:.0f} us "
                          f"{r['rss_kib'] / 1024:.1f} MiB errors {r['errors']} {r['error']}", flush=True)
                    if r['errors']: failures += 1
    report(rows)
    if failures: sys.exit(f'{failures} measurements failed; see above')

if __name__ == '__main__': main()
