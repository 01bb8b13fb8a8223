#!/usr/bin/env python3
"""How long a process takes that imports geartrain and ends, beside one that imports nothing; both take turns."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

LIMIT = 30.0  # milliseconds
WAYS = {
    "nothing": "pass",
    "geartrain": "import geartrain",
    "Client, Worker": "from geartrain import Client, Worker",
}


def milliseconds(program: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return (time.perf_counter() - started) * 1000


def main() -> int:
    rounds = [{name: milliseconds(program) for name, program in WAYS.items()} for _ in range(25)]
    medians = {name: median(one[name] for one in rounds) for name in WAYS}
    for name, taken in medians.items():
        print(f"import {name:39} {taken:>9,.1f} ms")
    verdict = "reached" if medians["geartrain"] <= LIMIT else "MISSED"
    print(f"{'import geartrain, ms':46} {medians['geartrain']:>9,.1f}  {verdict}: at most {LIMIT:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
