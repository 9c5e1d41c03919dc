"""A workload that reads two files of its mounted folder again and again, as one who wants them to fit together: through one opening of ..data.
Says OLD when they do not fit, GONE when one is missing, and each new pair once."""
import os
import sys
import time

folder, last = sys.argv[1], None
while True:
    try:
        at = os.open(folder + '/..data', os.O_RDONLY | os.O_DIRECTORY)
        pair = []
        for name in ('a', 'b'):
            fd = os.open(name, os.O_RDONLY, dir_fd=at)
            pair.append(os.read(fd, 100).decode())
            os.close(fd)
        os.close(at)
        open(folder + '/a').close()
    except FileNotFoundError as e:
        # The folder that was opened may be gone by now: that of the link is whole all the same.
        if not os.path.exists(folder + '/a'):
            print('GONE', e, flush=True)
        continue
    if pair[0] != pair[1]:
        print('TORN', *pair, flush=True)
    if pair != last:
        print('sees', pair[0], flush=True)
        last = pair
    time.sleep(0.002)
