"""What ``gearman -w`` runs for each job: workload on stdin, result on stdout, the exit status says how it went.

It tells on stderr which job it took, as the other peers' workers do on stdout. See ../peer.py.
"""

from __future__ import annotations

import signal
import sys

behaviour = sys.argv[1]
workload = sys.stdin.buffer.read()
print("taken", workload[:16].hex(), sep="\t", file=sys.stderr, flush=True)
match behaviour:
    case "reverse":
        sys.stdout.buffer.write(workload[::-1])
    case "lines":
        sys.stdout.buffer.write(b"first\nsecond\n")
    case "stall":
        signal.pause()
    case _:
        sys.stdout.buffer.write(b"so far")
        sys.exit(1)
