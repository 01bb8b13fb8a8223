"""The blocking worker on real job servers."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest
from caller import Caller, until

from geartrain.errors import GeartrainError, JobFailedError, JobRaisedError
from geartrain.wire.packets import SUBMIT_JOB_BG, WORK_COMPLETE, WORK_DATA, WORK_FAIL, WORK_STATUS, WORK_WARNING
from geartrain.worker import AssignedJob, Worker
from servers import RunningServer, free_port, running_gearmand, running_geartrain, running_perl_server

SERVERS = {"geartrain": running_geartrain, "gearmand": running_gearmand, "perl": running_perl_server}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with SERVERS[request.param]() as server:
        yield server


@pytest.fixture(scope="module")
def our_server() -> Iterator[RunningServer]:
    with running_geartrain() as server:
        yield server


@pytest.fixture
def caller(server: RunningServer) -> Iterator[Caller]:
    with Caller(server) as caller:
        yield caller


def make_worker(*servers: RunningServer | str, **options: Any) -> Worker:
    return Worker([str(getattr(server, "address", server)) for server in servers], **options)


def test_a_function_is_called_in_a_test_as_the_ordinary_function_it_is() -> None:
    worker = Worker()

    @worker.function("reverse")
    def reverse(job: AssignedJob) -> bytes:
        """Turn it round."""
        job.progress(1, 2)
        return job.workload[::-1]

    job = AssignedJob(b"hello")
    assert reverse(job) == b"olleh"
    assert [packet.arguments for packet in job.sent] == [(b"", b"1", b"2")]
    assert reverse.__doc__ == "Turn it round."


def test_what_a_job_made_by_hand_says_is_kept_as_bytes() -> None:
    job, data = AssignedJob(), bytearray(b"part")
    job.send(data)
    job.warn(memoryview(data)[1:])
    data[:] = b"else"
    said = [packet.arguments[1] for packet in job.sent]
    assert said == [b"part", b"art"]
    assert {type(one) for one in said} == {bytes}
    for wrong in (5, "text", None):
        with pytest.raises(TypeError):
            job.send(wrong)  # type: ignore[arg-type]


def test_jobs_of_any_size_come_and_go(server: RunningServer, caller: Caller) -> None:
    worker = make_worker(server)
    worker.function("reverse")(lambda job: job.workload[::-1])
    with worker:
        for workload in (b"", b"\0", b"hel\0lo", bytes(range(256)) * 4096):
            assert caller.run("reverse", workload) == workload[::-1]


def test_what_a_function_says_on_its_way(server: RunningServer, caller: Caller) -> None:
    if server.kind == "perl":
        pytest.skip("the Perl server knows neither WORK_DATA nor WORK_WARNING")
    worker = make_worker(server)

    @worker.function("talk")
    def talk(job: AssignedJob) -> bytes:
        job.progress(1, 2)
        job.send(b"pa\0rt")
        job.send(memoryview(b"another")[2:])
        job.warn(bytearray(b"careful"))
        return b"done"

    with worker:
        said = caller.packets("talk")
    assert [packet.type for packet in said] == [WORK_STATUS, WORK_DATA, WORK_DATA, WORK_WARNING, WORK_COMPLETE]
    assert [packet.arguments[1:] for packet in said] == [
        (b"1", b"2"),
        (b"pa\0rt",),
        (b"other",),
        (b"careful",),
        (b"done",),
    ]


def test_generators_and_coroutines(server: RunningServer, caller: Caller) -> None:
    if server.kind == "perl":
        pytest.skip("the Perl server knows no WORK_DATA")
    worker = make_worker(server)

    @worker.function()
    def chunks(job: AssignedJob) -> Generator[bytes, None, bytes]:
        for start in range(0, len(job.workload), 2):
            yield job.workload[start : start + 2]
        return b"end"

    @worker.function()
    async def later(job: AssignedJob) -> bytes:
        return job.workload.upper()

    @worker.function()
    async def later_chunks(job: AssignedJob) -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    with worker:
        assert [packet.arguments[1] for packet in caller.packets("chunks", b"abcde")] == [b"ab", b"cd", b"e", b"end"]
        assert caller.run("later", b"abc") == b"ABC"
        assert [packet.arguments[1] for packet in caller.packets("later_chunks")] == [b"a", b"b", b""]


def test_a_raised_exception_is_told_with_its_traceback(server: RunningServer, caller: Caller) -> None:
    worker = make_worker(server, middleware=[])

    @worker.function()
    def boom(job: AssignedJob) -> None:
        raise ValueError("no such thing")

    @worker.function()
    def silent(job: AssignedJob) -> None:
        raise JobFailedError()

    @worker.function()
    def own_words(job: AssignedJob) -> None:
        raise JobRaisedError(b"\xffmine")

    @worker.function()
    def leaves(job: AssignedJob) -> None:
        raise SystemExit(3)

    @worker.function()
    def text(job: AssignedJob) -> str:
        return "text"

    with worker:
        said = caller.error("boom")
        assert said.startswith("Traceback")
        assert said.endswith("ValueError: no such thing")
        assert "in boom" in said
        assert "geartrain" not in said
        if server.kind == "perl":  # it relays the exception and waits for the WORK_FAIL
            assert caller.hear().type == WORK_FAIL
        assert caller.packets("silent")[-1].type == WORK_FAIL
        for function, expected in (
            ("leaves", "SystemExit: 3"),
            ("text", "TypeError: text gave str 'text'; a raw function gives bytes, or None"),
        ):
            assert caller.error(function).endswith(expected)
            if server.kind == "perl":
                assert caller.hear().type == WORK_FAIL
        assert caller.packets("own_words")[-1].arguments[1] == b"\xffmine"


def test_without_exceptions_it_only_fails(server: RunningServer, caller: Caller) -> None:
    worker = make_worker(server, middleware=[], exceptions=False)
    worker.function("divide")(lambda job: 1 / 0)
    with worker:
        assert [packet.type for packet in caller.packets("divide")] == [WORK_FAIL]


@pytest.mark.parametrize(("option", "name"), [("namespace", "shopname"), ("prefix", "shop\tname")])
def test_a_namespace_as_other_libraries_have_it(server: RunningServer, caller: Caller, option: str, name: str) -> None:
    worker = make_worker(server, **{option: "shop"})
    worker.function("name")(lambda job: job.function.encode())
    with worker:
        assert caller.run(name) == b"name"


def test_the_unique_is_known(our_server: RunningServer) -> None:
    worker = make_worker(our_server)
    worker.function("unique")(lambda job: job.unique + b" " + job.handle)
    with worker, Caller(our_server) as caller:
        handle = caller.submit("unique", unique=b"u1")
        assert caller.follow()[-1].arguments[1] == b"u1 " + handle


def test_threads_work_side_by_side(server: RunningServer) -> None:
    worker = make_worker(server)
    together = threading.Barrier(3, timeout=10)
    worker.function("meet")(lambda job: together.wait() * 0 or b"met")
    worker.start(threads=3)
    callers = [Caller(server) for _ in range(3)]
    try:
        for caller in callers:
            caller.submit("meet")
        assert [caller.follow()[-1].arguments[1] for caller in callers] == [b"met"] * 3
    finally:
        for caller in callers:
            caller.close()
        worker.stop()
        assert worker.join(10)


def test_concurrency_limits_one_function_among_the_threads(our_server: RunningServer) -> None:
    worker = make_worker(our_server)
    running, most = 0, 0
    lock, go_on = threading.Lock(), threading.Event()

    @worker.function(concurrency=2)
    def narrow(job: AssignedJob) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go_on.wait(10)
        with lock:
            running -= 1

    worker.function("wide")(lambda job: b"")
    worker.start(threads=4)
    with Caller(our_server) as caller:
        for _ in range(6):
            caller.submit("narrow")
        with Caller(our_server) as other:
            until(lambda: running == 2)
            assert other.run("wide") == b""
        go_on.set()
        for _ in range(6):
            caller.follow()
    worker.stop()
    assert worker.join(10)
    assert most == 2


def test_a_worker_takes_from_whichever_server_has_work(our_server: RunningServer) -> None:
    with running_gearmand() as other:
        down = f"127.0.0.1:{free_port()}"
        worker = make_worker(down, our_server, other)
        worker.function("echo")(lambda job: job.workload)
        with worker, Caller(our_server) as first, Caller(other) as second:
            for number in range(20):
                assert first.run("echo", b"%d" % number) == b"%d" % number
                assert second.run("echo", b"%d" % number) == b"%d" % number


def test_no_server_and_no_thread_is_forgotten_over_one_that_always_has_a_job(our_server: RunningServer) -> None:
    """Each job of the one is followed by another; all the same the jobs of a server that wakes up are done meanwhile,
    and the worker leaves when it is told to."""
    with running_geartrain() as other, Caller(our_server) as first, Caller(other) as second:
        worker = make_worker(our_server, other)

        @worker.function()
        def again(job: AssignedJob) -> None:
            first.submit("again", type=SUBMIT_JOB_BG)

        worker.function("echo")(lambda job: job.workload)
        first.submit("again", type=SUBMIT_JOB_BG)
        first.submit("again", type=SUBMIT_JOB_BG)
        worker.start()
        for number in range(20):
            assert second.run("echo", b"%d" % number) == b"%d" % number
        worker.stop()
        assert worker.join(10)


def test_what_a_job_says_after_its_end_goes_nowhere(our_server: RunningServer) -> None:
    worker = make_worker(our_server)
    jobs: list[AssignedJob] = []

    @worker.function()
    def leave(job: AssignedJob) -> bytes:
        jobs.append(job)
        return b"done"

    with worker, Caller(our_server) as caller:
        assert caller.run("leave") == b"done"
        until(lambda: not worker.threads[0].at_hand)
        jobs[0].progress(1, 2)
        jobs[0].send(b"late")
        assert caller.run("leave") == b"done"
        assert not caller.heard


def test_a_worker_outlives_its_server() -> None:
    port = free_port()
    worker = make_worker(f"127.0.0.1:{port}")
    worker.function("echo")(lambda job: job.workload)
    with worker:
        for _ in range(2):
            with running_geartrain(port=port) as server, Caller(server) as caller:
                assert caller.run("echo", b"hello") == b"hello"
                server.process.kill()
                server.process.wait()


def test_a_job_whose_server_died_is_lost_and_the_worker_goes_on() -> None:
    port = free_port()
    worker = make_worker(f"127.0.0.1:{port}")
    jobs: list[AssignedJob] = []

    @worker.function()
    def long(job: AssignedJob) -> bytes:
        jobs.append(job)
        while not job.lost:
            job.send(b"still here")
        return b"nobody hears this"

    worker.function("echo")(lambda job: job.workload)
    with worker:
        with running_geartrain(port=port) as server, Caller(server) as caller:
            caller.submit("long")
            until(lambda: jobs)
            server.process.kill()
            server.process.wait()
        with running_geartrain(port=port) as server, Caller(server) as caller:
            assert caller.run("echo", b"hello") == b"hello"
    assert jobs[0].lost


def test_sigterm_lets_the_job_at_hand_finish(our_server: RunningServer) -> None:
    worker = make_worker(our_server)
    started, go_on = threading.Event(), threading.Event()

    @worker.function()
    def slow(job: AssignedJob) -> bytes:
        started.set()
        go_on.wait(10)
        return b"finished"

    outcome: list[bytes] = []

    def play() -> None:
        with Caller(our_server) as caller:
            caller.submit("slow")
            started.wait(10)
            os.kill(os.getpid(), signal.SIGTERM)
            until(lambda: worker.threads[0].is_leaving)
            go_on.set()
            outcome.append(caller.follow()[-1].arguments[1])

    thread = threading.Thread(target=play)
    thread.start()
    worker.run()
    thread.join()
    assert outcome == [b"finished"]


@pytest.mark.parametrize("how", ["a second signal", "the end of the time limit"])
def test_a_job_that_does_not_finish_goes_back(our_server: RunningServer, how: str) -> None:
    worker = make_worker(our_server)
    started, go_on = threading.Event(), threading.Event()

    @worker.function("stubborn")
    def stubborn(job: AssignedJob) -> None:
        started.set()
        go_on.wait(10)

    def play() -> None:
        started.wait(10)
        os.kill(os.getpid(), signal.SIGTERM)
        if how == "a second signal":
            until(lambda: worker.threads[0].is_leaving)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=play)
    thread.start()
    with Caller(our_server) as caller:
        caller.submit("stubborn", b"again")
        with pytest.raises(SystemExit):
            worker.run(grace=0.1 if how == "the end of the time limit" else 60)
        thread.join()
        other = make_worker(our_server)
        other.function("stubborn")(lambda job: job.workload)
        with other:
            assert caller.follow()[-1].arguments[1] == b"again"
        go_on.set()


def test_mistakes_are_told_kindly() -> None:
    worker = Worker()
    with pytest.raises(GeartrainError, match="no function"):
        worker.run()
    worker.function("twice")(lambda job: None)
    with pytest.raises(ValueError, match="'twice' already"):
        worker.function("twice")(lambda job: None)
    with pytest.raises(ValueError, match="NUL"):
        worker.function("a\0b")(lambda job: None)
    with pytest.raises(ValueError, match="timeout must be above 0, not -1"):
        worker.function("late", timeout=-1)(lambda job: None)
    with pytest.raises(ValueError, match="room for at least one job, not 0"):
        worker.start(threads=0)
    with pytest.raises(TypeError, match="no option 'colour'"):
        worker.run(colour="red")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="max_jobs must be above 0, not 0"):
        worker.run(max_jobs=0)
    with pytest.raises(ValueError, match="room for at least one job"):
        worker.run(processes=2, threads=-1)
    with pytest.raises(ValueError, match="'a b' can't be a worker's id"):
        Worker(id="a b")
    with pytest.raises(ValueError, match="not both"):
        Worker(namespace="a", prefix="b")


def test_a_hard_limit_without_a_supervisor_is_warned_of(
    our_server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make_worker(our_server)
    worker.function("limited", hard_limit=5)(lambda job: b"done")
    with caplog.at_level(logging.WARNING):
        worker.start(threads=3)
    with Caller(our_server) as caller:
        assert [caller.run("limited") for _ in range(9)] == [b"done"] * 9
    worker.stop()
    assert worker.join(10)
    assert "hard limits (of ['limited']) need a process that can be killed" in caplog.text
