"""Small records beside the jobs: who puts one finds it, the store hears of it, and it goes at its time."""

from __future__ import annotations

import pytest

from geartrain.jobserver import JobServer, Origin, Peer, Settings
from geartrain.jobserver.changes import MAX_BATCH
from geartrain.jobserver.records import Batch, Record
from geartrain.wire.packets import CAN_DO, GRAB_JOB, SUBMIT_JOB_BG, WORK_FAIL, pack_request

SUBMITTED = pack_request(SUBMIT_JOB_BG, b"f", b"", b"w")


def durable(**limits: int) -> JobServer:
    settings = Settings()
    settings.durable = True
    for name, value in limits.items():
        setattr(settings, name, value)
    server = JobServer(settings)
    server.tick(1.0, 1000.0)
    return server


def a_server() -> tuple[JobServer, Peer]:
    server = durable()
    return server, server.connect(Origin("127.0.0.1", 1))


def taken(server: JobServer) -> Batch:
    batch = server.take_batch()
    assert batch is not None
    return batch


def told(batch: Batch) -> dict[tuple[str, bytes], bytes | None]:
    return {(record.kind, record.key): record.value for record in batch.records}


def value_of(server: JobServer, kind: str, key: bytes) -> bytes | None:
    record = server.kept(kind, key)
    return None if record is None else record.value


def test_the_last_record_of_a_name_counts_here_and_in_the_store() -> None:
    server = durable()
    for record in (Record("policy", b"f", b"one"), Record("policy", b"g", b"two"), Record("policy", b"f", b"three")):
        assert server.keep(record)
    assert (value_of(server, "policy", b"f"), value_of(server, "result", b"f")) == (b"three", None)
    assert {record.key for record in server.kept_of("policy")} == {b"f", b"g"}
    batch = taken(server)
    assert told(batch) == {("policy", b"f"): b"three", ("policy", b"g"): b"two"}
    assert not server.is_stored
    server.written(batch)
    assert server.is_stored
    assert server.keep(Record("policy", b"f", None))
    assert [record.key for record in server.kept_of("policy")] == [b"g"]
    assert told(taken(server)) == {("policy", b"f"): None}


def test_a_record_of_before_is_known_and_not_stored_again() -> None:
    server = durable()
    server.restore_record(Record("policy", b"f", b"one"))
    assert value_of(server, "policy", b"f") == b"one"
    assert server.take_batch() is None
    assert [record.key for record in server.stored_records()] == [b"f"]


def test_what_was_refused_is_stored_later_unless_it_has_changed() -> None:
    server = durable()
    server.keep(Record("a", b"old", b"1"))
    server.keep(Record("a", b"same", b"1"))
    batch = taken(server)
    server.keep(Record("a", b"old", b"2"))
    server.refused(batch, "the store is down", down=True)
    assert not server.keep(Record("a", b"new", b"3"))
    assert value_of(server, "a", b"new") is None
    assert server.keep(Record("a", b"gone", None))
    server.back()
    assert told(taken(server)) == {("a", b"old"): b"2", ("a", b"same"): b"1", ("a", b"gone"): None}


def test_a_batch_of_records_is_bounded() -> None:
    server = durable()
    for number in range(25_000):
        server.keep(Record("a", b"%d" % number, b"x"))
    sizes = []
    while (batch := server.take_batch()) is not None:
        sizes.append(len(batch.records))
        server.written(batch)
    assert sizes == [10_000, 10_000, 5_000]


def test_what_is_kept_of_a_job_is_stored_before_the_job_has_had_its_last_attempt() -> None:
    """Or it would be tried once more, if the job server died between two batches."""
    server, peer = a_server()
    server.receive(peer, b"policy set f attempts=1\n" + SUBMITTED + pack_request(CAN_DO, b"f"))
    server.written(taken(server))
    server.receive(peer, pack_request(GRAB_JOB))
    for number in range(MAX_BATCH):
        server.keep(Record("a", b"%d" % number, b"x"))
    handle = server.handles.make(1)
    server.receive(peer, pack_request(WORK_FAIL, handle))
    batch = taken(server)
    assert (len(batch.records), batch.changed) == (MAX_BATCH, [])
    server.written(batch)
    batch = taken(server)
    assert {kind for kind, _ in told(batch)} == {"attempts", "dead"}
    assert [(change.number, change.attempts) for change in batch.changed] == [(1, 1)]


def test_it_goes_when_it_expires() -> None:
    server = durable()
    before = server.memory
    for number in range(200):
        server.keep(Record("a", b"again", b"x", 1010.0 + number))  # each replaces the one before
    server.keep(Record("a", b"soon", b"x", 1005.0))
    server.keep(Record("a", b"past", b"x", 999.0))
    server.keep(Record("a", b"stays", b"x"))
    assert {record.key for record in server.kept_of("a")} == {b"again", b"soon", b"stays"}
    server.tick(2.0, 1001.0)
    assert server.next_deadline() == pytest.approx(6.0)
    server.tick(6.0, 1005.0)
    assert server.kept("a", b"soon") is None
    assert {record.key for record in server.stored_records()} == {b"again", b"stays"}
    server.tick(500.0, 1500.0)
    assert server.next_deadline() == 0
    server.keep(Record("a", b"stays", None))
    assert server.memory == before


def test_what_has_no_room_is_refused_and_changes_nothing() -> None:
    server = durable(max_memory=4000, max_body=2000)
    assert server.keep(Record("a", b"k", b"x" * 1500))
    assert not server.keep(Record("a", b"k", b"y" * 2000)), "above what a workload may have"
    assert not server.keep(Record("a", b"other", b"x" * 1900)), "above the bound of memory"
    assert value_of(server, "a", b"k") == b"x" * 1500
    assert server.keep(Record("a", b"k", b"z" * 1900)), "it counts only by how much it has grown"
    assert server.keep(Record("a", b"k", None))
    assert server.memory == 0


@pytest.mark.parametrize("kind", ["", "Policy", "a-b", "a\0b", "ä", "x" * 65, "a\n"])
def test_a_kind_is_a_plain_word(kind: str) -> None:
    server = durable()
    with pytest.raises(ValueError, match="can't be a kind of record"):
        server.keep(Record(kind, b"k", b"v"))
    assert server.take_batch() is None


def test_without_a_store_records_are_kept_in_memory_alone() -> None:
    server = JobServer()
    server.tick(1.0, 1000.0)
    assert server.keep(Record("a", b"k", b"v"))
    assert value_of(server, "a", b"k") == b"v"
    assert not server.changes.waiting


def test_a_record_is_committed_with_its_job() -> None:
    """However much gathers before it: both are in one batch."""
    server, peer = a_server()
    for _ in range(MAX_BATCH):
        server.receive(peer, SUBMITTED)
    server.receive(peer, SUBMITTED)
    number = server.next_number - 1
    assert server.keep_with(number, Record("schedule_run", b"nightly", b"1"))
    first = server.take_batch()
    assert first is not None
    assert len(first.added) == MAX_BATCH
    assert not first.records
    server.written(first)
    second = server.take_batch()
    assert second is not None
    assert [job.number for job in second.added] == [number]
    assert [record.key for record in second.records] == [b"nightly"]


def test_a_record_outlives_the_job_that_it_came_with() -> None:
    server, peer = a_server()
    server.receive(peer, SUBMITTED)
    assert server.keep_with(1, Record("schedule_run", b"nightly", b"1"))
    server.receive(peer, b"cancel job H:localhost:1\n")
    batch = server.take_batch()
    assert batch is not None
    assert not batch.added
    assert [record.key for record in batch.records] == [b"nightly"]


def test_a_record_goes_with_the_job_that_the_store_has_refused() -> None:
    """Whether it was given to the store with the job, or was to be in the next batch."""
    server, peer = a_server()
    server.receive(peer, SUBMITTED)
    assert server.keep_with(1, Record("schedule_run", b"nightly", b"1"))
    batch = taken(server)
    assert told(batch) == {("schedule_run", b"nightly"): b"1"}
    server.receive(peer, SUBMITTED)
    assert server.keep_with(2, Record("schedule_run", b"weekly", b"2"))
    server.refused(batch, "it is full", True)
    server.tick(2.0, 1001.0)
    assert not server.kept_of("schedule_run")
    server.back()
    batch = taken(server)
    assert not batch.added
    assert set(told(batch).values()) == {None}
    assert sorted(batch.removed) == [1, 2]


def test_a_record_that_was_kept_anew_stays_when_its_job_is_refused() -> None:
    server, peer = a_server()
    server.receive(peer, SUBMITTED)
    assert server.keep_with(1, Record("schedule_run", b"nightly", b"1"))
    batch = taken(server)
    assert server.keep(Record("schedule_run", b"nightly", b"2"))
    server.refused(batch, "it is full", False)
    assert told(taken(server)) == {("schedule_run", b"nightly"): b"2"}


def test_what_others_share_does_not_undo_what_is_not_stored_yet() -> None:
    server, peer = a_server()
    assert server.keep(Record("schedule", b"under way", b"1"))
    assert server.keep(Record("schedule", b"unset", b"1"))
    server.written(taken(server))
    assert server.keep(Record("schedule", b"under way", b"2"))
    assert server.keep(Record("schedule", b"unset", None))
    batch = taken(server)
    server.receive(peer, SUBMITTED)
    assert server.keep_with(1, Record("schedule_run", b"with a job", b"3"))
    assert server.keep(Record("schedule", b"waiting", b"4"))
    server.apply_shared([Record("schedule", b"under way", b"1"), Record("schedule", b"unset", b"1")])
    assert {record.key: record.value for record in server.kept_of("schedule")} == {b"under way": b"2", b"waiting": b"4"}
    assert value_of(server, "schedule_run", b"with a job") == b"3"
    server.written(batch)
    server.apply_shared([])
    assert {record.key for record in server.kept_of("schedule")} == {b"waiting"}


def test_who_was_fenced_comes_back_to_a_store_that_takes_batches() -> None:
    server, peer = a_server()
    server.receive(peer, SUBMITTED)
    server.refused(taken(server), "it has another owner", True)
    server.forsake()
    while server.forsaking:
        server.tick(server.now + 1, server.wall + 1)
    server.renew_lease(1e9)
    server.receive(peer, SUBMITTED)
    assert [job.number for job in taken(server).added] == [2]


def test_a_later_record_counts_and_not_the_one_that_came_with_a_job() -> None:
    server, peer = a_server()
    server.receive(peer, SUBMITTED)
    assert server.keep_with(1, Record("schedule_run", b"nightly", b"1"))
    assert server.keep(Record("schedule_run", b"nightly", b"2"))
    batch = server.take_batch()
    assert batch is not None
    assert [record.value for record in batch.records] == [b"2"]


def test_jobs_stay_in_the_store_until_all_that_is_kept_of_them_is_there() -> None:
    server, peer = a_server()
    server.receive(peer, SUBMITTED)
    batch = server.take_batch()
    assert batch is not None
    server.written(batch)
    for number in range(MAX_BATCH + 1):
        assert server.keep(Record("dead", b"%d" % number, b""))
    server.receive(peer, b"cancel job H:localhost:1\n")
    batch = server.take_batch()
    assert batch is not None
    assert len(batch.records) == MAX_BATCH
    assert not batch.removed
    server.written(batch)
    batch = server.take_batch()
    assert batch is not None
    assert len(batch.records) == 1
    assert batch.removed == [1]
