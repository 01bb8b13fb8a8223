"""The daemon as a process: signals, log, terminal, user, listeners."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon_peer import DaemonPeer
from geartrain.wire.packets import (
    CAN_DO,
    ERROR,
    GRAB_JOB,
    JOB_ASSIGN,
    JOB_CREATED,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
    pack_request,
)
from geartrain.wire.parser import Packet
from servers import PATIENCE, RunningServer, free_port, running_geartrain, wait_until


def serve(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``geartrain serve`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "geartrain", "serve", *options],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "GEARTRAIN_STORE": "memory:", **environment},
        stdin=subprocess.DEVNULL,
    )


def events(log: Path) -> list[str]:
    return [line.split()[3] for line in log.read_text().splitlines()]


def log_of(server: RunningServer) -> str:
    """What is in the log of one that listens, which another thread writes."""
    wait_until(lambda: " listening " in server.log.read_text(), "it has said all of its start")
    return server.log.read_text()


@pytest.fixture
def full_pipe(tmp_path: Path) -> Iterator[int]:
    """A descriptor to write to a pipe that is full, and that nobody reads: ``tmp_path / "pipe"``."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    end = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(end, b"x" * 4096)
    os.set_blocking(end, True)
    yield end
    os.close(end)


def test_it_ends_though_nobody_reads_its_log(full_pipe: int) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "geartrain", "serve", f"--port={port}", "--listen=127.0.0.1", "--store=memory:"],
        stderr=full_pipe,
    )
    try:
        wait_until(lambda: answers(port), "it answers")
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_what_is_wrong_is_told_though_nobody_reads_the_log(full_pipe: int, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve(f"--port={port}", "--listen=127.0.0.1", f"--log-file={tmp_path / 'pipe'}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"geartrain: can't listen on 127.0.0.1:{port}: it is already in use")


def test_what_is_wrong_ends_it_though_nobody_reads_standard_error(full_pipe: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "geartrain", "serve", f"--port={port}", "--listen=127.0.0.1", "--store=memory:"],
            stderr=full_pipe,
        )
        try:
            assert process.wait(30) == 1
        finally:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    """Whether a job server is there and fully started."""
    with socket.socket() as probe:
        probe.settimeout(PATIENCE)
        if probe.connect_ex(("127.0.0.1", port)):
            return False
        probe.sendall(b"version\n")
        return probe.recv(100).startswith(b"OK ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(number: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_geartrain(f"--log-file={log}") as server, DaemonPeer(server.port) as peer:
        peer.send(pack_request(SUBMIT_JOB_BG, b"f", b"", b"x"))
        assert peer.receive().type == JOB_CREATED
        server.process.send_signal(number)
        assert peer.is_closed()
        assert server.process.wait(10) == 0
    assert events(log) == ["starting", "listening", "stopping", "stopped"]
    assert "jobs=1" in log.read_text().splitlines()[-1]


def test_a_drain_waits_for_what_runs_and_refuses_the_rest() -> None:
    with running_geartrain() as server, DaemonPeer(server.port) as peer:
        peer.send(pack_request(CAN_DO, b"f") + pack_request(SUBMIT_JOB_BG, b"f", b"", b"x") + pack_request(GRAB_JOB))
        assert peer.receive().type == JOB_CREATED
        job = peer.receive()
        assert job.type == JOB_ASSIGN
        server.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: "draining" in events(server.log), "the drain is logged")
        peer.send(pack_request(SUBMIT_JOB_BG, b"f", b"", b"y"))
        assert peer.receive().type == ERROR
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        peer.send(pack_request(WORK_COMPLETE, job.arguments[0], b"done"))
        assert server.process.wait(10) == 0


def test_a_drain_has_a_time_limit() -> None:
    with running_geartrain("--drain-timeout=100ms") as server, DaemonPeer(server.port) as peer:
        peer.send(pack_request(CAN_DO, b"f") + pack_request(SUBMIT_JOB_BG, b"f", b"", b"x") + pack_request(GRAB_JOB))
        assert [peer.receive().type, peer.receive().type] == [JOB_CREATED, JOB_ASSIGN]
        server.process.send_signal(signal.SIGUSR1)
        assert server.process.wait(10) == 0


def test_the_log_is_reopened_on_sighup() -> None:
    with running_geartrain() as server:
        old = server.log.rename(server.log.with_suffix(".old"))
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.log.exists() and "log_reopened" in events(server.log), "a new log")
        assert "listening" in events(old)


def test_detached_it_goes_on_alone_once_it_listens(tmp_path: Path) -> None:
    port, pid_file, log = free_port(), tmp_path / "pid", tmp_path / "log"
    done = serve("-d", f"-P{pid_file}", f"--port={port}", "--listen=127.0.0.1", f"--log-file={log}")
    pid = int(pid_file.read_text())
    try:
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        with socket.create_connection(("127.0.0.1", port), timeout=5) as admin:
            admin.sendall(b"getpid\n")
            assert admin.recv(100) == b"OK %d\n" % pid
        assert os.getsid(pid) == pid
        assert os.readlink(f"/proc/{pid}/fd/2") == "/dev/null"
    finally:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not pid_file.exists(), "the pid file is removed at the end")
    wait_until(lambda: "stopped" in events(log), "the last line of the log")


def test_detaching_fails_aloud(tmp_path: Path) -> None:
    with running_geartrain() as other:
        done = serve("-d", f"-p{other.port}", "-L127.0.0.1", f"-l{tmp_path}/log")
    assert done.returncode == 1
    assert done.stderr.startswith(f"geartrain: can't listen on 127.0.0.1:{other.port}: it is already in use")
    assert events(tmp_path / "log") == ["starting", "not_started"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_it_becomes_another_user_once_it_listens(tmp_path: Path) -> None:
    with running_geartrain("--user=nobody") as server:
        nobody = pwd.getpwnam("nobody")
        wait_until(lambda: os.stat(f"/proc/{server.process.pid}").st_uid == nobody.pw_uid, "it runs as nobody")
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        assert f"Gid:\t{nobody.pw_gid}\t{nobody.pw_gid}" in status
        assert server.ask("version")[0].startswith("OK ")


def test_an_unknown_user_is_told() -> None:
    done = serve("--user=nobody-at-all", "--port=0")
    assert (done.returncode, done.stderr) == (
        1,
        "geartrain: --user is 'nobody-at-all', and this machine has no such user\n",
    )


def test_a_free_port_is_said_in_the_log(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "geartrain", "serve", "--port=0", "--listen=127.0.0.1", "--log-format=json"]
    command.append("--store=memory:")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        starting, listening = (json.loads(process.stderr.readline()) for _ in range(2))
        assert (starting["event"], starting["pid"]) == ("starting", process.pid)
        assert listening["event"] == "listening"
        host, _, port = listening["address"].partition(":")
        socket.create_connection((host, int(port)), timeout=5).close()
    finally:
        process.terminate()
        assert process.wait(10) == 0


def test_several_listeners_share_one_job_server(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with running_geartrain(f"--listen=unix:{path}") as server:
        wait_until(path.exists, "the Unix socket")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"create function shared\r\n")
            assert client.recv(100) == b"OK\r\n"
        assert server.ask("status") == ["shared\t0\t0\t0"]
    assert not path.exists()


def test_its_options_come_from_a_file_and_the_environment_too(tmp_path: Path) -> None:
    file = tmp_path / "geartrain.toml"
    file.write_text('verbose = "NOTICE"\nfile_descriptors = 500\n')
    with running_geartrain(
        environment={
            "GEARTRAIN_CONFIG": str(file),
            "GEARTRAIN_LOG_FORMAT": "json",
            "GEARMAND_PORT": "tcp://10.0.0.1:4730",
        }
    ) as server:
        assert server.ask("verbose") == ["OK NOTICE"]
        assert " 500 " in Path(f"/proc/{server.process.pid}/limits").read_text().partition("Max open files")[2]
        wait_until(lambda: server.log.read_text() != "", "it has begun its log")
        [remark] = map(json.loads, server.log.read_text().splitlines())
        assert (remark["event"], remark["name"]) == ("variable_ignored", "GEARMAND_PORT")


def test_open_files_are_raised_to_what_is_allowed() -> None:
    with running_geartrain() as server:
        limits = Path(f"/proc/{server.process.pid}/limits").read_text().partition("Max open files")[2].split()
        assert limits[0] == limits[1]


def test_more_open_files_than_allowed_are_refused() -> None:
    done = serve("-f", "2147483647", "--port=0")
    assert done.returncode == 1
    assert done.stderr.startswith("geartrain: --file-descriptors is 2147483647, but ")


def test_gearmands_options_are_understood(tmp_path: Path) -> None:
    file = tmp_path / "gearmand.conf"
    file.write_text('# our job server\n--job-handle-prefix="H:our farm"\n\n  # more\n--backlog=77 --threads=2\n')
    gearmands = "-R -t 8 --hashtable-buckets 100 --coredump -j 2 -w 0 -q builtin --keepalive --keepalive-idle -1"
    with (
        running_geartrain(f"--config-file={file}", "--job-handle-prefix=H:t", *gearmands.split()) as server,
        DaemonPeer(server.port) as peer,
    ):
        peer.send(pack_request(SUBMIT_JOB_BG, b"f", b"", b"x"))
        assert peer.receive() == Packet(JOB_CREATED, (b"H:t:1",))
        log = log_of(server)
    for option in ("--threads", "--round-robin", "--hashtable-buckets", "--coredump"):
        assert log.count(f"option_without_meaning option={option} ") == 1


def test_zero_retries_are_remarked_upon() -> None:
    with running_geartrain("--job-retries=0") as server:
        assert 'WARN  option_has_changed option="--job-retries 0"' in log_of(server)
    with running_geartrain() as server:
        assert "option_has_changed" not in log_of(server)


@pytest.mark.parametrize(("option", "mode"), [((), 0o600), (("--socket-mode=666",), 0o666)])
def test_a_unix_socket_has_the_mode_it_was_told(tmp_path: Path, option: tuple[str, ...], mode: int) -> None:
    path = tmp_path / "socket"
    with running_geartrain(f"--listen=unix:{path}", *option):
        assert path.stat().st_mode & 0o777 == mode


SECRET = "Sesame-77"


@pytest.mark.parametrize(
    "written",
    [
        'store = ["{url}"]', '[store]\nurl = "{url}"', 'stor = "{url}"', 'store = "{url}', "store = {url}",
        'listen = "{url}"', 'max_memory = "{url}"',
    ],
)  # fmt: skip
def test_no_message_about_a_file_tells_a_password(tmp_path: Path, written: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(written.format(url=f"postgresql://user:{SECRET}@127.0.0.1:1/db") + "\n")
    done = serve("--check-args", f"--config={file}", GEARTRAIN_STORE="")
    if not written.startswith("listen"):
        assert done.returncode == 1
        assert str(file) in done.stderr
    assert SECRET not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--ssl", "--ssl: connections are not encrypted here"),
        ("--ssl-key=/x", "--ssl-key is '/x': connections are not encrypted here"),
        ("-q libmemcached", "--queue-type is 'libmemcached': "),
        ("-r http", "--protocol is 'http': there is no HTTP"),
        ("--config-file=/missing", "--config-file is '/missing', which can't be read (No such file or directory)"),
        ("--port=many", "--port is 'many': it should be a valid integer"),
    ],
)
def test_what_can_not_be_honoured_is_refused(options: str, told: str) -> None:
    done = serve(*options.split(), "--check-args")
    assert done.returncode == 1
    assert done.stderr.startswith(f"geartrain: {told}")


def test_options_can_be_checked_without_serving() -> None:
    done = serve("--port=1", "--check-args")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_exit_codes_tell_a_typing_error_from_what_can_not_be_had() -> None:
    assert serve("--no-such-option").returncode == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve(f"--port={port}", "--listen=127.0.0.1")
    assert done.returncode == 1
    assert "it is already in use" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
@pytest.mark.parametrize("whose", ["the user's", "root's"])
def test_a_log_is_rotated_after_the_start_as_another_user(whose: str) -> None:
    """It says one thing, and the truth: reopened where the folder lets the user make a file, else not."""
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        if whose == "the user's":
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        log = folder / "log"
        with running_geartrain(f"--log-file={log}", "--user=nobody") as server:
            wait_until(lambda: log.exists() and " listening " in log.read_text(), "it listens")
            assert log.stat().st_uid == nobody.pw_uid
            server.process.send_signal(signal.SIGHUP)  # nothing was moved: the same file again
            wait_until(lambda: "log_reopened" in log.read_text(), "it is opened again")
            old = log.rename(folder / "old")
            server.process.send_signal(signal.SIGHUP)
            if whose == "the user's":
                wait_until(lambda: log.exists() and "log_reopened" in log.read_text(), "a new file")
                assert "log_not_reopened" not in old.read_text() + log.read_text()
            else:
                wait_until(lambda: "log_not_reopened" in old.read_text(), "it goes on with the old one")
                assert old.read_text().count("log_reopened") == 1
                assert not log.exists()
