"""A function that forks: its child must not go on as a second worker.

The links of a forked child are let go of at once (``geartrain.link.fork``). What the child does within the function is
its own business; but where it would come back from it, into the worker's loop, it ends.
"""

from __future__ import annotations

import logging
import os
from typing import NoReturn

from geartrain.worker.job import AssignedJob

logger = logging.getLogger("geartrain.worker")


class OneProcess:
    """A context that only the process that entered it may leave; any other ends where it would."""

    __slots__ = ("_job", "_pid")

    def __init__(self, job: AssignedJob) -> None:
        self._job = job
        self._pid = os.getpid()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if os.getpid() != self._pid:
            self._end(error)

    def _end(self, error: BaseException | None) -> NoReturn:
        try:
            if isinstance(error, SystemExit):  # it wanted to leave
                os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))
            logger.error(
                "a child that %r forked came back from the function: process %d ends here; "
                "end such a child with os._exit(), or start it with subprocess or multiprocessing",
                self._job,
                os.getpid(),
                exc_info=error,
            )
        finally:
            os._exit(1)
