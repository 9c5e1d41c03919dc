#!/usr/bin/env python3
"""Side-by-side measurement of HTTP reverse proxies: same work, same run, one proxy core.

  bench.py --peers weir,nginx,haproxy,floor-epoll --scenarios S1,S3 --rounds 3 [--dur 3] [--out r.jsonl]
  bench.py --report r.jsonl [r2.jsonl ...]          tables from saved results

The proxy (peers/<name>.sh, see peers/README.md) is pinned to CPU --pcpu; the load generator, with the origin in the
same busy-polling thread (lg.c), to --gcpu. Every round runs every peer once in a random order, so drift of the
machine falls on all alike; ratios are made within a round. The main figure is requests per CPU-second of the proxy's
process tree (utime+stime). With --gcpu equal to --pcpu everything shares one core (no cross-CPU traffic, more batching):
a second opinion that the placement of virtual CPUs cannot disturb. probe.c is run before and after each measurement: on a virtual machine the distance
between the two CPUs (same L3 or not) changes under the guest and moves every figure by a third; each sample is
labelled near / far / mixed, and 'mixed' ones are repeated.
"""
import argparse, json, os, random, re, resource, shutil, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from servers import compiled, end, listening, memory, pin, tree
BUILD = os.environ.get('BENCH_BIN') or os.path.join(HERE, 'build')
PORT, OPORT, O2PORT = 8080, 9000, 9002
LG, H2 = 'lg', 'h2load'

# name: (title, mode, tool, arguments, unit)
SCEN = {
 'S1':  ('GET 128 B, 64 connections',             'http', LG, '-c 64'),
 'S2':  ('GET 128 B, 1,000 connections',          'http', LG, '-c 1000'),
 'S3':  ('GET 16 KiB, 64 connections',            'http', LG, '-c 64 -u /b/16384'),
 'S4':  ('GET 256 KiB, 32 connections',           'http', LG, '-c 32 -u /b/262144'),
 'S5':  ('connection per request, client closes', 'http', LG, '-c 64 -1'),
 'S6':  ('POST 4 KiB body, 64 connections',       'http', LG, '-c 64 -b 4096'),
 'S7h': ('TLS 1.3 full handshake + GET 128 B',    'tls',  LG, '-c 64 -1 -T'),
 'S7r': ('TLS 1.3 resumed handshake + GET 128 B', 'tls',  LG, '-c 64 -1 -R'),
 'S7k': ('TLS 1.3 keep-alive GET 128 B',          'tls',  LG, '-c 64 -T'),
 'S7b': ('TLS 1.3 keep-alive GET 16 KiB',         'tls',  LG, '-c 64 -T -u /b/16384'),
 'S8':  ('h2c 10 x 100 streams -> HTTP/1.1',      'h2',   H2, '-c 10 -m 100'),
 'S9':  ('gRPC-shaped h2c 10 x 100 -> h2c',       'grpc', H2, '-c 10 -m 100 -d @GRPC -H te:trailers -H content-type:application/grpc'),
 'L4':  ('TCP mode, 256 KiB answers, 32 conns',   'tcp',  LG, '-c 32 -u /b/262144'),
 'L4s': ('TCP mode, 128 B answers, 64 conns',     'tcp',  LG, '-c 64'),
 'L4c': ('TCP mode, connection per request',      'tcp',  LG, '-c 64 -1'),
 'C1':  ('cache hit 1 KiB, 64 connections',       'cache',LG, '-c 64 -u /c/1024'),
 'R0':  ('no limiter, X-Key of 100k',             'http', LG, '-c 64 -q 100000'),
 'R1':  ('limiter on (never trips), 100k keys',   'limit',LG, '-c 64 -q 100000'),
 'R2':  ('limiter rejecting (429), 1k keys',      'deny', LG, '-c 64 -q 1000'),
 'T1':  ('open loop 5,000 req/s, 64 conns',       'http', LG, '-c 64 -r 5000'),
 'T2':  ('open loop 20,000 req/s, 64 conns',      'http', LG, '-c 64 -r 20000'),
 'T3':  ('open loop 30,000 req/s, 64 conns',      'http', LG, '-c 64 -r 30000'),
}

def sh(cmd, **k): return subprocess.run(cmd, shell=True, check=True, **k)

def build():
    os.makedirs(BUILD, exist_ok=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # inherited by generator and proxies alike
    for name, libs in (('lg', '-lssl -lcrypto'), ('origin', ''), ('probe', '-pthread'), ('floor_epoll', '')):
        compiled(os.path.join(BUILD, name), [os.path.join(HERE, name + '.c'), os.path.join(HERE, 'origin.h')], *libs.split())

def cpu(pids):
    t = 0
    for p in pids:
        try: f = open(f'/proc/{p}/stat').read().rsplit(')', 1)[1].split(); t += int(f[11]) + int(f[12])
        except OSError: pass
    return t / os.sysconf('SC_CLK_TCK')

def certs(d):
    c, k, p = (os.path.join(d, x) for x in ('cert.pem', 'key.pem', 'both.pem'))
    sh(f'openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=bench.local '
       f'-addext subjectAltName=DNS:bench.local,IP:127.0.0.1 -keyout {k} -out {c} 2>/dev/null && cat {c} {k} > {p} && chmod 644 {c} {k} {p}')
    return c, k, p

class Proxy:
    def __init__(self, peer, mode, args, extra=None):
        self.run = tempfile.mkdtemp(prefix='proxy-'); os.chmod(self.run, 0o755)
        c, k, p = certs(self.run) if mode == 'tls' else ('', '', '')
        self.env = dict(os.environ, MODE=mode, PORT=str(PORT), OPORT=str(OPORT), O2PORT=str(O2PORT), RUN=self.run,
                        CERT=c, KEY=k, PEM=p, BENCH_BIN=BUILD, **(extra or {}))
        self.script = os.path.join(HERE, 'peers', peer + '.sh')
        t = time.time()
        while listening(PORT):
            if time.time() - t > 20: raise RuntimeError('port busy')
            time.sleep(.02)
        self.log = open(os.path.join(self.run, 'out.log'), 'w')
        self.t0 = time.time()
        self.p = subprocess.Popen(['nice', '-n', str(args.nice), 'taskset', '-c', str(args.pcpu), self.script, 'start'],
                                  env=self.env, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        while not listening(PORT):
            if self.p.poll() is not None or time.time() - self.t0 > 30:
                why = open(os.path.join(self.run, 'out.log')).read()[-400:]
                self.stop(); raise RuntimeError(f'{peer} did not start: {why}')
            time.sleep(.002)
        self.up = time.time() - self.t0
        time.sleep(.05)
        pin(self.pids(), args.pcpu)
    def pids(self): return tree(self.p.pid)
    def stop(self):
        end(self.p, 4)
        self.log.close()
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.rmtree(f'/dev/shm/ngx-cache-{PORT}', ignore_errors=True)

def probe(args):
    if args.pcpu == args.gcpu: return 0
    o = subprocess.run(['nice', '-n', str(args.nice), os.path.join(BUILD, 'probe'), str(args.pcpu), str(args.gcpu)], capture_output=True, text=True)
    return json.loads(o.stdout)['pingpong_ns']

def regime(a, b):
    if a == b == 0: return 'same'
    k = ['near' if x < 70 else 'far' for x in (a, b)]
    return k[0] if k[0] == k[1] else 'mixed'

def run_lg(px, a, args, dur, warm=1.0):
    cmd = ['nice', '-n', str(args.nice), 'taskset', '-c', str(args.gcpu), os.path.join(BUILD, 'lg'), '-p', str(PORT), '-O', str(OPORT)] + ([] if args.gcpu == args.pcpu else ['-S']) + [
           '-P', ','.join(map(str, px.pids())), '-C', str(args.pcpu), '-d', str(dur), '-w', str(warm)] + a.split()
    o = subprocess.run(cmd, capture_output=True, text=True, timeout=dur + warm + 60)
    if not o.stdout: raise RuntimeError(o.stderr[-300:])
    return json.loads(o.stdout.strip().splitlines()[-1])

def run_h2load(px, a, args, dur, mode):
    body = os.path.join(px.run, 'grpc.bin')
    open(body, 'wb').write(b'\0\0\0\0\x7b' + b'g' * 123)
    pre = ['nice', '-n', str(args.nice), 'taskset', '-c', str(args.gcpu)]
    org = subprocess.Popen(pre + [os.path.join(BUILD, 'origin'), '-p', str(OPORT), '-2', str(O2PORT)])
    try:
        time.sleep(.3)
        c0, t0 = cpu(px.pids()), time.time()
        o = subprocess.run(pre + ['h2load', '-D', str(int(dur)), '-t', '1'] + a.replace('@GRPC', body).split() + [f'http://127.0.0.1:{PORT}/b/128'],
                           capture_output=True, text=True, timeout=dur + 60).stdout
        c1, t1 = cpu(px.pids()), time.time()
    finally:
        org.terminate(); org.wait()
    m = re.search(r'requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed', o)
    s = re.search(r'status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx', o)
    n = int(m.group(4)); w = dur
    t = re.search(r'time for request:\s+(\S+)\s+(\S+)\s+(\S+)', o)
    return dict(requests=n, wall=w, rps=n / w, cpu_s=c1 - c0, req_per_cpu_s=n / (c1 - c0) if c1 > c0 else 0, util=(c1 - c0) / w,
                errors=int(m.group(5)), connerrs=0, s2xx=int(s.group(1)), s4xx=int(s.group(3)), s5xx=int(s.group(4)), mean=t.group(3) if t else None)

def measure(peer, scen, args):
    title, mode, tool, a = SCEN[scen]
    for attempt in range(args.retries + 1):
        if args.regime != 'any':          # wait (up to 20 s) until the host has put the CPUs where we want them
            t = time.time()
            while regime(*[probe(args)] * 2) != args.regime and time.time() - t < 20: time.sleep(1)
        px = Proxy(peer, mode, args)
        try:
            time.sleep(args.settle)
            p0 = probe(args)
            r = run_lg(px, a, args, args.dur) if tool == LG else run_h2load(px, a, args, args.dur, mode)
            p1 = probe(args)
        finally:
            px.stop()
        r.update(peer=peer, scen=scen, regime=regime(p0, p1), probe=[p0, p1], ts=round(time.time()))
        if r['regime'] != 'mixed' and (args.regime == 'any' or r['regime'] == args.regime): break
    return r

def bad(r):
    ok = r['s4xx'] if r['scen'] == 'R2' else r['s2xx']
    return r['errors'] + r['connerrs'] > r['requests'] * .001 or ok < r['requests'] * .99 or not r['requests']

def report(rows, base='nginx', metric='req_per_cpu_s', out=sys.stdout):
    """per scenario: median [min-max] of the metric, and the median of in-round ratios to base"""
    peers = list(dict.fromkeys(r['peer'] for r in rows))
    for sc in [s for s in SCEN if any(r['scen'] == s for r in rows)]:
        for rg in ('near', 'far', 'same'):
            sel = [r for r in rows if r['scen'] == sc and r['regime'] == rg]
            if not sel: continue
            lat = 'r ' in ' ' + SCEN[sc][3] and '-r ' in SCEN[sc][3]
            print(f'\n### {sc} {SCEN[sc][0]} ({rg})', file=out)
            if lat: print('| peer | n | p50 us | p99 us | p99.9 us | util | errors |\n| --- | --- | --- | --- | --- | --- | --- |', file=out)
            else: print(f'| peer | n | req/CPU-s median [min-max] | vs {base} | RPS | util | CPU us/req | errors |\n| --- | --- | --- | --- | --- | --- | --- | --- |', file=out)
            for p in peers:
                x = [r for r in sel if r['peer'] == p]
                if not x: continue
                med = lambda k: statistics.median(r[k] for r in x)
                err = sum(r['errors'] + r['connerrs'] for r in x); flag = ' !' if any(bad(r) for r in x) else ''
                if lat:
                    f = lambda k: f"{med(k):.0f} [{min(r[k] for r in x):.0f}-{max(r[k] for r in x):.0f}]"
                    print(f"| {p} | {len(x)} | {f('p50_us')} | {f('p99_us')} | {f('p999_us')} | {med('util'):.2f} | {err}{flag} |", file=out)
                    continue
                b = {r['round']: r[metric] for r in sel if r['peer'] == base}
                q = [r[metric] / b[r['round']] for r in x if b.get(r['round'])]
                q = f'{statistics.median(q):.2f}x' if q else '-'
                v = [r[metric] for r in x]
                print(f"| {p} | {len(x)} | {statistics.median(v):,.0f} [{min(v):,.0f}-{max(v):,.0f}] | {q} | {med('rps'):,.0f} | {med('util'):.2f} | {1e6 / max(1, statistics.median(v)):.1f} | {err}{flag} |", file=out)

class FreePorts:
    """A session per request leaves a port in TIME_WAIT with each. Soon there is no free one, and connect() spends a third of the proxy's time looking
    for one that may be used again; how long depends on what the peers before have left. While such a scenario runs few are kept, if we may say so."""
    PATH, FEW = '/proc/sys/net/ipv4/tcp_max_tw_buckets', '1000'

    def __init__(self, scen): self.wanted, self.was = SCEN[scen][1] == 'tcp' and '-1' in SCEN[scen][3].split(), None

    def __enter__(self):
        try:
            if self.wanted:
                self.was = open(self.PATH).read()
                open(self.PATH, 'w').write(self.FEW)
        except OSError as e:
            self.was = None
            print(f'{self.PATH}: {e.strerror}; the rows of a session per request depend on what ran before', file=sys.stderr)

    def __exit__(self, *_):
        if self.was is not None:
            open(self.PATH, 'w').write(self.was)

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--peers', default='weir,nginx,haproxy,floor-epoll'); ap.add_argument('--scenarios', default='S1')
    ap.add_argument('--rounds', type=int, default=3); ap.add_argument('--dur', type=float, default=3); ap.add_argument('--settle', type=float, default=.4)
    ap.add_argument('--pcpu', type=int, default=0); ap.add_argument('--gcpu', type=int, default=1); ap.add_argument('--nice', type=int, default=-20 if os.geteuid() == 0 else 0)
    ap.add_argument('--regime', default='any', choices=['any', 'near', 'far', 'same']); ap.add_argument('--retries', type=int, default=2)
    ap.add_argument('--out', default='results.jsonl'); ap.add_argument('--base', default='nginx'); ap.add_argument('--report', nargs='+')
    ap.add_argument('--seed', type=int, default=1)
    args = ap.parse_args()
    if args.report:
        return report([json.loads(l) for f in args.report for l in open(f)], args.base)
    build(); random.seed(args.seed)
    rows, failures = [], 0
    with open(args.out, 'a') as f:
        for sc in args.scenarios.split(','):
            for rnd in range(args.rounds):
                order = args.peers.split(','); random.shuffle(order)
                for p in order:
                    caps = subprocess.run([os.path.join(HERE, 'peers', p + '.sh'), 'caps'], capture_output=True, text=True).stdout.split()
                    if SCEN[sc][1] not in caps: continue
                    try:
                        with FreePorts(sc): r = measure(p, sc, args)
                    except Exception as e:
                        print(f'{sc} {p}: {type(e).__name__} {str(e)[:300]}', file=sys.stderr); failures += 1; continue
                    r['round'] = f"{args.seed}.{rnd}"; rows.append(r); f.write(json.dumps(r) + '\n'); f.flush()
                    print(f"{sc} r{rnd} {p:14} {r['req_per_cpu_s']:9.0f} req/CPU-s  rps {r['rps']:9.0f} util {r['util']:.2f} {r['regime']:5} err {r['errors']}/{r['connerrs']} 2xx {r['s2xx']} 4xx {r['s4xx']} 5xx {r['s5xx']} p99 {r.get('p99_us')}", flush=True)
    report(rows, args.base)
    if failures: sys.exit(f'{failures} measurements failed; see above')

if __name__ == '__main__': main()
