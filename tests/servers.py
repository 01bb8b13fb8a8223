"""Real job servers as child processes for tests: ours and, as referees, Debian's gearmand and Perl one.

Each is started on a port that is free and is awaited by connecting to it, ours by its first answer; at the end it gets
SIGTERM and must leave. ``needs()`` is the one way a test says what it needs: at a desk a missing program
skips the test with one clear line, in CI (``CI=true``) it is a failure.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

KnownDifference = Callable[[str, str], None]
"""The fixture ``known_difference``: the kind of a server, and why a test must fail against it."""

PATIENCE = float(os.environ.get("GEARTRAIN_TEST_PATIENCE", "10"))
"""Seconds that a test waits for what should come at once. To shorten where it is known not to come."""

PORTS = range(10_000, 32_768)
"""Below those that the system gives out: whoever connects, or listens on any port, takes none of these."""


@dataclass(frozen=True)
class RunningServer:
    """A job server that accepts connections at ``host:port``."""

    kind: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    host: str = "127.0.0.1"

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def http_port(self) -> int:
        """The port of its HTTP face, which was started with ``--http=127.0.0.1:0``."""
        found = None

        def is_told() -> bool:
            nonlocal found
            found = re.search(r"http_listening address=127\.0\.0\.1:(\d+)", self.log.read_text())
            return found is not None

        wait_until(is_told, "the log tells where HTTP is served")
        assert found is not None
        return int(found[1])

    def ask(self, command: str) -> list[str]:
        """The lines a text command is answered with, without the dot that ends a list."""
        with socket.create_connection((self.host, self.port), timeout=10) as connection:
            connection.sendall(command.encode() + b"\n")
            answer = connection.makefile("r", encoding="latin-1", newline="\n")
            lines: list[str] = []
            for line in answer:
                if line == ".\n":
                    return lines
                lines.append(line.rstrip("\r\n"))
                if line.startswith(("OK", "ERR")):
                    return lines
            raise AssertionError(f"{self.kind} hung up in its answer to {command!r}: {lines}")

    def jobs_of(self, function: str) -> tuple[int, int]:
        """How many jobs of ``function`` the server has, and how many of them are running."""
        for line in self.ask("status"):
            name, total, running, _workers = line.split("\t")
            if name == function:
                return int(total), int(running)
        return 0, 0


def needs(program: str, package: str) -> str:
    """The path of ``program``; without it skip the test (fail in CI), naming Debian's ``package``."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        missing(f"needs {program}: install the package {package}")
        raise AssertionError("unreachable")
    return path


def missing(what: str) -> None:
    """Skip the running test with one clear line, or fail it in CI, where everything must be there."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Return as soon as ``condition()`` holds. Raises AssertionError, naming ``what``, if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def _own_order() -> Iterator[int]:
    """All ports again and again, from one on that differs from process to process."""
    start = os.getpid() * 7919 % len(PORTS)
    return itertools.cycle((*PORTS[start:], *PORTS[:start]))


_ports = _own_order()


@functools.cache
def _taken_ports() -> int:
    """An open file in which each process locks the bytes whose numbers are those of its ports."""
    path = Path(tempfile.gettempdir(), f"geartrain-test-ports-{os.getuid()}")
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def free_port() -> int:
    """A port that nobody listens on, and that no other process of tests is given while this one lives."""
    for port in itertools.islice(_ports, len(PORTS)):
        with contextlib.suppress(OSError), socket.socket() as probe:  # another process has it
            fcntl.lockf(_taken_ports(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@contextlib.contextmanager
def running_gearmand(*options: str) -> Iterator[RunningServer]:
    """Debian's gearmand with ``options``, as its packager built it."""
    # By its whole path: the Perl server's program is called gearmand too, and lives in /usr/bin.
    program = needs("/usr/sbin/gearmand", "gearman-job-server")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "gearmand.log")
        command = [program, f"--port={port}", "--listen=127.0.0.1", f"--log-file={log}", *options]
        with _running("gearmand", command, port, log) as server:
            yield server


@contextlib.contextmanager
def running_perl_server(*options: str) -> Iterator[RunningServer]:
    """The older server in Perl, Gearman::Server, with ``options``."""
    program = needs("/usr/bin/gearmand", "gearman-server")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [program, f"--port={port}", "--listen=127.0.0.1", *options]
        with _running("perl", command, port, Path(folder, "perl-server.log")) as server:
            yield server


@contextlib.contextmanager
def running_geartrain(
    *options: str,
    environment: dict[str, str] | None = None,
    port: int = 0,
    store: str | None = "memory:",
    answers: bool = True,
) -> Iterator[RunningServer]:
    """Our daemon with ``options`` after ``geartrain serve``; on ``port``, so that it can come back where it was.

    It keeps jobs in memory alone unless told otherwise; with None for ``store`` it is told nothing. Without
    ``answers`` it may still be starting, as it does for as long as its store does not answer.
    """
    port = port or free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "geartrain.log")
        command = [
            sys.executable,
            "-m",
            "geartrain",
            "serve",
            f"--port={port}",
            "--listen=127.0.0.1",
            f"--log-file={log}",
            *([f"--store={store}"] if store else []),
            *options,
        ]
        with _running("geartrain", command, port, log, environment, answers) as server:
            yield server


@contextlib.contextmanager
def _running(
    kind: str,
    command: list[str],
    port: int,
    log: Path,
    environment: dict[str, str] | None = None,
    answers: bool = False,
) -> Iterator[RunningServer]:
    output = log.with_suffix(".out")
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env={**os.environ, **(environment or {})},
        )
        try:
            _await_port(process, port, output, answers)
            yield RunningServer(kind, port, process, log)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def _await_port(
    process: subprocess.Popen[bytes], port: int, output: Path, answers: bool = False, seconds: float = 20
) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                if not answers:
                    return
                # Ours can be connected to while it starts, when it heeds no signal yet.
                connection.settimeout(max(deadline - time.monotonic(), 1))
                connection.sendall(b"version\n")
                if connection.recv(1):
                    return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{process.args!r} did not start:\n{output.read_text()}")
        time.sleep(0.02)
