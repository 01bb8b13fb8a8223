"""How tests get peers: ``client_of("php")`` and ``worker_of("perl", {name: "reverse"})``, ended with the test."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from peer import Client, ClientOf, ProgramClient, ToolClient, Worker, WorkerOf

from servers import RunningServer, missing, needs, wait_until

PROGRAMS = Path(__file__).with_name("programs")


@pytest.fixture(autouse=True)
def no_other_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """GEARMAN_SERVER and GEARMAN_SERVERS would add servers of this machine's to those the tests name."""
    for name in ("GEARMAN_SERVER", "GEARMAN_SERVERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def program_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """The command of a peer's program. Skips the test (fails in CI) if what it needs is not installed."""
    compiled = tmp_path_factory.mktemp("libgearman") / "libgearman_peer"

    def program_of(peer: str) -> list[str]:
        if peer == "c":
            if not compiled.exists():
                _compile(PROGRAMS / "libgearman_peer.c", compiled)
            return [str(compiled)]
        if peer == "php":
            php = needs("php", "php-cli")
            if not _succeeds(php, "-r", "exit((int) !extension_loaded('gearman'));"):
                missing("needs PHP's gearman extension: install the package php-gearman")
            return [php, str(PROGRAMS / "php_peer.php")]
        if peer == "perl":
            perl = needs("perl", "perl")
            if not _succeeds(perl, "-MGearman::Client", "-e1"):
                missing("needs Perl's Gearman::Client: install the package libgearman-client-perl")
            return [perl, str(PROGRAMS / "perl_peer.pl")]
        if find_spec("gear") is None:
            missing("needs the Python package gear: pip install gear")
        return [sys.executable, str(PROGRAMS / "gear_peer.py")]

    return program_of


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def _compile(source: Path, program: Path) -> None:
    compiler = needs("gcc", "gcc")
    if not _succeeds(compiler, "-E", "-include", "libgearman/gearman.h", "-xc", "/dev/null"):
        missing("needs libgearman's headers: install the package libgearman-dev")
    subprocess.run([compiler, "-Wall", "-o", program, source, "-lgearman"], check=True)


@pytest.fixture
def client_of(job_server: RunningServer, program_of: Callable[[str], list[str]]) -> Iterator[ClientOf]:
    """Starts a client of the named peer, one more with each call."""
    with contextlib.ExitStack() as started:

        def client_of(peer: str, exceptions: bool = False) -> Client:
            client: Client
            if peer == "tool":
                client = ToolClient(job_server)
            else:
                client = ProgramClient(program_of(peer), job_server, exceptions)
            started.callback(client.close)
            return client

        yield client_of


@pytest.fixture
def worker_of(job_server: RunningServer, program_of: Callable[[str], list[str]]) -> Iterator[WorkerOf]:
    """Starts a worker of the named peer that serves the functions given, name to behaviour."""
    with contextlib.ExitStack() as started:

        def worker_of(peer: str, functions: dict[str, str]) -> Worker:
            address = [job_server.host, str(job_server.port)]
            if peer == "tool":
                worker = Worker(_tool_worker(address, functions), stderr_too=True)
            else:
                pairs = [f"{name}={behaviour}" for name, behaviour in functions.items()]
                worker = Worker([*program_of(peer), "worker", *address, f"test-{peer}", *pairs])
            started.callback(worker.close)
            return worker

        yield worker_of


def _tool_worker(address: list[str], functions: dict[str, str]) -> list[str]:
    host, port = address
    (behaviour,) = set(functions.values())  # it runs one command, whatever the function
    names = [word for name in functions for word in ("-f", name)]
    # -I -S: a fresh Python for every job starts in a third of the time without its site.
    run = [sys.executable, "-I", "-S", str(PROGRAMS / "command.py"), behaviour]
    return [needs("gearman", "gearman-tools"), "-h", host, "-p", port, "-w", *names, *run]


@pytest.fixture
def function(job_server: RunningServer) -> Iterator[str]:
    """A function name of this test's own. At its end the job server must have no job of it left."""
    name = f"test-{next(_numbers)}"
    yield name
    wait_until(lambda: job_server.jobs_of(name) == (0, 0), f"the server has no job of {name} left")


_numbers = itertools.count(1)
