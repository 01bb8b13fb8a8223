"""The administrator's client against real job servers, and against answers that only a strange one gives."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from hands import Hands

from conftest import STARTERS
from geartrain.client import AdminClient, Client, FunctionStatus, PriorityStatus
from geartrain.errors import (
    ConnectError,
    ConnectionLostError,
    LocalProtocolError,
    QueueFullError,
    RemoteProtocolError,
    ServerError,
    TimedOutError,
)
from geartrain.link import Address
from geartrain.wire.packets import PRE_SLEEP, SET_CLIENT_ID
from servers import RunningServer, free_port, wait_until


@pytest.fixture
def admin(server: RunningServer) -> AdminClient:
    return AdminClient(server.address)


def status_of(admin: AdminClient, function: str) -> FunctionStatus | None:
    return next((row for row in admin.status() if row.function == function), None)


def test_status_and_priorities(server: RunningServer, admin: AdminClient) -> None:
    with Client(server.address) as client, Hands(server, "busy") as hands:
        hands.look()
        for priority in ("high", "low", "low", "normal"):
            client.submit_background("busy", priority=priority)
        row = status_of(admin, "busy")
        assert row == FunctionStatus("busy", total=4, running=0, workers=1)
        hands.take()
        row = status_of(admin, "busy")
        assert row == FunctionStatus("busy", total=4, running=1, workers=1)
        assert row.queued == 3
        assert PriorityStatus("busy", high=0, normal=1, low=2, workers=1) in admin.priority_status()


def test_workers(server: RunningServer, admin: AdminClient) -> None:
    with Hands(server, "one", "two") as hands, Client(server.address) as client:
        hands.send(SET_CLIENT_ID, b"left-hand")
        client.echo()
        hands.look()
        peers = admin.workers()
        worker = next(peer for peer in peers if peer.id == "left-hand")
        assert set(worker.functions) == {"one", "two"}
        assert worker.host == "127.0.0.1"
        assert worker.server == Address("127.0.0.1", server.port)
        assert any(peer.functions == () and peer.id == "-" for peer in peers)


def test_jobs_and_their_uniques(server: RunningServer, admin: AdminClient) -> None:
    with Client(server.address) as client:
        background = client.submit_background("listed", unique="a key")
        foreground = client.submit("listed")
        client.echo()
        rows = {bytes(row.handle): row for row in admin.show_jobs()}
        assert foreground.handle is not None
        assert rows[bytes(background)].is_background
        assert not rows[bytes(foreground.handle)].is_background
        assert rows[bytes(background)].handle.address == background.address
        assert not rows[bytes(background)].is_ignored
        assert rows[bytes(background)].retries == 0
        assert "a key" in admin.show_unique_jobs()
        assert admin.cancel_job(background)
        assert admin.cancel_job(str(foreground.handle))
        assert not admin.cancel_job(b"H:nobody:1")
        assert foreground.wait(20)


def test_facts_about_the_server(server: RunningServer, admin: AdminClient) -> None:
    address = Address("127.0.0.1", server.port)
    assert admin.getpid() == {address: server.process.pid}
    assert list(admin.version()) == [address]
    assert admin.version(server.address)[address]
    assert admin.verbose()[address].isupper()


def test_functions_are_created_limited_and_dropped(server: RunningServer, admin: AdminClient) -> None:
    admin.create_function("made")
    assert status_of(admin, "made") == FunctionStatus("made", 0, 0, 0)
    admin.max_queue("made", 1)
    with Client(server.address) as client:
        client.submit_background("made")
        with pytest.raises(QueueFullError):
            client.submit_background("made")
        admin.max_queue("made", high=3)
        client.submit_background("made")
    admin.max_queue("made")
    with Hands(server, "made") as hands:
        hands.look()
        with pytest.raises(ServerError, match="there are still connected workers") as caught:
            admin.drop_function("made")
        assert caught.value.code == "ERR"
    wait_until(lambda: (status_of(admin, "made") or FunctionStatus("", 0, 0, 9)).workers == 0, "the worker is gone")
    admin.drop_function("made")
    assert status_of(admin, "made") is None
    with pytest.raises(ServerError, match="function not found"):
        admin.drop_function("made")


def test_several_servers_are_added_up(server: RunningServer) -> None:
    with STARTERS[server.kind]() as second:
        both = AdminClient([server.address, second.address])
        for one in (server, second):
            with Client(one.address, prefix="team") as client:
                client.submit_background("sum", unique=one.address)
        with Hands(second, "team\tsum") as hands:
            hands.send(PRE_SLEEP)
            hands.hear()
            shown = "team\\tsum" if server.kind == "geartrain" else "team\tsum"
            assert status_of(both, shown) == FunctionStatus(shown, total=2, running=0, workers=1)
        assert len([row for row in both.show_jobs() if row.is_background]) >= 2
        assert {server.address, second.address} <= set(both.show_unique_jobs())
        assert len(set(both.getpid().values())) == 2
        assert len(both.getpid(second.address)) == 1
        both.create_function("everywhere")
        assert all("everywhere" in {row.function for row in both.status(one.address)} for one in (server, second))


def test_names_that_the_text_protocol_can_not_say_are_refused(admin: AdminClient) -> None:
    for name in ("", "two words", "line\nbreak", b"nul\0"):
        with pytest.raises(LocalProtocolError, match="white space"):
            admin.create_function(name)
    with pytest.raises(ValueError, match="-1 jobs makes no sense"):
        admin.max_queue("f", -1)


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[AdminClient]:
    """A server that answers one command by ``answer``, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as peer:
                peer.recv(1000)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield AdminClient(f"127.0.0.1:{listener.getsockname()[1]}", timeout=10)
        thread.join()


@pytest.mark.parametrize(
    ("answer", "ask", "error", "why"),
    [
        (b"", AdminClient.version, ConnectionLostError, "closed the connection"),
        (b"f\t1\t2\t3\n", AdminClient.status, ConnectionLostError, "closed the connection"),
        (b"f\t1\tmany\t3\n.\n", AdminClient.status, RemoteProtocolError, "many"),
        (b"f\t1\n.\n", AdminClient.status, RemoteProtocolError, "can't be read"),
        (b"nonsense\n.\n", AdminClient.workers, RemoteProtocolError, "nonsense"),
        (b"what?\r\n", AdminClient.version, RemoteProtocolError, "what"),
        (
            b"ERR UNKNOWN_COMMAND Unknown+server+commandx\r\n",
            AdminClient.status,
            ServerError,
            "Unknown server commandx",
        ),
    ],
)
def test_answers_that_can_not_be_read(
    answer: bytes, ask: Callable[[AdminClient], object], error: type[Exception], why: str
) -> None:
    with answering(answer) as admin, pytest.raises(error, match=why):
        ask(admin)


def test_a_server_that_is_not_there_or_silent() -> None:
    with pytest.raises(ConnectError, match="connection refused"):
        AdminClient(f"127.0.0.1:{free_port()}").status()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        admin = AdminClient(f"127.0.0.1:{listener.getsockname()[1]}", timeout=0.05)
        with pytest.raises(TimedOutError, match="did not answer 'status' within"):
            admin.status()
    assert repr(AdminClient("a,b:1")) == "<AdminClient of a:4730, b:1>"
