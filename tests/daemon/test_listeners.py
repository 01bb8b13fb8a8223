"""Listeners: what may be written, what is opened, and how it is told when that can't be."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from geartrain.daemon.listeners import open_listeners, remove_unix_sockets, split_address
from geartrain.errors import ConfigError


@contextmanager
def opened(*written: str, port: int = 0) -> Iterator[list[socket.socket]]:
    listeners = open_listeners(written, port)
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.close()


def problem_of(*written: str, port: int = 0) -> str:
    with pytest.raises(ConfigError) as caught, opened(*written, port=port):
        pass
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host", ("host", 7)),
        ("host:8", ("host", 8)),
        ("*", ("*", 7)),
        ("*:8", ("*", 8)),
        ("[::1]", ("::1", 7)),
        ("[::1]:8", ("::1", 8)),
        ("fe80::1", ("fe80::1", 7)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
    ],
)
def test_addresses_are_read(text: str, address: tuple[str, int]) -> None:
    assert split_address(text, 7) == address


@pytest.mark.parametrize("text", ["", ":8", "a b", "[::1]8", "a/b", "tcp://h:8", "h:http", "h:65536", "h:-1"])
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--listen is "):
        split_address(text, 7)


def test_a_free_port_is_the_same_for_all_addresses() -> None:
    with opened("loopback") as listeners:
        assert {listener.getsockname()[0] for listener in listeners} <= {"127.0.0.1", "::1"}
        assert len({listener.getsockname()[1] for listener in listeners}) == 1


def test_an_address_that_is_meant_twice_is_opened_once() -> None:
    with opened("127.0.0.1", "loopback", "127.0.0.1") as listeners:
        hosts = [listener.getsockname()[0] for listener in listeners]
    assert sorted(hosts) == sorted(set(hosts))


def test_all_addresses_are_asked_for_by_a_star() -> None:
    with opened("*") as listeners:
        assert {listener.getsockname()[0] for listener in listeners} <= {"0.0.0.0", "::"}


def test_an_address_in_use_is_told_with_a_remedy() -> None:
    with opened("127.0.0.1") as [listener]:
        port = listener.getsockname()[1]
        problem = problem_of("127.0.0.1", port=port)
    assert problem.startswith(f"can't listen on 127.0.0.1:{port}: it is already in use")
    assert "choose another --port" in problem


def test_an_address_of_another_machine_is_told() -> None:
    assert problem_of("192.0.2.1").startswith("--listen is '192.0.2.1', and this machine has no such address")


def test_a_name_that_means_nothing_is_told() -> None:
    assert problem_of("no-such-host.invalid").startswith("--listen is 'no-such-host.invalid', and that name means no")


def test_what_was_opened_before_a_failure_is_closed_again(tmp_path: Path) -> None:
    with opened("127.0.0.1") as [listener]:
        taken = listener.getsockname()[1]
        problem_of(f"unix:{tmp_path}/socket", f"127.0.0.1:{taken}")
    assert not list(tmp_path.iterdir())


def test_a_unix_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with opened(f"unix:{path}"):
        pass  # closed, but its file is still there
    assert path.exists()
    with opened(f"unix:{path}"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    remove_unix_sockets([str(path)])
    assert not path.exists()


def test_a_unix_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with opened(f"unix:{path}"):
        assert problem_of(f"unix:{path}").startswith(f"can't listen on unix:{path}: it is already in use")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_file_is_never_taken_for_a_socket_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert problem_of(f"unix:{path}").startswith(f"can't listen on unix:{path}: ")
    assert path.read_text() == "data"


def test_a_unix_socket_in_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    problem = problem_of(f"unix:{tmp_path}/missing/socket")
    assert "No such file or directory" in problem
