"""The transport around epoll, where it is a matter of that: what fails within it, and what many connections leave.

What holds for both transports is tried with both.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import pytest
from daemon_within import within

from geartrain.daemon.daemon import Daemon
from geartrain.daemon.extension import Extension, Host
from geartrain.daemon.transport import has_epoll
from geartrain.jobserver import Origin
from geartrain.wire.packets import ECHO_REQ, ECHO_RES, pack_request, pack_response
from servers import PATIENCE, running_geartrain

if TYPE_CHECKING:
    from geartrain.daemon._epoll import Poll
    from geartrain.daemon.epoll import EpollLoop

only_epoll = pytest.mark.skipif(not has_epoll(), reason="_epoll.c is not compiled here")
both = pytest.mark.parametrize("transport", [pytest.param("epoll", marks=only_epoll), "asyncio"])


async def echo(port: int, text: bytes) -> bytes:
    """What a new connection gets for it; nothing if it is closed at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(pack_request(ECHO_REQ, text))
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 5)
    except OSError:
        return b""
    finally:
        writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


class Broken:
    """An outlet that can't write."""

    unread = 0

    def __init__(self, host: Host) -> None:
        self.host = host
        self.peer = host.connect(self, Origin("broken", -1))
        self.dropped = asyncio.Event()

    def write(self) -> None:
        raise RuntimeError("this outlet is broken")

    def abort(self) -> None:
        self.host.lost(self.peer)
        self.dropped.set()

    def drain_close(self, seconds: float) -> None:
        raise RuntimeError("this outlet can't be closed")


@both
def test_an_outlet_that_fails_is_dropped_and_the_others_have_their_output(transport: str) -> None:
    async def act(daemon: Daemon, port: int) -> None:
        complaints: list[dict[str, Any]] = []
        daemon.loop.set_exception_handler(lambda loop, context: complaints.append(context))
        for _ in range(3):
            broken = Broken(daemon)
            daemon.open_iteration()
            daemon.receive(broken.peer, pack_request(ECHO_REQ, b"never heard"))
            assert await echo(port, b"heard") == pack_response(ECHO_RES, b"heard")
            await asyncio.wait_for(broken.dropped.wait(), 5)
        assert [str(each["exception"]) for each in complaints] == ["this outlet is broken"] * 3

    within(act, transport=transport)


@both
def test_an_outlet_that_cannot_be_closed_does_not_keep_the_job_server_from_leaving(transport: str) -> None:
    class LastWord(Extension):
        stopped = False

        def stop(self, seconds: float) -> None:
            self.stopped = True

    async def act(daemon: Daemon, port: int) -> None:
        daemon.loop.set_exception_handler(lambda loop, context: None)
        broken.append(Broken(daemon))

    broken: list[Broken] = []
    extension = LastWord()
    within(act, extension, transport=transport)
    assert broken[0].dropped.is_set()
    assert extension.stopped


@both
def test_an_error_at_the_end_of_an_iteration_is_told_and_the_job_server_goes_on(transport: str) -> None:
    async def act(daemon: Daemon, port: int) -> None:
        complaints: list[dict[str, Any]] = []
        daemon.loop.set_exception_handler(lambda loop, context: complaints.append(context))
        for _ in range(3):
            daemon.server.event("an event that no table knows", None, {})
            assert await echo(port, b"heard") == pack_response(ECHO_RES, b"heard")
            assert await echo(port, b"again") == pack_response(ECHO_RES, b"again")
        assert [type(each["exception"]) for each in complaints] == [KeyError] * 3

    within(act, transport=transport)


@both
def test_an_iteration_that_cannot_be_opened_well_ends_all_the_same(transport: str) -> None:
    async def act(daemon: Daemon, port: int) -> None:
        tick = daemon._tick

        def fail(now: float, wall: float) -> None:
            daemon._tick = tick
            raise RuntimeError("what is due can't be done")

        daemon._tick = fail
        with pytest.raises(RuntimeError, match="what is due"):
            daemon.open_iteration()
        assert await echo(port, b"heard") == pack_response(ECHO_RES, b"heard")

    within(act, transport=transport)


@both
def test_a_connection_that_cannot_be_begun_is_closed_and_its_descriptor_is_free(transport: str) -> None:
    async def act(daemon: Daemon, port: int) -> None:
        complaints: list[dict[str, Any]] = []
        daemon.loop.set_exception_handler(lambda loop, context: complaints.append(context))
        tune = daemon.tune

        def fail(connected: socket.socket) -> None:
            raise RuntimeError("this connection can't be tuned")

        daemon.tune = fail  # type: ignore[method-assign]
        for _ in range(5):
            assert await echo(port, b"unheard") == b""
        assert [str(each["exception"]) for each in complaints] == ["this connection can't be tuned"] * 5
        daemon.tune = tune  # type: ignore[method-assign]
        assert not daemon.connections
        for _ in range(5):
            assert await echo(port, b"heard") == pack_response(ECHO_RES, b"heard")

    within(act, transport=transport)


@both
def test_the_longest_times_of_keepalive_are_as_good_as_any(transport: str) -> None:
    options = ("--keepalive-idle=32767", "--keepalive-interval=32767", "--keepalive-count=127")
    with running_geartrain(f"--transport={transport}", *options) as server:
        assert asyncio.run(echo(server.port, b"heard")) == pack_response(ECHO_RES, b"heard")


@only_epoll
def test_what_the_epoll_does_not_take_is_lost_at_once() -> None:
    """A file stands for a socket for which the kernel has no room."""

    class Protocol:
        lost: Exception | None = None

        def connection_lost(self, error: Exception | None) -> None:
            self.lost = error

    async def act(daemon: Daemon, port: int) -> None:
        protocol = Protocol()
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
        cast("EpollLoop", daemon.loop).poll.add(descriptor, False).start(protocol, object())
        await asyncio.sleep(0)
        assert isinstance(protocol.lost, PermissionError)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
        assert await echo(port, b"heard") == pack_response(ECHO_RES, b"heard")

    within(act, transport="epoll")


MIB = 1 << 20


async def until(condition: Callable[[], bool], what: str) -> None:
    """Return as soon as ``condition()`` holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        await asyncio.sleep(0.01)


@only_epoll
def test_a_place_is_free_again_however_its_packet_is_given_up() -> None:
    packet = pack_request(ECHO_REQ, bytes(MIB))

    async def begin(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(packet[: 100 * 1024])
        return reader, writer

    async def act(daemon: Daemon, port: int) -> None:
        poll = cast("EpollLoop", daemon.loop).poll

        # The peer closes its side, all of it, or resets it.
        for end in (asyncio.StreamWriter.write_eof, asyncio.StreamWriter.close, reset):
            _, writer = await begin(port)
            await until(lambda: poll.places == MIB, "a place")
            end(writer)
            await until(lambda: poll.places == 0, "no place")
            writer.close()
        # It is too slow, and goes on after it was told so.
        reader, writer = await begin(port)
        await until(lambda: poll.places == MIB, "a place")
        assert b"TIMEOUT" in await reader.read()
        writer.write(packet[100 * 1024 :])
        await until(lambda: poll.places == 0, "no place")
        writer.close()
        # The job server stops: see below.
        polls.append(poll)
        kept.append(await begin(port))
        await until(lambda: poll.places == MIB, "a place")

    polls: list[Poll] = []
    kept: list[object] = []
    within(act, transport="epoll", packet_timeout="1")
    assert [poll.places for poll in polls] == [0]


@only_epoll
def test_when_all_places_are_taken_packets_come_in_pieces() -> None:
    async def act(daemon: Daemon, port: int) -> None:
        poll = cast("EpollLoop", daemon.loop).poll
        packets = [pack_request(ECHO_REQ, bytes([number]) * 3 * MIB) for number in range(30)]
        peers = [await asyncio.open_connection("127.0.0.1", port) for _ in packets]
        for (_, writer), packet in zip(peers, packets, strict=True):
            writer.write(packet[:MIB])
            await writer.drain()
        await until(lambda: poll.places == 21 * 3 * MIB, "as many as there may be")
        for (reader, writer), packet in zip(peers, packets, strict=True):
            writer.write(packet[MIB:])
            answer = await reader.readexactly(len(packet))
            assert answer == pack_response(ECHO_RES, packet[12:])
            writer.close()
        assert poll.places == 0

    within(act, transport="epoll")
