#!/usr/bin/env python3
"""Side-by-side measurement of message logs: same work, same run, one core for the server.

  bench.py --peers weir,nats,redis,floor --scenarios all --rounds 3 [--dur 3] [--out r.jsonl]
  bench.py --report r.jsonl [r2.jsonl ...]          tables from saved results

The server is pinned to CPU --pcpu, the generator (loggen.c, busy-polling) to --gcpu. Every round runs every peer once in a random order, so drift of
the machine falls on all alike; ratios are made within a round. The main figure is records per CPU-second of the server's process tree
(utime + stime). Durability is part of the scenario: `a1` is acknowledged after the write (the operating system writes back later), `all` after
fdatasync. Who cannot do that is left out, not compared with something weaker.
"""
import argparse, json, os, random, shlex, shutil, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from servers import compiled, end, listening, memory, pin, tree
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.environ.get('BENCH_BIN') or os.path.join(HERE, 'build')
PORT = int(os.environ.get('BENCH_PORT', '9092'))
CONNS = 8

# size of a value: (name, batch bytes)
SIZES = {100: ('100 B', 16384), 1024: ('1 KiB', 16384), 10240: ('10 KiB', 65536)}
SCEN = {}
for size, (text, batch) in SIZES.items():
    for parts in (1, 100):
        for acks in ('a1', 'all'):
            SCEN[f'P{size}-{parts}-{acks}'] = dict(title=f'produce {text}, {parts} partition{"s" * (parts > 1)}, {"written" if acks == "a1" else "synced"}',
                                                   what='produce', size=size, batch=batch, parts=parts, acks=acks)
    SCEN[f'C{size}'] = dict(title=f'consume {text}, 1 partition', what='consume', size=size, batch=batch, parts=1, acks='a1')
    SCEN[f'C{size}-100'] = dict(title=f'consume {text}, 100 partitions', what='consume', size=size, batch=batch, parts=100, acks='a1')
# Every record a request of its own, and 500 of them a second on a schedule: what one acknowledged record waits.
SCEN['L1024-all'] = dict(title='latency: 500 records of 1 KiB a second, one by one, synced', what='latency', size=1024, batch=1, parts=1, acks='all', rate=500)

def weir(run, acks, port):
    if os.environ.get('WEIR_CMD'):    # another way to start it: DIR and PORT are put in
        return shlex.split(os.environ['WEIR_CMD'].replace('DIR', run).replace('PORT', str(port)))
    binary = os.environ.get('WEIR', os.path.join(ROOT, 'build/weir'))
    manifest = os.path.join(run, 'weir.yaml')
    with open(manifest, 'w') as f:
        f.write('apiVersion: v1\nkind: Service\nmetadata: { name: nothing }\nspec: { type: ExternalName, externalName: localhost, ports: [ { port: 1 } ] }\n')
    return [binary, 'up', '--workers', '1', '--data', os.path.join(run, 'data'), '--admin', 'off', '--access-log', 'off', '--etcd', 'off', '--kafka', f'127.0.0.1:{port}', manifest]

def nats(run, acks, port):            # 2.9 syncs its files every two minutes and has no setting for more: no part in `all`
    return ['nats-server', '-a', '127.0.0.1', '-p', str(port), '-js', '-sd', run]

def redis(run, acks, port):
    return ['redis-server', '--bind', '127.0.0.1', '--port', str(port), '--dir', run, '--save', '', '--appendonly', 'yes',
            '--appendfsync', 'always' if acks == 'all' else 'everysec', '--auto-aof-rewrite-percentage', '0', '--loglevel', 'warning']

def floor(run, acks, port):
    return [os.path.join(BUILD, 'floor'), '-l', str(port), '-d', run] + (['-y'] if acks == 'all' else [])

PEERS = {'weir': (weir, 'kafka'), 'nats': (nats, 'nats'), 'redis': (redis, 'redis'), 'floor': (floor, 'floor')}

def build():
    os.makedirs(BUILD, exist_ok=True)
    crc = os.path.join(ROOT, 'src/wire/crc32c.c')
    for name in ('loggen', 'floor'):
        compiled(os.path.join(BUILD, name), [os.path.join(HERE, name + '.c'), os.path.join(ROOT, 'bench/measure.h'), crc], '-I', os.path.join(ROOT, 'src/base'), crc)

class Server:
    def __init__(self, peer, acks, args):
        self.run = tempfile.mkdtemp(prefix='log-', dir=args.dir)
        command = PEERS[peer][0](self.run, acks, PORT)
        if listening(PORT): raise RuntimeError(f'port {PORT} is taken')
        self.log = open(os.path.join(self.run, 'out.log'), 'w')
        self.p = subprocess.Popen(['nice', '-n', str(args.nice), 'taskset', '-c', str(args.pcpu)] + command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        t = time.time()
        while not listening(PORT):
            if self.p.poll() is not None or time.time() - t > 20:
                why = open(os.path.join(self.run, 'out.log')).read()[-400:]
                self.stop(); raise RuntimeError(f'{peer} did not start: {why}')
            time.sleep(.01)
        time.sleep(.3)
        pin(self.pids(), args.pcpu)
    def pids(self): return tree(self.p.pid)
    def stop(self):
        end(self.p, 5)
        self.log.close()
        shutil.rmtree(self.run, ignore_errors=True)

def held_mib():
    """So much of the page cache can be filled before the system begins to write it to the disk, with a margin; see loggen.c."""
    info = {l.split(':')[0]: int(l.split()[1]) >> 10 for l in open('/proc/meminfo')}
    read = lambda name: int(open('/proc/sys/vm/dirty_background_' + name).read())
    dirty = read('bytes') >> 20 or info['MemAvailable'] * read('ratio') // 100
    return max(64, min(2048, dirty * 8 // 10, info['MemFree'] // 3))

def loggen(px, peer, s, args, extra):
    acks = {'a1': '1', 'all': '-1'}[s['acks']]
    cmd = ['nice', '-n', str(args.nice), 'taskset', '-c', str(args.gcpu), os.path.join(BUILD, 'loggen'), '-P', PEERS[peer][1], '-p', str(PORT), '-a', acks, '-s', str(s['size']),
           '-b', str(s['batch']), '-n', str(s['parts']), '-k', '10', '-x', ','.join(map(str, px.pids()))] + extra
    o = subprocess.run(cmd, capture_output=True, text=True, timeout=args.dur + args.warm + 120)
    if not o.stdout: raise RuntimeError(o.stderr[-300:])
    return json.loads(o.stdout.strip().splitlines()[-1])

def measure(peer, name, args):
    s = SCEN[name]
    px = Server(peer, s['acks'], args)
    spin = [] if args.pcpu == args.gcpu else ['-S']
    span = ['-d', str(args.dur), '-W', str(args.warm)]
    try:
        if s['what'] == 'consume':    # what is there to be read: about 200 MB, all in memory
            loggen(px, peer, dict(s, parts=s['parts']), args, ['-c', str(CONNS), '-d', '60', '-W', '0', '-L', str(int(2e8 / s['size']))])
            r = loggen(px, peer, s, args, ['-m', 'consume', '-c', '4' if s['parts'] > 1 else '1', '-i'] + span + spin)
        elif s['what'] == 'latency':
            r = loggen(px, peer, s, args, ['-c', '4', '-w', '16', '-r', str(s['rate'])] + span)
        else:
            r = loggen(px, peer, s, args, ['-c', str(CONNS), '-B', str(held_mib()), '-D', os.path.join(args.dir, 'held')] + span + spin)
        r['rss_kib'] = memory(px.pids(), 'Rss:')
    finally:
        px.stop()
    r.update(peer=peer, scen=name, ts=round(time.time()))
    return r

def sync_probe(args, rate):
    """One file, one thread, nothing else: write and fdatasync, one after the other (rate 0) or at a pace."""
    o = subprocess.run(['nice', '-n', str(args.nice), 'taskset', '-c', str(args.gcpu), os.path.join(BUILD, 'floor'), '-d', args.dir, '-f', '2', '-b', '1100', '-r', str(rate)],
                       capture_output=True, text=True, check=True)
    return dict(json.loads(o.stdout), rate=rate)

def report(rows, out=sys.stdout):
    peers = list(dict.fromkeys(r['peer'] for r in rows if r['peer'] != 'disk'))
    disk = [r for r in rows if r['peer'] == 'disk']
    for rate in sorted({r.get('rate', 0) for r in disk}):
        x = [r for r in disk if r.get('rate', 0) == rate]
        print(f"\nfdatasync of 1 KiB appended, alone, {f'{rate} a second' if rate else 'one after the other'}: p50 {statistics.median(r['p50_us'] for r in x):.0f} us, "
              f"p99 {statistics.median(r['p99_us'] for r in x):.0f} us", file=out)
    for name in [s for s in SCEN if any(r.get('scen') == s for r in rows)]:
        sel = [r for r in rows if r.get('scen') == name]
        rivals = [p for p in peers if p not in ('weir', 'floor')]
        print(f'\n### {name}: {SCEN[name]["title"]}', file=out)
        print('| peer | n | records/CPU-s median [min-max] | to the floor | Weir to it | records/s | MB/s | util | p50 us | p99 us | RSS MiB | errors |\n' + '| --- ' * 12 + '|', file=out)
        for p in peers:
            x = [r for r in sel if r['peer'] == p]
            if not x: continue
            med = lambda k: statistics.median(r[k] for r in x)
            def ratio(a, b):
                at = {r['round']: r['req_per_cpu_s'] for r in sel if r['peer'] == b}
                of = {r['round']: r['req_per_cpu_s'] for r in sel if r['peer'] == a}
                q = [of[k] / at[k] for k in of if at.get(k)]
                return f'{statistics.median(q):.2f}x' if q else '-'
            v = [r['req_per_cpu_s'] for r in x]
            print(f"| {p} | {len(x)} | {statistics.median(v):,.0f} [{min(v):,.0f}-{max(v):,.0f}] | {ratio(p, 'floor')} | {ratio('weir', p) if p in rivals else '-'} | {med('rps'):,.0f} | "
                  f"{med('mb_s'):,.0f} | {med('util'):.2f} | {med('p50_us'):,.0f} | {med('p99_us'):,.0f} | {med('rss_kib') / 1024:,.0f} | {sum(r['errors'] for r in x)} |", file=out)

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--peers', default='weir,nats,redis,floor'); ap.add_argument('--scenarios', default='all')
    ap.add_argument('--rounds', type=int, default=3); ap.add_argument('--dur', type=float, default=3); ap.add_argument('--warm', type=float, default=1)
    ap.add_argument('--pcpu', type=int, default=0); ap.add_argument('--gcpu', type=int, default=1); ap.add_argument('--nice', type=int, default=-20 if os.geteuid() == 0 else 0)
    ap.add_argument('--dir', default=os.path.join(ROOT, 'build')); ap.add_argument('--out', default='results.jsonl'); ap.add_argument('--report', nargs='+')
    ap.add_argument('--seed', type=int, default=1)
    args = ap.parse_args()
    if args.report:
        return report([json.loads(l) for f in args.report for l in open(f)])
    build(); random.seed(args.seed)
    os.makedirs(args.dir, exist_ok=True)
    rows, failures = [], 0
    with open(args.out, 'a') as f:
        def keep(r):
            rows.append(r); f.write(json.dumps(r) + '\n'); f.flush()
        for name in list(SCEN) if args.scenarios == 'all' else args.scenarios.split(','):
            for rnd in range(args.rounds):
                order = args.peers.split(','); random.shuffle(order)
                if SCEN[name]['what'] == 'latency':
                    for rate in (0, SCEN[name]['rate']): keep(dict(sync_probe(args, rate), peer='disk', round=f'{args.seed}.{rnd}'))
                for p in order:
                    if p == 'nats' and SCEN[name]['acks'] == 'all': continue
                    try: r = measure(p, name, args)
                    except Exception as e:
                        print(f'{name} {p}: {type(e).__name__} {str(e)[:300]}', file=sys.stderr); failures += 1; continue
                    r['round'] = f'{args.seed}.{rnd}'; keep(r)
                    print(f"{name} r{rnd} {p:6} {r['req_per_cpu_s']:10,.0f} records/CPU-s  {r['rps']:10,.0f}/s {r['mb_s']:6.0f} MB/s util {r['util']:.2f} p99 {r['p99_us']:.0f} us errors {r['errors']} {r['error']}", flush=True)
    report(rows)
    if failures: sys.exit(f'{failures} measurements failed; see above')

if __name__ == '__main__': main()
