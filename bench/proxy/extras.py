#!/usr/bin/env python3
"""What bench.py does not measure: footprint, start time, memory of idle connections, reload under load.

  extras.py start  --peers a,b [--runs 5]      time from exec to the first answered request, RSS/PSS, binary size
  extras.py idle   --peers a,b [--conns 10000] [--mode http|tls]
  extras.py reload --peers a,b                 5 reloads, 1 s apart, under an open-loop load; failed requests counted
"""
import argparse, json, os, re, socket, statistics, subprocess, sys, tempfile, time
import bench
from bench import BUILD, PORT, OPORT, O2PORT

def get_once():
    s = socket.create_connection(('127.0.0.1', PORT), timeout=1)
    s.sendall(b'GET /b/128 HTTP/1.1\r\nHost: bench.local\r\nConnection: close\r\n\r\n')
    d = b''
    while True:
        x = s.recv(65536)
        if not x: break
        d += x
    s.close()
    return d.startswith(b'HTTP/1.1 200')

def caps(p): return subprocess.run([os.path.join(bench.HERE, 'peers', p + '.sh'), 'caps'], capture_output=True, text=True).stdout.split()
def ask(p, w): return subprocess.run([os.path.join(bench.HERE, 'peers', p + '.sh'), w], capture_output=True, text=True).stdout.strip()

def origin(args):
    o = subprocess.Popen(['taskset', '-c', str(args.gcpu), os.path.join(BUILD, 'origin'), '-p', str(OPORT), '-2', str(O2PORT)])
    time.sleep(.2)
    return o

def size(b):
    b = os.path.realpath(b); n = os.path.getsize(b)
    strip = '/tmp/bench-strip.%d' % os.getpid()
    subprocess.run(['strip', '-o', strip, b], stderr=subprocess.DEVNULL)
    s = os.path.getsize(strip) if os.path.exists(strip) else n
    if os.path.exists(strip): os.unlink(strip)
    libs = 0
    for m in re.findall(r'=> (/\S+)', subprocess.run(['ldd', b], capture_output=True, text=True).stdout): libs += os.path.getsize(os.path.realpath(m))
    return s, libs

def start(args):
    print('| peer | version | binary, stripped (MiB) | + shared libraries (MiB) | start to first answer, ms median [min-max] | RSS MiB | PSS MiB | processes/threads |\n| --- | --- | --- | --- | --- | --- | --- | --- |')
    o = origin(args)
    try:
        for p in args.peers.split(','):
            t, r, ps, pt = [], 0, 0, ''
            for _ in range(args.runs):
                while bench.listening(PORT): time.sleep(.05)
                px = bench.Proxy.__new__(bench.Proxy)
                px.run = tempfile.mkdtemp(prefix='proxy-'); os.chmod(px.run, 0o755)
                px.env = dict(os.environ, MODE='http', PORT=str(PORT), OPORT=str(OPORT), O2PORT=str(O2PORT), RUN=px.run, BENCH_BIN=BUILD)
                px.log = open(os.path.join(px.run, 'out.log'), 'w')
                t0 = time.time()
                px.p = subprocess.Popen(['taskset', '-c', str(args.pcpu), os.path.join(bench.HERE, 'peers', p + '.sh'), 'start'], env=px.env, stdout=px.log, stderr=px.log)
                ok = False
                while time.time() - t0 < 20:
                    try:
                        if get_once(): ok = True; break
                    except OSError: time.sleep(.001)
                t.append((time.time() - t0) * 1000 if ok else float('nan'))
                time.sleep(.5)
                pids = px.pids(); r, ps = rss(pids)
                pt = f"{len(pids)}/{sum(len(os.listdir(f'/proc/{x}/task')) for x in pids)}"
                px.stop()
            s, l = size(ask(p, 'bin'))
            print(f"| {p} | {ask(p, 'version')} | {s / 2**20:.1f} | {l / 2**20:.1f} | {statistics.median(t):.0f} [{min(t):.0f}-{max(t):.0f}] | {r / 1024:.1f} | {ps / 1024:.1f} | {pt} |", flush=True)
    finally: o.terminate(); o.wait()

def rss(pids): return bench.memory(pids, 'Rss:'), bench.memory(pids, 'Pss:')

def idle(args):
    print(f'| peer | mode | idle: RSS MiB | PSS MiB | with {args.conns:,} idle connections: RSS MiB | PSS MiB | KiB per connection | kernel TCP mem MiB | errors |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |')
    for p in args.peers.split(','):
        if args.mode not in caps(p): continue
        o = origin(args)
        px = bench.Proxy(p, args.mode, args)
        try:
            # warm the proxy first so that its own pools exist
            subprocess.run([os.path.join(BUILD, 'lg'), '-p', str(PORT), '-c', '64', '-d', '1', '-w', '.2'] + (['-T'] if args.mode == 'tls' else []), capture_output=True)
            time.sleep(1); r0 = rss(px.pids())
            l = subprocess.Popen(['taskset', '-c', str(args.gcpu), os.path.join(BUILD, 'lg'), '-p', str(PORT), '-c', str(args.conns), '-I', '-d', '25', '-w', '0'] + (['-T'] if args.mode == 'tls' else []), stdout=subprocess.PIPE, text=True)
            line = l.stdout.readline(); n = args.conns if line.startswith('ready') else -1
            time.sleep(1.5)
            r1 = rss(px.pids()); mem = [x for x in open('/proc/net/sockstat') if x.startswith('TCP')][0].split()
            l.terminate(); l.wait()
            c = n
            print(f"| {p} | {args.mode} | {r0[0] / 1024:.1f} | {r0[1] / 1024:.1f} | {r1[0] / 1024:.1f} | {r1[1] / 1024:.1f} | {(r1[1] - r0[1]) / max(1, c):.2f} | {int(mem[-1]) * 4 / 1024:.1f} | {'' if c >= args.conns else 'not all connections were served'} |", flush=True)
        except Exception as e: print(f'| {p} | {args.mode} | failed: {e} |')
        finally: px.stop(); o.terminate(); o.wait()

def reload(args):
    print('| peer | load | requests | failed | connect errors | 5xx | p99.9 ms | max ms |\n| --- | --- | --- | --- | --- | --- | --- | --- |')
    for p in args.peers.split(','):
        o = origin(args)
        px = bench.Proxy(p, 'http', args, dict(MW='1'))
        try:
            time.sleep(.5)
            base = ['taskset', '-c', str(args.gcpu), os.path.join(BUILD, 'lg'), '-p', str(PORT), '-w', '1', '-d', '8']
            ls = [('keep-alive, 64 conns, 2,000/s', subprocess.Popen(base + ['-c', '64', '-r', '2000'], stdout=subprocess.PIPE, text=True)),
                  ('new connection each, 500/s', subprocess.Popen(base + ['-c', '64', '-r', '500', '-1'], stdout=subprocess.PIPE, text=True)),
                  ('POST 4 KiB keep-alive, 500/s', subprocess.Popen(base + ['-c', '16', '-r', '500', '-b', '4096'], stdout=subprocess.PIPE, text=True))]
            time.sleep(2.5)
            for _ in range(5):
                subprocess.run([px.script, 'reload'], env=dict(px.env, PID=str(px.p.pid)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                time.sleep(1)
            for name, l in ls:
                j = json.loads(l.communicate()[0].strip().splitlines()[-1])
                print(f"| {p} | {name} | {j['requests']} | {j['errors']} | {j['connerrs']} | {j['s5xx']} | {j['p999_us'] / 1000:.1f} | {j['max_us'] / 1000:.1f} |", flush=True)
        except Exception as e: print(f'| {p} | failed: {e} |')
        finally: px.stop(); o.terminate(); o.wait()

ap = argparse.ArgumentParser()
ap.add_argument('what', choices=['start', 'idle', 'reload'])
ap.add_argument('--peers', default='weir,nginx,haproxy'); ap.add_argument('--runs', type=int, default=5); ap.add_argument('--conns', type=int, default=10000)
ap.add_argument('--mode', default='http'); ap.add_argument('--pcpu', type=int, default=0); ap.add_argument('--gcpu', type=int, default=1); ap.add_argument('--nice', type=int, default=0)
args = ap.parse_args()
bench.build()
{'start': start, 'idle': idle, 'reload': reload}[args.what](args)
