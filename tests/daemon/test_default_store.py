"""Where jobs are kept when nobody says where."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon_peer import DaemonPeer
from geartrain.daemon.config import Config
from geartrain.store.default import default_url
from geartrain.wire.packets import (
    CAN_DO,
    GRAB_JOB,
    JOB_ASSIGN,
    JOB_CREATED,
    SUBMIT_JOB_BG,
    pack_request,
)
from servers import RunningServer, running_geartrain, wait_until


@contextlib.contextmanager
def serving(state: Path, *options: str) -> Iterator[RunningServer]:
    """A job server that is told nothing about its store but the state directory."""
    with running_geartrain(*options, environment={"STATE_DIRECTORY": str(state)}, store=None) as server:
        yield server


def refusal(state: Path, *options: str) -> str:
    """What a job server says that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "geartrain", "serve", "--port=0", "--listen=127.0.0.1", *options],
        env={**os.environ, "STATE_DIRECTORY": str(state)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    return done.stderr


def test_jobs_are_kept_without_a_word(tmp_path: Path) -> None:
    state = tmp_path / "not" / "yet" / "there"
    with serving(state) as server:
        with DaemonPeer(server.port) as client:
            client.send(pack_request(SUBMIT_JOB_BG, b"f", b"", b"workload"))
            created = client.receive()
            assert created.type == JOB_CREATED
        server.process.kill()
        server.process.wait()
    assert state.stat().st_mode & 0o777 == 0o700
    with serving(state) as server, DaemonPeer(server.port) as worker:
        worker.send(pack_request(CAN_DO, b"f") + pack_request(GRAB_JOB))
        job = worker.receive()
        assert (job.type, job.arguments) == (JOB_ASSIGN, (created.arguments[0], b"f", b"workload"))


def test_the_second_server_is_told_to_use_a_place_of_its_own(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        told = refusal(tmp_path)
    assert f"in use by another job server (process {server.process.pid} on " in told
    assert f"--store sqlite:///{tmp_path}/second.sqlite" in told


def test_a_folder_that_can_not_be_is_told_with_the_remedies(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    told = refusal(file / "folder")
    assert f"jobs are kept in {file}/folder unless --store says otherwise" in told
    assert "it can't be made (Not a directory)" in told
    assert "--store memory:" in told


def test_the_environment_names_another(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/other.sqlite"
    with running_geartrain(environment={"GEARTRAIN_STORE": url}, store=None) as server:
        wait_until(lambda: "store_loaded" in server.log.read_text(), "the store is loaded")
    assert (tmp_path / "other.sqlite").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_the_folder_is_the_users_that_the_server_becomes() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        state = Path(folder, "state")
        with serving(state, "--user=nobody"):
            wait_until((state / "queue.sqlite").exists, "the store")
            assert state.stat().st_uid == pwd.getpwnam("nobody").pw_uid


def test_gearmands_word_for_memory_alone_is_taken_at_its_word(tmp_path: Path) -> None:
    with serving(tmp_path / "state", "--queue-type=builtin"):
        pass
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("user", "variables", "file"),
    [
        (0, {}, "/var/lib/geartrain/queue.sqlite"),
        (0, {"XDG_STATE_HOME": "/x"}, "/var/lib/geartrain/queue.sqlite"),
        (0, {"STATE_DIRECTORY": "/run/one:/run/two"}, "/run/one/queue.sqlite"),
        (1000, {"HOME": "/home/me"}, "/home/me/.local/state/geartrain/queue.sqlite"),
        (1000, {"HOME": "/home/me", "XDG_STATE_HOME": "/x"}, "/x/geartrain/queue.sqlite"),
        (1000, {"HOME": "/home/me", "XDG_STATE_HOME": "relative"}, "/home/me/.local/state/geartrain/queue.sqlite"),
        (1000, {"STATE_DIRECTORY": "/var/lib/geartrain", "XDG_STATE_HOME": "/x"}, "/var/lib/geartrain/queue.sqlite"),
    ],
)
def test_the_state_directory(user: int, variables: dict[str, str], file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME", "GEARTRAIN_STORE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.geteuid", lambda: user)
    assert default_url() == f"sqlite:///{file}"
    assert Config.load({}).store == f"sqlite:///{file}"
