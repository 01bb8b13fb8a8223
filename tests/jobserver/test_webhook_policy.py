"""Who watches all ends is told of each end of a job whose policy names a webhook, once, and of no other."""

from __future__ import annotations

import pytest
from desk import Desk

from geartrain.jobserver.policy import read_policy
from geartrain.jobserver.records import Record, number_key

URL = "https://example.org/hook"


class Notes:
    """A watcher of all ends, who keeps a record of each."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.told: list[tuple[bytes, bytes]] = []
        desk.server.watch_ends(self)

    def tell(self, number: int, event: bytes, data: bytes) -> None:
        job = self.desk.server.jobs.get(number)
        assert job is not None, "it is still known"
        assert self.desk.server.keep(Record("end", number_key(number), event))
        self.told.append((event, data))

    def take(self) -> list[tuple[bytes, bytes]]:
        told, self.told = self.told, []
        return told


def desk_with(policy: str = "", *, durable: bool = False, **settings: object) -> tuple[Desk, Notes]:
    desk = Desk(durable=durable, **settings)
    notes = Notes(desk)
    desk.works("w", b"f", b"g")
    assert desk.text("admin", f"policy set f webhook={URL} {policy}") == "OK\r\n"
    return desk, notes


@pytest.mark.parametrize("kind", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
@pytest.mark.parametrize("policy", ["", "results=1h", "attempts=2"])
def test_what_has_been_done_is_told_once(kind: str, policy: str) -> None:
    desk, notes = desk_with(policy)
    for function in (b"f", b"g"):
        handle = desk.submit(function, kind=kind)
        assert desk.grab("w") == handle
        desk.send("w", "WORK_DATA", handle, b"part")
        assert notes.take() == []
        desk.send("w", "WORK_COMPLETE", handle, b"result")
        assert notes.take() == ([(b"completed", b"result")] if function == b"f" else [])
        desk.take("client")


def test_one_who_watches_the_job_as_well_is_told_as_well() -> None:
    desk, notes = desk_with()
    handle = desk.submit(b"f")
    other = Notes(desk)
    desk.server.watch_ends(notes)
    assert desk.server.watch(1, other)
    assert desk.grab("w") == handle
    desk.send("w", "WORK_COMPLETE", handle, b"r")
    assert notes.take() == [(b"completed", b"r")]
    assert other.take() == [(b"assigned", b"1"), (b"completed", b"r")]


@pytest.mark.parametrize(
    ("report", "policy", "told"),
    [
        (("WORK_FAIL",), "", (b"failed", b"")),
        (("WORK_EXCEPTION", b"oops"), "", (b"failed", b"oops")),
        (("WORK_EXCEPTION", b"oops"), "attempts=1", (b"dead", b"oops")),
        (("WORK_EXCEPTION", b"oops"), "attempts=1 dead=0", (b"failed", b"oops")),
        (("WORK_COMPLETE", b"x" * 1001), "", None),
    ],
)
@pytest.mark.parametrize("durable", [False, True])
def test_what_has_failed(report: tuple[str, *tuple[bytes, ...]], policy: str, told: object, durable: bool) -> None:
    desk, notes = desk_with(policy, durable=durable, max_body=1000)
    handle = desk.submit(b"f")
    assert desk.grab("w") == handle
    packet, *arguments = report
    desk.send("w", str(packet), handle, *[one for one in arguments if isinstance(one, bytes)])
    (one,) = notes.take()
    if told is None:
        assert one[0] == b"failed"
        assert b"--max-packet" in one[1]
    else:
        assert one == told


def test_a_dead_one_that_is_tried_again_ends_again_and_its_purge_is_no_end() -> None:
    desk, notes = desk_with("attempts=2 delay=0 retry_on=exception dead_count=1")
    handle = desk.submit(b"f")
    for again in (False, True):
        for _ in range(2):
            assert desk.grab("w") == handle
            assert notes.take() == [], "it is tried again"
            desk.send("w", "WORK_EXCEPTION", handle, b"oops")
        assert notes.take() == [(b"dead", b"oops")]
        if not again:
            assert desk.text("admin", f"dead retry {handle.decode()}").startswith("OK")
    other = desk.submit(b"f")
    assert desk.grab("w") == other
    desk.send("w", "WORK_FAIL", other)  # the end of the one, and the other makes room
    desk.wait(1)
    assert desk.grab("w") is None
    assert notes.take() == [(b"dead", b"")]
    assert desk.text("admin", f"dead purge {other.decode()}").startswith("OK")
    assert notes.take() == []


def test_what_has_never_begun() -> None:
    desk, notes = desk_with("expires=5s dead=0")
    desk.submit(b"f")
    desk.wait(6)
    assert notes.take() == [(b"failed", b"expired")]
    desk.text("admin", "policy set f expires= queue=1 when_full=drop-oldest")
    for _ in range(2):
        desk.submit(b"f")
    assert notes.take() == [(b"dropped", b"dropped")]
    desk.leave("w")
    desk.text("admin", "drop function f")
    assert notes.take() == [(b"cancelled", b"")]


@pytest.mark.parametrize("runs", [False, True])
def test_what_nobody_wants_any_more(runs: bool) -> None:
    desk, notes = desk_with()
    handle = desk.submit(b"f", kind="SUBMIT_JOB")
    if runs:
        assert desk.grab("w") == handle
    desk.leave("client")
    if runs:
        desk.leave("w")
    assert notes.take() == [(b"abandoned", b"")]


def test_what_the_store_refuses_or_loses() -> None:
    desk, notes = desk_with(durable=True, spill_above=10)
    desk.submit(b"f", workload=b"x" * 100)
    desk.send("w", "GRAB_JOB")
    (read,) = desk.server.take_reads()
    desk.server.undelivered(read, True)
    desk.settle()
    assert notes.take() == [(b"failed", b"")]
    desk.commit()
    desk.send("client", "SUBMIT_JOB_BG", b"f", b"", b"w")
    batch = desk.server.take_batch()
    assert batch is not None
    desk.server.refused(batch, "the disk is full", True)
    desk.settle()
    assert notes.take() == [], "it was never accepted, and its submitter has been told"


def test_the_end_and_what_is_kept_of_it_go_into_one_commit() -> None:
    desk, _ = desk_with(durable=True)
    handle = desk.submit(b"f")
    assert desk.grab("w") == handle
    desk.send("w", "WORK_COMPLETE", handle, b"r")
    batch = desk.server.take_batch()
    assert batch is not None
    assert batch.removed == [1]
    assert [(record.kind, record.value) for record in batch.records] == [("end", b"completed")]


def test_without_anybody_who_watches_it_is_as_without_a_webhook() -> None:
    desk = Desk()
    desk.works("w", b"f")
    desk.text("admin", f"policy set f webhook={URL}")
    handle = desk.submit(b"f")
    assert desk.grab("w") == handle
    desk.send("w", "WORK_COMPLETE", handle, b"r")
    desk.text("admin", f"cancel job {desk.submit(b'f').decode()}")


@pytest.mark.parametrize(
    "bad",
    ["example.org/x", "ftp://example.org", "https://", "http:///x", "https://exämple.org", "https://x/" + 1000 * "y"],
)
def test_what_is_no_url_is_told(bad: str) -> None:
    with pytest.raises(ValueError, match=r"^webhook=.*: write a URL that begins with http:// or https://"):
        read_policy([f"webhook={bad}"])


def test_a_url_is_kept_as_it_is() -> None:
    url = "http://[2001:db8::1]:8080/a?b=c&d=%20#e"
    policy = read_policy([f"webhook={url}"])
    assert policy is not None
    assert (policy.webhook, policy.text) == (url, f"webhook={url}")
    assert read_policy(["webhook="], policy) is None
