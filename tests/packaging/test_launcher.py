"""bin/geartrain as it was installed: the launcher, where the Python has a shared library, and what init scripts see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from geartrain.version import VERSION
from servers import free_port, missing, needs, wait_until

PROGRAM = Path(sys.executable).with_name("geartrain")


def state(pid: int) -> str:
    """The letter that ps shows for a process; "Z": it has ended, and nobody has asked how; "": it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return ""


@pytest.fixture
def launcher() -> Path:
    if not PROGRAM.exists():
        missing(f"needs geartrain beside {sys.executable}")
    if PROGRAM.read_bytes()[:4] != b"\x7fELF":
        pytest.skip("bin/geartrain is a script here: no shared libpython, no C compiler, or GEARTRAIN_COMPILE=0")
    return PROGRAM


@pytest.fixture
def init_script(launcher: Path, tmp_path: Path) -> Iterator[list[str]]:
    """start-stop-daemon, as an init script names the daemon: by its file."""
    pid_file = tmp_path / "pid"
    yield [needs("start-stop-daemon", "dpkg"), "--exec", str(launcher), "--pidfile", str(pid_file)]
    if pid_file.exists():
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_an_init_script_finds_the_daemon_by_its_file(init_script: list[str], tmp_path: Path) -> None:
    options = ["--daemon", "--store=memory:", f"--log-file={tmp_path / 'log'}", f"--pid-file={tmp_path / 'pid'}"]
    serve = ["serve", "--listen=127.0.0.1", f"--port={free_port()}", *options]
    assert subprocess.run([*init_script, "--status"], timeout=30).returncode == 3
    assert subprocess.run([*init_script, "--start", "--", *serve], timeout=30).returncode == 0
    pid = int((tmp_path / "pid").read_text())
    assert Path(f"/proc/{pid}/comm").read_text() == "geartrain\n"
    assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(os.fsencode(PROGRAM) + b"\0serve\0")
    assert subprocess.run([*init_script[:3], "--status"], timeout=30).returncode == 0
    assert subprocess.run([*init_script, "--status"], timeout=30).returncode == 0
    assert subprocess.run([*init_script, "--stop", "--retry", "8"], timeout=30).returncode == 0
    wait_until(lambda: state(pid) in ("", "Z"), "the daemon has ended")
    assert not (tmp_path / "pid").exists()


def test_it_runs_in_the_environment_that_it_is_installed_in(launcher: Path, tmp_path: Path) -> None:
    link = tmp_path / "linked"  # as pipx and others make one available
    link.symlink_to(launcher)
    for program in (launcher, link):
        done = subprocess.run([program, "version"], cwd="/", capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"geartrain {VERSION}\n")


def test_it_passes_on_arguments_and_exit_codes(launcher: Path) -> None:
    done = subprocess.run([launcher, "submitt", "a b", ""], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "submitt" in done.stderr
    assert subprocess.run([launcher], capture_output=True, timeout=30).returncode == 2


def test_ctrl_c_ends_a_job_server_in_good_order(launcher: Path) -> None:
    with subprocess.Popen(
        [launcher, "serve", "--listen=127.0.0.1", "--port=0", "--store=memory:"], stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        while "listening" not in server.stderr.readline():
            assert server.poll() is None
        server.send_signal(signal.SIGINT)
        server.stderr.read()
        assert server.wait(30) == 0


def test_a_process_that_multiprocessing_spawns_does_not_run_the_command_again() -> None:
    program = (
        "import sys, runpy, geartrain.cli.main as way_in, multiprocessing\n"
        "way_in.main = lambda: print(multiprocessing.get_context('spawn').Pool(1).apply(len, ('abc',)), flush=True)\n"
        "sys.argv = ['geartrain']\n"
        "runpy.run_module('geartrain', run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("3\n", "", 0)
