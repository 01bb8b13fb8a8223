"""The log: lines that can't be forged, floods that are summed up, files that are reopened."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from geartrain.daemon.log import FloodGate, JsonFormatter, LineWriter, Log, TextFormatter, quote
from geartrain.errors import ConfigError
from servers import PATIENCE, wait_until

log = logging.getLogger("geartrain.daemon")


def record(
    event: str, created: float = 1_800_000_000.5, level: int = logging.INFO, **fields: object
) -> logging.LogRecord:
    made = logging.LogRecord("geartrain.daemon", level, "", 0, event, None, None)
    made.created = created
    made.msecs = created % 1 * 1000
    made.fields = fields
    return made


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(" ".join([record.getMessage(), *(f"{k}={v}" for k, v in vars(record)["fields"].items())]))


@pytest.fixture
def root_level() -> Iterator[None]:
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


def test_an_event_is_a_line_for_people() -> None:
    line = TextFormatter().format(record("listening", address="127.0.0.1:4730", empty=""))
    date, time, rest = line.split(" ", 2)
    assert (len(date), len(time), time[-4:]) == (10, 12, ".500")
    assert rest == "INFO  listening address=127.0.0.1:4730"


def test_an_event_is_an_object_for_machines() -> None:
    line = JsonFormatter().format(record("job_cancelled", level=logging.WARNING, handle='H:"x\n', jobs=3))
    assert json.loads(line) == {
        "time": "2027-01-15T08:00:00.500+00:00",
        "level": "warning",
        "event": "job_cancelled",
        "handle": 'H:"x\n',
        "jobs": 3,
    }
    assert "\n" not in line


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("reverse", "reverse"),
        ("größe", "größe"),
        (12, "12"),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "x"', r'"say \"x\""'),
        ("x\n2026-01-01 00:00:00.000 INFO  forged", r'"x\n2026-01-01 00:00:00.000 INFO  forged"'),
        ("\x1b[2J", r'"\u001b[2J"'),
        ("\x9b2J", r'"\u009b2J"'),
        ("a\u202eb", r'"a\u202eb"'),
        ("\udc80", r'"\udc80"'),
        ("", '""'),
    ],
)
def test_no_value_can_look_like_more_than_one(value: object, shown: str) -> None:
    assert quote(value) == shown


def test_a_traceback_can_not_be_taken_for_lines_of_the_log() -> None:
    made = record("failed")
    try:
        raise ValueError("x\n2026-01-01 00:00:00.000 INFO  forged")
    except ValueError as error:
        made.exc_info = (type(error), error, error.__traceback__)
    first, *others = TextFormatter().format(made).splitlines()
    assert first.rstrip().endswith("INFO  failed")
    assert others
    assert all(line.startswith("    ") for line in others)


def test_a_librarys_words_are_told_under_its_name() -> None:
    made = logging.LogRecord("asyncio", logging.ERROR, "", 0, "task %s died", ("x",), None)
    assert TextFormatter().format(made).endswith(' ERROR asyncio message="task x died"')


def test_a_flood_is_summed_up_once_it_is_over() -> None:
    kept = Kept()
    gate = FloodGate([kept], limit=2)
    asked: list[None] = []
    gate.sum_up_later = lambda: asked.append(None)
    for number in range(5):
        gate.handle(record("broken", 100.0 + number / 10, n=number))
    gate.handle(record("other", 100.5))
    assert kept.lines == ["broken n=0", "broken n=1", "other"]
    assert len(asked) == 1
    gate.sum_up()
    assert kept.lines[3:] == ["broken more_of_these=3 within_seconds=1.0"]
    gate.sum_up()
    assert len(kept.lines) == 4


def test_a_flood_that_goes_on_shows_some_lines_each_second() -> None:
    kept = Kept()
    gate = FloodGate([kept], limit=1)
    for tenth in range(25):
        gate.handle(record("broken", 100.0 + tenth / 10, n=tenth))
    assert kept.lines == [
        "broken n=0",
        "broken more_of_these=9 within_seconds=1.0",
        "broken n=10",
        "broken more_of_these=9 within_seconds=1.0",
        "broken n=20",
    ]


def test_a_clock_that_is_set_back_silences_nothing() -> None:
    kept = Kept()
    gate = FloodGate([kept], limit=1)
    gate.handle(record("broken", 1000.0))
    gate.handle(record("broken", 10.0))
    assert kept.lines == ["broken", "broken"]


def test_the_log_follows_a_file_that_is_moved_away(tmp_path: Path, root_level: None) -> None:
    path = tmp_path / "log"
    output = Log(str(path))
    try:
        log.info("first", extra={"fields": {}})
        path.rename(tmp_path / "old")
        log.info("second", extra={"fields": {}})
        output.reopen()
        log.info("third", extra={"fields": {}})
    finally:
        output.close()
    assert [line.split()[-1] for line in (tmp_path / "old").read_text().splitlines()] == ["first", "second"]
    assert [line.split()[-1] for line in path.read_text().splitlines()] == ["log_reopened", "third"]


def test_a_file_that_can_not_be_reopened_is_kept_and_it_is_said(tmp_path: Path, root_level: None) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    output = Log(str(folder / "log"))
    try:
        folder.rename(tmp_path / "moved")
        output.reopen()
        log.info("after", extra={"fields": {}})
    finally:
        output.close()
    first, second = (tmp_path / "moved" / "log").read_text().splitlines()
    assert "log_not_reopened" in first
    assert "No such file or directory" in first
    assert second.endswith("after")


def test_only_the_asked_level_is_logged(tmp_path: Path, root_level: None) -> None:
    path = tmp_path / "log"
    output = Log(str(path), level="ERROR", format="json")
    log.warning("quiet", extra={"fields": {}})
    log.error("loud", extra={"fields": {}})
    output.close()
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["loud"]


def test_the_systems_log_gets_the_events_as_well(tmp_path: Path, root_level: None) -> None:
    system_log = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(system_log))
        listener.settimeout(5)
        output = Log("none", syslog=True, system_log=str(system_log))
        log.warning("peer_aborted", extra={"fields": {"unsent": 5}})
        output.close()
        assert listener.recv(1000).rstrip(b"\0") == b"<28>geartrain: peer_aborted unsent=5"


def test_a_log_that_can_not_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--log-file is .*No such file or directory"):
        Log(f"{tmp_path}/missing/log")
    with pytest.raises(ConfigError, match=r"--syslog needs .*missing"):
        Log("none", syslog=True, system_log=f"{tmp_path}/missing")


# ── what is not read ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pipe_that_nobody_reads_stops_nobody(tmp_path: Path, root_level: None) -> None:
    reader, writer = os.pipe()
    target = logging.StreamHandler(os.fdopen(writer, "w"))
    lines = LineWriter(target, most=100)
    try:
        for number in range(3000):
            lines.handle(record(f"{number} " + "x" * 1000))
        assert lines.dropped > 2000
        read = b""
        while b"log_lines_dropped" not in read:
            read += os.read(reader, 1 << 20)
        told = read.decode().splitlines()
        numbers = [int(line.split()[0]) for line in told if "xxx" in line]
        assert numbers == sorted(numbers)
        assert numbers[0] == 0
        assert len(numbers) + lines.dropped < 3000, "what was dropped has been told"
        lines.handle(record("later"))
        lines.end()
        assert lines.has_ended(PATIENCE)
        assert b"later" in os.read(reader, 1 << 20)
    finally:
        os.close(reader)
        target.close()


def test_an_end_waits_for_a_log_that_hangs_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geartrain.daemon.log.LAST_LINES_SECONDS", 0.1)
    reader, writer = os.pipe()
    lines = LineWriter(logging.StreamHandler(os.fdopen(writer, "w")))
    for _ in range(200):
        lines.handle(record("x" * 1000))
    lines.end()
    assert not lines.has_ended(0.1)
    os.close(reader)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[int]:
    """The end of a full pipe that could be read, ``tmp_path / "pipe"``."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    end = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(end, b"x" * 4096)
    yield end
    os.close(end)


def test_a_file_that_hangs_silences_no_system_log(
    tmp_path: Path, root_level: None, pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geartrain.daemon.log.LAST_LINES_SECONDS", 0.1)
    system_log = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(system_log))
        listener.settimeout(PATIENCE)
        output = Log(str(tmp_path / "pipe"), syslog=True, system_log=str(system_log))
        for number in range(3):
            log.warning(f"event_{number}", extra={"fields": {}})
        for number in range(3):
            assert f"event_{number}".encode() in listener.recv(1000)
        output.reopen()
        assert not output.close()


def test_lines_that_found_no_system_log_are_counted_and_told(tmp_path: Path, root_level: None) -> None:
    system_log = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(system_log))
        output = Log("none", syslog=True, system_log=str(system_log))
        system_log.unlink()
    for number in range(3):
        log.warning(f"event_{number}", extra={"fields": {}})
    tried = threading.Event()
    output.writers[1].do(tried.set)
    assert tried.wait(PATIENCE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(system_log))
        listener.settimeout(PATIENCE)
        log.warning("event_3", extra={"fields": {}})
        assert b"event_3" in listener.recv(1000)
        assert b'log_lines_dropped lines=3 reason="No such file or directory"' in listener.recv(1000)
        output.close()


def test_a_system_log_that_hangs_silences_no_file(
    tmp_path: Path, root_level: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geartrain.daemon.log.LAST_LINES_SECONDS", 0.1)
    system_log, path = tmp_path / "socket", tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(system_log))
        output = Log(str(path), syslog=True, system_log=str(system_log))
        many = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 10
        for number in range(many):
            log.warning(f"event_{number}", extra={"fields": {}})
        wait_until(lambda: f"event_{many - 1}" in path.read_text(), "the file has the last line")
        path.rename(tmp_path / "old")
        output.reopen()
        wait_until(lambda: path.exists() and "log_reopened" in path.read_text(), "it is opened again")
        assert output.close()


FILLS_A_DISK = """
import logging, resource, sys, threading
from geartrain.daemon.log import Log
from servers import PATIENCE

log = logging.getLogger("geartrain.daemon")
output = Log(sys.argv[1], format="json")

def say(event):
    log.warning(event, extra={"fields": {"x": "x" * 300}})

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
for number in range(40):
    say(f"early_{number}")
tried = threading.Event()
output.writers[0].do(tried.set)
assert tried.wait(PATIENCE)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
if sys.argv[2] == "goes on":
    say("later_0")
    say("later_1")
assert output.close()
"""


@pytest.mark.parametrize("end", ["goes on", "ends"])
@pytest.mark.parametrize("to", ["file", "stderr"])
def test_lines_that_found_no_room_are_counted_and_told(tmp_path: Path, end: str, to: str) -> None:
    path = tmp_path / "log"
    path.touch(0o600)
    with path.open("ab") as stderr:
        command = [sys.executable, "-c", FILLS_A_DISK, str(path) if to == "file" else to, end]
        tests = str(Path(__file__).parents[1])
        subprocess.run(command, stderr=stderr, timeout=30, check=True, env={**os.environ, "PYTHONPATH": tests})
    *lines, last = path.read_text().splitlines()
    events = []
    for line in lines:
        with contextlib.suppress(ValueError):  # the one that was cut off
            events.append(json.loads(line)["event"])
    early = [event for event in events if event.startswith("early_")]
    assert early == [f"early_{number}" for number in range(len(early))]
    assert len(early) == len(lines) - 1 - (2 if end == "goes on" else 0)
    told = json.loads(last)
    if end == "goes on":
        assert events[-2:] == ["later_0", "log_lines_dropped"]
        assert told["event"] == "later_1"
        told = json.loads(lines[-1])
    assert (told["event"], told["lines"], told["reason"]) == ("log_lines_dropped", 40 - len(early), "File too large")


def test_a_pipe_without_a_reader_is_refused_as_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="can't be opened"):
        Log(str(tmp_path / "pipe"))


def test_nobody_else_may_read_it(tmp_path: Path, root_level: None) -> None:
    path = tmp_path / "log"
    Log(str(path)).close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == ""
    path.chmod(0o640)
    Log(str(path)).close()
    (line,) = path.read_text().splitlines()
    assert "log_readable_by_others" in line
    assert "mode=640" in line
