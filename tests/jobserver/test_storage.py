"""What the rules promise with a store: acknowledgements wait for it, refusals are told, jobs come back whole.

The store is held in the test's hand: a batch is taken, and written or refused when the test says so.
"""

from __future__ import annotations

import pytest

from geartrain.jobserver import JobServer, Origin, Peer, Settings
from geartrain.jobserver.changes import Read
from geartrain.jobserver.model import ABILITY_COST, FUNCTION_COST
from geartrain.jobserver.records import POSITION_BITS, Batch, StoredJob
from geartrain.jobserver.rules.storage import READ_AGAIN_AFTER
from geartrain.wire import Packet, Parser, pack_request
from geartrain.wire import packets as p


class Durable:
    """A job server with a store that only the test moves."""

    def __init__(self, spill_above: int = 1000) -> None:
        settings = Settings()
        settings.handle_prefix = b"H:t"
        settings.durable = True
        settings.spill_above = spill_above
        self.server = JobServer(settings)
        self.server.tick(1.0, 1000.0)

    def peer(self) -> Peer:
        return self.server.connect(Origin("127.0.0.1", 5))

    def send(self, peer: Peer, type: int, *arguments: bytes) -> list[Packet]:
        self.server.receive(peer, pack_request(type, *arguments))
        return self.got(peer)

    def got(self, peer: Peer) -> list[Packet]:
        parser = Parser()
        parser.feed(b"".join(peer.take()))
        packets = []
        while (packet := parser.next_packet()) is not None:
            packets.append(packet)
        return packets

    def batch(self) -> Batch:
        batch = self.server.take_batch()
        assert batch is not None
        return batch

    def commit(self) -> Batch:
        batch = self.batch()
        self.server.written(batch)
        return batch

    def read(self) -> Read:
        """The workload that is to be read."""
        (read,) = self.server.take_reads()
        return read

    def worker(self, function: bytes = b"f") -> Peer:
        peer = self.peer()
        assert self.send(peer, p.CAN_DO, function) == []
        return peer


@pytest.fixture
def durable() -> Durable:
    return Durable()


def created(number: int) -> Packet:
    return Packet(p.JOB_CREATED, (b"H:t:%d" % number,))


def echo(text: bytes) -> Packet:
    return Packet(p.ECHO_RES, (text,))


def test_an_acknowledgement_leaves_after_the_commit_and_holds_what_is_behind_it(durable: Durable) -> None:
    client = durable.peer()
    assert durable.send(client, p.ECHO_REQ, b"before") == [echo(b"before")]
    assert durable.send(client, p.SUBMIT_JOB_BG, b"f", b"u", b"w") == []
    assert durable.send(client, p.ECHO_REQ, b"behind") == []
    batch = durable.batch()
    assert durable.got(client) == []
    durable.server.written(batch)
    assert durable.got(client) == [created(1), echo(b"behind")]


def test_a_foreground_job_waits_for_nothing(durable: Durable) -> None:
    client = durable.peer()
    assert durable.send(client, p.SUBMIT_JOB, b"f", b"u", b"w") == [created(1)]
    assert durable.server.take_batch() is None


def test_another_peer_is_not_held_up(durable: Durable) -> None:
    slow, other = durable.peer(), durable.peer()
    durable.send(slow, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    assert durable.send(other, p.ECHO_REQ, b"x") == [echo(b"x")]


def test_all_that_gathers_during_a_commit_is_the_next_batch(durable: Durable) -> None:
    client = durable.peer()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"1")
    first = durable.batch()
    for _ in range(5):
        durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    assert durable.server.take_batch() is None
    durable.server.written(first)
    assert durable.got(client) == [created(1)]
    second = durable.batch()
    assert [job.number for job in second.added] == [2, 3, 4, 5, 6]
    durable.server.written(second)
    assert durable.got(client) == [created(number) for number in range(2, 7)]


def test_a_batch_holds_everything_of_a_job(durable: Durable) -> None:
    client = durable.peer()
    durable.send(client, p.SUBMIT_JOB_EPOCH, b"f\xff", b"u1", b"2000", b"a\0b")
    durable.send(client, p.SUBMIT_REDUCE_JOB_BACKGROUND, b"f", b"", b"red", b"", b"")
    durable.send(client, p.SUBMIT_JOB_HIGH_BG, b"f", b"-", b"x")
    epoch, reduced, high = durable.batch().added
    assert (epoch.function, epoch.unique, epoch.workload, epoch.due) == (b"f\xff", b"u1", b"a\0b", 2000.0)
    assert (reduced.reducer, reduced.workload, reduced.priority) == (b"red", b"", 1)
    assert (high.unique, high.priority, high.created) == (b"-", 0, 1000.0)


def test_a_job_that_ends_before_it_is_written_never_is(durable: Durable) -> None:
    client, worker = durable.peer(), durable.worker()
    assert durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w") == []
    assert durable.send(worker, p.GRAB_JOB)[0].type == p.JOB_ASSIGN
    durable.send(worker, p.WORK_COMPLETE, b"H:t:1", b"")
    assert durable.got(client) == [created(1)]
    batch = durable.server.take_batch()
    assert batch is None or (batch.added == [] and batch.removed == [])


def test_a_job_that_ends_while_it_is_written_is_removed_with_the_next_batch(durable: Durable) -> None:
    client, worker = durable.peer(), durable.worker()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    batch = durable.batch()
    durable.send(worker, p.GRAB_JOB)
    durable.send(worker, p.WORK_COMPLETE, b"H:t:1", b"")
    durable.server.written(batch)
    assert durable.got(client) == [created(1)]
    assert durable.commit().removed == [1]


@pytest.mark.parametrize("ending", [p.WORK_COMPLETE, p.WORK_FAIL, p.WORK_EXCEPTION])
def test_an_ended_job_is_removed(durable: Durable, ending: int) -> None:
    client, worker = durable.peer(), durable.worker()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    durable.commit()
    durable.send(worker, p.GRAB_JOB)
    durable.send(worker, ending, b"H:t:1", *([] if ending == p.WORK_FAIL else [b""]))
    assert durable.commit().removed == [1]


def test_a_cancelled_job_is_removed(durable: Durable) -> None:
    client = durable.peer()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    durable.commit()
    durable.server.receive(client, b"cancel job H:t:1\n")
    assert durable.commit().removed == [1]


def test_a_lost_worker_moves_the_job_behind_all_others(durable: Durable) -> None:
    client, worker = durable.peer(), durable.worker()
    for _ in range(3):
        durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    durable.commit()
    durable.send(worker, p.GRAB_JOB)
    durable.server.lost(worker)
    (change,) = durable.commit().changed
    number, position, attempts = change.number, change.position, change.attempts
    assert (number, attempts) == (1, 1)
    assert position > 3 << POSITION_BITS
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    assert durable.batch().added[0].position > position


def test_a_refused_batch_is_told_to_its_submitters(durable: Durable) -> None:
    client = durable.peer()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"u", b"w")
    durable.send(client, p.ECHO_REQ, b"behind")
    durable.server.refused(durable.batch(), "the disk is full", down=False)
    error, behind = durable.got(client)
    assert error.type == p.ERROR
    assert error.arguments[0] == b"QUEUE_ERROR"
    assert b"the disk is full" in error.arguments[1]
    assert behind == echo(b"behind")
    assert len(durable.server.jobs) == 0
    assert durable.server.memory == FUNCTION_COST + 1
    assert durable.commit().removed == [1]  # nobody knows whether it arrived


def test_what_a_refused_batch_would_have_removed_is_removed_by_the_next(durable: Durable) -> None:
    client, worker = durable.peer(), durable.worker()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    durable.commit()
    durable.send(worker, p.GRAB_JOB)
    durable.send(worker, p.WORK_COMPLETE, b"H:t:1", b"")
    durable.server.refused(durable.batch(), "gone", down=False)
    assert durable.commit().removed == [1]


def test_a_refused_job_goes_on_for_a_foreground_client(durable: Durable) -> None:
    submitter, waiting, worker = durable.peer(), durable.peer(), durable.worker()
    durable.send(submitter, p.SUBMIT_JOB_BG, b"f", b"u", b"w")
    assert durable.send(waiting, p.SUBMIT_JOB, b"f", b"u", b"w") == [created(1)]
    durable.server.refused(durable.batch(), "gone", down=False)
    assert durable.got(submitter)[0].type == p.ERROR
    durable.send(worker, p.GRAB_JOB)
    durable.send(worker, p.WORK_COMPLETE, b"H:t:1", b"done")
    assert durable.got(waiting) == [Packet(p.WORK_COMPLETE, (b"H:t:1", b"done"))]


def test_one_job_that_is_too_large_does_not_harm_its_batch(durable: Durable) -> None:
    client = durable.peer()
    for _ in range(2):
        durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    batch = durable.batch()
    durable.server.refuse_one(batch, 1, "above max_allowed_packet")
    durable.server.written(batch)
    first, second = durable.got(client)
    assert first.type == p.ERROR
    assert second == created(2)


def test_a_store_in_trouble_refuses_at_once_and_lets_foreground_jobs_pass(durable: Durable) -> None:
    client = durable.peer()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"first")
    durable.server.refused(durable.batch(), "connection refused", down=True)
    durable.got(client)
    (error,) = durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    assert error.arguments[0] == b"QUEUE_ERROR"
    assert b"connection refused" in error.arguments[1]
    assert durable.send(client, p.SUBMIT_JOB, b"f", b"u", b"w") == [created(2)]
    (error,) = durable.send(client, p.SUBMIT_JOB_BG, b"f", b"u", b"w")  # nor can it make a foreground job durable
    assert error.arguments[0] == b"QUEUE_ERROR"
    durable.server.back()
    assert durable.send(client, p.SUBMIT_JOB_BG, b"f", b"u", b"w") == []
    assert [job.number for job in durable.commit().added] == [2]
    assert durable.got(client) == [created(2)]


def test_a_refused_job_that_is_submitted_again_before_it_is_forgotten_is_kept(durable: Durable) -> None:
    client, waiting = durable.peer(), durable.peer()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"u", b"w")
    durable.send(waiting, p.SUBMIT_JOB, b"f", b"u", b"w")
    durable.server.refused(durable.batch(), "full", down=False)
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"u", b"w")
    batch = durable.commit()
    assert [job.number for job in batch.added] == [1]
    assert batch.removed == []


def test_a_job_that_was_refused_and_stored_all_the_same_is_removed_when_it_ends(durable: Durable) -> None:
    """Its batch came late; it is to be stored once more, and ends before that."""
    client, waiting, worker = durable.peer(), durable.peer(), durable.peer()
    durable.send(worker, p.CAN_DO, b"f")
    durable.send(waiting, p.SUBMIT_JOB, b"f", b"u", b"w")
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"u", b"w")
    batch = durable.batch()
    durable.server.give_up("hangs")
    durable.server.written(batch)
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"u", b"w")
    durable.send(worker, p.GRAB_JOB)
    durable.send(worker, p.WORK_COMPLETE, b"H:t:1", b"")
    assert 1 in durable.commit().removed


def test_what_gathered_behind_a_batch_that_failed_is_refused_with_it(durable: Durable) -> None:
    client = durable.peer()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"1")
    batch = durable.batch()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"2")
    durable.server.refused(batch, "gone", down=True)
    assert [packet.type for packet in durable.got(client)] == [p.ERROR, p.ERROR]
    assert len(durable.server.jobs) == 0


def test_joining_a_job_that_is_not_stored_yet_waits_too(durable: Durable) -> None:
    first, second = durable.peer(), durable.peer()
    durable.send(first, p.SUBMIT_JOB_BG, b"f", b"u", b"w")
    batch = durable.batch()
    assert durable.send(second, p.SUBMIT_JOB_BG, b"f", b"u", b"w") == []
    durable.server.written(batch)
    assert durable.got(first) == durable.got(second) == [created(1)]
    assert durable.send(second, p.SUBMIT_JOB_BG, b"f", b"u", b"w") == [created(1)]


def test_a_background_submission_makes_a_foreground_job_durable(durable: Durable) -> None:
    waiting, submitter = durable.peer(), durable.peer()
    assert durable.send(waiting, p.SUBMIT_JOB, b"f", b"u", b"w") == [created(1)]
    assert durable.send(submitter, p.SUBMIT_JOB_BG, b"f", b"u", b"other") == []
    assert durable.commit().added[0].workload == b"w"
    assert durable.got(submitter) == [created(1)]


def test_a_submitter_that_leaves_before_the_commit_harms_nobody(durable: Durable) -> None:
    client, worker = durable.peer(), durable.worker()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    batch = durable.batch()
    durable.server.lost(client)
    durable.server.written(batch)
    assert durable.send(worker, p.GRAB_JOB)[0].arguments[2] == b"w"


def stored(number: int, **fields: object) -> StoredJob:
    job: dict[str, object] = {
        "position": number << POSITION_BITS,
        "function": b"f",
        "unique": b"",
        "workload": b"w%d" % number,
        "size": 2,
        "priority": 1,
        "due": 0.0,
        "reducer": b"",
        "attempts": 0,
        "created": 900.0,
        **fields,
    }
    return StoredJob(number, **job)  # type: ignore[arg-type]


def test_jobs_of_an_earlier_life_come_back_whole(durable: Durable) -> None:
    server = durable.server
    server.restore(stored(7, unique=b"u", attempts=2, reducer=b"red"))
    server.restore(stored(9, priority=0))
    server.restore(stored(12, due=1500.0))
    worker, client = durable.worker(), durable.peer()
    assert durable.send(client, p.SUBMIT_JOB_BG, b"f", b"u", b"") == [Packet(p.JOB_CREATED, (b"H:t:7",))]
    assert durable.send(worker, p.GRAB_JOB_ALL) == [Packet(p.JOB_ASSIGN_UNIQ, (b"H:t:9", b"f", b"", b"w9"))]
    assert durable.send(worker, p.GRAB_JOB_ALL) == [Packet(p.JOB_ASSIGN_ALL, (b"H:t:7", b"f", b"u", b"red", b"w7"))]
    assert durable.send(worker, p.GRAB_JOB_ALL) == [Packet(p.NO_JOB, ())]
    server.tick(2.0, 1500.0)
    assert durable.send(worker, p.GRAB_JOB) == [Packet(p.JOB_ASSIGN, (b"H:t:12", b"f", b"w12"))]
    assert server.next_number == 13


def test_numbers_are_reserved_before_they_are_used(durable: Durable) -> None:
    client = durable.peer()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    assert durable.commit().next_number > 50_000


def test_a_large_workload_leaves_memory_and_is_read_when_assigned(durable: Durable) -> None:
    client, worker = durable.peer(), durable.worker()
    big = bytes(range(256)) * 300
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"u", big)
    before = durable.server.memory
    durable.commit()
    assert durable.server.memory == before - len(big)
    assert durable.send(worker, p.GRAB_JOB_UNIQ) == []
    assert durable.send(worker, p.ECHO_REQ, b"behind") == []
    (read,) = durable.server.take_reads()
    durable.server.deliver(read, big)
    assert durable.got(worker) == [Packet(p.JOB_ASSIGN_UNIQ, (b"H:t:1", b"f", b"u", big)), echo(b"behind")]
    durable.send(worker, p.WORK_COMPLETE, b"H:t:1", b"")
    assert durable.server.memory == FUNCTION_COST + 1 + ABILITY_COST


def test_a_time_limit_begins_when_the_workload_has_been_read(durable: Durable) -> None:
    client, worker = durable.peer(), durable.peer()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"x" * 2000)
    durable.commit()
    durable.send(worker, p.CAN_DO_TIMEOUT, b"f", b"1000")
    durable.send(worker, p.GRAB_JOB)
    durable.server.tick(10.0, 1009.0)
    durable.server.deliver(durable.read(), b"x" * 2000)
    assert durable.got(worker)[0].type == p.JOB_ASSIGN
    durable.server.tick(10.9, 1009.9)
    assert len(durable.server.jobs) == 1
    durable.server.tick(11.1, 1010.1)
    assert len(durable.server.jobs) == 0


def test_a_workload_that_can_not_be_read_now_is_offered_again(durable: Durable) -> None:
    client, worker = durable.peer(), durable.worker()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"x" * 2000)
    durable.commit()
    durable.send(worker, p.GRAB_JOB)
    durable.server.undelivered(durable.read(), lost_for_good=False)
    assert durable.got(worker) == [Packet(p.NO_JOB, ())]
    durable.server.tick(2.0, 1000.0 + READ_AGAIN_AFTER)
    assert durable.send(worker, p.GRAB_JOB) == []
    durable.server.deliver(durable.read(), b"x" * 2000)
    assert durable.got(worker)[0].type == p.JOB_ASSIGN


def test_a_workload_that_is_lost_for_good_fails_its_job(durable: Durable) -> None:
    client, waiting, worker = durable.peer(), durable.peer(), durable.worker()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"u", b"x" * 2000)
    durable.commit()
    durable.send(waiting, p.SUBMIT_JOB, b"f", b"u", b"")
    durable.send(worker, p.GRAB_JOB)
    durable.server.undelivered(durable.read(), lost_for_good=True)
    assert durable.got(worker) == [Packet(p.NO_JOB, ())]
    assert durable.got(waiting) == [Packet(p.WORK_FAIL, (b"H:t:1",))]
    assert len(durable.server.jobs) == 0
    assert durable.server.take_batch() is None  # the store has it aside


def test_a_worker_that_dies_while_its_workload_is_read_gives_the_job_back(durable: Durable) -> None:
    client, first, second = durable.peer(), durable.worker(), durable.worker()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"x" * 2000)
    durable.commit()
    durable.send(first, p.GRAB_JOB)
    read = durable.read()
    durable.server.lost(first)
    durable.server.deliver(read, b"x" * 2000)
    assert durable.send(second, p.GRAB_JOB) == []
    durable.server.deliver(durable.read(), b"x" * 2000)
    assert durable.got(second)[0].type == p.JOB_ASSIGN


def test_a_joined_job_with_a_slot_of_each_submitter_opens_all(durable: Durable) -> None:
    peers = [durable.peer() for _ in range(4)]
    for peer in peers:
        assert durable.send(peer, p.SUBMIT_JOB_BG, b"f", b"u", b"w") == []
    assert len(durable.commit().added) == 1
    assert [durable.got(peer) for peer in peers] == [[created(1)]] * 4


def test_a_refusal_in_the_place_of_an_answer_keeps_the_order(durable: Durable) -> None:
    client = durable.peer()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"1")
    batch = durable.batch()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"2")
    durable.send(client, p.ECHO_REQ, b"end")
    durable.server.refused(batch, "no", down=False)
    assert durable.got(client)[0].type == p.ERROR
    durable.server.written(durable.batch())
    assert durable.got(client) == [created(2), echo(b"end")]


def test_a_thousand_acknowledgements_of_one_peer(durable: Durable) -> None:
    client = durable.peer()
    for _ in range(1000):
        durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    durable.commit()
    assert len(durable.got(client)) == 1000


def test_a_peer_that_leaves_a_thousand_open_acknowledgements_behind_a_held_one(durable: Durable) -> None:
    client, worker = durable.peer(), durable.worker(b"g")
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"held")
    for _ in range(1000):
        durable.send(client, p.SUBMIT_JOB_BG, b"g", b"", b"w")
        (assigned,) = durable.send(worker, p.GRAB_JOB)
        durable.send(worker, p.WORK_COMPLETE, assigned.arguments[0], b"")
    assert durable.got(client) == []
    durable.server.lost(client)
    del client
    assert [job.workload for job in durable.commit().added] == [b"held"]


def test_a_thousand_submitters_of_one_job(durable: Durable) -> None:
    peers = [durable.peer() for _ in range(1000)]
    for peer in peers:
        durable.send(peer, p.SUBMIT_JOB_BG, b"f", b"u", b"w")
    durable.commit()
    assert all(durable.got(peer) == [created(1)] for peer in peers)


# ── a store that is late ────────────────────────────────────────────────────────────────────────────────────────────

LATE = 11.0  # seconds: twice the time for a store that is down, and one more


def told(durable: Durable) -> list[str]:
    return [name for name, _, _ in durable.server.take_events()]


def refusal(packet: Packet) -> bytes:
    assert packet.type == p.ERROR
    return packet.arguments[1]


def late(durable: Durable) -> tuple[Peer, Batch]:
    """A client whose submission the store has not answered for too long, and the batch."""
    client = durable.peer()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    batch = durable.batch()
    assert durable.server.next_deadline() == 1.0 + LATE
    durable.server.tick(1.0 + LATE - 0.1, 1010.0)
    assert durable.got(client) == []
    durable.server.tick(1.0 + LATE, 1011.0)
    assert refusal(durable.got(client)[0]) == b"The job could not be stored: the store does not answer"
    assert told(durable) == ["store_hangs"]
    assert durable.server.next_deadline() != 1.0 + LATE
    return client, batch


def test_a_batch_that_is_late_is_refused_and_no_other_is_given_out(durable: Durable) -> None:
    client, _ = late(durable)
    assert b"does not answer" in refusal(durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")[0])
    assert durable.server.take_batch() is None
    assert durable.server.is_stored, "nothing is owed to anybody"
    assert len(durable.server.jobs) == 0


def test_a_late_yes_opens_the_store_again_and_the_job_is_removed_there(durable: Durable) -> None:
    client, batch = late(durable)
    durable.server.written(batch)
    assert told(durable) == ["store_back"]
    assert durable.commit().removed == [1]
    assert durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w") == []
    durable.commit()
    assert durable.got(client) == [created(2)]


def test_a_late_no_opens_the_store_again(durable: Durable) -> None:
    client, batch = late(durable)
    durable.server.refuse_one(batch, 1, "too large")
    durable.server.refused(batch, "full", down=False)
    assert told(durable) == ["store_back"]
    assert durable.commit().removed == [1]
    assert durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w") == []


def test_a_store_that_answers_late_that_it_is_down_stays_closed_until_it_is_back(durable: Durable) -> None:
    client, batch = late(durable)
    durable.server.refused(batch, "gone", down=True)
    assert refusal(durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")[0]).endswith(b"gone")
    durable.server.back()
    assert durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w") == []
    assert durable.commit().removed == [1]


def test_a_commit_in_time_sets_the_clock_back(durable: Durable) -> None:
    client = durable.peer()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    durable.commit()
    durable.server.tick(10.0, 1009.0)
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    durable.batch()
    durable.server.tick(1.0 + LATE, 1011.0)
    assert told(durable) == []


def test_a_job_server_that_stood_still_itself_hears_the_answer_first(durable: Durable) -> None:
    client = durable.peer()
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    batch = durable.batch()
    durable.server.tick(500.0, 1500.0)
    durable.server.written(batch)
    assert durable.got(client) == [created(1)]
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    durable.batch()
    durable.server.tick(1000.0, 2000.0)
    durable.server.tick(durable.server.next_deadline(), 2001.0)
    assert durable.got(client)[0].type == p.ERROR


def test_who_leaves_may_give_up_at_once(durable: Durable) -> None:
    client = durable.peer()
    durable.server.give_up("nothing is under way")
    durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"w")
    assert not durable.server.is_stored
    durable.batch()
    assert not durable.server.is_stored
    durable.server.give_up("the job server stops")
    assert durable.got(client)[0].type == p.ERROR
    assert durable.server.is_stored


def test_workloads_that_do_not_come_are_put_back_all_together(durable: Durable) -> None:
    client, workers = durable.peer(), [durable.worker(), durable.worker()]
    for _ in workers:
        durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"x" * 2000)
    durable.commit()
    durable.send(workers[0], p.GRAB_JOB)
    first = durable.read()
    durable.server.tick(5.0, 1004.0)
    durable.send(workers[1], p.GRAB_JOB)
    second = durable.read()
    durable.server.tick(1.0 + LATE, 1011.0)
    assert told(durable) == ["store_hangs"]
    assert [durable.got(worker)[0].type for worker in workers] == [p.NO_JOB, p.NO_JOB]
    durable.server.deliver(first, b"x" * 2000)  # too late
    durable.server.undelivered(second, lost_for_good=True)
    assert [durable.got(worker) for worker in workers] == [[], []]
    assert len(durable.server.jobs) == 2


def test_while_workloads_come_the_others_are_waited_for(durable: Durable) -> None:
    client, workers = durable.peer(), [durable.worker(), durable.worker()]
    for worker in workers:
        durable.send(client, p.SUBMIT_JOB_BG, b"f", b"", b"x" * 2000)
        durable.commit()
        durable.send(worker, p.GRAB_JOB)
    first, second = durable.server.take_reads()
    durable.server.tick(10.0, 1009.0)
    durable.server.deliver(first, b"x" * 2000)
    durable.server.tick(20.0, 1019.0)
    assert told(durable) == []
    durable.server.deliver(second, b"x" * 2000)
    assert [durable.got(worker)[0].type for worker in workers] == [p.JOB_ASSIGN, p.JOB_ASSIGN]
