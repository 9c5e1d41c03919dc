"""What the benchmarks share: programs of their own, and servers under test as trees of processes."""
import os, signal, subprocess, time

def compiled(dst, sources, *more):
    """Compiles the first of sources when the program is older than one of them; more: of the compiler's command line."""
    if not os.path.exists(dst) or any(os.path.getmtime(s) > os.path.getmtime(dst) for s in sources):
        subprocess.run([os.environ.get('CC', 'cc'), '-O2', '-o', dst, sources[0], *more], check=True)

def tree(pid):
    """The process and all of its descendants."""
    kids = {}
    for p in os.listdir('/proc'):
        if p.isdigit():
            try: kids.setdefault(int(open(f'/proc/{p}/stat').read().rsplit(')', 1)[1].split()[1]), []).append(int(p))
            except (OSError, IndexError): pass
    out, todo = [], [pid]
    while todo:
        p = todo.pop(); out.append(p); todo += kids.get(p, [])
    return [p for p in out if os.path.exists(f'/proc/{p}')]

def memory(pids, what):
    """The sum of all lines of smaps_rollup that begin with what ('Rss:', 'Pss:', 'Private_'), in KiB."""
    kib = 0
    for p in pids:
        try: kib += sum(int(l.split()[1]) for l in open(f'/proc/{p}/smaps_rollup') if l.startswith(what))
        except OSError: pass
    return kib

def listening(port):
    mark = ':%04X' % port
    for l in open('/proc/net/tcp').readlines()[1:]:
        f = l.split()
        if f[3] == '0A' and f[1].endswith(mark): return True
    return False

def pin(pids, cpu):
    """Some set their own affinity: every thread is pinned again."""
    for p in pids:
        for t in os.listdir(f'/proc/{p}/task'):
            try: os.sched_setaffinity(int(t), {cpu})
            except OSError: pass

def end(server, seconds):
    """Ends the tree of a subprocess.Popen: asked first, killed when seconds are over."""
    pids = tree(server.pid)
    for s in (signal.SIGTERM, signal.SIGKILL):
        for p in pids:
            try: os.kill(p, s)
            except ProcessLookupError: pass
        t = time.time()
        while time.time() - t < seconds and any(os.path.exists(f'/proc/{p}') for p in pids):
            server.poll(); time.sleep(.02)
    server.wait()
