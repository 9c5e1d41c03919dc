"""Runs tests of librdkafka's own suite against a broker, each in a process of its own, several at a time; prints a line per test.

usage: suite.py RUNNER BROKER LOGS [--jobs N] [--limit SECONDS] [--thorough] [--slow] [--more ARGS] [--conf LINES] [--consumer-protocol] [NUMBER...]

RUNNER is tests/test-runner of a build of librdkafka. LOGS is a folder for what the tests say. Without numbers: what applies.txt marks for every run; with
--thorough all that apply; --consumer-protocol: groups are of the protocol of KIP-848, in the tests that are known to be for it. The suite asks for some things through scripts of Apache Kafka; kafka/bin has them.

    ok librdkafka 0001        | not ok librdkafka 0001 | skip librdkafka 0001 (WHY)
    #   12.3 s
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
CONSUMER_PROTOCOL = ['0018', '0029', '0030', '0056', '0102', '0137']  # 0033, 0069 and 0106 pass, too, and take longer
KAFKA_VERSION = '4.1.0'  # what the suite takes the broker for: without share groups, which came with 4.2


def applies():
    """{number: (when, seconds)} of applies.txt."""
    rows = [line.split() for line in (HERE / 'applies.txt').read_text().split('\n') if line and line[0] != '#']
    return {number: (when, int(seconds)) for number, when, seconds, *_ in rows}


def colourless(text):
    return re.sub(r'\x1b\[[0-9;]*m', '', text)


def one(a, number):
    log = pathlib.Path(a.logs) / f'{number}{"-consumer" if a.consumer_protocol else ""}.log'
    conf = pathlib.Path(a.logs) / 'test.conf'
    env = {**os.environ, 'TESTS': number, 'RDKAFKA_TEST_CONF': str(conf), 'TEST_KAFKA_VERSION': KAFKA_VERSION, 'KAFKA_PATH': str(HERE / 'kafka'), 'BROKERS': a.broker}
    if a.consumer_protocol:
        env['TEST_CONSUMER_GROUP_PROTOCOL'] = 'consumer'
    began = time.monotonic()
    with log.open('w') as out:
        try:
            status = subprocess.run([a.runner, '-L', '-p1', *([] if a.slow else ['-Q']), *a.more.split()], cwd=os.path.dirname(a.runner), env=env, stdin=subprocess.DEVNULL,
                                    stdout=out, stderr=subprocess.STDOUT, timeout=a.limit, check=False).returncode
        except subprocess.TimeoutExpired:
            status = -1
    took = time.monotonic() - began
    text = colourless(log.read_text(errors='replace'))
    if re.search(rf'\| {number}_\w+ +\| +SKIPPED', text) and not re.search(rf'\| {number}_\w+ +\| +(PASSED|FAILED)', text):
        why = re.findall(r'SKIPPING TEST: (.*)', text)
        return number, 'skip', took, why[-1] if why else 'the suite leaves it out'
    if status == 0 and re.search(rf'\| {number}_\w+ +\| +PASSED', text):
        return number, 'ok', took, ''
    why = [s for s in text.split('\n') if re.search(r'TEST FAILURE|Test failed|[Ff]ailed:|Assert|assert|timed out|Expected|expected', s)]
    return number, 'not ok', took, f'status {status}; ' + ' | '.join(s.strip()[:200] for s in why[-4:])


def main():
    p = argparse.ArgumentParser()
    p.add_argument('runner')
    p.add_argument('broker')
    p.add_argument('logs')
    p.add_argument('numbers', nargs='*')
    p.add_argument('--jobs', type=int, default=8)
    p.add_argument('--limit', type=float, default=180)
    p.add_argument('--thorough', action='store_true')
    p.add_argument('--slow', action='store_true', help='the suite\'s full number of records')
    p.add_argument('--more', default='', help='arguments of the suite, such as "-s noautocreate" or "-P": each producer idempotent')
    p.add_argument('--conf', default='', help='lines of configuration of every client, with commas between them')
    p.add_argument('--consumer-protocol', action='store_true')
    a = p.parse_intermixed_args()
    a.runner = os.path.abspath(a.runner)
    a.logs = os.path.abspath(a.logs)
    os.makedirs(a.logs, exist_ok=True)
    pathlib.Path(a.logs, 'test.conf').write_text(f'bootstrap.servers={a.broker}\ntest.topic.random=true\nbroker.address.family=v4\ntest.timeout.multiplier=2\n' + a.conf.replace(',', '\n') + '\n')
    wanted = ('always', 'thorough') if a.thorough else ('always',)
    known = applies()
    numbers = a.numbers or CONSUMER_PROTOCOL if a.consumer_protocol else a.numbers or [n for n, (when, _) in known.items() if when in wanted]
    numbers.sort(key=lambda n: -known.get(n, ('', 0))[1])  # the longest first: the end is not waiting for one
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        for number, state, took, why in pool.map(lambda n: one(a, n), numbers):
            if state == 'skip' and not a.numbers:
                state = 'not ok'  # what is listed as passing has to be run
            print(f'{state} librdkafka {number}' + (' with the consumer protocol' if a.consumer_protocol else '') + (f' ({why})' if state == 'skip' else ''), flush=True)
            if state == 'not ok':
                print(f'#   after {took:.1f} s: {why}', flush=True)
            elif a.thorough or a.numbers or a.consumer_protocol:
                print(f'#   {took:.1f} s', flush=True)


main()
