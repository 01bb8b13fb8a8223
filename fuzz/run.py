"""Lets random histories happen to the job server until the time is up; see ``history`` and ``policies``.

    python fuzz/run.py --seconds 60 --seed 1

Exit code 0: nothing was wrong. A history that went wrong is told, with the command that repeats it.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from history import History
from policies import PolicyHistory

TOLD = 40  # last steps of a history that went wrong


def main() -> int:
    """Run histories with consecutive seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on (60)")
    parser.add_argument("--seed", type=int, default=None, help="seed of the first history (the time)")
    parser.add_argument("--histories", type=int, default=None, help="how many histories at most (as many as fit)")
    parser.add_argument("--steps", type=int, default=400, help="steps in a history (400)")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else int(time.time())
    began = told = time.monotonic()
    seed = first
    while time.monotonic() < began + options.seconds and seed - first != options.histories:
        if not live(seed, options.steps):
            return 1
        seed += 1
        if time.monotonic() > told + 5:
            told = time.monotonic()
            print(f"{seed - first} histories, seeds {first} to {seed - 1}, {told - began:.0f} s", flush=True)
    print(f"{seed - first} histories of {options.steps} steps, seeds {first} to {seed - 1}: nothing wrong")
    return 0


def live(seed: int, steps: int) -> bool:
    """Live one history of each kind; if one goes wrong tell it and return False."""
    history: History | PolicyHistory
    for history in (History(seed, steps), PolicyHistory(seed, steps // 4)):
        try:
            history.run()
        except Exception:
            begin, *steps_told = history.log
            print(f"seed {seed}, step {len(steps_told)}; the last steps:", begin, *steps_told[-TOLD:], sep="\n  ")
            traceback.print_exc()
            print(f"repeat it: python {sys.argv[0]} --seed {seed} --histories 1 --steps {steps}")
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
