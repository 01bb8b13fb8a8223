"""A peer without a socket, beside a real worker over TCP: the same packets, the same rules, the same back-pressure."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from geartrain.daemon.config import Config
from geartrain.daemon.daemon import Daemon
from geartrain.daemon.extension import Extension, Host
from geartrain.daemon.in_process import InProcessPeer
from geartrain.jobserver.outbox import MAX_UNREAD_OUTPUT
from geartrain.wire import packets as p
from geartrain.wire.packets import pack_request
from geartrain.worker import AssignedJob, AsyncWorker


class Recorder(Extension):
    """An extension that notes what it is told, and is owed something until it is told to give up."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.is_owed = False

    def start(self, host: Host) -> None:
        self.told.append("start")

    def reload(self) -> None:
        self.told.append("reload")

    def flush(self) -> None:
        if self.told[-1] != "flush":
            self.told.append("flush")

    @property
    def is_drained(self) -> bool:
        return not self.is_owed

    def leave(self) -> None:
        self.told.append("leave")

    def give_up(self) -> None:
        self.told.append("give up")

    def stop(self, seconds: float) -> None:
        self.told.append("stop")


def within(act: Callable[[Daemon, int], Awaitable[None]], *extensions: Extension) -> None:
    """A daemon in this process, at a port, and what is to be done with it."""

    async def run() -> None:
        config = Config.load({"listen": ["127.0.0.1"], "port": 0, "store": "memory:", "stop_timeout": "0.2"})
        daemon = Daemon(config, extensions=extensions)
        sockets: list[socket.socket] = config.sockets()
        port = sockets[0].getsockname()[1]
        await daemon.start(sockets)
        serving = asyncio.create_task(daemon.run())
        try:
            await asyncio.wait_for(act(daemon, port), 20)
        finally:
            daemon.stop("the test is over")
            await asyncio.wait_for(serving, 10)

    asyncio.run(run())


def test_a_job_is_submitted_in_process_and_done_over_tcp() -> None:
    async def act(daemon: Daemon, port: int) -> None:
        worker = AsyncWorker(f"127.0.0.1:{port}")

        @worker.function("reverse")
        async def reverse(job: AssignedJob) -> bytes:
            return job.workload[::-1]

        peer = InProcessPeer(daemon)
        peer.send(pack_request(p.SUBMIT_JOB, b"reverse", b"", b"hello"))
        created = await peer.receive()
        assert created.type == p.JOB_CREATED
        await worker.start()
        try:
            done = await peer.receive()
            assert (done.type, done.arguments) == (p.WORK_COMPLETE, (*created.arguments, b"olleh"))
        finally:
            worker.stop()
            await worker.join()
        assert peer.peer in daemon.server.peers
        peer.close()
        assert peer.peer not in daemon.server.peers

    within(act)


def test_what_it_does_not_receive_keeps_its_requests_waiting() -> None:
    async def act(daemon: Daemon, port: int) -> None:
        peer = InProcessPeer(daemon)
        count, size = 100, 100_000
        peer.send(pack_request(p.ECHO_REQ, b"e" * size) * count)
        for _ in range(10):
            await asyncio.sleep(0)
        assert peer._unread < MAX_UNREAD_OUTPUT + 2 * size
        for _ in range(count):
            assert len((await peer.receive()).arguments[0]) == size
        assert not peer.peer.stalled

    within(act)


def test_a_broken_stream_ends_it() -> None:
    async def act(daemon: Daemon, port: int) -> None:
        peer = InProcessPeer(daemon)
        peer.send(b"\0BAD" + bytes(8))
        assert (await peer.receive()).type == p.ERROR
        with pytest.raises(ConnectionError):
            await peer.receive()
        with pytest.raises(ConnectionError):
            peer.send(b"")

    within(act)


def test_a_text_command_in_process_ends_that_peer_alone() -> None:
    async def act(daemon: Daemon, port: int) -> None:
        peer, other = InProcessPeer(daemon), InProcessPeer(daemon)
        peer.send(b"version\n")
        other.send(pack_request(p.ECHO_REQ, b"here"))
        assert (await other.receive()).arguments == (b"here",)
        with pytest.raises(ConnectionError):
            await peer.receive()

    within(act)


def test_an_extension_is_told_of_the_daemons_life() -> None:
    recorder = Recorder()

    async def act(daemon: Daemon, port: int) -> None:
        daemon.reload()
        daemon.open_iteration()
        await asyncio.sleep(0)
        recorder.is_owed = True

    within(act, recorder)
    assert recorder.told == ["start", "reload", "flush", "leave", "flush", "give up", "flush", "stop"]


def test_what_a_connection_leaves_is_freed_without_the_garbage_collector() -> None:
    """The daemon's collector looks at young objects alone, so nothing old may hang in a circle."""

    async def act(daemon: Daemon, port: int) -> None:
        async def talk() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(pack_request(p.CAN_DO, b"f") + pack_request(p.SUBMIT_JOB, b"f", b"u", b"x"))
            writer.write(pack_request(p.GRAB_JOB) + b"status\n")
            while b".\n" not in await reader.read(1000):
                pass
            writer.close()
            await writer.wait_closed()

        await talk()
        gc.collect()
        gc.disable()
        try:
            before = counted()
            for _ in range(50):
                await talk()
            for _ in range(1000):
                await asyncio.sleep(0)
            assert not daemon.server.peers
            assert counted() <= before
        finally:
            gc.enable()

    def counted() -> int:
        return sum(type(each).__name__ in ("Peer", "Connection", "Ability", "Job") for each in gc.get_objects())

    within(act)


class Starter(Extension):
    """Notes how many connections were accepted before it was started."""

    def __init__(self) -> None:
        self.accepted_before = -1

    def start(self, host: Host) -> None:
        assert isinstance(host, Daemon)
        self.accepted_before = host.accepted


def with_many_listeners(tmp_path: Path) -> Config:
    listen = [f"127.0.0.{number}" for number in range(1, 9)] + [f"unix:{tmp_path}/socket"]
    return Config.load({"listen": listen, "port": 0, "store": "memory:", "stop_timeout": "0.2"})


def test_nobody_is_served_before_all_extensions_have_started(tmp_path: Path) -> None:
    starter = Starter()

    async def run() -> None:
        config = with_many_listeners(tmp_path)
        daemon = Daemon(config, extensions=[starter])
        sockets = config.sockets()
        with socket.create_connection(sockets[0].getsockname()) as early:
            await daemon.start(sockets)
            serving = asyncio.create_task(daemon.run())
            early.setblocking(False)
            await daemon.loop.sock_sendall(early, pack_request(p.ECHO_REQ, b"early"))
            assert (await asyncio.wait_for(daemon.loop.sock_recv(early, 100), 20)).endswith(b"early")
            daemon.stop("the test is over")
            await asyncio.wait_for(serving, 10)

    asyncio.run(run())
    assert starter.accepted_before == 0


@pytest.mark.parametrize("turns", range(12))
def test_a_drain_that_begins_during_the_start_ends_well(tmp_path: Path, turns: int) -> None:
    async def run() -> None:
        config = with_many_listeners(tmp_path)
        daemon = Daemon(config, extensions=[Starter()])
        sockets = config.sockets()

        async def drain() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            daemon.drain("the test")

        draining = asyncio.create_task(drain())
        await daemon.start(sockets)
        await draining
        await asyncio.wait_for(daemon.run(), 10)
        assert not daemon.listeners

    asyncio.run(run())
    assert not (tmp_path / "socket").exists()
