#!/usr/bin/env python3
"""Tables of docs/kafka-compatibility.md: what src/broker/api.def serves, and what tests/kafka_librdkafka/applies.txt says of librdkafka's tests.

usage: tools/kafka_compatibility.py [--check]      writes them between their BEGIN and END lines; --check: only says whether they are as they should be
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / 'docs/kafka-compatibility.md'


def apis():
    yield '| key | request | versions |'
    yield '|---:|---|---|'
    for key, name, low, high, served in re.findall(r'^X\((\d+), (\w+), (\d+), (\d+), (\d+),', (ROOT / 'src/broker/api.def').read_text(), re.M):
        told = high if low == high else f'{low} to {high}'
        yield f'| {key} | {name} | {told}{"" if low == served else f" (served from {served} on)"} |'


def librdkafka():
    rows = [line.split(' ', 4) for line in (ROOT / 'tests/kafka_librdkafka/applies.txt').read_text().split('\n') if line and line[0] != '#']
    words = {'always': 'passes; in every test run', 'thorough': 'passes; in the thorough run', 'scenario': 'passes', 'part': 'passes', 'never': 'not run'}
    counts = {w: sum(r[1] == w for r in rows) for w in words}
    yield f'{counts["always"] + counts["thorough"] + counts["scenario"]} pass, {counts["part"]} in part, {counts["never"]} do not apply.'
    yield ''
    yield '| test | | |'
    yield '|---|---|---|'
    for number, when, _, name, *why in rows:
        yield f'| {number} {name} | {words[when]} | {"".join(why)} |'


def main():
    page = PAGE.read_text()
    new = page
    for name, table in (('apis', apis), ('librdkafka', librdkafka)):
        begin, end = f'<!-- BEGIN {name} -->\n', f'<!-- END {name} -->'
        before, rest = new.split(begin)
        new = before + begin + '\n'.join(table()) + '\n' + end + rest.split(end, 1)[1]
    if '--check' in sys.argv:
        if new != page:
            sys.exit('docs/kafka-compatibility.md is not as it should be: run tools/kafka_compatibility.py')
        return
    PAGE.write_text(new)


main()
