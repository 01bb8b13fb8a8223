"""Plain submissions: read here exactly as a parser of HTTP reads them, or not at all; answered one after the other."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire_caller import Caller

pytest.importorskip("httptools")

import httptools

from geartrain.web.plain_request import MAX_PLAIN, MORE, OTHER, PlainReader
from geartrain.wire.packets import WORK_DATA, WORK_EXCEPTION, WORK_FAIL, pack_request
from servers import RunningServer, running_geartrain, wait_until

HEAD = b"POST /f HTTP/1.1\r\nHost: localhost\r\n"


def new_reader() -> PlainReader:
    return PlainReader(lambda target: target[1:], lambda host: True, lambda host, authorization, function: True)


# ── the reader, beside the parser that reads all others ─────────────────────────────────────────────────────────────


class Referee:
    """What httptools makes of the first request."""

    def __init__(self, data: bytes) -> None:
        self.url = self.body = b""
        self.headers: dict[bytes, bytes] = {}
        self.whole = self.chunked = False
        self.left = 0
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(data)
        self.method = self._parser.get_method()

    def on_url(self, url: bytes) -> None:
        assert not self.whole
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        assert name.lower() not in self.headers or name.lower() not in (b"host", b"content-length")
        self.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole = True


TOKENS = st.sampled_from(
    [b"Host: localhost", b"host:localhost", b"Content-Length: 3", b"content-length:0", b"Content-Length: 0003",
     b"Content-Length: 3, 3", b"Content-Length : 3", b"Content-Length: +3", b"Transfer-Encoding: chunked",
     b"Connection: keep-alive", b"Connection: close", b"X-Gearman-Unique: u", b"X-Gearman-Unique:", b" folded",
     b"X-Gearman-Background: true", b"X-Gearman-Priority: high", b"User-Agent: a: b", b"Accept: */*", b"Cookie: a",
     b"Expect: 100-continue", b"Accept:\x00", b"Accept: a\nHost: b", b"Accept: \xff", b"no colon", b"",
     b"Origin: http://a"]
)  # fmt: skip
STARTS = st.sampled_from(
    [b"POST /f HTTP/1.1", b"PUT /f HTTP/1.1", b"GET /f HTTP/1.1", b"POST /f HTTP/1.0", b"POST  /f HTTP/1.1",
     b"POST /f?a HTTP/1.1", b"POST //f HTTP/1.1", b"POST http://a/f HTTP/1.1", b"post /f HTTP/1.1",
     b"POST /%00 HTTP/1.1", b"POST /\xff HTTP/1.1", b"POST /f"]
)  # fmt: skip


@given(STARTS, st.lists(TOKENS, max_size=7), st.binary(max_size=8), st.sampled_from([b"\r\n", b"\n", b"\r"]))
def test_what_is_read_is_what_a_parser_reads(start: bytes, lines: list[bytes], rest: bytes, end: bytes) -> None:
    joined = b"".join(line + (b"\r\n" if at % 3 else end) for at, line in enumerate([start, *lines], 1))
    data = joined + b"\r\n" + rest
    reader = new_reader()
    size = reader.read(data, "")
    assert size == reader.read(data, "")  # what was learnt changes nothing
    if size <= 0:
        return
    referee = Referee(data[:size])
    assert referee.whole
    assert (referee.method, referee.url) == (start.split()[0], b"/" + reader.function)
    assert referee.body == reader.workload
    assert referee.headers.get(b"x-gearman-unique", b"-") == reader.unique
    assert b"transfer-encoding" not in referee.headers


@given(st.binary(max_size=40), st.integers(0, 200))
def test_a_request_is_read_when_it_is_whole(body: bytes, cut: int) -> None:
    data = HEAD + b"X-Gearman-Unique: u1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    reader = new_reader()
    assert reader.read(data[: min(cut, len(data) - 1)], "") == MORE
    assert reader.read(data + b"POST", "") == len(data)
    assert (reader.function, reader.unique, reader.workload) == (b"f", b"u1", body)


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: 100000\r\n\r\n",
        HEAD + b"Accept: " + b"x" * MAX_PLAIN,
        HEAD + b"Accept: x\r\n" * 30 + b"Content-Length: 0\r\n\r\n",
        HEAD + b"\r\n",
        b"POST /f HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"Host: localhost\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"Content-Length: 0\r\ntraceparent: 00-1-1-1\r\n\r\n",
    ],
)
def test_what_is_not_plain(data: bytes) -> None:
    assert new_reader().read(data, "") == OTHER


# ── connections ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_geartrain("--http=127.0.0.1:0") as running:
        yield running


@contextlib.contextmanager
def connected(server: RunningServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as connection:
        yield connection


def plain(body: bytes, *headers: bytes, function: bytes = b"f") -> bytes:
    lines = [b"POST /%b HTTP/1.1" % function, b"Host: localhost", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def answers(connection: socket.socket, count: int) -> list[tuple[bytes, bytes]]:
    """The status line and the body of so many answers."""
    file = connection.makefile("rb")
    found = []
    for _ in range(count):
        status = file.readline().strip()
        length = 0
        while line := file.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        found.append((status, file.read(length)))
    return found


def test_requests_that_come_at_once_are_answered_in_their_order(server: RunningServer) -> None:
    with connected(server) as connection, Caller(server) as worker:
        worker.can_do(b"f")
        connection.sendall(
            plain(b"1") + plain(b"2") + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + plain(b"3")
        )
        for body in (b"1", b"2", b"3"):
            job = worker.await_job()
            assert job.arguments[3] == body
            worker.complete(job, body * 3)
        assert [body for _, body in answers(connection, 4)][::3] == [b"111", b"333"]


def test_a_request_in_pieces(server: RunningServer) -> None:
    with connected(server) as connection, Caller(server) as worker:
        worker.can_do(b"f")
        request = plain(b"hello", b"X-Gearman-Unique: u")
        for data in (request, *(request[at : at + 1] for at in range(len(request)))):
            connection.sendall(data)
            if data == request:
                worker.complete(worker.await_job(), b"whole")
        worker.complete(worker.await_job(), b"pieces")
        assert [body for _, body in answers(connection, 2)] == [b"whole", b"pieces"]


def test_a_client_that_goes_takes_its_job_along(server: RunningServer) -> None:
    with connected(server) as connection:
        connection.sendall(plain(b"x"))
        wait_until(lambda: server.jobs_of("f") == (1, 0), "the job waits")
    wait_until(lambda: server.jobs_of("f")[0] == 0, "the job is gone")


def test_a_large_result_for_a_client_that_reads_late(server: RunningServer) -> None:
    result = bytes(range(256)) * 40_000
    with connected(server) as connection, Caller(server) as worker:
        worker.can_do(b"f")
        connection.sendall(plain(b"1") + plain(b"2"))
        worker.complete(worker.await_job(), result)
        file = connection.makefile("rb")
        while file.readline().strip():
            pass
        assert file.read(len(result)) == result
        worker.complete(worker.await_job(), b"small")
        while file.readline().strip():
            pass
        assert file.read(5) == b"small"


def test_ends_that_are_no_result(server: RunningServer) -> None:
    with connected(server) as connection, Caller(server) as worker:
        worker.can_do(b"f")
        connection.sendall(plain(b"1") + plain(b"2") + plain(b"3"))
        job = worker.await_job()
        worker.send(pack_request(WORK_DATA, job.arguments[0], b"some "))
        worker.complete(job, b"more")
        worker.send(pack_request(WORK_EXCEPTION, worker.await_job().arguments[0], b"broken"))
        worker.send(pack_request(WORK_FAIL, worker.await_job().arguments[0]))
        (_, first), (second, second_body), (third, _) = answers(connection, 3)
        assert first == b"some more"
        assert second == third == b"HTTP/1.1 500 Internal Server Error"
        assert b'"broken"' in second_body


def test_a_job_that_does_not_end_in_time() -> None:
    with running_geartrain("--http=127.0.0.1:0", "--http-timeout=1") as server, connected(server) as connection:
        connection.sendall(plain(b"x") + plain(b"", b"X-Gearman-Background: true"))
        (late, body), (after, _) = answers(connection, 2)
        assert late == b"HTTP/1.1 504 Gateway Timeout"
        assert b"not-in-time" in body
        assert after == b"HTTP/1.1 200 OK"
        assert server.jobs_of("f") == (1, 0)  # the one in the background


def test_a_job_server_that_stops_says_so(server: RunningServer) -> None:
    with connected(server) as connection:
        connection.sendall(plain(b"x"))
        wait_until(lambda: server.jobs_of("f") == (1, 0), "the job waits")
        server.process.terminate()
        ((status, body),) = answers(connection, 1)
        assert status == b"HTTP/1.1 503 Service Unavailable"
        assert b"stopping" in body


def test_what_waits_for_its_turn_is_bounded_over_all() -> None:
    options = ("--http=127.0.0.1:0", "--max-unsent-total=2m")
    with running_geartrain(*options) as server, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(server)) for _ in range(40)]
        many = plain(b"x" * 1000) * 200
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.settimeout(0.2)
                connection.sendall(many)
        wait_until(lambda: "peer_aborted" in server.log.read_text(), "some are dropped")
        with connected(server) as another:
            another.sendall(plain(b"", b"X-Gearman-Background: true"))
            assert answers(another, 1)[0][0] == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("headers", [(), (b"Cookie: a",)], ids=["plain", "other"])
def test_results_that_are_not_read_are_bounded_over_all(headers: tuple[bytes, ...]) -> None:
    options = ("--http=127.0.0.1:0", "--max-unsent-total=64m")
    with running_geartrain(*options) as server, contextlib.ExitStack() as stack, Caller(server) as worker:
        worker.can_do(b"f")
        for number in range(12):
            connection = stack.enter_context(connected(server))
            connection.sendall(plain(b"%d" % number, *headers))
            worker.complete(worker.await_job(), bytes(16 * 2**20))
        wait_until(lambda: "peer_aborted" in server.log.read_text(), "some are dropped")


@pytest.mark.parametrize("headers", [(), (b"Cookie: a",)], ids=["plain", "other"])
def test_data_that_is_collected_is_bounded_over_all(headers: tuple[bytes, ...]) -> None:
    options = ("--http=127.0.0.1:0", "--max-unsent-total=64m")
    with running_geartrain(*options) as server, contextlib.ExitStack() as stack:
        for number in range(12):
            worker = stack.enter_context(Caller(server))
            worker.can_do(b"f")
            connection = stack.enter_context(connected(server))
            connection.sendall(plain(b"%d" % number, *headers))
            job = worker.await_job()
            for _ in range(16):
                worker.send(pack_request(WORK_DATA, job.arguments[0], bytes(2**20)))
        wait_until(lambda: "peer_aborted" in server.log.read_text(), "some are dropped")
