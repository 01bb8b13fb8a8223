"""What the service manager is told: by the daemon's own process, over a real socket."""

from __future__ import annotations

import configparser
import contextlib
import math
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon_peer import DaemonPeer
from geartrain.daemon.keeper import Keeper
from geartrain.daemon.notifier import Notifier
from geartrain.jobserver import JobServer
from geartrain.jobserver.records import Batch, Record, StoredJob
from geartrain.store import engine
from geartrain.systemd import Systemd
from geartrain.wire.packets import SUBMIT_JOB_BG, pack_request
from servers import running_geartrain, wait_until

UNIT = Path(__file__).parents[2] / "packaging" / "geartrain.service"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(20)
        yield listener


def told(manager: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())


def told_until(manager: socket.socket, is_it: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    while not is_it(state := told(manager)):
        pass
    return state


def test_it_says_when_it_is_ready_and_when_it_stops(manager: socket.socket, tmp_path: Path) -> None:
    with running_geartrain(environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as server:
        first = told(manager)
        assert (first["READY"], first["MAINPID"]) == ("1", str(server.process.pid))
        assert first["STATUS"] == f"Listening at 127.0.0.1:{server.port}; 0 connections, 0 jobs"
        server.process.send_signal(signal.SIGTERM)
        last = told_until(manager, lambda state: "STOPPING" in state)
        assert (last["STOPPING"], last["STATUS"]) == ("1", "Stopping")
        assert int(last["EXTEND_TIMEOUT_USEC"]) >= 9_000_000, "three steps of --stop-timeout"


def test_it_gives_signs_of_life(manager: socket.socket, tmp_path: Path) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    with running_geartrain(environment=environment):
        assert "READY" in told(manager)
        for _ in range(10):
            assert told(manager) == {"WATCHDOG": "1"}


def test_they_are_two_in_each_period(manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "500000")
    notifier = Notifier(Systemd())
    notifier.server = JobServer()
    notifier.status_at = math.inf
    signs = []
    manager.setblocking(False)
    for step in range(128):
        notifier.server.tick(1000 + step / 64, 0)
        notifier.flush()
        with contextlib.suppress(BlockingIOError):
            assert told(manager) == {"WATCHDOG": "1"}
            signs.append(step / 64)
    assert signs == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]


def test_a_manager_that_has_no_watchdog_gets_no_signs_of_life(manager: socket.socket, tmp_path: Path) -> None:
    with running_geartrain(environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as server:
        assert "READY" in told(manager)
        server.ask("version")
        server.process.send_signal(signal.SIGTERM)
        assert "STOPPING" in told(manager)


def test_it_says_what_it_loads_and_asks_for_time(manager: socket.socket, tmp_path: Path) -> None:
    store = f"--store=sqlite:///{tmp_path / 'jobs.sqlite'}"
    with running_geartrain(store) as server, DaemonPeer(server.port) as peer:
        peer.send(pack_request(SUBMIT_JOB_BG, b"f", b"", b"x") * 3)
        for _ in range(3):
            peer.receive()
    with running_geartrain(store, environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as server:
        for status in ("Opening the store", "Loading jobs: 0 of 3", "Loading records: 0", "Loading records: 0"):
            state = told(manager)
            assert state["STATUS"] == status
            assert int(state["EXTEND_TIMEOUT_USEC"]) >= 30_000_000
        assert told(manager)["STATUS"] == f"Listening at 127.0.0.1:{server.port}; 0 connections, 3 jobs"


def test_what_is_loaded_is_told_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records too, of which there may be as many as jobs: dead letters, results."""
    monkeypatch.setattr("geartrain.daemon.keeper.PROGRESS_EVERY", 0)
    url = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    store = engine(url)
    store.open()
    batch = Batch(1502)
    batch.added = [StoredJob(number, number << 20, b"f", b"", b"", 0, 1, 0, b"", 0, 0) for number in range(1, 1502)]
    batch.records = [Record("other", b"%d" % number, b"") for number in range(1001)]
    store.commit(batch)
    store.close()
    words: list[str] = []
    keeper = Keeper(JobServer(), engine(url), 5)
    keeper.load(words.append)
    keeper.store.close()
    assert words == [
        "Loading jobs: 0 of 1,501", "Loading jobs: 0 of 1,501", "Loading jobs: 1,000 of 1,501",
        "Loading records: 0", "Loading records: 0", "Loading records: 1,000",
        "Loading records: 0 of 1,001", "Loading records: 0 of 1,001", "Loading records: 1,000 of 1,001",
    ]  # fmt: skip


def test_a_reload_has_a_beginning_and_an_end(manager: socket.socket, tmp_path: Path) -> None:
    with running_geartrain(environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as server:
        assert "READY" in told(manager)
        before = time.monotonic()
        server.process.send_signal(signal.SIGHUP)
        begun = told(manager)
        assert begun["RELOADING"] == "1"
        assert before <= int(begun["MONOTONIC_USEC"]) / 1e6 <= time.monotonic()
        assert told(manager) == {"READY": "1"}


def test_a_manager_that_is_busy_never_holds_it_up_and_hears_all_later(manager: socket.socket, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.connect(str(tmp_path / "notify"))
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.send(b"X=1")
    with running_geartrain(environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as server:
        server.ask("version")
        state = told_until(manager, lambda state: "X" not in state)
        assert (state["READY"], state["MAINPID"]) == ("1", str(server.process.pid))


def test_without_a_manager_it_is_silent(tmp_path: Path) -> None:
    with running_geartrain(environment={"NOTIFY_SOCKET": str(tmp_path / "nobody")}) as server:
        wait_until(lambda: server.ask("version") != [], "it serves")


def test_the_unit_fits() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # as systemd reads it
    unit.read(UNIT)
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert service["StateDirectory"] == "geartrain"
