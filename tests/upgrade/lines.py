"""lines.py LOG...: every line of talker.py is there exactly once and in order, of each replica and output. Prints how many, or what is amiss."""
import sys

seen = {}
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as log:
        for line in log:
            _, replica, stream, text = line.rstrip("\n").split(" ", 3)
            want = seen.get((replica, stream), 0)
            if text != "number %d." % want:
                sys.exit("%s %s: %r, where number %d. should be" % (replica, stream, text, want))
            seen[replica, stream] = want + 1
print(len(seen), min(seen.values()))
