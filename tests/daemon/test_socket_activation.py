"""Sockets that systemd opens and passes: by a parent that does what it does, and by its own systemd-socket-activate."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from servers import RunningServer, free_port, missing, needs, wait_until

PACKAGING = Path(__file__).parents[2] / "packaging"
TRANSPORTS = pytest.mark.parametrize("transport", ["auto", "asyncio"])

# What systemd does between fork and exec: the descriptors from 3 on, and the process that they are for. Those that
# stand in the way are moved first.
ACTIVATE = """
import fcntl, os, sys
given = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 50) for number in sys.argv[1].split(",")]
for place, number in enumerate(given, 3):
    os.dup2(number, place)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given)))
os.execv(sys.executable, [sys.executable, "-m", "geartrain", "serve", *sys.argv[2:]])
"""


def listening(
    family: socket.AddressFamily, address: tuple[str, int] | str, kind: int = socket.SOCK_STREAM
) -> socket.socket:
    opened = socket.socket(family, kind)
    opened.bind(address)
    if kind == socket.SOCK_STREAM:
        opened.listen()
    return opened


@contextlib.contextmanager
def activated(
    folder: Path, passed: Sequence[int], *options: str, names: str = "", store: str = "memory:"
) -> Iterator[subprocess.Popen[bytes]]:
    """A job server to which these descriptors are passed; whatever it prints is in ``folder``."""
    environment = {**os.environ, **({"LISTEN_FDNAMES": names} if names else {})}
    numbers = ",".join(map(str, passed))
    options = (f"--store={store}", f"--log-file={folder / 'log'}", *options)
    with (folder / "printed").open("wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, numbers, *options],
            pass_fds=passed, env=environment, stdout=printed, stderr=printed,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(10)


def refusal(folder: Path, passed: Sequence[int], *options: str, names: str = "") -> str:
    with activated(folder, passed, *options, names=names) as process:
        assert process.wait(20) == 1
    return (folder / "printed").read_text()


def ask(client: socket.socket, command: str = "version") -> bytes:
    client.settimeout(20)
    client.sendall(command.encode() + b"\n")
    return client.recv(1000)


def ask_tcp(address: tuple[str, int]) -> bytes:
    with socket.create_connection(address, timeout=20) as client:
        return ask(client)


def ask_unix(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        return ask(client)


@TRANSPORTS
def test_it_serves_what_is_passed_and_nothing_else(tmp_path: Path, transport: str) -> None:
    path = tmp_path / "socket"
    port = free_port()
    with (
        listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp,
        listening(socket.AF_UNIX, str(path)) as unix,
        activated(tmp_path, [tcp.fileno(), unix.fileno()], f"--port={port}", f"--transport={transport}") as process,
    ):
        assert ask_tcp(tcp.getsockname()).startswith(b"OK ")
        assert ask_unix(path).startswith(b"OK ")
        with pytest.raises(ConnectionRefusedError):  # the default of --listen, which nobody has asked for
            ask_tcp(("127.0.0.1", port))
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert path.exists(), "its file is systemd's, which still listens there"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_who_comes_while_it_starts_again_waits_and_is_served(tmp_path: Path) -> None:
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp:
        with activated(tmp_path, [tcp.fileno()]):
            assert ask_tcp(tcp.getsockname()).startswith(b"OK ")
        with socket.create_connection(tcp.getsockname()) as client, activated(tmp_path, [tcp.fileno()]):
            assert ask(client).startswith(b"OK ")


def test_an_http_socket_that_others_reach_needs_what_http_needs(tmp_path: Path) -> None:
    with listening(socket.AF_INET, ("0.0.0.0", 0)) as tcp:
        assert "can be reached from other machines" in refusal(tmp_path, [tcp.fileno()], names="http")


def test_names_tell_what_a_socket_is_for(tmp_path: Path) -> None:
    with (
        listening(socket.AF_INET, ("127.0.0.1", 0)) as http,
        listening(socket.AF_INET, ("127.0.0.1", 0)) as first,
        listening(socket.AF_INET, ("127.0.0.1", 0)) as second,
    ):
        passed = [http.fileno(), first.fileno(), second.fileno()]
        with activated(tmp_path, passed, names="http:gearman:geartrain.socket"):
            for one in (first, second):
                assert ask_tcp(one.getsockname()).startswith(b"OK ")
            with socket.create_connection(http.getsockname(), timeout=20) as client:
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        log = (tmp_path / "log").read_text()
        for one, is_served in ((http, False), (first, True), (second, True)):
            assert (f" listening address=127.0.0.1:{one.getsockname()[1]}\n" in log) is is_served


@pytest.mark.parametrize("dual", [True, False])
def test_what_listen_names_as_well_is_not_opened_twice(tmp_path: Path, dual: bool) -> None:
    """A port without an address is one socket of systemd's for IPv6 and IPv4, an address one of its own."""
    path = tmp_path / "socket"
    other = tmp_path / "other"
    try:
        tcp = socket.create_server(
            ("::" if dual else "127.0.0.1", 0), family=socket.AF_INET6 if dual else socket.AF_INET, dualstack_ipv6=dual
        )
    except OSError:
        missing("needs IPv6")
    port = tcp.getsockname()[1]
    listen = ["127.0.0.1", f"unix:{tmp_path}/./socket", f"unix:{other}", *(["loopback", "*"] if dual else [])]
    with tcp, listening(socket.AF_UNIX, str(path)) as unix:
        options = [f"--port={port}", *(f"--listen={text}" for text in listen)]
        with activated(tmp_path, [tcp.fileno(), unix.fileno()], *options):
            assert ask_tcp(("127.0.0.1", port)).startswith(b"OK ")
            assert ask_unix(path).startswith(b"OK ")
            wait_until(other.exists, "what was not passed is opened")
            assert ask_unix(other).startswith(b"OK ")
    assert path.exists()
    assert not other.exists()


def test_sockets_for_another_process_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that inherits the environment by mistake."""
    from geartrain import systemd

    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getppid()))
    assert systemd.sockets() == []
    monkeypatch.delenv("LISTEN_PID")
    assert systemd.sockets() == []


def test_a_daemon_that_detaches_takes_them_along(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp:
        options = ["--daemon", f"--pid-file={pid_file}"]
        with activated(tmp_path, [tcp.fileno()], *options) as process:
            assert process.wait(20) == 0, (tmp_path / "printed").read_text()
        try:
            assert ask_tcp(tcp.getsockname()).startswith(b"OK ")
        finally:
            os.kill(int(pid_file.read_text()), signal.SIGTERM)
            wait_until(lambda: not pid_file.exists(), "it ends")


def test_what_can_not_be_served_is_told(tmp_path: Path) -> None:
    with listening(socket.AF_INET, ("127.0.0.1", 0), socket.SOCK_DGRAM) as datagram:
        assert "it is no stream: its unit should say ListenStream=" in refusal(tmp_path, [datagram.fileno()])
    with listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp:
        with socket.create_connection(tcp.getsockname()) as connected:
            assert "its unit should say Accept=no" in refusal(tmp_path, [connected.fileno()], names="gearman")
        told = refusal(tmp_path, [tcp.fileno()], names="htpp")
        assert "has passed socket 'htpp' as descriptor 3" in told
        assert "FileDescriptorName=gearman or http" in told
    with (tmp_path / "file").open("w") as file:
        assert "on non-socket" in refusal(tmp_path, [file.fileno()])


def test_systemds_own_tool_starts_it_at_the_first_connection(tmp_path: Path) -> None:
    tool = needs("systemd-socket-activate", "systemd")
    port = free_port()
    path = tmp_path / "socket"
    command = [
        tool, "--fdname=gearman:gearman", f"--listen=127.0.0.1:{port}", f"--listen={path}",
        sys.executable, "-m", "geartrain", "serve", "--store=memory:", f"--log-file={tmp_path / 'log'}",
    ]  # fmt: skip
    # It passes on no more of its environment than a few names.
    source = [f"--setenv={name}" for name in ("PYTHONPATH", "GEARTRAIN_TRANSPORT", "HOME") if name in os.environ]
    with (tmp_path / "printed").open("wb") as printed:
        process = subprocess.Popen([*command[:1], *source, *command[1:]], stdout=printed, stderr=printed)
    try:
        wait_until(path.exists, "it listens")
        server = RunningServer("geartrain", port, process, tmp_path / "log")
        assert server.ask("version")[0].startswith("OK ")
        assert ask_unix(path).startswith(b"OK ")
        assert server.ask("getpid") == [f"OK {process.pid}"], "it has become the job server"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    assert path.exists()


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    tool = needs("systemd-analyze", "systemd")
    units = sorted(path.name for path in PACKAGING.glob("geartrain*") if path.suffix in (".service", ".socket"))
    assert units == ["geartrain-http.socket", "geartrain.service", "geartrain.socket"]
    for name in units:
        shutil.copy(PACKAGING / name, tmp_path)
    service = tmp_path / "geartrain.service"
    program = shutil.which("true") or "/bin/true"  # ours may not be where the unit has it
    service.write_text(service.read_text().replace("/opt/geartrain/bin/geartrain", program))
    done = subprocess.run([tool, "verify", *(str(tmp_path / name) for name in units)], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
