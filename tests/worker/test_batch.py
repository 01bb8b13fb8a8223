"""Batches: one call of a function for many jobs, by both kinds of workers, on real job servers."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from caller import ENDS, Caller, until, working

from geartrain.contrib.eager import EagerAsyncClient, EagerClient
from geartrain.contrib.local_server import LocalServer
from geartrain.errors import ArgumentsError, JobFailedError, JobRaisedError, SoftTimeLimitError
from geartrain.wire.packets import WORK_COMPLETE, WORK_DATA, WORK_EXCEPTION, WORK_FAIL, WORK_STATUS
from geartrain.wire.parser import Packet
from geartrain.worker import AssignedJob, AsyncWorker, Middleware, Worker
from servers import RunningServer, running_gearmand, running_geartrain, running_perl_server

SERVERS = {"geartrain": running_geartrain, "gearmand": running_gearmand, "perl": running_perl_server}
AnyWorker = Worker | AsyncWorker
Jobs = list[AssignedJob]
LONG = 60.0  # seconds that no test has: the batch must run for another reason


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with SERVERS[request.param]() as server:
        yield server


@pytest.fixture(scope="module")
def our_server() -> Iterator[RunningServer]:
    with running_geartrain() as server:
        yield server


@pytest.fixture(params=[Worker, AsyncWorker])
def kind(request: pytest.FixtureRequest) -> type[AnyWorker]:
    kind: type[AnyWorker] = request.param
    return kind


@pytest.fixture(params=["plain", "coroutine"])
def way(request: pytest.FixtureRequest) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A plain function as it is, or as a coroutine."""

    def as_coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
        async def later(jobs: Jobs) -> Any:
            await asyncio.sleep(0)
            return function(jobs)

        return later

    return as_coroutine if request.param == "coroutine" else lambda function: function


Way = Callable[[Callable[..., Any]], Callable[..., Any]]


def make_worker(kind: type[AnyWorker], *servers: RunningServer, **options: Any) -> AnyWorker:
    return kind([server.address for server in servers], **{"middleware": [], **options})


def submit(caller: Caller, function: str, *workloads: bytes) -> list[bytes]:
    """Submit jobs; their handles."""
    return [caller.submit(function, workload) for workload in workloads]


def all_assigned(server: RunningServer, function: str, count: int) -> Callable[[], bool]:
    """Whether the job server has so many jobs of a function, all of them with workers."""
    return lambda: server.jobs_of(function) == (count, count)


def heard(caller: Caller, handles: list[bytes]) -> list[list[Packet]]:
    """All packets of each of these jobs, to the first that ends it."""
    packets: dict[bytes, list[Packet]] = {handle: [] for handle in handles}
    while not all(said and said[-1].type in ENDS for said in packets.values()):
        packet = caller.hear()
        said = packets[packet.arguments[0]]
        if not said or said[-1].type not in ENDS:  # the Perl server has a WORK_FAIL after each WORK_EXCEPTION
            said.append(packet)
    return [packets[handle] for handle in handles]


def ends(caller: Caller, handles: list[bytes]) -> list[tuple[int, bytes]]:
    """How each of these jobs ended: the packet's type, and what it says."""
    return [(said[-1].type, said[-1].arguments[-1]) for said in heard(caller, handles)]


def test_a_queue_is_done_in_full_batches(server: RunningServer, kind: type[AnyWorker], way: Way) -> None:
    worker = make_worker(kind, server)
    sizes: list[int] = []

    def upper(jobs: Jobs) -> list[bytes]:
        sizes.append(len(jobs))
        return [job.workload.upper() for job in jobs]

    worker.batch("full", size=16, wait=LONG)(way(upper))
    with Caller(server) as caller:
        handles = submit(caller, "full", *(b"job %d" % number for number in range(48)))
        with working(worker):
            assert ends(caller, handles) == [(WORK_COMPLETE, b"JOB %d" % number) for number in range(48)]
    assert sizes == [16, 16, 16]


def test_a_batch_waits_for_jobs_that_are_still_to_come(server: RunningServer, kind: type[AnyWorker]) -> None:
    worker = make_worker(kind, server)
    sizes: list[int] = []

    @worker.batch("few", size=3, wait=LONG)
    def few(jobs: Jobs) -> None:
        sizes.append(len(jobs))

    with working(worker), Caller(server) as caller:
        handles: list[bytes] = []
        for number in range(3):
            until(all_assigned(server, "few", number))  # so that it was told NO_JOB by now
            handles.append(caller.submit("few"))
        assert ends(caller, handles) == [(WORK_COMPLETE, b"")] * 3
    assert sizes == [3]


def test_a_batch_that_does_not_fill_runs_after_its_wait(server: RunningServer, kind: type[AnyWorker]) -> None:
    worker = make_worker(kind, server)

    @worker.batch("early", size=10, wait=0.3)
    def early(jobs: Jobs) -> list[bytes]:
        return [b"%d" % len(jobs) for _ in jobs]

    with working(worker), Caller(server) as caller:
        for count in (1, 2):
            started = time.monotonic()
            assert ends(caller, submit(caller, "early", *[b""] * count)) == [(WORK_COMPLETE, b"%d" % count)] * count
            assert time.monotonic() - started >= 0.3


def test_without_a_wait_what_is_here_is_run(server: RunningServer, kind: type[AnyWorker]) -> None:
    worker = make_worker(kind, server)
    sizes: list[int] = []

    @worker.batch("hasty", size=60, wait=0)
    def hasty(jobs: Jobs) -> None:
        sizes.append(len(jobs))

    with Caller(server) as caller:
        handles = submit(caller, "hasty", *[b""] * 200)
        with working(worker):
            assert ends(caller, handles) == [(WORK_COMPLETE, b"")] * 200
            assert caller.run("hasty") == b""
    assert sum(sizes) == 201
    assert max(sizes) == 60, "what runs leaves time for more to come"


def test_each_job_ends_in_its_own_way(server: RunningServer, kind: type[AnyWorker], way: Way) -> None:
    worker = make_worker(kind, server)
    outcomes = [b"good", ValueError("bad"), None, JobFailedError(), JobRaisedError(b"mine"), bytearray(b"x"), 7]

    def each(jobs: Jobs) -> list[Any]:
        return [outcomes[int(job.workload)] for job in jobs]

    worker.batch("each", size=7, wait=LONG)(way(each))
    with Caller(server) as caller, working(worker):
        found = ends(caller, submit(caller, "each", *(b"%d" % number for number in range(7))))
    assert [type for type, _ in found] == [
        WORK_COMPLETE, WORK_EXCEPTION, WORK_COMPLETE, WORK_FAIL, WORK_EXCEPTION, WORK_COMPLETE, WORK_EXCEPTION,
    ]  # fmt: skip
    texts = [text for _, text in found]
    assert (texts[0], texts[1], texts[2], texts[4], texts[5]) == (b"good", b"ValueError: bad", b"", b"mine", b"x")
    assert texts[6].endswith(b"TypeError: each gave int 7; a raw function gives bytes, or None")


@pytest.mark.parametrize(
    ("gives", "told"),
    [
        (lambda jobs: [b""] * (len(jobs) - 1), "TypeError: bulk gave 3 results for 4 jobs"),
        (lambda jobs: (b"",) * (len(jobs) + 1), "TypeError: bulk gave 5 results for 4 jobs"),
        (lambda jobs: b"four", "TypeError: bulk gave bytes b'four'; a batch function gives a list, or None"),
        (lambda jobs: dict.fromkeys(jobs)[None], "KeyError: None"),
        (lambda jobs: exec("raise SystemExit(3)"), "SystemExit: 3"),
        (lambda jobs: next(iter(())), "StopIteration"),
    ],
    ids=["too few", "too many", "no list", "it raises", "it wants to leave", "it asks an iterator in vain"],
)
def test_a_call_that_fails_fails_them_all(
    our_server: RunningServer, kind: type[AnyWorker], way: Way, gives: Callable[[Jobs], Any], told: str
) -> None:
    worker = make_worker(kind, our_server)
    worker.batch("bulk", size=4, wait=LONG)(way(gives))
    worker.function("echo")(lambda job: job.workload)
    with Caller(our_server) as caller, working(worker):
        found = ends(caller, submit(caller, "bulk", *[b""] * 4))
        assert caller.run("echo", b"still here") == b"still here"
    assert {type for type, _ in found} == {WORK_EXCEPTION}
    (text,) = {text.decode() for _, text in found}
    assert text.endswith(told)
    assert "geartrain" not in text or "asyncio/runners.py" in text  # whose frames are before the last of ours


def test_values_travel_as_those_of_a_function_of_one_job(our_server: RunningServer, kind: type[AnyWorker]) -> None:
    worker = make_worker(kind, our_server)
    calls: list[tuple[list[int], list[float], int]] = []

    @worker.batch(size=4, wait=LONG)
    def divide(jobs: Jobs, x: list[int], *, by: list[float]) -> list[float | Exception]:
        calls.append((x, by, len(jobs)))
        return [one / other if other else ValueError("by 0") for one, other in zip(x, by, strict=True)]

    with Caller(our_server) as caller, working(worker):
        workloads = (b'{"x": 3, "by": 2}', b'{"x": "three", "by": 2}', b'{"by": 4, "x": 1}', b'{"x": 1, "by": 0}')
        found = ends(caller, submit(caller, "divide", *workloads))
        assert found == [
            (WORK_COMPLETE, b"1.5"),
            (WORK_EXCEPTION, b"divide: x must be int, not 'three' (str)"),
            (WORK_COMPLETE, b"0.25"),
            (WORK_EXCEPTION, b"ValueError: by 0"),
        ]
        found = ends(caller, submit(caller, "divide", *[b"{}"] * 4))
        assert found == [(WORK_EXCEPTION, b"divide: missing a required argument: 'x'")] * 4
    assert calls == [([3, 1, 1], [2.0, 4.0, 0.0], 3)], "not called for jobs that it can't do"


def test_a_result_that_is_not_what_was_promised(our_server: RunningServer, kind: type[AnyWorker]) -> None:
    worker = make_worker(kind, our_server)

    @worker.batch(size=2, wait=LONG)
    def lie(x: list[int]) -> list[int]:
        return ["text" if one else 1 for one in x]  # type: ignore[misc]

    @worker.batch(size=2, wait=LONG)
    def forget(x: list[int]) -> list[int]:
        return None  # type: ignore[return-value]

    with Caller(our_server) as caller, working(worker):
        good, bad = ends(caller, submit(caller, "lie", b"[0]", b"[1]"))
        assert good == (WORK_COMPLETE, b"1")
        assert bad[1].endswith(b"TypeError: lie: the result must be int, not 'text' (str)")
        found = ends(caller, submit(caller, "forget", b"[0]", b"[1]"))
        assert all(text.endswith(b"the result must be int, not None (NoneType)") for _, text in found)


def test_each_job_says_what_is_its_own(
    our_server: RunningServer, kind: type[AnyWorker], way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")  # the loop refuses threads that come by another than their own door
    worker = make_worker(kind, our_server)

    def talk(jobs: Jobs) -> None:
        for number, job in enumerate(jobs):
            job.progress(number, 3)
            job.send(job.workload)

    worker.batch("talk", size=3, wait=LONG)(way(talk))
    with Caller(our_server) as caller, working(worker):
        said = heard(caller, submit(caller, "talk", b"a", b"b", b"c"))
    for number, packets in enumerate(said):
        assert [packet.type for packet in packets] == [WORK_STATUS, WORK_DATA, WORK_COMPLETE]
        assert packets[0].arguments[1:] == (b"%d" % number, b"3")
        assert packets[1].arguments[1:] == (b"abc"[number : number + 1],)


def test_middleware_is_told_of_every_job(our_server: RunningServer, kind: type[AnyWorker], way: Way) -> None:
    told: list[tuple[str, bytes]] = []

    class Ear(Middleware):
        def before(self, job: AssignedJob) -> None:
            told.append(("before", job.workload))
            if job.workload == b"refused":
                raise ValueError("not this one")

        def after(self, job: AssignedJob, seconds: float) -> None:
            told.append(("after", job.workload))

        def failed(self, job: AssignedJob, error: BaseException, seconds: float) -> None:
            told.append(("failed", job.workload))

    worker = make_worker(kind, our_server, middleware=[Ear()])
    called: list[list[bytes]] = []

    def call(jobs: Jobs) -> list[Any]:
        called.append([job.workload for job in jobs])
        told.append(("call", b""))
        return [ValueError() if job.workload == b"bad" else b"" for job in jobs]

    worker.batch("told", size=3, wait=LONG)(way(call))
    with Caller(our_server) as caller, working(worker):
        found = ends(caller, submit(caller, "told", b"good", b"refused", b"bad"))
    assert [type for type, _ in found] == [WORK_COMPLETE, WORK_EXCEPTION, WORK_EXCEPTION]
    assert called == [[b"good", b"bad"]]
    assert told == [
        ("before", b"good"), ("before", b"refused"), ("before", b"bad"), ("call", b""),
        ("after", b"good"), ("failed", b"bad"),
    ]  # fmt: skip


def test_a_batch_holds_jobs_of_one_function(server: RunningServer, kind: type[AnyWorker]) -> None:
    """Also where one thread, or room for one job, is for several functions."""
    worker = make_worker(kind, server)
    calls: Counter[str] = Counter()

    @worker.batch("red", size=8, wait=0.01)
    def red(jobs: Jobs) -> list[bytes]:
        calls["red"] += 1
        assert {job.function for job in jobs} == {"red"}
        return [job.workload for job in jobs]

    @worker.batch("blue", size=5, wait=0.01)
    def blue(jobs: Jobs) -> list[bytes]:
        calls["blue"] += 1
        assert {job.function for job in jobs} == {"blue"}
        return [job.workload for job in jobs]

    @worker.function("green")
    def green(job: AssignedJob) -> bytes:
        calls["green"] += 1
        return job.workload

    with Caller(server) as caller:
        handles = [
            caller.submit(function, b"%d" % number)
            for function, count in (("red", 80), ("blue", 50), ("green", 10))
            for number in range(count)
        ]
        with working(worker, **({"concurrency": 1} if isinstance(worker, AsyncWorker) else {})):
            expected = [b"%d" % number for count in (80, 50, 10) for number in range(count)]
            assert ends(caller, handles) == [(WORK_COMPLETE, text) for text in expected]
    assert calls["green"] == 10
    assert calls["red"] < 80
    assert calls["blue"] < 50


def test_jobs_of_several_servers_make_one_batch(our_server: RunningServer, kind: type[AnyWorker]) -> None:
    with running_gearmand() as other, Caller(our_server) as first, Caller(other) as second:
        worker = make_worker(kind, our_server, other)
        sizes: list[int] = []

        @worker.batch("shared", size=6, wait=LONG)
        def shared(jobs: Jobs) -> list[bytes]:
            sizes.append(len(jobs))
            return [job.workload for job in jobs]

        with working(worker):
            ours, theirs = submit(first, "shared", b"1", b"2", b"3"), submit(second, "shared", b"4", b"5", b"6")
            assert [text for _, text in ends(first, ours) + ends(second, theirs)] == [
                b"1",
                b"2",
                b"3",
                b"4",
                b"5",
                b"6",
            ]
        assert sizes == [6]


def test_a_job_whose_server_is_lost_is_left_out(our_server: RunningServer, kind: type[AnyWorker]) -> None:
    with running_geartrain() as dying, Caller(our_server) as caller, Caller(dying) as other:
        worker = make_worker(kind, dying, our_server)
        called: list[list[bytes]] = []

        @worker.batch("left", size=3, wait=LONG)
        def left(jobs: Jobs) -> None:
            called.append([job.workload for job in jobs])

        with working(worker):
            other.submit("left", b"lost")
            until(lambda: connections(worker)[0].session._held)
            dying.process.kill()
            dying.process.wait()
            assert other.socket.recv(1) == b""
            until(lambda: connections(worker)[0].link is None)
            handles = submit(caller, "left", b"a", b"b")
            assert ends(caller, handles) == [(WORK_COMPLETE, b"")] * 2
            handles = submit(caller, "left", b"c", b"d", b"e")
            assert ends(caller, handles) == [(WORK_COMPLETE, b"")] * 3
    assert called == [[b"a", b"b"], [b"c", b"d", b"e"]]


def connections(worker: AnyWorker) -> Any:
    return worker.connections if isinstance(worker, AsyncWorker) else worker.threads[0].connections


def test_no_job_is_held_that_waits_for_the_next_call(our_server: RunningServer, kind: type[AnyWorker]) -> None:
    worker = make_worker(kind, our_server)
    started, go_on = threading.Semaphore(0), threading.Semaphore(0)

    @worker.batch("held", size=4, wait=0.0)
    def held(jobs: Jobs) -> None:
        started.release()
        assert go_on.acquire(timeout=20)

    worker.function("echo")(lambda job: job.workload)
    with Caller(our_server) as caller, Caller(our_server) as other, working(worker):
        handles = submit(caller, "held", b"")
        assert started.acquire(timeout=20)
        handles += submit(caller, "held", *[b""] * 9)
        if isinstance(worker, AsyncWorker):  # which could grab, while the other kind of worker is busy
            for _ in range(3):
                other.run("echo")
        assert our_server.jobs_of("held") == (10, 1)
        for _ in handles:
            go_on.release()
        ends(caller, handles)


def test_a_time_limit_is_for_the_call_and_not_for_the_wait(our_server: RunningServer, kind: type[AnyWorker]) -> None:
    worker = make_worker(kind, our_server)

    @worker.batch("timed", size=2, wait=1.5, timeout=1.0)
    def timed(jobs: Jobs) -> list[bytes]:
        if jobs[0].workload == b"slow":
            until(lambda: our_server.jobs_of("timed") == (0, 0))  # its client was told already
        return [b"in time" for _ in jobs]

    with Caller(our_server) as caller, working(worker):
        assert ends(caller, submit(caller, "timed", b"")) == [(WORK_COMPLETE, b"in time")]
        assert [type for type, _ in ends(caller, submit(caller, "timed", b"slow", b""))] == [WORK_FAIL] * 2


def test_a_soft_limit_is_for_the_whole_batch(our_server: RunningServer, kind: type[AnyWorker]) -> None:
    worker = make_worker(kind, our_server)

    @worker.batch("tidy", size=2, wait=LONG, soft_limit=0.2)
    def tidy(jobs: Jobs) -> list[bytes]:
        try:
            while True:
                time.sleep(0.01)
        except SoftTimeLimitError:
            return [b"tidied"] * len(jobs)

    @worker.batch("late", size=2, wait=LONG, soft_limit=0.2)
    async def late(jobs: Jobs) -> None:
        await asyncio.sleep(LONG)

    with Caller(our_server) as caller, working(worker):
        assert ends(caller, submit(caller, "tidy", b"", b"")) == [(WORK_COMPLETE, b"tidied")] * 2
        found = ends(caller, submit(caller, "late", b"", b""))
        assert all(type == WORK_EXCEPTION and b"SoftTimeLimitError" in text for type, text in found)


@pytest.mark.parametrize("limit", [1, 2])
def test_concurrency_is_the_number_of_batches_at_once(
    our_server: RunningServer, kind: type[AnyWorker], limit: int
) -> None:
    worker = make_worker(kind, our_server)
    running = most = 0
    lock, go_on = threading.Lock(), threading.Event()

    @worker.batch("wide", size=2, wait=0.0, concurrency=limit)
    def wide(jobs: Jobs) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go_on.wait(20)
        with lock:
            running -= 1

    with Caller(our_server) as caller:
        handles = submit(caller, "wide", *[b""] * 12)
        with working(worker, **({} if isinstance(worker, AsyncWorker) else {"threads": 4})):
            until(lambda: running == limit)
            go_on.set()
            ends(caller, handles)
    assert most == limit


@pytest.mark.parametrize("is_full", [True, False])
def test_sigterm_finishes_the_batch_at_hand(our_server: RunningServer, kind: type[AnyWorker], is_full: bool) -> None:
    """Also one that waits for more jobs: no more will come."""
    worker = make_worker(kind, our_server)
    started, go_on = threading.Event(), threading.Event()

    @worker.batch("last", size=2 if is_full else 3, wait=LONG)
    def last(jobs: Jobs) -> list[bytes]:
        started.set()
        assert go_on.wait(20)
        return [b"finished"] * len(jobs)

    outcome: list[Any] = []

    def play() -> None:
        with Caller(our_server) as caller:
            handles = submit(caller, "last", b"", b"")
            until(all_assigned(our_server, "last", 2))
            if is_full:
                started.wait(20)
                caller.submit("last")  # stays with the job server
            os.kill(os.getpid(), signal.SIGTERM)
            assert started.wait(20)
            go_on.set()
            outcome.extend(ends(caller, handles))

    thread = threading.Thread(target=play)
    thread.start()
    worker.run()
    thread.join()
    assert outcome == [(WORK_COMPLETE, b"finished")] * 2


def test_a_job_that_is_cancelled_or_has_several_clients(our_server: RunningServer, kind: type[AnyWorker]) -> None:
    """The job server sees to it; the others of the batch are not touched by it."""
    worker = make_worker(kind, our_server)
    sizes: list[int] = []

    @worker.batch("mixed", size=3, wait=LONG)
    def mixed(jobs: Jobs) -> list[bytes]:
        sizes.append(len(jobs))
        return [job.workload for job in jobs]

    with Caller(our_server) as caller, Caller(our_server) as other, working(worker):
        shared = caller.submit("mixed", b"shared", unique=b"one")
        assert other.submit("mixed", b"shared", unique=b"one") == shared
        cancelled = caller.submit("mixed", b"cancelled")
        until(all_assigned(our_server, "mixed", 2))
        assert our_server.ask(f"cancel job {cancelled.decode()}") == ["OK"]
        (failed,) = ends(caller, [cancelled])
        assert failed[0] == WORK_FAIL
        assert ends(caller, [shared, caller.submit("mixed", b"last")]) == [
            (WORK_COMPLETE, b"shared"),
            (WORK_COMPLETE, b"last"),
        ]
        assert ends(other, [shared]) == [(WORK_COMPLETE, b"shared")]
    assert sizes == [3]


def test_a_job_that_is_too_large_fails_alone(our_server: RunningServer, kind: type[AnyWorker]) -> None:
    worker = make_worker(kind, our_server, max_packet=10_000)

    @worker.batch("large", size=2, wait=LONG)
    def large(jobs: Jobs) -> list[bytes]:
        return [b"%d" % len(job.workload) for job in jobs]

    with Caller(our_server) as caller, working(worker):
        good, bad = ends(caller, submit(caller, "large", bytes(1000), bytes(20_000)))
        assert good == (WORK_COMPLETE, b"1000")
        assert bad[1].startswith(b"the worker can't take this job")


def test_a_batch_function_is_submitted_as_a_function_of_one_job(geartrain_server: LocalServer) -> None:
    worker = Worker(middleware=[])

    @worker.batch(size=3, wait=LONG)
    def embed(texts: list[str]) -> list[list[float] | Exception]:
        return [[float(len(text))] if text else ValueError("nothing to embed") for text in texts]

    @worker.batch("reverse", wait=0.0)
    def reverse(jobs: Jobs) -> list[bytes]:
        return [job.workload[::-1] for job in jobs]

    with geartrain_server.run_worker(worker):
        jobs = [embed.submit(text) for text in ("one", "three", "")]
        assert [job.result(20) for job in jobs[:2]] == [[3.0], [5.0]]
        with pytest.raises(JobRaisedError, match="ValueError: nothing to embed"):
            jobs[2].result(20)
        with pytest.raises(ArgumentsError, match=r"texts must be str, not \['one'\]"):
            embed.submit(["one"])  # type: ignore[arg-type]
        assert reverse.options(priority="high").submit(b"hello").result(20) == b"olleh"
        for _ in range(3):
            embed.submit_background("x")
        geartrain_server.wait_idle()
    assert embed(["four"]) == [[4.0]]
    assert reverse([AssignedJob(b"ab")]) == [b"ba"]


def test_without_a_job_server_a_batch_is_of_one(geartrain_eager: Callable[..., EagerClient]) -> None:
    worker = Worker(middleware=[])
    sizes: list[int] = []

    @worker.batch(wait=LONG)
    def half(x: list[int]) -> list[float | Exception]:
        sizes.append(len(x))
        return [one / 2 if one else ValueError("of nothing") for one in x]

    @worker.batch(wait=LONG)
    async def later(x: list[int]) -> list[int]:
        return [one + 1 for one in x]

    @worker.batch(wait=LONG)
    def none(x: list[int]) -> list[int]:
        return []

    client = geartrain_eager(worker)
    assert client.run("half", b"[3]") == b"1.5"
    assert half.submit(5).result() == 2.5
    with pytest.raises(JobRaisedError, match="of nothing"):
        half.submit(0).result()
    assert later.submit(1).result() == 2
    with pytest.raises(JobRaisedError, match="none gave 0 results for 1 jobs"):
        none.submit(1).result()
    assert sizes == [1, 1, 1]

    async def main() -> None:
        async with EagerAsyncClient(worker) as worker.async_client:
            assert await half.run_async(7) == 3.5
            assert await later.run_async(7) == 8

    asyncio.run(main())


def test_what_can_be_no_batch_function() -> None:
    worker = Worker()
    for options, what in (({"size": 0}, "at least one job, not 0"), ({"wait": -1.0}, "seconds, not -1.0"),
                          ({"wait": float("inf")}, "not inf"), ({"soft_limit": 0.0}, "soft_limit must be above 0"),
                          ({"encoding": "xml"}, "no encoding 'xml'")):  # fmt: skip
        with pytest.raises(ValueError, match=what):
            worker.batch("f", **options)(lambda x: None)

    def one(text: str) -> list[str]:
        return []

    def no_list(texts: list[str]) -> str:
        return ""

    def default(texts: list[str], by: list[int] = []) -> None:  # noqa: B006
        pass

    def variable(*texts: list[str]) -> None:
        pass

    def nothing() -> None:
        pass

    def strange(errors: list[OSError]) -> None:
        pass

    def parts(texts: list[str]) -> Iterator[str]:
        yield from texts

    def elsewhere(texts: list[Nowhere]) -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    functions: list[tuple[Callable[..., Any], str]] = [
        (one, "one: text must be a list, with a place for each job"),
        (no_list, "no_list: a batch function gives a list"),
        (default, "can't be a parameter of a batch function"),
        (variable, "can't be a parameter of a batch function"),
        (nothing, "a batch function has a parameter"),
        (strange, "OSError can't travel as JSON"),
        (parts, "can't be a generator"),
        (elsewhere, "a type hint can't be read"),
    ]
    for function, what in functions:
        with pytest.raises(TypeError, match=what):
            worker.batch()(function)
    with pytest.raises(TypeError, match="with its brackets"):
        worker.batch(one)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is no function"):
        worker.batch("f")(3)  # type: ignore[call-overload]
    assert not worker.functions
    worker.batch("f")(lambda jobs: None)
    with pytest.raises(ValueError, match="has a function 'f' already"):
        worker.function("f")(lambda job: None)


def test_hints_of_every_form(geartrain_eager: Callable[..., EagerClient]) -> None:
    worker = Worker(middleware=[])

    @worker.batch(encoding="pickle")
    def error_names(errors: list[OSError]) -> list[str | Exception | None]:
        return [type(error).__name__ for error in errors]

    @worker.batch()
    def failures(x: list[int]) -> list[Exception]:
        return [ValueError(str(one)) for one in x]

    @worker.batch()
    def bare(x, y):  # type: ignore[no-untyped-def]
        return [[one, other] for one, other in zip(x, y, strict=True)]

    @worker.batch()
    def job_names(jobs, x: list):  # type: ignore[no-untyped-def, type-arg]
        return [job.function for job in jobs]

    client = geartrain_eager(worker)
    assert error_names.submit(FileNotFoundError()).result() == "FileNotFoundError"
    with pytest.raises(JobRaisedError, match="ValueError: 3"):
        failures.submit(3).result()
    assert client.run("bare", b'[1, {"a": 2}]') == b'[1,{"a":2}]'
    assert client.run("job_names", b"[1]") == b'"job_names"'
