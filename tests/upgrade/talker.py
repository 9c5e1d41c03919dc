"""talker.py - a workload that only writes: numbered lines on both outputs, each in two halves, so that there is always a line half said."""
import sys
import time

n = 0
while True:
    for out in (sys.stdout, sys.stderr):
        out.write("number ")
        out.flush()
    time.sleep(0.001)
    for out in (sys.stdout, sys.stderr):
        out.write("%d.\n" % n)
        out.flush()
    n += 1
