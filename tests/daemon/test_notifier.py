"""What the service manager is told: by the daemon's own process, over a real socket."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import running_geartrain


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        yield listener


def told(manager: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())


def test_it_says_when_it_is_ready_and_when_it_stops(manager: socket.socket, tmp_path: Path) -> None:
    with running_geartrain(environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as server:
        first = told(manager)
        assert (first["READY"], first["MAINPID"]) == ("1", str(server.process.pid))
        assert first["STATUS"] == f"Listening at 127.0.0.1:{server.port}"
        server.process.send_signal(signal.SIGTERM)
        assert told(manager)["STOPPING"] == "1"


def test_it_gives_signs_of_life(manager: socket.socket, tmp_path: Path) -> None:
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
    with running_geartrain(environment=environment):
        assert "READY" in told(manager)
        for _ in range(5):
            assert told(manager) == {"WATCHDOG": "1"}
