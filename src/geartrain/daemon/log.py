"""The log: a line for each event that an operator wants to know of, for people or as JSON.

An event is logged as ``log.info("listening", extra={"fields": {"address": "127.0.0.1:4730"}})`` and reads

    2026-11-24 10:00:00.123 INFO  listening address=127.0.0.1:4730

A value that holds more than plain words is quoted, so that no name a peer chooses can look like a field or a line of
its own. Many lines of the same event within a second are summed up in one.

Lines are written by a thread of their own, so that a pipe that nobody reads, or a disk that hangs, never stops the job
server. What waits for it is bounded; lines beyond that are dropped, counted, and told when it goes on.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import logging.handlers
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import TextIO

from geartrain.errors import ConfigError

log = logging.getLogger("geartrain.daemon")

LAST_LINES_SECONDS = 2.0  # how long an end waits for the last lines to be written
NOTICE = 25
LEVELS: Mapping[str, int] = {
    "FATAL": logging.CRITICAL,
    "ALERT": logging.CRITICAL,
    "CRITICAL": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "NOTICE": NOTICE,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
}
SYSTEM_LOG = "/dev/log"

_MAX_EVENTS = 1000  # that are told apart; libraries may make up texts without end
_SHORT = {logging.CRITICAL: "FATAL", logging.WARNING: "WARN", NOTICE: "NOTE"}
_PLAIN = re.compile(r"[\w.,:;/@+*()\[\]<>#%&!?~^$|{}-]+")


class Log:
    """Everything that is logged in this process, to where the operator wants it; open one, close it at the end.

    ``file`` is a path, ``stderr`` or ``none``; ``level`` one of gearmand's eight; ``format`` is ``text`` or ``json``.
    Raises ConfigError if the file or the system's log can't be opened.
    """

    def __init__(
        self,
        file: str,
        *,
        level: str = "INFO",
        format: str = "text",
        syslog: bool = False,
        system_log: str = SYSTEM_LOG,
    ) -> None:
        logging.raiseExceptions = False  # a full disk must not stop the job server
        logging.addLevelName(NOTICE, "NOTICE")
        self.path = file
        self.formatter = JsonFormatter() if format == "json" else TextFormatter()
        targets = [self._open()]
        if syslog:
            targets.append(_open_system_log(system_log))
        self.writer = LineWriter(targets)
        self.gate = FloodGate([self.writer])
        root = logging.getLogger()
        root.setLevel(LEVELS[level])
        root.addHandler(self.gate)
        if self._is_file:
            mode = os.stat(file).st_mode & 0o777
            if mode & 0o077:
                log.warning("log_readable_by_others", extra={"fields": {"file": file, "mode": f"{mode:o}"}})

    @property
    def _is_file(self) -> bool:
        return self.path not in ("stderr", "none")

    def _open(self) -> logging.Handler:
        handler = _open_file(self.path)
        handler.setFormatter(self.formatter)
        return handler

    def give_to(self, user: int, group: int) -> None:
        """Let a user have the log file, who is to reopen it later; for root."""
        target = self.writer.targets[0]
        if os.geteuid() == 0 and isinstance(target, logging.StreamHandler) and self._is_file:
            os.fchown(target.stream.fileno(), user, group)

    def reopen(self) -> None:
        """Open the log file again, after it has been moved away; if that fails, go on with the old one and say so."""
        self.writer.do(self._reopen)

    def _reopen(self) -> None:
        try:
            new = self._open()
        except ConfigError as error:
            self.writer.tell(logging.ERROR, "log_not_reopened", file=self.path, error=error.__context__)
        else:
            old, self.writer.targets[0] = self.writer.targets[0], new
            old.close()
            self.writer.tell(logging.INFO, "log_reopened")

    def close(self) -> bool:
        """Say what is still to be summed up, and let go of the files; whether all was written, or the log hangs."""
        self.gate.sum_up()
        logging.getLogger().removeHandler(self.gate)
        if not self.writer.finish():
            return False
        for target in self.writer.targets:
            target.close()
        return True


class LineWriter(logging.Handler):
    """Hands lines to ``targets`` in a thread of its own; of more than ``most`` that wait the newest are dropped."""

    def __init__(self, targets: Iterable[logging.Handler], *, most: int = 10_000) -> None:
        super().__init__()
        self.targets = list(targets)
        self.most = most
        self.dropped = 0
        self._lines: SimpleQueue[logging.LogRecord | Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="log writer", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._lines.qsize() >= self.most:
            self.dropped += 1
        else:
            self._lines.put(record)

    def do(self, act: Callable[[], None]) -> None:
        """Have something done between two lines."""
        self._lines.put(act)

    def tell(self, level: int, event: str, **fields: object) -> None:
        """Write a line of our own at once; only for what runs in the thread."""
        if log.isEnabledFor(level):
            record = log.makeRecord(log.name, level, "", 0, event, (), None, extra={"fields": fields})
            for target in self.targets:
                target.handle(record)

    def finish(self) -> bool:
        """Write what waits, for a moment at most, and end the thread; whether it has ended."""
        self._lines.put(None)
        self._thread.join(LAST_LINES_SECONDS)
        return not self._thread.is_alive()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            if callable(line):
                line()
                continue
            for target in self.targets:
                target.handle(line)
            if self.dropped and self._lines.empty():
                dropped, self.dropped = self.dropped, 0
                reason = "the log was not read, or not written, in time"
                self.tell(logging.WARNING, "log_lines_dropped", lines=dropped, reason=reason)


class TextFormatter(logging.Formatter):
    """A line for people; without ``with_time`` it is left to the system's log to say when, and how grave."""

    def __init__(self, *, with_time: bool = True) -> None:
        super().__init__()
        self.with_time = with_time

    def format(self, record: logging.LogRecord) -> str:
        event, fields = _event_of(record)
        words = [event, *(f"{name}={quote(value)}" for name, value in fields.items() if value != "")]
        if self.with_time:
            time = datetime.datetime.fromtimestamp(record.created)
            level = _SHORT.get(record.levelno, record.levelname)
            words.insert(0, f"{time:%Y-%m-%d %H:%M:%S}.{int(record.msecs):03} {level:<5}")
        if record.exc_info:
            # Indented, so that what a peer may have put into it can't be taken for lines of the log.
            words.append("\n    " + self.formatException(record.exc_info).replace("\n", "\n    "))
        return " ".join(words)


class JsonFormatter(logging.Formatter):
    """A line for machines: one JSON object with time, level, event and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        event, fields = _event_of(record)
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "event": event, **fields}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class FloodGate(logging.Handler):
    """Lets ``limit`` lines of an event pass in ``seconds``, then counts, and sums up what it held back in one line."""

    def __init__(self, targets: Iterable[logging.Handler], *, limit: int = 10, seconds: float = 1.0) -> None:
        super().__init__()
        self.targets = list(targets)
        self.limit = limit
        self.seconds = seconds
        self.sum_up_later: Callable[[], object] | None = None
        self._passed: dict[str, tuple[float, int]] = {}  # by event: since when, and how many lines
        self._held: dict[str, tuple[int, logging.LogRecord]] = {}  # by event: how many lines, and the last

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno <= logging.DEBUG:
            self._pass_on(record)
            return
        event = f"{record.name} {record.msg}"
        since, count = self._passed.get(event, (record.created, 0))
        if not 0 <= record.created - since < self.seconds:
            self.sum_up(event)
            since, count = record.created, 0
        if len(self._passed) >= _MAX_EVENTS:
            self._passed.clear()
        self._passed[event] = since, count + 1
        if count < self.limit:
            self._pass_on(record)
            return
        if not self._held and self.sum_up_later is not None:
            self.sum_up_later()
        self._held[event] = self._held.get(event, (0, record))[0] + 1, record

    def sum_up(self, event: str | None = None) -> None:
        """Tell how many lines of ``event`` were held back; of every event if none is given."""
        self.acquire()
        try:
            for name in [event] if event else list(self._held):
                held, last = self._held.pop(name, (0, None))
                self._passed.pop(name, None)
                if last is not None:
                    more = {"fields": {"more_of_these": held, "within_seconds": self.seconds}, "exc_info": None}
                    self._pass_on(logging.makeLogRecord({**last.__dict__, **more}))
        finally:
            self.release()

    def _pass_on(self, record: logging.LogRecord) -> None:
        for target in self.targets:
            target.handle(record)


def quote(value: object) -> str:
    """A value as one word: as it is if it is plain, else in quotes with all that is not printable escaped."""
    text = str(value)
    if _PLAIN.fullmatch(text) and text.isprintable():
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in quoted)


def _event_of(record: logging.LogRecord) -> tuple[str, Mapping[str, object]]:
    """The event and its fields; what a library logs has its name as event and its words as the only field."""
    fields = getattr(record, "fields", None)
    if fields is None:
        return record.name, {"message": record.getMessage()}
    return record.getMessage(), fields


def _open_file(file: str) -> logging.Handler:
    if file == "none":
        return logging.NullHandler()
    if file == "stderr":
        return logging.StreamHandler(sys.stderr)
    try:
        # Not blocking, since opening a pipe that nobody reads would wait for a reader.
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise ConfigError(
            f"--log-file is {file!r}, which can't be opened ({error.strerror}): choose another file, 'stderr' or 'none'"
        ) from error
    os.set_blocking(descriptor, True)
    return FileHandler(os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace"))


class FileHandler(logging.StreamHandler[TextIO]):
    """Writes to a file, and closes it with itself."""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.stream.close()
        super().close()


def _open_system_log(path: str) -> logging.Handler:
    if not Path(path).is_socket():  # the handler itself would wait for it in silence
        raise ConfigError(f"--syslog needs {path}, which is not there: start the system's log, or leave the option out")
    handler = logging.handlers.SysLogHandler(path, logging.handlers.SysLogHandler.LOG_DAEMON)
    handler.ident = "geartrain: "
    handler.setFormatter(TextFormatter(with_time=False))
    return handler
