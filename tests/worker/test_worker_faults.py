"""Workers and the ways of networks: cut off in the middle of every packet, servers frozen, killed and restarted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import signal
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from caller import Caller, until, working

from certificates import tls_contexts
from geartrain.client import AdminClient
from geartrain.wire.packets import WORK_COMPLETE, WORK_EXCEPTION
from geartrain.worker import AssignedJob, AsyncWorker, Worker
from servers import RunningServer, free_port, running_gearmand, running_geartrain

KINDS: dict[str, type[Worker | AsyncWorker]] = {"Worker": Worker, "AsyncWorker": AsyncWorker}


@pytest.fixture(scope="module", params=["geartrain", "gearmand"])
def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with {"geartrain": running_geartrain, "gearmand": running_gearmand}[request.param]() as server:
        yield server


class CuttingProxy:
    """Passes bytes on to a job server, and resets its first connection when so many have passed in one direction."""

    def __init__(self, server: RunningServer, after: int, direction: str) -> None:
        self.left = {"up": 1 << 60, "down": 1 << 60, direction: after}
        self.has_cut = False
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection((self._server.host, self._server.port))
                self._sockets += [near, far]
                for one in ((near, far, "up", near, far), (far, near, "down", near, far)):
                    threading.Thread(target=self._pass, args=one, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, direction: str, *both: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self.has_cut:
                    data = data[: self.left[direction]]
                    self.left[direction] -= len(data)
                target.sendall(data)
                if not self.has_cut and self.left[direction] <= 0:
                    self.has_cut = True
                    break
        for one in both:
            with contextlib.suppress(OSError):  # a reset, not a good-bye
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # closing it alone leaves the thread in accept()
        self._listener.close()
        for one in self._sockets:
            one.close()


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_reset_in_the_middle_of_every_packet(server: RunningServer, kind: str, direction: str) -> None:
    """Each of many workers has its connection cut after another count of bytes; every job is done nevertheless."""
    function = f"echo-{kind}-{direction}"
    workload = b"x" * 20
    # Some more than a whole conversation of one job, in steps that hit every packet.
    cuts = range(1, 240 if direction == "up" else 120, 4)
    with contextlib.ExitStack() as stack:
        proxies = [CuttingProxy(server, after, direction) for after in cuts]
        callers = [stack.enter_context(Caller(server)) for _ in cuts]
        for number, (proxy, caller) in enumerate(zip(proxies, callers, strict=True)):
            stack.callback(proxy.close)
            worker = KINDS[kind](proxy.address, middleware=[], id="w")
            worker.function(f"{function}-{number}")(lambda job: job.workload)
            stack.enter_context(working(worker))
            caller.submit(f"{function}-{number}", workload)
        for caller in callers:
            assert caller.follow()[-1].arguments[1] == workload
        for number, caller in enumerate(callers):  # and the workers have come back
            assert caller.run(f"{function}-{number}", b"again") == b"again"
        assert sum(proxy.has_cut for proxy in proxies) > len(proxies) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_server_delays_no_job_of_another(kind: str) -> None:
    with running_geartrain() as frozen, running_geartrain() as alive:
        addresses = [frozen.address, alive.address]
        worker = KINDS[kind](addresses, middleware=[], answer_within=1.0, regrab_after=0.1)
        worker.function("echo")(lambda job: job.workload)
        with working(worker), Caller(alive) as caller, Caller(frozen) as other:
            assert other.run("echo", b"a") == b"a"
            os.kill(frozen.process.pid, signal.SIGSTOP)
            try:
                slow = 0
                end = time.monotonic() + 3
                while time.monotonic() < end:
                    started = time.monotonic()
                    assert caller.run("echo", b"b") == b"b"
                    slow += time.monotonic() - started > 0.8
                # One grab may have been in flight when it froze; after that no slot is spent on it.
                assert slow <= 1
            finally:
                os.kill(frozen.process.pid, signal.SIGCONT)
            assert other.run("echo", b"c") == b"c"


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_result_for_a_frozen_server_is_given_up(kind: str) -> None:
    with running_geartrain() as server:
        worker = KINDS[kind](server.address, middleware=[], answer_within=0.5)

        @worker.function()
        def large(job: AssignedJob) -> bytes:
            if not os.path.exists(job.workload):
                open(job.workload, "x").close()
                os.kill(server.process.pid, signal.SIGSTOP)
                threading.Timer(2, os.kill, (server.process.pid, signal.SIGCONT)).start()
            return bytes(20_000_000)

        with working(worker), Caller(server) as caller:
            flag = server.log.with_name("flag")
            assert caller.packets("large", str(flag).encode())[-1].arguments[1] == bytes(20_000_000)


class SlowProxy(CuttingProxy):
    """Passes bytes up slowly: 64 KiB each tenth of a second."""

    def _pass(self, source: socket.socket, target: socket.socket, direction: str, *both: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
                if direction == "up":
                    time.sleep(0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_network_is_no_dead_one(kind: str) -> None:
    """A large result takes many times longer than any wait for progress may."""
    with running_geartrain() as server:
        proxy = SlowProxy(server, 0, "up")
        worker = KINDS[kind](proxy.address, middleware=[], answer_within=1.5, regrab_after=0.1)
        runs: list[bytes] = []

        @worker.function()
        def large(job: AssignedJob) -> bytes:
            runs.append(job.handle)
            return bytes(4_000_000)

        with working(worker), Caller(server) as caller:
            started = time.monotonic()
            assert caller.run("large") == bytes(4_000_000)
            assert time.monotonic() - started > 3
        proxy.close()
        assert len(runs) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_over_tls(kind: str, tmp_path: Path) -> None:
    theirs, ours = tls_contexts(tmp_path)
    with running_geartrain() as server, decrypting(server, theirs) as address:
        worker = KINDS[kind](address, middleware=[], tls=ours)
        worker.function("echo")(lambda job: job.workload)
        with working(worker), Caller(server) as caller:
            for size in (0, 1, 16_383, 16_384, 16_385, 3_000_000):
                assert caller.run("echo", bytes(size)) == bytes(size)
            for number in range(200):
                caller.submit("echo", b"%d" % number)
            assert {caller.follow()[-1].arguments[1] for _ in range(200)} == {b"%d" % number for number in range(200)}


@contextlib.contextmanager
def decrypting(server: RunningServer, context: ssl.SSLContext) -> Iterator[str]:
    """The address of who passes on to ``server`` what it decrypts."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(server.host, server.port)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as listener:
            address.put(f"127.0.0.1:{listener.sockets[0].getsockname()[1]}")
            await asyncio.to_thread(over.wait)

    address: queue.SimpleQueue[str] = queue.SimpleQueue()
    over = threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        yield address.get(timeout=10)
    finally:
        over.set()
        thread.join(10)


@pytest.mark.parametrize("kind", KINDS)
def test_servers_killed_and_restarted_under_load(kind: str) -> None:
    """Each foreground job whose server lives is answered rightly; the worker serves whatever server comes back."""
    ports = [free_port(), free_port()]
    worker = KINDS[kind]([f"127.0.0.1:{port}" for port in ports], middleware=[], answer_within=2)
    worker.function("echo")(lambda job: job.workload)
    answered: Counter[int] = Counter()

    def load(server: RunningServer, index: int) -> None:
        try:
            with Caller(server) as caller:
                for number in range(1_000_000):
                    assert caller.run("echo", b"%d" % number) == b"%d" % number
                    answered[index] += 1
        except (OSError, AssertionError) as error:
            if server not in doomed:
                wrong.append(error)

    def goes_on(index: int) -> None:
        before = answered[index]
        until(lambda: wrong or answered[index] > before + 20)

    wrong: list[Exception] = []
    doomed: list[RunningServer] = []
    with working(worker), running_geartrain(port=ports[0]) as steady:
        loads = [threading.Thread(target=load, args=(steady, 0))]
        loads[0].start()
        for _ in range(3):
            with running_geartrain(port=ports[1]) as mortal:
                thread = threading.Thread(target=load, args=(mortal, 1))
                thread.start()
                loads.append(thread)
                goes_on(1)
                doomed.append(mortal)
                mortal.process.kill()
                mortal.process.wait()
            goes_on(0)  # the other server
        doomed.append(steady)
        steady.process.kill()
        for thread in loads:
            thread.join(20)
        steady.process.wait()
    assert wrong == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_overstays_its_timeout_harms_no_other(server: RunningServer, kind: str) -> None:
    """The job server gives the job up; the worker's late answer reaches nobody, and its next jobs are fine."""
    if (server.kind, kind) == ("gearmand", "AsyncWorker"):
        pytest.skip("gearmand 1.1 has one timer a connection, which stops when a worker with free slots says it sleeps")
    worker = KINDS[kind](server.address, middleware=[])
    go_on = threading.Event()
    runs: list[bytes] = []

    @worker.function(f"late-{kind}", timeout=1)
    def late(job: AssignedJob) -> bytes:
        runs.append(job.handle)
        if len(runs) == 1:
            go_on.wait(10)
            return b"late"
        return b"again"

    worker.function(f"quick-{kind}")(lambda job: job.workload)
    with working(worker), Caller(server) as caller:
        caller.submit(f"late-{kind}")
        if server.kind == "geartrain":  # the job has failed, as the protocol's document says
            assert caller.follow()[-1].type not in (WORK_COMPLETE, WORK_EXCEPTION)
            go_on.set()
        else:  # the job is run again
            admin = AdminClient(server.address)
            until(lambda: runs)  # before it runs, none is running either
            until(lambda: [row.running for row in admin.status() if row.function == f"late-{kind}"] == [0])
            go_on.set()
            assert caller.follow()[-1].arguments[1] == b"again"
        for number in range(100):
            assert caller.run(f"quick-{kind}", b"%d" % number) == b"%d" % number
    with Caller(server) as caller:
        caller.socket.sendall(b"status\n")
        assert caller.socket.recv(65536).endswith(b".\n")  # gearmand has not hung
