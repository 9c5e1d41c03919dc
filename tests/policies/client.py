"""What the checks of this folder share: a client of the node's doors, its access log and its metrics; and how a check is said.

Settings come from the environment, as tests/policies/run exports them: DOOR (Istio's Gateway), GATE (the Gateway API's), ADMIN, ACCESS_LOG,
ORIGIN (a port of origin.py), WEIR, DATA.
"""
import collections
import concurrent.futures
import http.client
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
import traceback
import urllib.request

DOOR, GATE, ADMIN, ORIGIN = (int(os.environ[k]) for k in ('DOOR', 'GATE', 'ADMIN', 'ORIGIN'))
ids = itertools.count()
print_lock = threading.Lock()


def say(name, good, why=''):
    with print_lock:
        print(('ok ' if good else 'not ok ') + name + ('' if good else ' (%s)' % str(why).replace('\n', ' ')[:600]), flush=True)


def same(name, want, got):
    say(name, want == got, f'wanted {want!r}, got {got!r}')


def wait_for(seconds, what):
    """Until what() is true; its last value."""
    end = time.monotonic() + seconds
    while not (value := what()) and time.monotonic() < end:
        time.sleep(0.03)
    return value


# ---- asking ----------------------------------------------------------------------------------------------------------------

class Answer:
    def __init__(self, status, fields, body, seconds, request_id):
        self.status, self.body, self.seconds, self.id = status, body, seconds, request_id
        self.fields = collections.defaultdict(str)
        self.all = [(k.lower(), v) for k, v in fields]
        for k, v in self.all:
            self.fields[k] = self.fields[k] + ', ' + v if k in self.fields else v

    @property
    def text(self):
        return self.body.decode('utf-8', 'replace')

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def name(self):
        return self.json['name']

    def __repr__(self):
        return f'{self.status} in {self.seconds:.3f} s {dict(self.fields)} {self.text[:200]}'


def connect(port=None, source=None):
    return http.client.HTTPConnection('127.0.0.1', port or DOOR, timeout=20, source_address=(source, 0) if source else None)


def ask(host, path='/', method='GET', headers=None, body=None, conn=None, port=None, source=None):
    """Through a door; over conn where one is given, which stays open, else over a new connection."""
    c = conn or connect(port, source)
    request_id = f'{os.getpid()}-{next(ids)}'
    fields = {'Host': host, 'X-Request-Id': request_id, **(headers or {})}
    begun = time.monotonic()
    c.request(method, path, body=body, headers=fields)
    r = c.getresponse()
    data = r.read()
    if not conn:
        c.close()
    return Answer(r.status, r.getheaders(), data, time.monotonic() - begun, request_id)


def gate(host, path='/', **more):
    return ask(host, path, port=GATE, **more)


def together(calls):
    """Runs them at once; their results in order."""
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return [f.result() for f in [pool.submit(c) for c in calls]]


def spread(n, call):
    """How often each endpoint answered n calls."""
    return collections.Counter(call(i).name for i in range(n))


def counted(key, port=ORIGIN):
    with urllib.request.urlopen(f'http://127.0.0.1:{port}/_/count?key={key}', timeout=5) as r:
        return json.loads(r.read())


def calls(key):
    return sum(counted(key)['seen'].values())


def opened(name, port=ORIGIN):
    with urllib.request.urlopen(f'http://127.0.0.1:{port}/_/connections', timeout=5) as r:
        return json.loads(r.read()).get(name, 0)


# ---- what the node says of it ------------------------------------------------------------------------------------------------

class Log:
    """The access log, read as it grows."""

    def __init__(self):
        self.lines, self.at, self.lock = {}, 0, threading.Lock()

    def read(self):
        with self.lock, open(os.environ['ACCESS_LOG'], 'rb') as f:
            f.seek(self.at)
            for line in f:
                if not line.endswith(b'\n'):
                    break
                self.at += len(line)
                e = json.loads(line)
                self.lines[e.get('request_id')] = e

    def find(self, request_id):
        self.read()
        return self.lines.get(request_id)


log = Log()


def logged(answer):
    return wait_for(5, lambda: log.find(answer.id)) or {}


def metrics():
    with urllib.request.urlopen(f'http://127.0.0.1:{ADMIN}/metrics', timeout=5) as r:
        return r.read().decode()


def metric(name, **labels):
    """The sum of a family's samples that have these labels."""
    total = 0
    for line in metrics().splitlines():
        if re.match(name + r'[{ ]', line) and all(f'{k}="{v}"' in line for k, v in labels.items()):
            total += float(line.rsplit(' ', 1)[1])
    return int(total)


def flagged(name, answer, status, flag, text=''):
    """The client has this status, and the access log and the metrics name this reason."""
    e = logged(answer)
    if answer.status != status or e.get('flags') != flag or text not in answer.text:
        say(name, False, f'wanted {status} {flag} {text}, got {answer!r}, logged {e}')
        return
    good = wait_for(3, lambda: metric('istio_requests_total', response_code=status, response_flags=flag) > 0)
    say(name, good, f'no series with response_code={status} and response_flags={flag}')


def weir(*args, text=None):
    r = subprocess.run([os.environ['WEIR'], args[0], '--data', os.environ['DATA'], *args[1:]], input=text, capture_output=True, text=True, timeout=60)
    return r.returncode, r.stdout + r.stderr


def apply(text):
    code, out = weir('apply', '-', text=text)
    if code:
        say('a manifest is applied', False, out)


def run(*checks):
    """Each check by itself: one that fails with an exception is said, and the others go on. Those in a list run at the same time."""
    def one(check):
        try:
            check()
        except Exception:
            say(check.__name__, False, traceback.format_exc()[-500:])
    for check in checks:
        if isinstance(check, list):
            together([lambda c=c: one(c) for c in check])
        else:
            one(check)
    sys.stdout.flush()
