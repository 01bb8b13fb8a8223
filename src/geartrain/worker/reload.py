"""Reload in development: noticing that a file of the program has changed, and starting the program again."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

LOOK_EVERY = 1.0  # seconds

logger = logging.getLogger("geartrain.worker")


class Sources:
    """The files of all modules that are imported now, as they were when first looked at."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._look_at = 0.0
        self.changed(0.0)

    def changed(self, now: float) -> list[str]:
        """The files that have changed since the last look, if all that are Python can be compiled.

        It looks once a second; ``now`` is the time of a clock that does not jump.
        """
        if now < self._look_at:
            return []
        self._look_at = now + LOOK_EVERY
        changed = []
        for module in list(sys.modules.values()):
            path = getattr(module, "__file__", None)
            if path is None:
                continue
            try:
                time = os.stat(path).st_mtime
            except OSError:  # it is being replaced
                continue
            if self._times.setdefault(path, time) != time:
                self._times[path] = time
                changed.append(path)
        return changed if all(map(_compiles, changed)) else []


def restart() -> NoReturn:
    """Replace this program by a new start of itself; the process stays the same."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _compiles(path: str) -> bool:
    if path.endswith(".py"):
        try:
            compile(Path(path).read_bytes(), path, "exec")
        except (SyntaxError, ValueError) as error:
            logger.error("%s has changed, but can't be read yet: %s", path, error)
            return False
    return True
