"""Who watches a job is told all that happens to it, is no client of it, and harms nothing."""

from __future__ import annotations

import pytest
from desk import Desk

from geartrain.jobserver import watching
from geartrain.jobserver.watching import ENDS, MAX_WATCHERS, WATCH_COST


class Notes:
    """A watcher that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, bytes, bytes]] = []

    def tell(self, number: int, event: bytes, data: bytes) -> None:
        self.told.append((number, event, data))

    def take(self) -> list[tuple[bytes, bytes]]:
        told, self.told = self.told, []
        return [(event, data) for _, event, data in told]


class Broken:
    """A watcher that raises, with something that can't even be printed."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.calls = 0

    def tell(self, number: int, event: bytes, data: bytes) -> None:
        self.calls += 1
        raise self.error


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.works("w", b"f")
    return desk


def number(handle: bytes) -> int:
    return int(handle.partition(b":")[2])


def watch(desk: Desk, handle: bytes) -> Notes:
    notes = Notes()
    assert desk.server.watch(number(handle), notes)
    return notes


@pytest.mark.parametrize("kind", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
@pytest.mark.parametrize("policy", ["", "attempts=3", "results=1h", "concurrency=1"])
def test_all_of_a_job_s_life_is_told(desk: Desk, kind: str, policy: str) -> None:
    if policy:
        desk.text("admin", f"policy set f {policy}")
    handle = desk.submit(b"f", b"u", kind=kind)
    notes = watch(desk, handle)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_DATA", handle, b"a\0b")
    desk.send("w", "WORK_WARNING", handle, b"careful")
    desk.send("w", "WORK_STATUS", handle, b"3", b"-1x")
    desk.send("w", "WORK_DATA", handle)
    desk.send("w", "WORK_COMPLETE", handle, b"result")
    assert {told[0] for told in notes.told} == {number(handle)}
    assert notes.take() == [
        (b"assigned", b"1"),
        (b"data", b"a\0b"),
        (b"warning", b"careful"),
        (b"status", b"3/4294967295"),
        (b"data", b""),
        (b"completed", b"result"),
    ]
    assert (desk.server.watches, desk.server.watchers) == (0, {})


def test_clients_get_what_they_get_without_a_watcher(desk: Desk) -> None:
    handle = desk.submit(b"f", kind="SUBMIT_JOB")
    watch(desk, handle)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_DATA", handle, b"a" * 100_000)
    desk.send("w", "WORK_COMPLETE", handle, b"r")
    assert desk.take("client") == [("WORK_DATA", handle, b"a" * 100_000), ("WORK_COMPLETE", handle, b"r")]


def test_large_data_comes_whole(desk: Desk) -> None:
    handle = desk.submit(b"f")
    notes = watch(desk, handle)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_DATA", handle, b"a" * 3_000_000)
    desk.send("w", "WORK_COMPLETE", handle, b"b" * 3_000_000)
    assert notes.take()[1:] == [(b"data", b"a" * 3_000_000), (b"completed", b"b" * 3_000_000)]


@pytest.mark.parametrize(
    ("report", "policy", "told"),
    [
        (("WORK_FAIL",), "", (b"failed", b"")),
        (("WORK_EXCEPTION", b"oops"), "", (b"failed", b"oops")),
        (("WORK_EXCEPTION",), "", (b"failed", b"")),
        (("WORK_FAIL",), "attempts=1", (b"dead", b"")),
        (("WORK_EXCEPTION", b"oops"), "attempts=1", (b"dead", b"oops")),
        (("WORK_EXCEPTION", b"oops"), "attempts=1 dead=0", (b"failed", b"oops")),
        (("WORK_EXCEPTION", b"oops"), "results=1h", (b"failed", b"oops")),
    ],
)
@pytest.mark.parametrize("durable", [False, True])
def test_how_a_job_fails(report: tuple[object, ...], policy: str, told: object, durable: bool) -> None:
    desk = Desk(durable=durable)
    desk.works("w", b"f")
    if policy:
        assert desk.text("admin", f"policy set f {policy}").startswith("OK")
    handle = desk.submit(b"f")
    notes = watch(desk, handle)
    assert desk.grab("w") == handle
    packet, *arguments = report
    desk.send("w", str(packet), handle, *[argument for argument in arguments if isinstance(argument, bytes)])
    assert notes.take() == [(b"assigned", b"1"), told]
    assert desk.server.watches == 0


def test_a_report_that_is_too_large_is_a_failure() -> None:
    desk = Desk(max_body=1000)
    desk.works("w", b"f")
    handle = desk.submit(b"f")
    notes = watch(desk, handle)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_COMPLETE", handle, b"x" * 1001)
    (_, (event, text)) = notes.take()
    assert event == b"failed"
    assert b"--max-packet" in text


def test_a_watch_outlives_lost_workers_and_retries(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=5 retry_on=exception,lost,timeout delay=1s jitter=0 timeout=10s")
    handle = desk.submit(b"f")
    notes = watch(desk, handle)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_DATA", handle, b"first")
    desk.send("w", "WORK_EXCEPTION", handle, b"oops")
    desk.wait(100)
    assert desk.grab("w") == handle
    desk.leave("w")
    desk.wait(100)
    desk.works("w", b"f")
    assert desk.grab("w") == handle
    desk.wait(100)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_COMPLETE", handle, b"r")
    assert notes.take() == [
        (b"assigned", b"1"),
        (b"data", b"first"),
        (b"retry", b"exception"),
        (b"assigned", b"2"),
        (b"retry", b"lost"),
        (b"assigned", b"3"),
        (b"retry", b"timeout"),
        (b"assigned", b"4"),
        (b"completed", b"r"),
    ]


def test_a_lost_worker_without_a_policy(desk: Desk) -> None:
    handle = desk.submit(b"f")
    notes = watch(desk, handle)
    assert desk.grab("w") == handle
    desk.send("w", "CANT_DO", b"f")
    desk.works("v", b"f")
    assert desk.grab("v") == handle
    assert notes.take() == [(b"assigned", b"1"), (b"retry", b"lost"), (b"assigned", b"2")]


def test_a_worker_that_asks_for_another_try() -> None:
    desk = Desk()
    desk.works("w", b"f", verdicts=True)
    handle = desk.submit(b"f")
    notes = watch(desk, handle)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_FAIL", handle, b"retry=2")
    desk.wait(2)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_FAIL", handle, b"reject\0no")
    assert notes.take() == [(b"assigned", b"1"), (b"retry", b"retry"), (b"assigned", b"2"), (b"failed", b"no")]


def test_a_dead_job_has_had_its_last_event_and_may_be_watched_when_it_lives_again(desk: Desk) -> None:
    desk.text("admin", "policy set f attempts=1")
    handle = desk.submit(b"f")
    notes = watch(desk, handle)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_EXCEPTION", handle, b"oops")
    assert notes.take()[-1] == (b"dead", b"oops")
    assert not desk.server.watch(number(handle), notes)
    assert desk.text("admin", f"dead retry {handle.decode()}").startswith("OK")
    assert desk.server.watch(number(handle), notes)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_EXCEPTION", handle, b"again")
    assert notes.take() == [(b"assigned", b"1"), (b"dead", b"again")]
    assert desk.text("admin", f"dead purge {handle.decode()}").startswith("OK")
    assert notes.take() == []


def test_a_job_that_never_begins(desk: Desk) -> None:
    def fresh(line: str) -> Notes:
        desk.text("admin", line)
        return watch(desk, desk.submit(b"g"))

    notes = fresh("policy set g expires=5s dead=0")
    desk.wait(6)
    assert notes.take() == [(b"failed", b"expired")]
    notes = fresh("policy set g expires= dead=0 queue=1 when_full=drop-oldest")
    other = watch(desk, desk.submit(b"g"))
    assert notes.take() == [(b"dropped", b"dropped")]
    desk.text("admin", "policy set g dead=1h")
    desk.submit(b"g")
    assert other.take() == [(b"dead", b"dropped")]
    notes = watch(desk, desk.submit(b"h"))
    desk.text("admin", "drop function h")
    assert notes.take() == [(b"cancelled", b"")]
    assert desk.server.watches == 0


@pytest.mark.parametrize("runs", [False, True])
def test_a_cancelled_job(desk: Desk, runs: bool) -> None:
    handle = desk.submit(b"f")
    notes = watch(desk, handle)
    if runs:
        assert desk.grab("w") == handle
    desk.text("admin", f"cancel job {handle.decode()}")
    assert notes.take()[-1] == (b"cancelled", b"")
    if runs:
        desk.send("w", "WORK_DATA", handle, b"late")
        desk.send("w", "WORK_COMPLETE", handle, b"late")
    assert notes.take() == []


def test_a_watcher_is_no_client(desk: Desk) -> None:
    handle = desk.submit(b"f", kind="SUBMIT_JOB")
    notes = watch(desk, handle)
    desk.leave("client")
    assert notes.take() == [(b"abandoned", b"")]
    handle = desk.submit(b"f", kind="SUBMIT_JOB")
    notes = watch(desk, handle)
    assert desk.grab("w") == handle
    desk.leave("client")
    desk.send("w", "WORK_DATA", handle, b"still heard")
    desk.leave("w")
    assert notes.take() == [(b"assigned", b"1"), (b"data", b"still heard"), (b"abandoned", b"")]


def test_a_job_that_the_store_refuses() -> None:
    desk = Desk(durable=True)
    desk.send("client", "SUBMIT_JOB_BG", b"f", b"", b"w")
    notes = Notes()
    assert desk.server.watch(1, notes)
    batch = desk.server.take_batch()
    assert batch is not None
    desk.server.refused(batch, "the disk is full", True)
    desk.settle()
    assert notes.take() == [(b"refused", b"")]


def test_a_job_whose_workload_is_read_from_the_store() -> None:
    desk = Desk(durable=True, spill_above=10)
    desk.works("w", b"f")
    handle = desk.submit(b"f", workload=b"x" * 100)
    notes = watch(desk, handle)
    for is_there in (False, True):
        desk.send("w", "GRAB_JOB")
        (read,) = desk.server.take_reads()
        assert notes.take() == []
        if is_there:
            desk.server.deliver(read, b"x" * 100)
        else:
            desk.server.undelivered(read, False)
            desk.wait(10)
    assert notes.take() == [(b"assigned", b"1")]
    desk.send("w", "WORK_COMPLETE", handle, b"")
    desk.submit(b"f", workload=b"x" * 100)
    other = Notes()
    assert desk.server.watch(number(handle) + 1, other)
    desk.send("w", "GRAB_JOB")
    (read,) = desk.server.take_reads()
    desk.server.undelivered(read, True)
    desk.settle()
    assert other.take() == [(b"failed", b"")]


def test_who_waits_for_the_result_and_who_watches_are_both_told(desk: Desk) -> None:
    handle = desk.submit(b"f")
    notes = watch(desk, handle)
    desk.write("one", b"result %b wait\n" % handle)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_EXCEPTION", handle, b"oops")
    assert desk.got[desk.peer("one")] == b"OK failed 4\noops"
    assert notes.take() == [(b"assigned", b"1"), (b"failed", b"oops")]


def test_several_watchers_and_one_that_leaves(desk: Desk) -> None:
    handle = desk.submit(b"f")
    first, second = watch(desk, handle), watch(desk, handle)
    assert desk.server.watch(number(handle), first)  # again is as once
    assert desk.server.watches == 2
    assert desk.grab("w") == handle
    desk.server.unwatch(number(handle), first)
    desk.server.unwatch(number(handle), first)
    desk.server.unwatch(12345, first)
    desk.send("w", "WORK_COMPLETE", handle, b"r")
    assert (first.take(), second.take()) == ([(b"assigned", b"1")], [(b"assigned", b"1"), (b"completed", b"r")])
    desk.settle()


def test_what_can_not_be_watched(desk: Desk) -> None:
    for unknown in (-1, 0, 1, 2**62):
        assert not desk.server.watch(unknown, Notes())
    handle = desk.submit(b"f")
    watchers = [watch(desk, handle) for _ in range(MAX_WATCHERS)]
    assert not desk.server.watch(number(handle), Notes())
    assert desk.grab("w") == handle
    desk.send("w", "WORK_COMPLETE", handle, b"r")
    assert {watcher.told[-1][1] for watcher in watchers} == {b"completed"}
    assert not desk.server.watch(number(handle), Notes())


def test_watches_are_bounded_by_the_memory() -> None:
    desk = Desk()
    handles = [desk.submit(b"f") for _ in range(3)]
    limit = int(desk.server.memory) + 2 * WATCH_COST
    desk.server.max_memory = limit
    notes = Notes()
    assert [desk.server.watch(number(handle), notes) for handle in handles] == [True, True, False]
    desk.server.unwatch(number(handles[0]), notes)
    assert desk.server.watch(number(handles[2]), notes)
    desk.settle()


@pytest.mark.parametrize("error", [ValueError("no"), UnprintableError("no"), UnprintableError(), KeyError(1)])
def test_a_watcher_that_raises_harms_nobody(desk: Desk, error: Exception) -> None:
    desk.text("admin", "policy set f attempts=2 retry_on=exception delay=0")
    for report in ("WORK_COMPLETE", "WORK_EXCEPTION"):
        broken, before = Broken(error), Notes()
        handle = desk.submit(b"f", kind="SUBMIT_JOB")
        assert desk.server.watch(number(handle), before)
        assert desk.server.watch(number(handle), broken)
        after = watch(desk, handle)
        assert desk.grab("w") == handle
        desk.send("w", "WORK_DATA", handle, b"d")
        desk.send("w", report, handle, b"r")
        if report == "WORK_EXCEPTION":
            assert desk.grab("w") == handle
            desk.send("w", report, handle, b"r")
        assert broken.calls == 1
        assert before.take() == after.take() != []
        assert len(desk.take("client")) == 2
        (fields,) = [fields for event, _, fields in desk.server.take_events() if event == "watcher_failed"]
        assert fields["handle"] == handle.decode()
        assert str(fields["error"]).startswith(type(error).__name__)
    assert desk.server.watches == 0


def test_a_watcher_that_raises_at_the_end(desk: Desk) -> None:
    handle = desk.submit(b"f")
    assert desk.grab("w") == handle
    assert desk.server.watch(number(handle), Broken(ValueError("no")))
    desk.send("w", "WORK_COMPLETE", handle, b"r")
    assert desk.server.watches == 0
    desk.settle()


def test_every_last_event_is_a_word_of_its_own() -> None:
    words = [value for name, value in vars(watching).items() if name.isupper() and isinstance(value, bytes)]
    assert len(set(words)) == len(words) == len(ENDS) + 5
    assert set(ENDS) <= set(words)
