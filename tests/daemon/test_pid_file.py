"""The pid file: whose it is, and what becomes of one that was left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import RunningServer, free_port, running_gearmand, running_geartrain, running_perl_server, wait_until


def serve(*options: str) -> subprocess.CompletedProcess[str]:
    """Run ``geartrain serve`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "geartrain", "serve", "--store=memory:", "--port=0", *options],
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )


def names(pid_file: Path, server: RunningServer) -> bool:
    server.ask("version")  # once it answers it is fully started
    return pid_file.read_text() == f"{server.process.pid}\n"


def test_a_pid_file_of_a_dead_process_is_replaced_and_a_living_ones_is_not(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with running_geartrain(f"--pid-file={pid_file}") as server:
        assert names(pid_file, server)
        assert pid_file.stat().st_mode & 0o777 == 0o644
        done = serve(f"--pid-file={pid_file}")
        assert done.returncode == 1
        assert f"which names process {server.process.pid}, and that runs" in done.stderr
        server.process.kill()
        server.process.wait()
    assert pid_file.exists()
    with running_geartrain(f"--pid-file={pid_file}") as server:
        assert names(pid_file, server)
    assert not pid_file.exists()


def test_a_pid_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "pid").symlink_to(victim)
    for path in (tmp_path / "pid", Path("/dev/null")):
        done = serve(f"--pid-file={path}")
        assert done.returncode == 1
        assert "no ordinary file: remove it, or choose another" in done.stderr
    assert victim.read_text() == "precious"
    assert Path("/dev/null").is_char_device()


@contextlib.contextmanager
def a_process(*words: str) -> Iterator[int]:
    """Some living program, and the words of its command line."""
    command = [sys.executable, "-c", "input()", *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("words", ["gearmand", "/usr/sbin/gearmand.conf", "-m geartrain serve", "geartrain"])
def test_the_number_of_another_program_is_nobodys(tmp_path: Path, words: str) -> None:
    """Not even of one that is about job servers: a number comes round again, and one that runs has the lock."""
    pid_file = tmp_path / "pid"
    with a_process(*words.split()) as other:
        pid_file.write_text(f"{other}\n")
        with running_geartrain(f"--pid-file={pid_file}") as server:
            assert names(pid_file, server)


@pytest.mark.parametrize("text", ["", "\n", "x", "-1", "0", "{}abc", "9" * 20])
def test_what_is_no_number_of_a_process_is_nobodys(tmp_path: Path, text: str) -> None:
    pid_file = tmp_path / "pid"
    with running_gearmand() as gearmand:
        pid_file.write_text(text.format(gearmand.process.pid))
        with running_geartrain(f"--pid-file={pid_file}") as server:
            assert names(pid_file, server)


def test_our_own_number_is_one_of_an_earlier_life(tmp_path: Path) -> None:
    """As in a container, where each start has the same."""
    pid_file = tmp_path / "pid"
    options = f"--pid-file={pid_file} --store=memory: --port={free_port()} --log-file={tmp_path}/log"
    script = f"echo $$ > {pid_file}; exec {sys.executable} -m geartrain serve {options}"
    process = subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: " listening " in log_of(tmp_path) or process.poll() is not None, "it listens, or ends")
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait()
    assert not pid_file.exists()


def log_of(folder: Path) -> str:
    log = folder / "log"
    return log.read_text() if log.exists() else ""


def test_a_running_gearmand_keeps_its_pid_file(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with running_gearmand(f"--pid-file={pid_file}") as gearmand:
        wait_until(lambda: pid_file.exists() and pid_file.read_text() != "", "it has written its pid file")
        check_that_it_is_kept(pid_file, gearmand.process.pid)


def test_so_does_a_running_gearmand_in_perl(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with running_perl_server() as gearmand:
        pid_file.write_text(f"{gearmand.process.pid}\n")
        check_that_it_is_kept(pid_file, gearmand.process.pid)


def check_that_it_is_kept(pid_file: Path, pid: int) -> None:
    done = serve(f"--pid-file={pid_file}")
    assert done.returncode == 1
    assert f"names process {pid}, and that runs: stop it first" in done.stderr
    assert pid_file.read_text().strip() == str(pid)


def test_of_many_that_start_at_once_one_has_the_file(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    pid_file.write_text("99999999\n")
    command = [sys.executable, "-m", "geartrain", "serve", "--store=memory:", "--port=0", f"--pid-file={pid_file}"]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        wait_until(lambda: sum(process.poll() is not None for process in processes) >= 3, "all but one have ended")
        [winner] = [process for process in processes if process.poll() is None]
        wait_until(lambda: pid_file.read_text() == f"{winner.pid}\n", "the last one has the file")
        for process in processes:
            if process is not winner:
                assert process.stderr is not None
                assert "geartrain: --pid-file is " in process.stderr.read()
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
            process.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_in_a_folder_that_is_not_the_users_it_names_nobody_at_the_end() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        pid_file = Path(folder, "pid")
        for _ in range(2):
            with running_geartrain(f"--pid-file={pid_file}", "--user=nobody") as server:
                assert names(pid_file, server)
            assert pid_file.read_text() == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_who_may_only_read_it_can_not_keep_it(tmp_path: Path) -> None:
    """A lock of somebody else's on a file that was left behind does not stop the next start."""
    tmp_path.chmod(0o755)
    pid_file = tmp_path / "pid"
    pid_file.write_text("99999999\n")
    pid_file.chmod(0o644)
    code = f"import fcntl; f = open({str(pid_file)!r}); fcntl.lockf(f, 1); fcntl.flock(f, 2); print(1); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        with running_geartrain(f"--pid-file={pid_file}") as server:
            assert names(pid_file, server)
    finally:
        other.kill()
        other.communicate()
