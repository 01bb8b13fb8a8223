"""Typed functions: declared, called directly, run as jobs, and submitted through a client."""

from __future__ import annotations

import asyncio
import datetime
import functools
import json
import pickle
import subprocess
import sys
import textwrap
import types
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from caller import Caller

from geartrain.client import AsyncClient, Client, DataEvent, SubmittedJob
from geartrain.contrib.eager import EagerClient
from geartrain.contrib.local_server import LocalServer
from geartrain.errors import ArgumentsError, GeartrainError, JobRaisedError
from geartrain.worker import AssignedJob, AsyncWorker, Worker
from servers import RunningServer, running_geartrain


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_geartrain() as server:
        yield server


@pytest.fixture
def worker(server: RunningServer) -> Worker:
    return Worker(server.address, middleware=[])


@pytest.fixture
def caller(server: RunningServer) -> Iterator[Caller]:
    with Caller(server) as caller:
        yield caller


@dataclass
class Photo:
    path: str
    taken: datetime.date | None = None


def test_a_typed_function_is_an_ordinary_one_too(worker: Worker) -> None:
    @worker.function()
    def add(x: int, y: int = 1) -> int:
        """Add."""
        return x + y

    assert add(2, 3) == 5
    assert add(x=2) == 3
    assert (add.name, add.__doc__) == ("add", "Add.")


def test_arguments_come_as_a_list_or_by_name(worker: Worker, caller: Caller) -> None:
    @worker.function("sum")
    def add(x: int, y: int = 1) -> int:
        return x + y

    with worker:
        assert caller.run("sum", b"[2, 3]") == b"5"
        assert caller.run("sum", b"[2]") == b"3"
        assert caller.run("sum", b'{"y": 5, "x": 2}') == b"7"
        assert caller.error("sum", b'["a", 3]') == "sum: x must be int, not 'a' (str)"
        assert caller.error("sum", b'{"x": 1, "y": null}') == "sum: y must be int, not None (NoneType)"
        assert caller.error("sum") == "sum: missing a required argument: 'x'"
        assert caller.error("sum", b"[1,2,3]") == "sum: too many positional arguments"
        assert caller.error("sum", b'{"x": 1, "z": 2}') == "sum: got an unexpected keyword argument 'z'"
        assert caller.error("sum", b"7") == "sum takes a list or an object of arguments, not 7"
        assert caller.error("sum", b"{").startswith("sum: the workload is no JSON: ")
        assert caller.error("sum", b"\xff\xfe\xfd").startswith("sum: the workload is no JSON: ")


def test_values_become_what_the_hints_say_and_travel_back(worker: Worker, caller: Caller) -> None:
    @worker.function()
    def shift(photo: Photo, days: list[int]) -> list[Photo]:
        assert photo.taken is not None
        return [Photo(photo.path, photo.taken + datetime.timedelta(one)) for one in days]

    with worker:
        result = caller.run("shift", b'[{"path": "a", "taken": "2026-01-01"}, [1, 2]]')
    assert json.loads(result) == [{"path": "a", "taken": "2026-01-02"}, {"path": "a", "taken": "2026-01-03"}]


def test_a_result_that_is_not_what_was_promised(worker: Worker, caller: Caller) -> None:
    @worker.function()
    def lie() -> int:
        return "text"  # type: ignore[return-value]

    @worker.function()
    def nothing() -> None:
        return None

    @worker.function()
    def unhinted(x, y=None):  # type: ignore[no-untyped-def]
        return [x, y]

    @worker.function()
    def unsendable(x):  # type: ignore[no-untyped-def]
        return object()

    with worker:
        assert caller.error("lie").endswith("TypeError: lie: the result must be int, not 'text' (str)")
        assert caller.run("nothing") == b"null"
        assert caller.run("unhinted", b'{"x": {"a": 1}}') == b'[{"a":1},null]'
        assert "can't travel" in caller.error("unsendable", b"[1]")


def test_a_typed_function_may_have_its_job(worker: Worker, caller: Caller) -> None:
    @worker.function()
    def half(job: AssignedJob, x: float) -> float:
        job.progress(1, 2)
        return x / 2

    @worker.function()
    def whole(job, x):  # type: ignore[no-untyped-def]
        job.warn(b"whole")
        return x

    assert half(AssignedJob(), 3.0) == 1.5
    with worker:
        assert [packet.arguments[1:] for packet in caller.packets("half", b"[3]")] == [(b"1", b"2"), (b"1.5",)]
        assert [packet.arguments[1] for packet in caller.packets("whole", b"[3]")] == [b"whole", b"3"]


def test_generators_and_coroutines(worker: Worker, server: RunningServer) -> None:
    @worker.function()
    def count(to: int) -> Generator[int, None, str]:
        yield from range(to)
        return "done"

    @worker.function()
    async def count_later(to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @worker.function()
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x

    @worker.function()
    def bad() -> Iterator[int]:
        yield "a"  # type: ignore[misc]

    assert list(count(2)) == [0, 1]
    assert asyncio.run(later(3)) == 3
    with worker, Caller(server) as caller, Client(server.address) as worker.client:
        said = caller.packets("count", b"[3]")
        assert [packet.arguments[1] for packet in said] == [b"0\n", b"1\n", b"2\n", b'"done"']
        said = caller.packets("count_later", b"[2]")
        assert [packet.arguments[1] for packet in said] == [b"0\n", b"1\n", b"null"]
        assert "what it yields must be int, not 'a'" in caller.error("bad")
        assert count.submit(3).result(10) == "done"
        assert count_later.submit(3).result(10) is None
        assert later.submit(4).result(10) == 4
        events = cast(list[DataEvent], list(cast(SubmittedJob, count.submit(2).job).events()))
        assert [count.decode_part(event.data) for event in events] == [0, 1]


@pytest.mark.parametrize("encoding", ["json", "msgpack", "pickle"])
def test_every_encoding_there_and_back(
    worker: Worker, geartrain_eager: Callable[..., EagerClient], encoding: Any
) -> None:
    @worker.function(encoding=encoding)
    def photos(photo: Photo, data: bytes, more: dict[str, float]) -> tuple[Photo, bytes, dict[str, float]]:
        return photo, data, more

    @worker.function(encoding=encoding)
    def parts(to: int) -> Generator[Photo, None, int]:
        for number in range(to):
            yield Photo(str(number))
        return to

    photo = Photo("a", datetime.date(2026, 1, 2))
    geartrain_eager(worker)
    assert photos.submit(photo, b"\0\xff", more={"a": 1}).result() == (photo, b"\0\xff", {"a": 1.0})
    assert parts.submit(3).result() == 3
    assert parts.submit(0).result() == 0
    wrong = {"json": b"{", "msgpack": b"\xc1", "pickle": b"."}[encoding]
    with pytest.raises(ArgumentsError, match="the workload is no"):
        parts.start(AssignedJob(wrong))


@pytest.mark.parametrize(
    "workload",
    [
        b"[2,3]",
        b" \n[2, 3]\r\n",
        b'{"x":2,"y":3}',
        b"\xef\xbb\xbf[2,3]",
        "[2,3]".encode("utf-16"),
        "[2,3]".encode("utf-32-le"),
    ],
)
def test_json_in_every_form_that_python_reads(worker: Worker, workload: bytes) -> None:
    @worker.function()
    def add(x: int, y: int) -> int:
        return x + y

    assert add.start(AssignedJob(workload)) == 5


@pytest.mark.parametrize(
    "workload", [b"[2,3]]", b"[2,3] 4", b"[2", b"\xff", b" ", "[\ud800]".encode("utf-8", "surrogatepass")]
)
def test_what_is_no_json_is_told(worker: Worker, workload: bytes) -> None:
    @worker.function()
    def add(x: int, y: int) -> int:
        return x + y

    with pytest.raises(ArgumentsError, match="the workload is no JSON"):
        add.start(AssignedJob(workload))


def test_pickle_carries_any_class_and_still_checks(worker: Worker) -> None:
    @worker.function(encoding="pickle")
    def kind(error: OSError) -> str:
        return type(error).__name__

    assert kind.start(AssignedJob(pickle.dumps([FileNotFoundError()]))) == "FileNotFoundError"
    with pytest.raises(ArgumentsError, match="error must be OSError, not 3"):
        kind.start(AssignedJob(pickle.dumps([3])))
    with pytest.raises(TypeError, match="OSError can't travel as JSON"):
        worker.function("again")(kind.original)


def test_a_function_is_submitted_with_its_types(worker: Worker, geartrain_server: LocalServer) -> None:
    @worker.function()
    def add(x: int, y: int = 1) -> int:
        return x + y

    @worker.function()
    def divide(x: int, *, by: int) -> float:
        return x / by

    @worker.function("reverse")
    def reverse(job: AssignedJob) -> bytes:
        return job.workload[::-1]

    with pytest.raises(GeartrainError, match=r"say worker.client = Client\(\) first"):
        add.submit(1, 2)
    worker.client = geartrain_server.client()
    with geartrain_server.run_worker(worker):
        job = add.submit(2, 3)
        assert job.result(timeout=10) == 5
        assert (job.done, job.exception) == (True, None)
        assert divide.submit(3, by=2).result(10) == 1.5
        with pytest.raises(JobRaisedError, match="ZeroDivisionError"):
            divide.submit(3, by=0).result(10)
        with pytest.raises(ArgumentsError, match="y must be int"):
            add.submit(1, "a")  # type: ignore[arg-type]
        assert reverse.submit(b"hello").result(10) == b"olleh"
        with pytest.raises(ArgumentsError, match="raw"):
            reverse.submit("hello")  # type: ignore[arg-type]
        assert add.options(priority="high", unique="k").submit(2, y=2).result(10) == 4
        worker.client = None
        assert add.options(client=geartrain_server.client()).submit(2, 3).result(10) == 5


def test_a_function_is_submitted_for_later(worker: Worker, geartrain_server: LocalServer) -> None:
    added: list[int] = []

    @worker.function()
    def add(x: int) -> None:
        added.append(x)

    with geartrain_server.run_worker(worker):
        assert isinstance(add.options(when=datetime.timedelta(days=1)).submit_background(1), bytes)
        assert isinstance(add.submit_background(2), bytes)
        geartrain_server.wait_idle()
        assert added == [2]
        geartrain_server.clock.advance(datetime.timedelta(days=1))
        geartrain_server.wait_idle()
        assert added == [2, 1]


def test_arguments_are_sent_by_place_where_that_will_do(worker: Worker) -> None:
    @worker.function()
    def mixed(a: int, /, b: int = 2, *rest: int, c: int = 3, **more: int) -> int:
        return a

    def sent(*args: Any, **kwargs: Any) -> Any:
        return json.loads(mixed.encode_arguments(args, kwargs))

    assert sent(1) == [1]
    assert sent(1, b=5) == [1, 5]
    assert sent(1, 2, 3, 4) == [1, 2, 3, 4]
    with pytest.raises(ArgumentsError, match="a goes by its place and others by name"):
        sent(1, c=4)
    with pytest.raises(ArgumentsError, match="z must be int"):
        sent(1, z="a")


def test_what_is_raw_and_what_is_typed(worker: Worker) -> None:
    class CallableObject:
        async def __call__(self, job: AssignedJob) -> bytes:
            return b""

    kinds: dict[str, Callable[..., Any]] = {
        "unhinted": lambda job: b"",
        "object": CallableObject(),
        "other name": lambda x: x,
    }
    declared = {name: worker.function(name)(function) for name, function in kinds.items()}
    assert {name: type(function).__name__ for name, function in declared.items()} == {
        "unhinted": "RawFunction",
        "object": "RawFunction",
        "other name": "TypedFunction",
    }
    assert declared["object"].is_async

    def offer(job: str) -> str:  # a vacancy, not ours
        return job

    assert worker.function()(offer).encode_arguments(("baker",), {}) == b'["baker"]'
    with pytest.raises(TypeError, match="with its brackets"):
        worker.function(offer)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no encoding 'xml'"):
        worker.function("x", encoding="xml")(lambda x: x)  # type: ignore[arg-type]


def test_hints_of_functions_that_are_wrapped_or_name_what_is_not_there(worker: Worker, tmp_path: Path) -> None:
    module = types.ModuleType("elsewhere")
    exec(
        textwrap.dedent(
            """
            from __future__ import annotations
            import datetime, functools
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                from geartrain import AssignedJob
                from nowhere import Thing

            def wrapper(function):
                @functools.wraps(function)
                def wrapped(*args, **kwargs):
                    return function(*args, **kwargs)
                return wrapped

            def day(date: datetime.date) -> int:
                return date.day

            def raw(job: AssignedJob) -> bytes:
                return job.workload

            def typed(job: AssignedJob, x: int) -> int:
                return x

            def unknown(thing: Thing) -> int:
                return 1
            """
        ),
        module.__dict__,
    )

    def decorated(function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return call

    day = worker.function()(decorated(module.day))
    assert day.start(AssignedJob(b'["2026-01-02"]')) == 2
    with pytest.raises(ArgumentsError, match="date must be date, not 5"):
        day.start(AssignedJob(b"[5]"))
    assert worker.function()(module.raw).start(AssignedJob(b"x")) == b"x"
    assert worker.function()(module.typed).start(AssignedJob(b"[3]")) == 3
    with pytest.raises(TypeError, match="unknown: a type hint can't be read, name 'Thing' is not defined"):
        worker.function()(module.unknown)


def test_type_checkers_know_the_types(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            from collections.abc import AsyncIterator, Generator, Sequence
            from typing import assert_type
            from geartrain.worker import AssignedJob, Worker

            worker = Worker()

            @worker.function()
            def add(x: int, y: int = 3) -> int:
                return x + y

            @worker.function()
            async def later(x: int) -> str:
                return str(x)

            @worker.function()
            def half(job: AssignedJob, x: float) -> float:
                return x / 2

            @worker.function()
            def count(to: int) -> Generator[int, None, str]:
                yield 1
                return "done"

            @worker.function()
            async def stream(to: int) -> AsyncIterator[int]:
                yield 1

            @worker.function("reverse")
            def reverse(job: AssignedJob) -> bytes:
                return job.workload

            @worker.batch()
            def lengths(texts: list[str]) -> list[int]:
                return [len(text) for text in texts]

            @worker.batch()
            async def lengths_later(texts: Sequence[str]) -> list[int | Exception]:
                return [len(text) for text in texts]

            @worker.batch()
            def insert(rows: list[tuple[str, int]]) -> None: ...

            @worker.batch()
            def raw_batch(jobs: list[AssignedJob]) -> list[bytes | Exception]:
                return [job.workload for job in jobs]

            @worker.batch()
            def two_lists(x: list[int], y: list[int]) -> list[int]:
                return x + y

            async def main() -> None:
                assert_type(lengths(["a"]), list[int])
                assert_type(lengths.submit("a").result(), int)
                assert_type(await lengths_later(["a"]), list[int | Exception])
                assert_type(await lengths_later.run_async("a"), int)
                assert_type(insert.submit(("a", 1)).result(), None)
                assert_type(raw_batch.submit(b"").result(), bytes)
                assert_type(two_lists([1], [2]), list[int])
                two_lists.submit(1, 2)
                lengths.submit(["a"])  # E
                lengths("a")  # E
                raw_batch.submit("a")  # E
                two_lists([1])  # E
                assert_type(add(1, y=2), int)
                assert_type(add.submit(1, y=2).result(), int)
                assert_type(await add.run_async(1), int)
                assert_type(add.options(priority="high").submit(1).result(), int)
                assert_type(await later(1), str)
                assert_type(later.submit(1).result(), str)
                assert_type(half(AssignedJob(), 2.0), float)
                assert_type(half.submit(2.0).result(), float)
                assert_type(count.submit(1).result(), str)
                assert_type(stream.submit(1).result(), None)
                assert_type(reverse(AssignedJob()), bytes)
                assert_type(reverse.submit(b"").result(), bytes)
                add.submit("a")  # E
                add("a")  # E
                half.submit(AssignedJob(), 1.0)  # E
                reverse.submit("a")  # E
            """
        )
    )
    expected = {number for number, line in enumerate(program.read_text().split("\n"), 1) if line.endswith("# E")}
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path / 'cache'}", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = {int(line.split(":")[1]) for line in run.stdout.splitlines() if ": error:" in line}
    assert found == expected, run.stdout


def test_a_function_is_run_with_its_types_on_asyncio(server: RunningServer) -> None:
    worker = AsyncWorker(server.address, middleware=[])

    @worker.function()
    async def add(x: int, y: int = 1) -> int:
        return x + y

    @worker.function()
    async def count(to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    async def main() -> None:
        with pytest.raises(GeartrainError, match=r"say worker.async_client = AsyncClient\(\) first"):
            await add.run_async(1, 2)
        async with worker, AsyncClient(server.address) as worker.async_client:
            assert await add.run_async(2, 3) == 5
            assert await add.options(priority="high").run_async(2) == 3
            assert await count.run_async(3) is None  # type: ignore[func-returns-value]
            with pytest.raises(ArgumentsError, match="x must be int"):
                await add.run_async("a")  # type: ignore[arg-type]

    asyncio.run(asyncio.wait_for(main(), 20))
