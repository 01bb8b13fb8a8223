"""Policies and verdicts of workers at job servers that know them, and at those that do not."""

from __future__ import annotations

import itertools
import logging
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from caller import Caller, until, working

from geartrain.contrib.local_server import LocalServer
from geartrain.errors import JobFailedError, JobRaisedError, Reject, Retry
from geartrain.wire.packets import WORK_COMPLETE, WORK_EXCEPTION, WORK_FAIL
from geartrain.worker import AssignedJob, AsyncWorker, Worker
from servers import RunningServer, free_port, running_gearmand, running_geartrain, running_perl_server

KINDS = pytest.mark.parametrize("kind", [Worker, AsyncWorker])
OTHERS = {"gearmand": running_gearmand, "perl": running_perl_server}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_geartrain() as server:
        yield server


@pytest.fixture
def caller(server: RunningServer) -> Iterator[Caller]:
    with Caller(server) as caller:
        yield caller


@pytest.fixture(scope="module", params=OTHERS)
def other(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with OTHERS[request.param]() as server:
        yield server


def policies(server: RunningServer) -> dict[str, str]:
    """The policies that the job server keeps to, by function."""
    rows = [row.split("\t") for row in server.ask("policy show")]
    return {name: words for name, _, words in rows}


def dead(server: RunningServer, function: str) -> list[dict[str, str]]:
    """The dead letters of a function."""
    names = ("handle", "function", "unique", "died", "reason", "attempts", "size", "text")
    rows = server.ask(f"dead list function={function}")
    return [dict(zip(names, row.split("\t"), strict=True)) for row in rows]


def told(caplog: pytest.LogCaptureFixture, what: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if what in record.getMessage()]


# At job servers that know policies.


@KINDS
def test_what_is_declared_is_in_force_where_it_is_known(
    server: RunningServer, kind: type[Worker | AsyncWorker]
) -> None:
    worker = kind(server.address, namespace=f"{kind.__name__}.")
    worker.function("resize", retries=5, backoff="linear", delay="2s")(lambda job: b"")
    worker.batch("store", rate="10/s", burst=3, raw=True)(lambda jobs: None)
    worker.function("plain", timeout=60)(lambda job: b"")
    with working(worker):
        until(lambda: len({name for name in policies(server) if name.startswith(kind.__name__)}) == 2)
    known = policies(server)
    assert known[f"{kind.__name__}.resize"] == "attempts=6 backoff=linear delay=2s"
    assert known[f"{kind.__name__}.store"] == "rate=10/s burst=3"


@KINDS
def test_a_job_is_tried_again_when_its_function_says_so(
    server: RunningServer, caller: Caller, kind: type[Worker | AsyncWorker]
) -> None:
    worker = kind(server.address)
    began: list[float] = []

    @worker.function("again", attempts=4, delay=60)
    def again(job: AssignedJob) -> bytes:
        began.append(time.monotonic())
        if len(began) < 3:
            raise Retry(after=0.3, reason="busy")
        return b"done"

    with working(worker):
        assert [packet.type for packet in caller.packets("again")] == [WORK_COMPLETE]  # of what was before nothing
    assert [later - earlier >= 0.3 for earlier, later in itertools.pairwise(began)] == [True, True]


@KINDS
def test_a_retry_that_is_one_too_many_is_the_end(
    server: RunningServer, caller: Caller, kind: type[Worker | AsyncWorker]
) -> None:
    worker = kind(server.address)
    name = f"hopeless.{kind.__name__}"

    @worker.function(name, attempts=2)
    def hopeless(job: AssignedJob) -> bytes:
        try:
            raise KeyError("x")
        except KeyError as error:
            raise Retry(after=0) from error

    with working(worker):
        assert caller.error(name, b"x") == "KeyError: 'x'"
    (letter,) = dead(server, name)
    assert (letter["reason"], letter["attempts"], letter["text"]) == ("retry", "2", "KeyError: 'x'")


@KINDS
@pytest.mark.parametrize("has_text", [True, False])
def test_a_rejected_job_ends_at_once(
    server: RunningServer, caller: Caller, kind: type[Worker | AsyncWorker], has_text: bool
) -> None:
    worker = kind(server.address)
    name = f"strict.{kind.__name__}.{has_text}"

    @worker.function(name, attempts=10, delay=0)
    def strict(job: AssignedJob) -> bytes:
        raise Reject("bad input" if has_text else "")

    with working(worker):
        last = caller.packets(name, b"x")[-1]
    assert (last.type, last.arguments[1:]) == ((WORK_EXCEPTION, (b"bad input",)) if has_text else (WORK_FAIL, ()))
    (letter,) = dead(server, name)
    assert (letter["reason"], letter["attempts"]) == ("reject", "1")
    assert letter["text"] == ("bad input" if has_text else "")


@KINDS
def test_an_exception_is_tried_again_by_the_same_worker_without_delay(
    server: RunningServer, caller: Caller, kind: type[Worker | AsyncWorker]
) -> None:
    worker = kind(server.address, middleware=[])
    tries: Counter[bytes] = Counter()
    name = f"shaky.{kind.__name__}"

    @worker.function(name, attempts=3, delay=0)
    def shaky(job: AssignedJob) -> bytes:
        tries[job.workload] += 1
        if tries[job.workload] < 3:
            raise ValueError("not yet")
        return job.workload

    with working(worker):
        for number in range(50):
            assert caller.run(name, b"%d" % number) == b"%d" % number
    assert set(tries.values()) == {3}


@KINDS
def test_a_job_whose_time_is_up_is_tried_again_by_the_same_worker(
    server: RunningServer, caller: Caller, kind: type[Worker | AsyncWorker]
) -> None:
    """While its first attempt goes on, whose result counts no more."""
    worker = kind(server.address)
    has_ended = threading.Event()
    tries: list[AssignedJob] = []
    name = f"slow.{kind.__name__}"

    @worker.function(name, timeout=0.3, attempts=2, delay=0)
    def slow(job: AssignedJob) -> bytes:
        tries.append(job)
        if len(tries) == 1:
            has_ended.wait(10)
            return b"late"
        return b"in time"

    with working(worker, **({"threads": 2} if kind is Worker else {"concurrency": 2})):
        assert caller.run(name) == b"in time"
        has_ended.set()
        assert caller.run(name) == b"in time"
    assert len(tries) == 3


@KINDS
def test_a_place_of_a_batch_may_hold_a_verdict(
    server: RunningServer, caller: Caller, kind: type[Worker | AsyncWorker]
) -> None:
    worker = kind(server.address)
    tries: Counter[int] = Counter()
    name = f"store.{kind.__name__}"

    @worker.batch(name, size=4, wait=0.05, attempts=3)
    def store(values: list[int]) -> list[int | Exception]:
        tries.update(values)
        return [Reject("negative") if n < 0 else Retry(0) if tries[n] == 1 else n * 2 for n in values]

    with working(worker), Caller(server) as second, Caller(server) as third:
        for one, workload in ((caller, b"[1]"), (second, b"[-1]"), (third, b"[2]")):
            one.submit(name, workload)
        assert [one.follow()[-1].arguments[1] for one in (caller, second, third)] == [b"2", b"negative", b"4"]
    assert tries == {1: 2, -1: 1, 2: 2}


@KINDS
def test_without_exceptions_a_verdict_has_no_text(
    server: RunningServer, caller: Caller, kind: type[Worker | AsyncWorker]
) -> None:
    worker = kind(server.address, exceptions=False)

    @worker.function("secret")
    def secret(job: AssignedJob) -> bytes:
        raise Reject("nobody is to know")

    with working(worker):
        assert [packet.type for packet in caller.packets("secret")] == [WORK_FAIL]


def test_a_policy_that_is_refused_is_told_once_and_the_worker_goes_on(
    server: RunningServer, caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(server.address)
    worker.function("halved", burst=5)(lambda job: b"works")  # a burst of no rate
    with caplog.at_level(logging.WARNING, "geartrain.worker"), working(worker, threads=3):
        assert caller.run("halved") == b"works"
        until(lambda: told(caplog, "halved"))
        until(lambda: all(thread.is_ready for thread in worker.threads))
    (line,) = told(caplog, "halved")
    assert line.startswith(f"{server.address} refused the policy of halved: INVALID_POLICY burst=5: ")


@KINDS
def test_a_job_server_that_comes_back_is_told_again(kind: type[Worker | AsyncWorker]) -> None:
    port = free_port()
    worker = kind(f"127.0.0.1:{port}")
    worker.function("resize", retries=5)(lambda job: b"")
    with working(worker):
        for _ in range(2):
            with running_geartrain(port=port) as server:  # which forgets all it knew
                until(lambda: policies(server) == {"resize": "attempts=6"}, seconds=30)


def test_a_retry_waits_for_the_clock_of_a_test(geartrain_server: LocalServer) -> None:
    worker = Worker()
    tries: list[int] = []

    @worker.function(retries=3)
    def add(x: int, y: int) -> int:
        tries.append(x)
        if len(tries) == 1:
            raise Retry(after="1h")
        return x + y

    with geartrain_server.run_worker(worker):
        job = add.submit(2, 3)
        geartrain_server.wait_idle()
        assert (len(tries), job.done) == (1, False)
        geartrain_server.clock.advance(3599)
        geartrain_server.wait_idle()
        assert len(tries) == 1
        geartrain_server.clock.advance(1)
        assert job.result(timeout=10) == 5


# At those that do not.


@KINDS
def test_elsewhere_a_verdict_is_a_failure(
    other: RunningServer, kind: type[Worker | AsyncWorker], caplog: pytest.LogCaptureFixture
) -> None:
    worker = kind(other.address, middleware=[])

    @worker.function("verdict", retries=5, key_separator="/", key_rate="10/s", weight=3)
    def verdict(job: AssignedJob) -> bytes:
        how = {b"retry": Retry(30, "busy"), b"reject": Reject("bad input"), b"bare": Retry(), b"never": Reject()}
        if job.workload in how:
            raise how[job.workload]
        return job.workload

    @worker.batch("many", attempts=2)
    def many(values: list[int]) -> list[int | Exception]:
        return [Retry(1, "busy") if n < 0 else n for n in values]

    with caplog.at_level(logging.WARNING, "geartrain.worker"), working(worker), Caller(other) as caller:
        for _ in range(3):
            ends = [caller.packets("verdict", how)[-1] for how in (b"fine", b"bare", b"never")]
            assert [end.type for end in ends] == [WORK_COMPLETE, WORK_FAIL, WORK_FAIL]
            assert caller.run("many", b"[1]") == b"1"
            for function, how, text in (
                ("verdict", b"retry", b"busy"),
                ("verdict", b"reject", b"bad input"),
                ("many", b"[-1]", b"busy"),
            ):
                end = caller.packets(function, how)[-1]
                assert (end.type, end.arguments[1]) == (WORK_EXCEPTION, text)
                if other.kind == "perl":
                    assert caller.hear().type == WORK_FAIL
        assert caller.run("verdict", b"fine") == b"fine"
    lines = told(caplog, "knows no policies")
    assert sorted(lines) == [
        f"{other.address} knows no policies: a job with a verdict, Retry or Reject, just fails there",
        *sorted(
            f"{other.address} knows no policies: those of {name} do not hold there" for name in ("verdict", "many")
        ),
    ]
    assert not told(caplog, "lost ")
    assert not told(caplog, "refused")


@KINDS
def test_who_declares_no_policy_hears_of_none(
    other: RunningServer, kind: type[Worker | AsyncWorker], caplog: pytest.LogCaptureFixture
) -> None:
    worker = kind(other.address)
    worker.function("plain")(lambda job: job.workload)
    with caplog.at_level(logging.DEBUG, "geartrain.worker"), working(worker), Caller(other) as caller:
        assert caller.run("plain", b"x") == b"x"
    assert not told(caplog, "policies")


PROGRAM = """
import logging, sys
from geartrain import Retry
from geartrain.worker import Worker
logging.basicConfig(level=logging.INFO)
worker = Worker(sys.argv[1])

@worker.function("again", retries=5)
def again(job):
    raise Retry(30, "busy")

worker.run(processes=2, threads=2, max_jobs=5)
"""


def test_all_processes_of_a_worker_tell_it_once(other: RunningServer, tmp_path: Path) -> None:
    """Also those that take the place of others."""
    file = tmp_path / "program.py"
    file.write_text(textwrap.dedent(PROGRAM))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, str(file), other.address], stderr=log)
        try:
            with Caller(other) as caller:
                for _ in range(25):
                    assert caller.error("again") == "busy"
                    if other.kind == "perl":
                        caller.hear()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    text = (tmp_path / "log").read_text()
    assert text.count("jobs are done: leaving") >= 3
    assert text.count("those of again do not hold there") == 1
    assert text.count("a job with a verdict, Retry or Reject, just fails there") == 1


# In tests without a job server.


def test_an_eager_job_is_tried_once(geartrain_eager: Any) -> None:
    worker = Worker()
    tries: list[BaseException] = [Retry(30, "busy"), Reject("bad input"), Retry()]

    @worker.function(retries=5)
    def add(x: int, y: int) -> int:
        raise tries.pop(0)

    geartrain_eager(worker)
    for text, after in (("busy", 30.0), ("bad input", None)):
        with pytest.raises(JobRaisedError, match=f"^{text}$") as caught:
            add.submit(2, 3).result()
        assert getattr(caught.value.__cause__, "after", None) == after
    with pytest.raises(JobFailedError) as failed:
        add.submit(2, 3).result()
    assert isinstance(failed.value.__cause__, Retry)
