"""A peer without a socket, beside a real worker over TCP: the same packets, the same rules, the same back-pressure."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from pathlib import Path

import pytest
from daemon_within import within

from geartrain.daemon.config import Config
from geartrain.daemon.daemon import Daemon
from geartrain.daemon.extension import Extension, Host
from geartrain.daemon.in_process import InProcessPeer
from geartrain.errors import ConfigError
from geartrain.jobserver import Origin, rights
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
        while not peer.full:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for _ in range(10):
            assert MAX_UNREAD_OUTPUT <= peer._unread < MAX_UNREAD_OUTPUT + 2 * size
            await asyncio.sleep(0)
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


def test_it_has_the_origin_that_it_is_given() -> None:
    async def act(daemon: Daemon, port: int) -> None:
        peer = InProcessPeer(daemon, Origin("192.0.2.1", 77, rights.WORK))
        admin = InProcessPeer(daemon, Origin("192.0.2.2", rights=rights.READ))
        assert (peer.peer.host, peer.peer.fd, admin.peer.host) == ("192.0.2.1", 77, "192.0.2.2")
        peer.send(pack_request(p.CAN_DO, b"f") + pack_request(p.SUBMIT_JOB, b"f", b"", b"x"))
        refusal = await peer.receive()
        assert (refusal.type, refusal.arguments[0]) == (p.ERROR, b"NOT_ALLOWED")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"workers\n")
        assert b"77 192.0.2.1 - : f\n" in await reader.readuntil(b".\n")
        writer.close()

    within(act)


def test_when_the_daemon_stops_it_ends_as_a_sockets_peer_does() -> None:
    lost: list[str] = []
    received: list[int] = []

    async def run() -> None:
        config = Config.load({"listen": ["127.0.0.1"], "port": 0, "store": "memory:", "stop_timeout": "10"})
        daemon = Daemon(config)
        await daemon.start(config.sockets())
        serving = asyncio.create_task(daemon.run())
        worker = InProcessPeer(daemon, on_lost=lambda: lost.append("worker"))
        worker.send(pack_request(p.CAN_DO, b"f") + pack_request(p.SUBMIT_JOB_BG, b"f", b"", b"x"))
        worker.send(pack_request(p.GRAB_JOB))

        async def work() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    received.append((await worker.receive()).type)

        daemon.flush()  # all is there to be received, and nothing has been
        daemon.stop("the test")
        await asyncio.gather(serving, work())
        with pytest.raises(ConnectionRefusedError):
            InProcessPeer(daemon)
        job = next(iter(daemon.server.jobs))
        assert job.attempts == 0, "the worker did not lose it"
        worker.close()
        assert job.attempts == 0

    asyncio.run(asyncio.wait_for(run(), 20))
    assert received == [p.JOB_CREATED, p.JOB_ASSIGN]
    assert lost == ["worker"]


def test_it_tells_who_made_it_that_it_was_dropped() -> None:
    async def act(daemon: Daemon, port: int) -> None:
        broken, closed = asyncio.Event(), asyncio.Event()
        peer = InProcessPeer(daemon, on_lost=broken.set)
        peer.send(b"\0BAD" + bytes(8))
        other = InProcessPeer(daemon, on_lost=closed.set)
        other.close()
        await broken.wait()
        assert not closed.is_set()
        assert not daemon.attached

    within(act)


class Doorkeeper(Extension):
    """Admits nobody from some hosts, fails for another, and lets the others only submit."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refused = {"192.0.2.1"}

    def admit(self, origin: Origin) -> bool:
        self.asked.append(origin.host)
        if origin.host == "192.0.2.2":
            raise ValueError("what is that?")
        origin.rights = rights.SUBMIT
        return origin.host not in self.refused


def test_an_extension_may_refuse_a_connection(caplog: pytest.LogCaptureFixture) -> None:
    first, second = Doorkeeper(), Doorkeeper()

    async def act(daemon: Daemon, port: int) -> None:
        for host in ("192.0.2.1", "192.0.2.2"):
            with pytest.raises(ConnectionRefusedError, match=host):
                InProcessPeer(daemon, Origin(host))
        assert InProcessPeer(daemon, Origin("192.0.2.3")).peer.rights == rights.SUBMIT
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"status\n")
        assert b"NOT_ALLOWED" in await reader.readline()
        writer.close()
        second.refused.add("127.0.0.1")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        assert len(daemon.connections) <= 1
        writer.close()

    within(act, first, second)
    assert second.asked == ["192.0.2.3", "127.0.0.1", "127.0.0.1"]
    assert failures(caplog) == [{"extension": "Doorkeeper", "method": "admit"}]


class Failing(Extension):
    """Raises wherever it is told to."""

    def __init__(self, *methods: str) -> None:
        self.methods = methods

    def fail(self, method: str) -> None:
        if method in self.methods:
            raise RuntimeError(f"no {method} today")

    def start(self, host: Host) -> None:
        self.fail("start")

    def reload(self) -> None:
        self.fail("reload")

    def flush(self) -> None:
        self.fail("flush")

    def next_deadline(self) -> float:
        self.fail("next_deadline")
        return 0.0

    @property
    def is_drained(self) -> bool:
        self.fail("is_drained")
        return True

    def leave(self) -> None:
        self.fail("leave")

    def give_up(self) -> None:
        self.fail("give_up")

    def stop(self, seconds: float) -> None:
        self.fail("stop")


def test_an_extension_that_fails_takes_nobodys_turn(caplog: pytest.LogCaptureFixture) -> None:
    methods = "reload", "flush", "next_deadline", "leave", "is_drained", "give_up", "stop"
    before, after = Recorder(), Recorder()

    async def act(daemon: Daemon, port: int) -> None:
        daemon.reload()
        daemon.open_iteration()
        await asyncio.sleep(0)
        peer = InProcessPeer(daemon)
        peer.send(pack_request(p.ECHO_REQ, b"served"))
        assert (await peer.receive()).arguments == (b"served",)

    within(act, before, Failing(*methods), after)
    assert before.told == after.told == ["start", "reload", "flush", "leave", "flush", "give up", "flush", "stop"]
    told = failures(caplog)
    assert {each["extension"] for each in told} == {"Failing"}
    assert {each["method"] for each in told} == set(methods)


def failures(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    """What the log says of extensions that raised, each with where that was."""
    found = [record for record in caplog.records if record.msg == "extension_failed"]
    assert all(record.exc_info for record in found)
    return [vars(record)["fields"] for record in found]


def test_nobody_is_served_if_an_extension_can_not_start() -> None:
    before, after = Recorder(), Recorder()

    async def run() -> None:
        config = Config.load({"listen": ["127.0.0.1"], "port": 0, "store": "memory:"})
        daemon = Daemon(config, extensions=[before, Failing("start", "stop"), after])
        with pytest.raises(ConfigError, match="can't start: Failing failed: no start today"):
            await daemon.start(config.sockets())
        assert not daemon.listeners

    asyncio.run(run())
    assert before.told == after.told == ["start", "stop"]
