"""The asyncio link against real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from link_peers import listening, silent_host

from certificates import tls_contexts
from geartrain.errors import ConnectError
from geartrain.link import Address, AsyncLink
from geartrain.link.asynchronous import HIGH_WATER
from servers import free_port

BIG = os.urandom(8 * 1024 * 1024)


Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on a new loop of the one kind and the other."""

    def run(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main)

    factory = asyncio.new_event_loop if request.param == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    return run


class Box:
    """Keeps what a link delivers."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def on_data(self, data: bytes) -> None:
        self.data += data
        self.chunks.put_nowait(data)


@asynccontextmanager
async def linked(tmp_path: Path, kind: str = "tcp") -> AsyncIterator[tuple[AsyncLink, Box, socket.socket]]:
    """A link, its box, and the peer's end of it as a socket that does not block."""
    path = str(tmp_path / "socket") if kind == "unix" else ""
    with listening(socket.AF_UNIX if path else socket.AF_INET, path) as listener:
        box = Box()
        link = await AsyncLink.connect(listener.address, box.on_data, box.lost.set_result)
        with listener.accept() as peer:
            peer.setblocking(False)
            yield link, box, peer
            link.close()


async def received(peer: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while len(data) < size and (more := await asyncio.wait_for(loop.sock_recv(peer, 1 << 20), 10)):
        data += more
    return bytes(data)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_bytes_go_both_ways(run: Run, kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path, kind) as (link, box, peer):
            link.send(b"hello")
            assert await received(peer, 5) == b"hello"
            await asyncio.get_running_loop().sock_sendall(peer, b"you")
            assert await asyncio.wait_for(box.chunks.get(), 10) == b"you"
            peer.close()
            assert await asyncio.wait_for(box.lost, 10) is None
            assert link.closed

    run(main())


def test_what_is_sent_in_one_turn_leaves_in_one_write(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path, "unix") as (link, _, peer):
            for _ in range(100):
                link.send(b"0123456789")
            link.send(b"")
            # A Unix socket gives out whole what was written at once; there is nothing before the turn ends.
            with pytest.raises(BlockingIOError):
                peer.recv(1)
            await asyncio.sleep(0)
            assert peer.recv(10_000) == b"0123456789" * 100

    run(main())


def test_drain_waits_for_a_slow_reader(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path) as (link, _, peer):
            await link.drain()
            link.send(BIG)
            assert len(BIG) > HIGH_WATER
            assert link.is_full
            draining = asyncio.create_task(link.drain())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not draining.done()
            assert await received(peer, len(BIG)) == BIG
            await asyncio.wait_for(draining, 10)
            assert not link.is_full

    run(main())


def test_the_end_of_the_connection_releases_who_drains(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path) as (link, box, peer):
            link.send(BIG)
            draining = asyncio.create_task(link.drain())
            await asyncio.sleep(0)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.close()
            await asyncio.wait_for(draining, 10)
            assert isinstance(await asyncio.wait_for(box.lost, 10), ConnectionError)
            link.send(b"into the void")

    run(main())


def test_closing_sends_what_is_gathered(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path) as (link, box, peer):
            link.send(b"last words")
            link.close()
            assert await received(peer, 100) == b"last words"
            assert await asyncio.wait_for(box.lost, 10) is None

    run(main())


def test_aborting_ends_at_once(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path) as (link, box, _):
            link.send(BIG)
            link.abort()
            await link.drain()
            await asyncio.wait_for(box.lost, 10)

    run(main())


def test_the_socket_is_tuned(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with linked(tmp_path) as (link, _, _):
            assert link._transport is not None
            sock = link._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    run(main())


def test_a_refusal_names_the_address_and_the_reason(run: Run) -> None:
    port = free_port()

    async def main() -> None:
        box = Box()
        for address in (Address("127.0.0.1", port), Address(path="/nowhere/at/all"), Address("a..b")):
            with pytest.raises(ConnectError, match=f"no job server at {address}: "):
                await AsyncLink.connect(address, box.on_data, box.lost.set_result)
        assert not box.lost.done()

    run(main())


def test_every_address_of_a_name_is_tried(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first does not answer, the second refuses, the third is there."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if type(loop).__module__ == "uvloop":
            pytest.skip("its methods can't be replaced")
        with listening() as listener, silent_host() as silent:
            hosts = [silent, ("127.0.0.2", listener.address.port), ("127.0.0.1", listener.address.port)]
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where) for where in hosts]

            async def getaddrinfo(*_: object, **__: object) -> list[Any]:
                return found

            monkeypatch.setattr(type(loop), "getaddrinfo", getaddrinfo)
            box = Box()
            address = Address("threefold.example", listener.address.port)
            link = await AsyncLink.connect(address, box.on_data, box.lost.set_result, timeout=1)
            link.send(b"x")
            with listener.accept() as peer:
                peer.setblocking(False)
                assert await received(peer, 1) == b"x"
            link.abort()

    run(main())


def test_encrypted_bytes_go_both_ways(run: Run, tmp_path: Path) -> None:
    server, client = tls_contexts(tmp_path)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server) as listener:
            box = Box()
            address = Address("127.0.0.1", listener.sockets[0].getsockname()[1])
            link = await AsyncLink.connect(address, box.on_data, box.lost.set_result, tls=client)
            link.send(BIG)
            while len(box.data) < len(BIG):
                await asyncio.wait_for(box.chunks.get(), 10)
            assert bytes(box.data) == BIG
            link.close()
            await asyncio.wait_for(box.lost, 10)

    run(main())
