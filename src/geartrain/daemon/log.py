"""The log: a line for each event that an operator wants to know of, for people or as JSON.

An event is logged as ``log.info("listening", extra={"fields": {"address": "127.0.0.1:4730"}})`` and reads

    2026-11-24 10:00:00.123 INFO  listening address=127.0.0.1:4730

A value that holds more than plain words is quoted, so that no name a peer chooses can look like a field or a line of
its own. Many lines of the same event within a second are summed up in one.

The file and the system's log have a thread each that writes the lines, so that a pipe that nobody reads, or a disk that
hangs, stops neither the job server nor the other one. What waits for it is bounded; lines beyond that, and those for
which a full disk has no room, are counted, and told when it goes on.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import logging
import logging.handlers
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from queue import SimpleQueue

from geartrain.errors import ConfigError
from geartrain.redaction import redacted

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
        targets: list[logging.Handler] = [self._open()]
        if syslog:
            targets.append(SystemLog(system_log))
        self.writers = [LineWriter(target) for target in targets]  # the file's is the first
        self.gate = FloodGate(self.writers)
        root = logging.getLogger()
        root.setLevel(LEVELS[level])
        root.addHandler(self.gate)
        if self._is_file:
            warn_of_readers(file)

    @property
    def _is_file(self) -> bool:
        return self.path not in ("stderr", "none")

    def _open(self) -> logging.Handler:
        handler = _open_file(self.path)
        handler.setFormatter(self.formatter)
        return handler

    def give_to(self, user: int, group: int) -> None:
        """Let a user have the log file, who is to reopen it later; for root."""
        target = self.writers[0].target
        if os.geteuid() == 0 and isinstance(target, FileHandler) and self._is_file:
            os.fchown(target.descriptor, user, group)

    def reopen(self) -> None:
        """Open the log file again, after it has been moved away; if that fails, go on with the old one and say so."""
        self.writers[0].do(self._reopen)

    def _reopen(self) -> None:
        try:
            new = self._open()
        except ConfigError as error:
            self._tell(logging.ERROR, "log_not_reopened", file=self.path, error=error.__context__)
        else:
            old, self.writers[0].target = self.writers[0].target, new
            old.close()
            self._tell(logging.INFO, "log_reopened")

    def _tell(self, level: int, event: str, **fields: object) -> None:
        """Say something in the file's thread: there at once, to the others when it is its turn."""
        self.writers[0].tell(level, event, **fields)
        for writer in self.writers[1:]:
            writer.do(functools.partial(writer.tell, level, event, **fields))

    def close(self) -> bool:
        """Say what is still to be summed up, and let go of the files; whether all is in the log file, or that hangs."""
        self.gate.sum_up()
        logging.getLogger().removeHandler(self.gate)
        for writer in self.writers:
            writer.end()
        end = time.monotonic() + LAST_LINES_SECONDS
        have_ended = [writer.has_ended(end - time.monotonic()) for writer in self.writers]
        return have_ended[0]


class LineWriter(logging.Handler):
    """Hands lines to ``target`` in a thread of its own; of more than ``most`` that wait the newest are dropped.

    What the target could not write, or not in time, is counted, and told as soon as it writes again.
    """

    def __init__(self, target: logging.Handler, *, most: int = 10_000) -> None:
        super().__init__()
        self.target = target
        self.most = most
        self.dropped = 0
        self.unwritten = 0
        self._fault: object = None
        self._lines: SimpleQueue[logging.LogRecord | Callable[[], object] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="log writer", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._lines.qsize() >= self.most:
            self.dropped += 1
        else:
            self._lines.put(record)

    def do(self, act: Callable[[], object]) -> None:
        """Have something done between two lines."""
        self._lines.put(act)

    def tell(self, level: int, event: str, **fields: object) -> bool:
        """Write a line of our own at once; only for what runs in the thread. Whether that went well."""
        if not log.isEnabledFor(level):
            return True
        return self._hand_on(log.makeRecord(log.name, level, "", 0, event, (), None, extra={"fields": fields}))

    def end(self) -> None:
        """Write what waits, and end the thread."""
        self._lines.put(None)

    def has_ended(self, seconds: float) -> bool:
        """Whether it has, or does so in the next ``seconds``."""
        self._thread.join(max(seconds, 0))
        return not self._thread.is_alive()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            if callable(line):
                line()
                continue
            if not self._hand_on(line):
                self.unwritten += 1
                continue
            if self.unwritten:
                self._tell_unwritten()
            if self.dropped and self._lines.empty():
                dropped, self.dropped = self.dropped, 0
                reason = "the log was not read, or not written, in time"
                self.tell(logging.WARNING, "log_lines_dropped", lines=dropped, reason=reason)
        if self.unwritten:
            self._tell_unwritten()
        self.target.close()

    def _hand_on(self, record: logging.LogRecord) -> bool:
        """Have a line written, past the target's lock, for which Python's own end would wait if it hangs."""
        try:
            self.target.emit(record)
        except Exception as error:  # whatever it is, the thread goes on
            self._fault = getattr(error, "strerror", None) or error
            return False
        return True

    def _tell_unwritten(self) -> None:
        fields = {"lines": self.unwritten, "reason": self._fault}
        if self.tell(logging.WARNING, "log_lines_dropped", **fields):
            self.unwritten = 0


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
            words.append("\n    " + redacted(self.formatException(record.exc_info)).replace("\n", "\n    "))
        return " ".join(words)


class JsonFormatter(logging.Formatter):
    """A line for machines: one JSON object with time, level, event and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        event, fields = _event_of(record)
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "event": event, **fields}
        if record.exc_info:
            line["exception"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


class FloodGate(logging.Handler):
    """Lets ``limit`` lines of an event pass in ``seconds``, then counts, and sums up what it held back in one line.

    A record that has ``each`` set passes always.
    """

    def __init__(self, targets: Iterable[logging.Handler], *, limit: int = 10, seconds: float = 1.0) -> None:
        super().__init__()
        self.targets = list(targets)
        self.limit = limit
        self.seconds = seconds
        self.sum_up_later: Callable[[], object] | None = None
        self._passed: dict[str, tuple[float, int]] = {}  # by event: since when, and how many lines
        self._held: dict[str, tuple[int, logging.LogRecord]] = {}  # by event: how many lines, and the last

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno <= logging.DEBUG or getattr(record, "each", False):
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
    """The event and its fields, without passwords.

    What a library logs has its name as event and its words as the only field.
    """
    fields = getattr(record, "fields", None)
    if fields is None:
        return record.name, {"message": redacted(record.getMessage())}
    return record.getMessage(), {name: _shown(value) for name, value in fields.items()}


def _shown(value: object) -> object:
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return value if value is None or isinstance(value, int | float) else redacted(str(value))


def _open_file(file: str) -> logging.Handler:
    if file == "none":
        return logging.NullHandler()
    if file == "stderr":
        return FileHandler(sys.stderr.fileno(), is_ours=False)
    try:
        return FileHandler(open_lines(file))
    except OSError as error:
        raise ConfigError(
            f"--log-file is {file!r}, which can't be opened ({error.strerror}): choose another file, 'stderr' or 'none'"
        ) from error


def open_lines(file: str) -> int:
    """The descriptor of a file, or a pipe, to which lines are to be appended; for its user alone. Raises OSError."""
    # Not blocking, since opening a pipe that nobody reads would wait for a reader.
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    os.set_blocking(descriptor, True)
    return descriptor


def warn_of_readers(file: str) -> None:
    """Say so if others may read the file."""
    mode = os.stat(file).st_mode & 0o777
    if mode & 0o077:
        log.warning("log_readable_by_others", extra={"fields": {"file": file, "mode": f"{mode:o}"}})


class FileHandler(logging.Handler):
    """Writes each line at once, and raises what goes wrong; it closes the file with itself if it ``is_ours``."""

    def __init__(self, descriptor: int, *, is_ours: bool = True) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.is_ours = is_ours
        self.is_cut = False  # the last line, since there was no more room

    def emit(self, record: logging.LogRecord) -> None:
        data = f"{self.format(record)}\n".encode(errors="backslashreplace")
        if self.is_cut:
            data = b"\n" + data
        while data:
            written = os.write(self.descriptor, data)
            data = data[written:]
            self.is_cut = data != b""

    def close(self) -> None:
        if self.is_ours:
            self.is_ours = False
            with contextlib.suppress(OSError):
                os.close(self.descriptor)
        super().close()


class SystemLog(logging.handlers.SysLogHandler):
    """Writes to the system's log, and raises what goes wrong."""

    def __init__(self, path: str) -> None:
        if not Path(path).is_socket():  # the handler itself would wait for it in silence
            raise ConfigError(
                f"--syslog needs {path}, which is not there: start the system's log, or leave the option out"
            )
        super().__init__(path, self.LOG_DAEMON)
        self.ident = "geartrain: "
        self.setFormatter(TextFormatter(with_time=False))

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        assert error is not None
        raise error
