"""What no client should send over HTTP: each has one answer, and harms nobody else."""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Iterator

import pytest
from http_client import Http

pytest.importorskip("httptools")

from geartrain.web.protocol import MAX_HEAD, MAX_HEADERS, MAX_PIPELINED
from servers import RunningServer, running_geartrain, wait_until
from wire_caller import Caller

HEAD = b"POST /f HTTP/1.1\r\nHost: localhost\r\n"
BACKGROUND = b"X-Gearman-Background: true\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_geartrain("--http=127.0.0.1:0", "--max-packet=1MiB", "--packet-timeout=1") as server:
        yield server


@pytest.fixture(autouse=True)
def harmless(server: RunningServer) -> Iterator[None]:
    """Whatever was sent, others are served, over both protocols, and the log tells of no failure inside."""
    yield
    with Caller(server) as worker:
        worker.can_do(b"echo")
        http = Http(server.http_port)
        http.begin("POST", "/echo", b"still here")
        job = worker.await_job()
        worker.complete(job, job.arguments[3])
        assert http.end().body == b"still here"
    assert "Traceback" not in server.log.read_text()
    assert "http_failed" not in server.log.read_text()


def connect(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.http_port), timeout=30)


def all_of(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def told(server: RunningServer, sent: bytes) -> tuple[int, str]:
    """The status and the kind of problem with which a connection is closed that sends this."""
    with connect(server) as connection:
        connection.sendall(sent)
        answer = all_of(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), answer
    assert b"connection: close" in head.lower(), head
    return int(head[9:12]), json.loads(body)["type"].removeprefix("/problems#")


@pytest.mark.parametrize(
    "sent",
    [
        b"\0REQ\0\0\0\x10\0\0\0\x04ping",
        b"status\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(50),  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: +5\r\n\r\nhello",
        HEAD + b"Content-Length: -5\r\n\r\nhello",
        HEAD + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
        HEAD + b"Content-Length : 5\r\n\r\nhello",
        HEAD + b" folded: value\r\n\r\n",
        HEAD + b"a b: c\r\n\r\n",
        HEAD + b"name\r\n\r\n",
        HEAD + b"name: a\0b\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        b"POST /f HTTP/1.1\nHost: localhost\r\n\r\n",
        b"POST /\x01f HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /f HTTP/9.9\r\nHost: localhost\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[-40:]),
)
def test_what_is_not_http_is_refused_and_the_connection_closed(server: RunningServer, sent: bytes) -> None:
    status, kind = told(server, sent)
    assert (status, kind) in ((400, "not-http"), (400, "cut-off")), (status, kind)


def test_heads_have_a_size(server: RunningServer) -> None:
    assert told(server, HEAD + b"name: " + b"x" * MAX_HEAD) == (431, "head-too-large")
    assert told(server, b"POST /" + b"x" * (MAX_HEAD + 1)) == (431, "head-too-large")
    many = b"".join(b"name-%d: value\r\n" % number for number in range(MAX_HEADERS + 1))
    assert told(server, HEAD + many + b"\r\n") == (431, "too-many-headers")


def test_bodies_have_a_size(server: RunningServer) -> None:
    size = (1 << 20) + 1
    assert told(server, HEAD + b"Content-Length: %d\r\n\r\n" % size) == (413, "too-large")
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    with connect(server) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(1000):
                connection.sendall(chunk)
        except ConnectionError:
            pass
        else:
            pytest.fail("a body without end was taken")


def test_a_body_that_does_not_come(server: RunningServer) -> None:
    assert told(server, HEAD + b"Content-Length: 5\r\n\r\nhel") == (408, "too-slow")


def test_a_body_that_comes_too_slowly(server: RunningServer) -> None:
    with connect(server) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        began = time.monotonic()
        while not select.select([connection], [], [], 0.05)[0]:
            connection.sendall(b"x")
            assert time.monotonic() < began + 20
        assert all_of(connection).startswith(b"HTTP/1.1 408 ")


def test_a_client_that_goes_in_the_middle_of_its_body(server: RunningServer) -> None:
    for sent in (HEAD, HEAD + b"Content-Length: 5\r\n\r\nhel", HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel"):
        with connect(server) as connection:
            connection.sendall(sent)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert server.jobs_of("f") == (0, 0)


def test_a_head_that_does_not_come() -> None:
    with running_geartrain("--http=127.0.0.1:0") as server, connect(server) as silent, connect(server) as slow:
        began = time.monotonic()
        slow.sendall(HEAD)
        assert all_of(silent) == b""
        assert all_of(slow).startswith(b"HTTP/1.1 408 ")
        assert 9 < time.monotonic() - began < 30


def test_requests_without_end_on_one_connection(server: RunningServer) -> None:
    request = HEAD + BACKGROUND + b"Content-Length: 0\r\n\r\n"
    with connect(server) as connection:
        connection.sendall(request * (MAX_PIPELINED // 2))
        data = b""
        while data.count(b"JOB_CREATED") < MAX_PIPELINED // 2:
            data += connection.recv(65536)
    with connect(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3000)
        assert b"/problems#too-many-requests" in all_of(connection)


def test_a_thousand_idle_connections(server: RunningServer) -> None:
    idle = [connect(server) for _ in range(1000)]
    try:
        began = time.monotonic()
        answer = Http(server.http_port).ask("POST", "/f", b"", {"X-Gearman-Background": "true"})
        assert answer.status == 200
        assert time.monotonic() - began < 5
    finally:
        for connection in idle:
            connection.close()


def test_connections_beyond_their_number_are_closed() -> None:
    with running_geartrain("--http=127.0.0.1:0", "--http-max-connections=5") as server:
        port = server.http_port
        held = [Http(port) for _ in range(5)]
        for http in held:
            assert http.ask("POST", "/f", b"", {"X-Gearman-Background": "true"}).status == 200
        with connect(server) as sixth:
            assert all_of(sixth) == b""
        held[0].close()

        def is_served() -> bool:
            with connect(server) as again:
                again.sendall(HEAD + BACKGROUND + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
                return b" 200 OK" in all_of(again)

        wait_until(is_served, "there is room again")


def test_a_client_that_does_not_read(server: RunningServer) -> None:
    """Its job's result waits in the kernel and in a bounded buffer; others go on."""
    with Caller(server) as worker, connect(server) as lazy:
        worker.can_do(b"large")
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.sendall(b"POST /large HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        job = worker.await_job()
        worker.complete(job, bytes(1_000_000))
        worker.fence()


def test_no_host_and_two_hosts(server: RunningServer) -> None:
    for hosts in (b"", b"Host: localhost\r\nHost: localhost\r\n"):
        with connect(server) as connection:
            connection.sendall(b"POST /f HTTP/1.1\r\n" + hosts + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
            assert all_of(connection)[9:12] in (b"400", b"421")
