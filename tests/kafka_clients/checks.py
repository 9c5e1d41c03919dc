"""One line per check, as tests/lib.sh prints them. run() starts all at once: most of what a Kafka client does is waiting."""
import sys
import threading
import time
import traceback

CHECKS = []
LIMIT_S = 90  # nobody waits for it but for who hangs: clients in Python take their time for records of a megabyte


def check(name):
    """Marks a function as a check of that name."""
    def take(f):
        CHECKS.append((name, f))
        return f
    return take


def equal(want, got, what=''):
    if want != got:
        raise AssertionError(f'{what} wanted: {want!r}; got: {got!r}'[:600])


def truth(value, what):
    if not value:
        raise AssertionError(what)


def refused(kind, f, *args, **kw):
    """The error of that class that the call ends with. Ending well is the failure."""
    try:
        f(*args, **kw)
    except kind as e:
        return e
    raise AssertionError(f'it was not refused: {getattr(f, "__name__", f)}{args}')


def until(what, f, seconds=60):
    end = time.monotonic() + seconds
    while True:
        got = f()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError('it never came true: ' + what)
        time.sleep(0.02)


def run(lock=threading.Lock()):
    def one(name, f):
        try:
            f()
            line = 'ok ' + name
        except Exception:  # whatever it was, it is the check's
            line = 'not ok ' + name + '\n#   ' + '\n#   '.join(traceback.format_exc().strip().split('\n')[-6:])
        with lock:
            if f in waiting:
                waiting.remove(f)
                print(line, flush=True)
    waiting = {f for _, f in CHECKS}
    threads = [threading.Thread(target=one, args=c, daemon=True) for c in CHECKS]
    for t in threads:
        t.start()
    end = time.monotonic() + LIMIT_S
    for t in threads:
        t.join(max(0.0, end - time.monotonic()))
    with lock:
        for name, f in CHECKS:
            if f in waiting:
                waiting.remove(f)
                print(f'not ok {name}\n#   not over after {LIMIT_S} s', flush=True)
    sys.stdout.flush()
