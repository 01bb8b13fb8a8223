"""Reload in development: noticing that a file of the program has changed, and starting the program anew."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

logger = logging.getLogger("geartrain.worker")


class Sources:
    """The files of all modules that are imported now, as they were when first looked at."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self.changed()

    def changed(self) -> list[str]:
        """The files that have changed since the last call, if all that are Python can be compiled."""
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


def start_anew() -> NoReturn:
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
