"""The file of ``--http-audit``: a JSON object a line, appended, for each action.

As the log it is written by a thread of its own, so that a disk that is full or hangs stops nobody; what is missing
then is counted, and told in the file when it goes on.
"""

from __future__ import annotations

import logging
import os
import pwd
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from geartrain.daemon.log import FileHandler, FloodGate, JsonFormatter, LineWriter, open_lines, warn_of_readers

log: Final = logging.getLogger("geartrain.audit")


class AuditFile:
    """Open, for the user as whom the job server is to run. Raises OSError."""

    def __init__(self, path: Path, user: str | None) -> None:
        self._path = path
        target = self._open()
        if user and os.geteuid() == 0:
            its = pwd.getpwnam(user)
            os.fchown(target.descriptor, its.pw_uid, its.pw_gid)
        warn_of_readers(str(path))
        self._writer = LineWriter(target)
        self._gate = FloodGate([self._writer])

    def start(self, call_later: Callable[[float, Callable[[], object]], object]) -> None:
        """Have the summing up of many lines called at its time."""
        self._gate.sum_up_later = lambda: call_later(self._gate.seconds, self._gate.sum_up)

    def write(self, level: int, fields: Mapping[str, object], *, each: bool) -> None:
        """Append a line; of those that are not to be written ``each``, many within a second are summed up in one."""
        self._gate.emit(
            log.makeRecord(log.name, level, "", 0, "audit", (), None, None, {"fields": fields, "each": each})
        )

    def reopen(self) -> None:
        """Open it again, after it has been moved away; if that fails, go on with the old one and say so."""
        self._writer.do(self._reopen)

    def close(self, seconds: float) -> None:
        """Write what waits, within so many seconds."""
        self._gate.sum_up()
        self._writer.end()
        self._writer.has_ended(seconds)

    def _open(self) -> FileHandler:
        handler = _Lines(open_lines(str(self._path)), self._path)
        handler.setFormatter(JsonFormatter())
        return handler

    def _reopen(self) -> None:
        try:
            new = self._open()
        except OSError as error:
            log.error("audit_not_reopened", extra={"fields": {"file": self._path, "error": error.strerror}})
        else:
            old, self._writer.target = self._writer.target, new
            old.close()
            log.info("audit_reopened")


class _Lines(FileHandler):
    """Says once in the log that the file can't be written."""

    def __init__(self, descriptor: int, path: Path) -> None:
        super().__init__(descriptor)
        self._path = path
        self._fails = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError as error:
            if not self._fails:
                self._fails = True
                log.error("audit_not_written", extra={"fields": {"file": self._path, "error": error.strerror}})
            raise
        self._fails = False
