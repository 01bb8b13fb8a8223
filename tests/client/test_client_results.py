"""``result``: the end of any job, asked for by its handle or its unique key, with the real job server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from hands import Assigned, Hands, working

from geartrain.client import AdminClient, AsyncClient, Client, JobHandle
from geartrain.errors import (
    ConnectError,
    ConnectionLostError,
    JobFailedError,
    JobRaisedError,
    RemoteProtocolError,
    ServerError,
    TimedOutError,
    UnknownJobError,
)
from geartrain.wire.packets import WORK_EXCEPTION, WORK_FAIL
from servers import RunningServer, free_port, running_gearmand, running_geartrain, wait_until

Result = Callable[..., bytes]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_geartrain("--job-handle-prefix=H:t") as server:
        AdminClient(server.address).policy_set("kept*", results="1h", result_size="10MiB")
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


def result_of(kind: str, servers: str) -> Result:
    """``Client.result`` or ``AsyncClient.result`` of these servers, as a plain function."""

    def blocking(*arguments: object, **options: object) -> bytes:
        with Client(servers, answer_timeout=10) as client:
            return client.result(*arguments, **options)  # type: ignore[arg-type]

    def awaited(*arguments: object, **options: object) -> bytes:
        async def ask() -> bytes:
            async with AsyncClient(servers, answer_timeout=10) as client:
                return await client.result(*arguments, **options)  # type: ignore[arg-type]

        return asyncio.run(ask())

    return blocking if kind == "Client" else awaited


@pytest.fixture(params=["Client", "AsyncClient"])
def result(request: pytest.FixtureRequest, server: RunningServer) -> Result:
    return result_of(request.param, server.address)


@pytest.mark.parametrize("data", [b"", b"OK\r\n.\n", bytes(3_000_000)], ids=["empty", "lines", "large"])
def test_a_result_that_is_kept(server: RunningServer, client: Client, result: Result, data: bytes) -> None:
    with working(server, "kept", lambda hands, job: hands.complete(job, data)):
        handle = client.submit_background("kept", b"")
        assert result(handle) == data
    assert result(str(handle), timeout=0) == data
    assert result(bytes(handle), timeout=5) == data
    assert AdminClient(server.address).result(handle) == data


def test_a_foreground_result_is_kept_too(server: RunningServer, client: Client, result: Result) -> None:
    with working(server, "kept-fore"):
        job = client.submit("kept-fore", b"abc")
        assert job.result() == b"cba"
    assert result(job.handle) == b"cba"


def test_by_its_unique_key(server: RunningServer, client: Client, result: Result) -> None:
    name, unique = "kept two words\t%", b"a key\t%\xff\n" + os.urandom(8)
    with Hands(server, name) as hands:
        handle = client.submit_background(name, b"abc", unique=unique)
        with pytest.raises(TimedOutError):
            result(function=name, unique=unique, timeout=0)
        job = hands.take()
        assert job.handle == handle
        hands.complete(job, b"cba")
        assert result(function=name, unique=unique) == b"cba"
    with pytest.raises(UnknownJobError):
        result(function=name, unique="another")


def test_by_its_unique_key_in_a_namespace(server: RunningServer) -> None:
    with Client(server.address, namespace="kept-") as client, working(server, "kept-f"):
        client.submit_background("f", b"abc", unique="n")
        assert client.result(function="f", unique="n") == b"cba"


def test_a_job_that_runs_is_waited_for_beside_packets_in_flight(server: RunningServer) -> None:
    with Client(server.address) as client, Hands(server, "kept-slow") as hands, working(server, "quick"):
        handle = client.submit_background("kept-slow", b"")
        got: list[bytes] = []
        waits = threading.Thread(target=lambda: got.append(client.result(handle, timeout=20)))
        waits.start()
        for number in range(50):
            assert client.run("quick", b"%d" % number) == (b"%d" % number)[::-1]
        job = hands.take()
        assert client.status(handle).running
        assert not got
        hands.complete(job, b"late")
        waits.join(20)
        assert got == [b"late"]
        assert client.echo(b"still there") == b"still there"


def test_many_wait_on_one_loop(server: RunningServer) -> None:
    async def wait_for_all() -> list[bytes]:
        async with AsyncClient(server.address) as client:
            handles = [await client.submit_background("kept-many", b"%d" % number) for number in range(20)]
            waits = [asyncio.create_task(client.result(handle, timeout=20)) for handle in handles]
            await asyncio.sleep(0)
            with working(server, "kept-many"):
                return await asyncio.gather(*waits)

    assert asyncio.run(wait_for_all()) == [(b"%d" % number)[::-1] for number in range(20)]


def test_a_job_that_failed_raises_what_was_kept(server: RunningServer, client: Client, result: Result) -> None:
    def fail(hands: Hands, job: Assigned) -> None:
        if job.workload:
            hands.send(WORK_EXCEPTION, job.handle, job.workload)
        hands.send(WORK_FAIL, job.handle)

    with working(server, "kept-bad", fail):
        handle = client.submit_background("kept-bad", b"no\nluck")
        with pytest.raises(JobRaisedError, match="no\nluck") as raised:
            result(handle)
        assert raised.value.data == b"no\nluck"
        assert raised.value.handle == handle
        handle = client.submit_background("kept-bad", b"")
        with pytest.raises(JobFailedError):
            result(handle)


def test_a_job_that_does_not_end_is_not_waited_for_any_longer(
    server: RunningServer, client: Client, result: Result
) -> None:
    handle = client.submit_background("kept-never", b"")
    with pytest.raises(TimedOutError, match=r"the job H:t:\d+ has not ended within 0.05 s; it goes on"):
        result(handle, timeout=0.05)
    with pytest.raises(TimedOutError, match=r"has not ended yet; it goes on"):
        result(handle, timeout=0)
    assert client.status(handle).known
    assert AdminClient(server.address).cancel_job(handle)


def test_what_is_not_kept_is_told_with_its_remedy(server: RunningServer, client: Client, result: Result) -> None:
    with working(server, "plain"):
        handle = client.submit_background("plain", b"")
        wait_until(lambda: server.jobs_of("plain") == (0, 0), "the job has ended")
    for unknown in (handle, "H:t:1000000", b"nonsense"):
        with pytest.raises(UnknownJobError, match=r"to have results kept set a policy: geartrain policy set FUNCTION"):
            result(unknown)
    assert isinstance(UnknownJobError("UNKNOWN_JOB"), ServerError)


def test_a_job_that_is_cancelled_meanwhile_has_no_result(server: RunningServer, client: Client, result: Result) -> None:
    handle = client.submit_background("kept-cancelled", b"")
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            result(handle, timeout=20)
        except (UnknownJobError, JobFailedError) as error:
            errors.append(error)

    waits = threading.Thread(target=wait)
    waits.start()
    wait_until(lambda: len(AdminClient(server.address).workers()) >= 2, "it waits")
    assert AdminClient(server.address).cancel_job(handle)
    waits.join(20)
    assert len(errors) == 1


def test_of_several_servers_the_one_that_knows(server: RunningServer, client: Client) -> None:
    with running_geartrain("--job-handle-prefix=H:u") as second, working(server, "kept"):
        handle = client.submit_background("kept", b"abc", unique="somewhere")
        for kind in ("Client", "AsyncClient"):
            anywhere = result_of(kind, f"{second.address},{server.address}")
            assert anywhere(bytes(handle)) == b"cba"
            assert anywhere(function="kept", unique="somewhere") == b"cba"
            with pytest.raises(UnknownJobError):
                anywhere(b"H:x:1")
            with pytest.raises(UnknownJobError):
                anywhere(f"{second.address}//{bytes(handle).decode()}")
            half = result_of(kind, f"127.0.0.1:{free_port()},{server.address}")
            assert half(bytes(handle)) == b"cba"
            with pytest.raises(ConnectError):
                half(b"H:x:1")
        elsewhere = result_of("Client", second.address)
        assert elsewhere(handle) == b"cba"  # which says its server


def test_what_is_asked_must_be_one_job(result: Result) -> None:
    for given in ({}, {"function": "f"}, {"unique": "u"}, {"handle": "H:t:1", "function": "f", "unique": "u"}):
        with pytest.raises(TypeError, match="either a job's handle, or its function and unique key"):
            result(**given)


def test_another_job_server_keeps_no_results() -> None:
    with running_gearmand() as gearmand:
        for kind in ("Client", "AsyncClient"):
            with pytest.raises(ServerError, match="has to be a geartrain that has policies"):
                result_of(kind, gearmand.address)("H:x:1")


@contextlib.contextmanager
def answering(*pieces: bytes) -> Iterator[str]:
    """A server that answers one command by these pieces, each in a packet of its own, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peer.recv(1000)
                for piece in pieces:
                    peer.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        (b"", ConnectionLostError, "closed the connection instead of an answer"),
        (b"OK completed 5\nfour", ConnectionLostError, "closed the connection instead of an answer"),
        (b"OK completed many\n", RemoteProtocolError, "many"),
        (b"OK lost 2\nab", RemoteProtocolError, "OK lost 2"),
        (b"what?\r\n", RemoteProtocolError, "what"),
        (b"x" * 200, RemoteProtocolError, "xxx"),
        (b"ERR NO_ROOM Too+many\r\n", ServerError, "NO_ROOM: Too many"),
    ],
)
def test_answers_that_can_not_be_read(kind: str, answer: bytes, error: type[Exception], why: str) -> None:
    with answering(answer) as address, pytest.raises(error, match=why):
        result_of(kind, address)("H:x:1")


def test_a_result_above_the_limit_of_the_client_is_not_taken(server: RunningServer, client: Client) -> None:
    with working(server, "kept"), Client(server.address, max_packet=1000) as modest:
        assert len(modest.result(client.submit_background("kept", bytes(1000)))) == 1000
        with pytest.raises(RemoteProtocolError, match=r"1001 bytes is above the limit of 1000 \(max_packet\)"):
            modest.result(client.submit_background("kept", bytes(1001)))


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
def test_an_answer_may_come_in_pieces(kind: str) -> None:
    answer = b"OK completed 12\nOK\n.\nERR a\r\n"
    with answering(*(answer[at : at + 1] for at in range(len(answer)))) as address:
        assert result_of(kind, address)("H:x:1") == b"OK\n.\nERR a\r\n"


def test_a_handle_keeps_its_server_through_text(server: RunningServer, client: Client) -> None:
    with working(server, "kept"):
        handle = JobHandle.parse(str(client.submit_background("kept", b"xy")))
        assert client.result(handle) == b"yx"
