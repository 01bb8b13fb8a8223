"""A forked child has none of its parent's links, whatever it does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import pytest
from link_peers import Listener, listening

from geartrain.link import AsyncLink, BlockingLink

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@contextlib.contextmanager
def living_child() -> Iterator[None]:
    """A child that does nothing for as long as this lasts."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.pause()
        finally:
            os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def ends(peer: socket.socket) -> bool:
    return peer.recv(10) == b""


def test_the_peer_sees_the_end_of_a_blocking_link_while_a_child_lives(listener: Listener) -> None:
    link = BlockingLink.connect(listener.address)
    peer = listener.accept()
    with peer, living_child():
        # Not in good order, which would end it for the child as well: the parent has died.
        os.close(link._socket.detach())
        assert ends(peer)


def test_the_peer_sees_the_end_of_an_asyncio_link_while_a_child_lives(listener: Listener) -> None:
    async def main() -> None:
        link = await AsyncLink.connect(listener.address, lambda data: None, lambda error: None)
        peer = listener.accept()
        with peer, living_child():
            link.abort()
            assert await asyncio.to_thread(ends, peer)

    asyncio.run(main())


def test_what_a_child_sends_goes_nowhere_and_the_parent_goes_on(listener: Listener) -> None:
    async def main() -> None:
        came: asyncio.Queue[bytes] = asyncio.Queue()
        link = await AsyncLink.connect(listener.address, came.put_nowait, lambda error: None)
        blocking = await asyncio.to_thread(BlockingLink.connect, listener.address)
        with listener.accept() as peer, listener.accept() as other:
            pid = os.fork()
            if pid == 0:
                with contextlib.suppress(Exception):
                    link.send(b"child")
                    link._flush()
                with contextlib.suppress(Exception):
                    blocking.send(b"child")
                os._exit(3)
            assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1]) == 3
            link.send(b"parent")
            blocking.send(b"parent")
            for one in (peer, other):
                assert await asyncio.to_thread(one.recv, 100) == b"parent"
            peer.sendall(b"answer")
            assert await came.get() == b"answer"
        link.close()
        blocking.close()

    asyncio.run(main())
