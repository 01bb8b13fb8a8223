"""Spans of submissions and runs belong together, whichever client, worker and job server; they cost others nothing."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from geartrain import AsyncClient, AsyncWorker, Client, Worker
from geartrain.client.tracing import Tracing as ClientTracing
from geartrain.errors import ConnectError, JobRaisedError, Retry, TimedOutError
from geartrain.worker import AssignedJob, Middleware
from geartrain.worker.tracing import Tracing as WorkerTracing
from servers import RunningServer, running_gearmand, running_geartrain, running_perl_server, wait_until


class Spans:
    """The spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    def all(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}

    def wait_for(self, *names: str) -> list[ReadableSpan]:
        wait_until(lambda: set(names) <= set(self.all()), f"{names} have ended")
        return [self.all()[name] for name in names]


class Seen(Middleware):
    """Which trace each job was said to belong to."""

    def __init__(self) -> None:
        self.traceparents: list[bytes] = []

    def before(self, job: AssignedJob) -> None:
        self.traceparents.append(job.traceparent)


@pytest.fixture
def spans() -> Spans:
    return Spans()


def declare(worker: Worker | AsyncWorker, spans: Spans) -> None:
    @worker.function()
    def add(a: int, b: int) -> int:
        with spans.tracer.start_as_current_span("inside"):
            return a + b

    @worker.function()
    def broken(job: AssignedJob) -> bytes:
        raise ValueError("oops")

    @worker.function()
    def later(job: AssignedJob) -> bytes:
        raise Retry(after=1000)


@contextlib.contextmanager
def working(server: RunningServer, spans: Spans, *middleware: Middleware) -> Iterator[None]:
    worker = Worker(server.address, middleware=middleware or [WorkerTracing(spans.provider)])
    declare(worker, spans)
    with worker:
        yield


def belongs_to(span: ReadableSpan, parent: ReadableSpan | None) -> bool:
    if parent is None:
        return span.parent is None
    return span.parent is not None and span.parent.span_id == parent.context.span_id


def check_one_trace(spans: Spans, outer: ReadableSpan) -> None:
    submit, wait, run, inside = spans.wait_for("submit add", "wait add", "run add", "inside")
    assert len({span.context.trace_id for span in (outer, submit, wait, run, inside)}) == 1
    assert belongs_to(submit, outer)
    assert belongs_to(wait, outer)
    assert belongs_to(run, submit)
    assert belongs_to(inside, run)
    kinds = (SpanKind.PRODUCER, SpanKind.CLIENT, SpanKind.CONSUMER)
    assert (submit.kind, wait.kind, run.kind) == kinds
    assert submit.start_time <= submit.end_time <= wait.start_time <= wait.end_time  # type: ignore[operator]
    for span in (submit, run):
        assert (span.attributes or {})["messaging.destination.name"] == "add"
        assert (span.attributes or {})["messaging.system"] == "gearman"
    assert (submit.attributes or {})["messaging.message.id"] == (run.attributes or {})["messaging.message.id"]
    assert {span.status.status_code for span in (submit, wait, run)} == {StatusCode.UNSET}


def test_one_trace_from_the_submission_to_what_the_function_does(spans: Spans) -> None:
    with running_geartrain() as server, working(server, spans):
        with (
            Client(server.address, tracing=ClientTracing(spans.provider)) as client,
            spans.tracer.start_as_current_span("outer"),
        ):
            assert client.run("add", b"[2, 3]", timeout=10) == b"5"
        (outer,) = spans.wait_for("outer")
        check_one_trace(spans, outer)


def test_the_same_with_asyncio(spans: Spans) -> None:
    async def run(server: RunningServer) -> None:
        worker = AsyncWorker(server.address, middleware=[WorkerTracing(spans.provider)])
        declare(worker, spans)
        async with worker, AsyncClient(server.address, tracing=ClientTracing(spans.provider)) as client:
            with spans.tracer.start_as_current_span("outer"):
                assert await client.run("add", b"[2, 3]", timeout=10) == b"5"

    with running_geartrain() as server:
        asyncio.run(run(server))
    (outer,) = spans.wait_for("outer")
    check_one_trace(spans, outer)


def test_background_jobs_each_in_its_own_trace(spans: Spans, tmp_path: Any) -> None:
    """Also of a workload that has gone to the store, and is read again for its worker."""
    store = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    with (
        running_geartrain("--spill-above=100", store=store) as server,
        Client(server.address, tracing=ClientTracing(spans.provider)) as client,
        Client(server.address) as untraced,
    ):
        untraced.submit_background("add", b"[1, 1]")
        for size in (0, 1000):
            client.submit_background("add", b"[1, 1" + b" " * size + b"]")
        untraced.submit_background("add", b"[1, 1]")
        seen = Seen()
        with working(server, spans, seen):
            wait_until(lambda: len(seen.traceparents) == 4, "all are run")
        assert seen.traceparents == [b""] * 4, "a worker that does not ask is told nothing"
        for size in (0, 1000):
            client.submit_background("add", b"[1, 1" + b" " * size + b"]")
        untraced.submit_background("add", b"[1, 1]")
        seen = Seen()
        with working(server, spans, WorkerTracing(spans.provider), seen):
            wait_until(lambda: len(seen.traceparents) == 3, "all are run")
        submits = [span for span in spans._exporter.get_finished_spans() if span.name == "submit add"][-2:]
        contexts = [span.context for span in submits]
        untold, *told = sorted(seen.traceparents)
        assert untold == b""
        assert told == sorted(
            b"00-%032x-%016x-%02x" % (one.trace_id, one.span_id, one.trace_flags) for one in contexts if one is not None
        )
        assert "wait add" not in spans.all()


@pytest.mark.parametrize("other", [running_gearmand, running_perl_server])
def test_job_servers_that_know_nothing_of_it(
    spans: Spans, other: Callable[[], AbstractContextManager[RunningServer]]
) -> None:
    """Client and worker have their spans there too, each in a trace of its own; nothing is said in a log."""
    with other() as server, working(server, spans):
        with Client(server.address, tracing=ClientTracing(spans.provider)) as client:
            for _ in range(3):
                assert client.run("add", b"[2, 3]", timeout=10) == b"5"
        submit, wait, run = spans.wait_for("submit add", "wait add", "run add")
        for span in (submit, wait, run):
            assert belongs_to(span, None)


def test_what_goes_wrong_is_in_the_spans(spans: Spans) -> None:
    with (
        running_geartrain() as server,
        working(server, spans),
        Client(server.address, tracing=ClientTracing(spans.provider)) as client,
    ):
        with pytest.raises(JobRaisedError):
            client.run("broken", timeout=10)
        for span in spans.wait_for("wait broken", "run broken"):
            assert span.status.status_code == StatusCode.ERROR
            assert [event.name for event in span.events] == ["exception"]
        with pytest.raises(TimedOutError):
            client.run("later", timeout=0.5)
        wait, run = spans.wait_for("wait later", "run later")
        assert (wait.status.status_code, run.status.status_code) == (StatusCode.ERROR, StatusCode.ERROR)
    with Client("127.0.0.1:1", tracing=ClientTracing(spans.provider)) as client:
        with pytest.raises(ConnectError):
            client.run("unreachable", timeout=5)
        (submit,) = spans.wait_for("submit unreachable")
        assert submit.status.status_code == StatusCode.ERROR


def test_many_at_once_have_their_own(spans: Spans) -> None:
    with (
        running_geartrain() as server,
        working(server, spans),
        Client(server.address, tracing=ClientTracing(spans.provider)) as client,
    ):
        assert list(client.map("add", [b"[%d, 1]" % number for number in range(100)], timeout=10))
        wait_until(lambda: len(spans._exporter.get_finished_spans()) == 400, "all have ended")
        found = spans._exporter.get_finished_spans()
        runs = {span.parent.span_id for span in found if span.name == "run add" and span.parent is not None}
        assert runs == {
            span.context.span_id for span in found if span.name == "submit add" and span.context is not None
        }


@pytest.mark.parametrize("background", ["", "true"])
def test_a_request_over_http_says_its_trace_by_its_header(spans: Spans, background: str) -> None:
    pytest.importorskip("httptools")
    header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with running_geartrain("--http=127.0.0.1:0") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=20)
        seen = Seen()
        with working(server, spans, WorkerTracing(spans.provider), seen):
            for number, traceparent in enumerate((header, "", "00-none-of-it-01", header)):
                headers = {"traceparent": traceparent, **({"X-Gearman-Background": background} if background else {})}
                connection.request("POST", "/add", b"[%d, 1]" % number, headers)
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, b"" if background else b"%d" % (number + 1))
            wait_until(lambda: len(seen.traceparents) == 4, "all are run")
        connection.close()
    assert seen.traceparents == [header.encode(), b"", b"", header.encode()]
    (run,) = spans.wait_for("run add")
    assert run.parent is not None
    assert (f"{run.parent.trace_id:032x}", f"{run.parent.span_id:016x}") == tuple(header.split("-")[1:3])


def test_without_it_nothing_is_imported() -> None:
    code = "import sys, geartrain; geartrain.Client; geartrain.Worker(); print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
