"""HTTP connections: what counts as a request's head."""

from __future__ import annotations

import socket

import pytest

pytest.importorskip("httptools")

from servers import running_geartrain


def test_a_body_that_comes_with_its_head_is_no_head() -> None:
    with (
        running_geartrain("--http=127.0.0.1:0") as server,
        socket.create_connection(("127.0.0.1", server.http_port), timeout=10) as connection,
    ):
        answers = connection.makefile("rb")
        body = b"x" * 200_000
        head = b"POST /f HTTP/1.1\r\nHost: localhost\r\nX-Gearman-Background: true\r\nContent-Length: %d\r\n\r\n"
        for _ in range(3):
            connection.sendall(head % len(body) + body)
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            while answers.readline() != b"\r\n":
                pass
        connection.sendall(b"POST /f HTTP/1.1\r\nX: " + b"x" * 200_000)
        assert answers.readline().startswith(b"HTTP/1.1 431")
