"""The worker's session in memory: what it says to a job server that answers by the book, or not."""

from __future__ import annotations

from typing import Any

import pytest

from geartrain.errors import RemoteProtocolError, ServerError, TimedOutError
from geartrain.wire.packets import (
    CAN_DO,
    CAN_DO_TIMEOUT,
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    GET_STATUS,
    GRAB_JOB,
    GRAB_JOB_ALL,
    GRAB_JOB_UNIQ,
    JOB_ASSIGN,
    JOB_ASSIGN_ALL,
    JOB_ASSIGN_UNIQ,
    JOB_CREATED,
    NO_JOB,
    NOOP,
    OPTION_REQ,
    OPTION_RES,
    PRE_SLEEP,
    SET_CLIENT_ID,
    STATUS_RES,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
    pack_response,
)
from geartrain.wire.parser import Packet, Parser
from geartrain.worker.job import AssignedJob
from geartrain.worker.session import Event, PolicyRefusal, WorkerSession
from geartrain.worker.slots import Slots

ECHO = pack_response(ECHO_RES, b"geartrain")
KNOWS = pack_response(OPTION_RES, b"policies")
KNOWS_NOT = pack_response(ERROR, b"UNKNOWN_OPTION", b"Server does not recognize given option")


def assigned(handle: bytes, function: bytes = b"reverse", workload: bytes = b"hello") -> bytes:
    return pack_response(JOB_ASSIGN_UNIQ, handle, function, b"", workload)


class Desk:
    """One session and the packets it says."""

    def __init__(
        self, abilities: dict[bytes, float | None] | None = None, slots: Slots | int = 1, **options: Any
    ) -> None:
        self.slots = Slots(slots) if isinstance(slots, int) else slots
        self.session = WorkerSession(abilities or {b"reverse": None}, self.slots, **options)

    def said(self) -> list[Packet]:
        parser = Parser()
        parser.feed(self.session.take())
        packets = []
        while (packet := parser.next_packet()) is not None:
            packets.append(packet)
        assert not parser.waiting
        return packets

    def types(self) -> list[int]:
        return [packet.type for packet in self.said()]

    def hears(self, *packets: bytes) -> list[Event]:
        return self.session.receive(b"".join(packets))

    def job(self, *packets: bytes) -> AssignedJob:
        (job,) = self.jobs(*packets)
        return job

    def jobs(self, *packets: bytes) -> list[AssignedJob]:
        events = self.hears(*packets)
        jobs = [event for event in events if isinstance(event, AssignedJob)]
        assert len(jobs) == len(events)
        return jobs

    def errors(self, *packets: bytes) -> list[ServerError]:
        events = self.hears(*packets)
        errors = [event for event in events if isinstance(event, ServerError)]
        assert len(errors) == len(events)
        return errors

    def refusals(self, *packets: bytes) -> list[str]:
        return [event.text for event in self.hears(*packets) if isinstance(event, PolicyRefusal)]

    def registers(self, answer: bytes = KNOWS_NOT) -> None:
        self.said()
        self.hears(answer, ECHO)

    def sleeps(self) -> None:
        self.registers()
        assert self.types() == [GRAB_JOB_UNIQ]
        self.hears(pack_response(NO_JOB))
        assert self.types() == [PRE_SLEEP]


def test_registration_names_the_functions_and_ends_with_an_echo() -> None:
    desk = Desk({b"reverse": None, b"resize": 2.5}, id=b"w1")
    assert desk.said() == [
        Packet(OPTION_REQ, (b"policies",)),
        Packet(SET_CLIENT_ID, (b"w1",)),
        Packet(CAN_DO_TIMEOUT, (b"resize", b"2500")),
        Packet(CAN_DO, (b"reverse",)),
        Packet(ECHO_REQ, (b"geartrain",)),
    ]
    assert not desk.session.is_registered
    desk.hears(ECHO)
    assert desk.session.is_registered
    assert desk.said() == [Packet(GRAB_JOB_UNIQ, ())]


def test_no_slot_is_spent_on_a_server_that_has_not_answered() -> None:
    desk = Desk()
    desk.said()
    assert desk.slots.free == 1
    assert desk.types() == []


def test_a_job_is_done_and_the_next_is_grabbed_in_the_same_write() -> None:
    desk = Desk()
    desk.registers()
    desk.said()
    job = desk.job(pack_response(JOB_ASSIGN_UNIQ, b"H:x:1", b"reverse", b"u1", b"hel\0lo"))
    assert (job.handle, job.function, job.unique, job.workload) == (b"H:x:1", "reverse", b"u1", b"hel\0lo")
    assert desk.types() == []  # its only slot is used
    desk.session.complete(job, b"ol\0leh")
    assert desk.said() == [Packet(WORK_COMPLETE, (b"H:x:1", b"ol\0leh")), Packet(GRAB_JOB_UNIQ, ())]


def test_without_work_it_sleeps_and_wakes_by_a_noop() -> None:
    desk = Desk()
    desk.sleeps()
    desk.hears(pack_response(NOOP))
    assert desk.types() == [GRAB_JOB_UNIQ]


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_bytes_may_come_in_any_pieces(size: int) -> None:
    desk = Desk(slots=3)
    desk.registers()
    desk.hears(assigned(b"H:0"))  # so that two more grabs are in flight
    stream = b"".join(
        [assigned(b"H:1"), pack_response(ERROR, b"CODE", b"text"), assigned(b"H:2", workload=b"\0\0"), b"\0RES"]
    )
    events = []
    for start in range(0, len(stream), size):
        events += desk.session.receive(stream[start : start + size])
    heard = [event.code if isinstance(event, ServerError) else getattr(event, "handle", None) for event in events]
    assert heard == [b"H:1", "CODE", b"H:2"]
    last = events[2]
    assert isinstance(last, AssignedJob)
    assert last.workload == b"\0\0"


def test_a_full_queue_fills_the_slots_and_never_more() -> None:
    desk = Desk(slots=5)
    desk.registers()
    queue = [assigned(b"H:%d" % n) for n in range(50)]
    held: list[AssignedJob] = []
    in_flight = most_in_flight = 0
    while len(held) < 5:
        in_flight += desk.types().count(GRAB_JOB_UNIQ)
        most_in_flight = max(most_in_flight, in_flight)
        assert in_flight + len(held) <= 5
        held += desk.jobs(*[queue.pop(0) for _ in range(in_flight)])
        in_flight = 0
    assert most_in_flight > 1
    assert desk.types() == []
    for job in held[:3]:
        desk.session.complete(job, b"")
    assert desk.types().count(GRAB_JOB_UNIQ) == 3


def test_an_empty_queue_is_asked_once_a_wake() -> None:
    desk = Desk(slots=100)
    desk.sleeps()
    for _ in range(3):
        desk.hears(pack_response(NOOP))
        assert desk.types() == [GRAB_JOB_UNIQ]
        desk.hears(pack_response(NO_JOB))
        assert desk.types() == [PRE_SLEEP]


def test_a_job_that_ends_while_the_session_sleeps_grabs_nothing() -> None:
    desk = Desk(slots=3)
    desk.registers()
    desk.said()
    job = desk.job(assigned(b"H:1"))
    assert desk.types() == [GRAB_JOB_UNIQ, GRAB_JOB_UNIQ]
    desk.hears(pack_response(NO_JOB), pack_response(NO_JOB))
    assert desk.types() == [PRE_SLEEP]
    desk.session.complete(job, b"done")
    assert desk.types() == [WORK_COMPLETE]


def test_a_noop_that_overtakes_no_job_is_not_forgotten() -> None:
    """The order NOOP, NO_JOB means: there was something, and it is gone again."""
    desk = Desk({b"reverse": 1.0})
    desk.registers()
    desk.said()
    desk.session.complete(desk.job(assigned(b"H:1")), b"")
    assert desk.types() == [WORK_COMPLETE, PRE_SLEEP, GRAB_JOB_UNIQ]
    desk.hears(pack_response(NOOP), pack_response(NO_JOB))
    assert desk.types() == [PRE_SLEEP]
    desk.hears(pack_response(NOOP))
    assert desk.types() == [GRAB_JOB_UNIQ]


def test_asleep_for_long_it_asks_again() -> None:
    desk = Desk(regrab_after=10)
    desk.sleeps()
    assert desk.session.tick(100.0) == 110.0
    assert desk.session.tick(109.9) == 110.0
    assert desk.types() == []
    assert desk.session.tick(110.0) == 120.0  # now it waits for an answer
    assert desk.types() == [GRAB_JOB_UNIQ]


def test_a_server_that_does_not_answer_is_given_up() -> None:
    desk = Desk(answer_within=5)
    desk.said()
    assert desk.session.tick(0.0) == 5.0
    with pytest.raises(TimedOutError, match="5 s"):
        desk.session.tick(5.0)
    desk.session.lost()
    desk.registers()
    assert desk.session.tick(10.0) == 15.0
    desk.session.receive(assigned(b"H:1")[:20])  # a part of an answer is a sign of life
    assert desk.session.tick(15.0) == 20.0
    with pytest.raises(TimedOutError):
        desk.session.tick(20.0)


def test_a_worker_that_runs_a_job_waits_for_nothing() -> None:
    desk = Desk(answer_within=5)
    desk.registers()
    desk.hears(assigned(b"H:1"))
    assert desk.session.tick(0.0) is None


def test_what_a_job_says_on_its_way() -> None:
    desk = Desk()
    desk.registers()
    desk.said()
    job = desk.job(assigned(b"H:1"))
    desk.session.post(job, WORK_STATUS, b"1", b"2")
    desk.session.post(job, WORK_DATA, b"pa\0rt")
    desk.session.post(job, WORK_WARNING, b"careful")
    desk.session.fail(job)
    assert desk.said() == [
        Packet(WORK_STATUS, (b"H:1", b"1", b"2")),
        Packet(WORK_DATA, (b"H:1", b"pa\0rt")),
        Packet(WORK_WARNING, (b"H:1", b"careful")),
        Packet(WORK_FAIL, (b"H:1",)),
        Packet(GRAB_JOB_UNIQ, ()),
    ]


@pytest.mark.parametrize(("known", "then"), [(b"0", []), (b"1", [Packet(WORK_FAIL, (b"H:1",))])])
def test_an_exception_ends_the_job_on_every_server(known: bytes, then: list[Packet]) -> None:
    """gearmand ends the job by WORK_EXCEPTION, the Perl server wants a WORK_FAIL after it."""
    desk = Desk()
    desk.registers()
    desk.said()
    desk.session.raised(desk.job(assigned(b"H:1")), b"ValueError: no")
    assert desk.said() == [
        Packet(WORK_EXCEPTION, (b"H:1", b"ValueError: no")),
        Packet(GET_STATUS, (b"H:1",)),
        Packet(GRAB_JOB_UNIQ, ()),
    ]
    desk.session.drain()
    desk.hears(pack_response(NO_JOB))
    assert not desk.session.is_idle
    desk.hears(pack_response(STATUS_RES, b"H:1", known, known, b"0", b"0"))
    assert desk.said() == then
    assert desk.session.is_idle


def test_an_error_after_a_lost_job_is_survived() -> None:
    desk = Desk()
    desk.registers()
    desk.said()
    desk.session.complete(desk.job(assigned(b"H:1")), b"too late")
    desk.said()
    (error,) = desk.errors(pack_response(ERROR, b"JOB_NOT_FOUND", b"Job given in work result not found"))
    assert error.code == "JOB_NOT_FOUND"
    job = desk.job(assigned(b"H:2"))
    desk.session.complete(job, b"")
    assert desk.types() == [WORK_COMPLETE, GRAB_JOB_UNIQ]


def test_a_server_that_knows_only_the_oldest_grab() -> None:
    desk = Desk()
    desk.registers()
    assert desk.types() == [GRAB_JOB_UNIQ]
    assert desk.errors(pack_response(ERROR, b"server_error", b"no such method")) == []
    assert desk.types() == [GRAB_JOB]
    job = desk.job(pack_response(JOB_ASSIGN, b"H:1", b"reverse", b"hello"))
    assert (job.unique, job.workload) == (b"", b"hello")
    desk.session.complete(job, b"")
    assert desk.types() == [WORK_COMPLETE, GRAB_JOB]


def test_reducers_are_told_on_request() -> None:
    desk = Desk(reducers=True)
    desk.registers()
    assert desk.types() == [GRAB_JOB_ALL]
    assert desk.job(pack_response(JOB_ASSIGN_ALL, b"H:1", b"reverse", b"u", b"sum", b"x")).reducer == b"sum"


def test_a_lost_connection_loses_its_jobs_and_starts_again() -> None:
    desk = Desk(slots=2)
    desk.registers()
    desk.said()
    job = desk.job(assigned(b"H:1"))
    desk.said()
    desk.session.lost()
    assert job.lost
    assert desk.slots.used == 1  # of the job that still runs here
    desk.registers()
    assert desk.types() == [GRAB_JOB_UNIQ]
    same = desk.job(assigned(b"H:1"))  # a restarted server counts its handles from 1 again
    desk.session.complete(job, b"nobody hears this")
    assert WORK_COMPLETE not in desk.types()
    assert not same.lost
    desk.session.complete(same, b"good")
    assert Packet(WORK_COMPLETE, (b"H:1", b"good")) in desk.said()
    assert desk.slots.used == desk.types().count(GRAB_JOB_UNIQ) or desk.slots.used <= 2


def test_a_job_that_comes_again_on_the_same_connection_replaces_itself() -> None:
    """The job server gave the job up after its time limit, and then assigned it once more."""
    desk = Desk({b"reverse": 1.0}, slots=2)
    desk.registers()
    desk.said()
    first = desk.job(assigned(b"H:1"))
    second = desk.job(assigned(b"H:1"))
    desk.said()
    assert (first.lost, second.lost) == (True, False)
    desk.session.complete(first, b"late")
    assert WORK_COMPLETE not in desk.types()
    desk.session.complete(second, b"good")
    assert desk.said()[0] == Packet(WORK_COMPLETE, (b"H:1", b"good"))


def test_draining_grabs_no_more_but_does_what_still_comes() -> None:
    desk = Desk(slots=2)
    desk.registers()
    desk.said()
    desk.session.drain()
    assert not desk.session.is_idle
    job = desk.job(assigned(b"H:1"))
    assert desk.types() == []
    desk.session.complete(job, b"")
    assert desk.types() == [WORK_COMPLETE]
    assert desk.session.is_idle
    desk.hears(pack_response(NOOP))
    assert desk.types() == []


def test_a_packet_that_is_no_workers_business_is_an_error() -> None:
    desk = Desk()
    desk.registers()
    with pytest.raises(RemoteProtocolError, match="JOB_CREATED"):
        desk.hears(pack_response(JOB_CREATED, b"H:1"))
    sleeper = Desk()
    sleeper.sleeps()
    with pytest.raises(RemoteProtocolError, match="not sent"):
        sleeper.hears(assigned(b"H:1"))


def test_servers_that_all_have_work_take_turns() -> None:
    slots = Slots(1)
    desks = [Desk(slots=slots), Desk(slots=slots)]
    for desk in desks:
        desk.registers()
    served = []
    for number in range(6):
        (index,) = [index for index, desk in enumerate(desks) if GRAB_JOB_UNIQ in desk.types()]
        served.append(index)
        desks[index].session.complete(desks[index].job(assigned(b"H:%d" % number)), b"")
    assert served == [0, 1, 0, 1, 0, 1]


def test_a_server_without_work_passes_the_slot_on() -> None:
    slots = Slots(1)
    empty, full = Desk(slots=slots), Desk(slots=slots)
    empty.registers()
    full.registers()
    assert (empty.types(), full.types()) == ([GRAB_JOB_UNIQ], [])
    empty.hears(pack_response(NO_JOB))
    assert (empty.types(), full.types()) == ([PRE_SLEEP], [GRAB_JOB_UNIQ])


def test_a_lost_server_passes_the_slot_on() -> None:
    slots = Slots(1)
    dead, alive = Desk(slots=slots), Desk(slots=slots)
    dead.registers()
    alive.registers()
    dead.session.lost()
    assert alive.types() == [GRAB_JOB_UNIQ]


def test_a_functions_own_limit_holds_within_the_workers() -> None:
    slots = Slots(3)
    general = Desk(slots=slots)
    narrow = Desk({b"resize": None}, slots=Slots(1, within=slots))
    narrow.registers()
    assert narrow.types() == [GRAB_JOB_UNIQ]
    job = narrow.job(assigned(b"N:1", b"resize"))
    assert narrow.types() == []
    general.registers()
    assert general.types() == [GRAB_JOB_UNIQ]
    general.hears(assigned(b"G:1"))
    assert general.types() == [GRAB_JOB_UNIQ]
    general.hears(assigned(b"G:2"))
    assert slots.free == 0
    narrow.session.complete(job, b"")
    assert (general.types(), narrow.types()) == ([], [WORK_COMPLETE, GRAB_JOB_UNIQ])  # it stood in line longer
    narrow.hears(pack_response(NO_JOB))
    assert general.types() == [GRAB_JOB_UNIQ]


# Policies and verdicts.

POLICIES = {b"reverse": b"attempts=3 delay=1s", b"50%\toff": b"rate=10/s"}


def desk_of_policies() -> Desk:
    return Desk({b"reverse": None, b"50%\toff": None, b"plain": None}, policies=POLICIES)


def test_a_job_server_that_knows_policies_is_told_them_before_it_is_asked_for_a_job() -> None:
    desk = desk_of_policies()
    desk.said()
    assert desk.hears(KNOWS) == []
    told = b"policy set reverse attempts=3 delay=1s\r\npolicy set 50%\toff rate=10/s\r\n"
    assert desk.session.take() == told
    assert desk.hears(b"OK\r\n", ECHO, b"OK\r\n") == []
    assert desk.types() == [GRAB_JOB_UNIQ]
    desk.session.lost()
    desk.said()
    desk.hears(KNOWS, ECHO)
    assert desk.session.take().startswith(told)  # on the next connection again


@pytest.mark.parametrize("answer", [KNOWS_NOT, pack_response(ERROR, b"unknown_option", b"unknown_option"), b""])
def test_a_job_server_without_policies_hears_of_none(answer: bytes) -> None:
    desk = desk_of_policies()
    desk.said()
    (refusal,) = desk.hears(answer, ECHO)
    assert isinstance(refusal, PolicyRefusal)
    assert refusal.text == "knows no policies: those of reverse, 50%\toff do not hold there"
    assert desk.said() == [Packet(GRAB_JOB_UNIQ, ())]
    indifferent = Desk()
    indifferent.said()
    assert indifferent.hears(answer, ECHO) == []


def test_an_error_of_the_registration_that_is_not_the_options_is_told() -> None:
    desk = Desk()
    desk.said()
    refused = pack_response(ERROR, b"NOT_ALLOWED", b"CAN_DO")
    (error,) = desk.errors(KNOWS_NOT, refused, ECHO)
    assert error.code == "NOT_ALLOWED"
    desk.session.lost()
    desk.said()
    (error,) = desk.errors(KNOWS, refused, ECHO)
    assert error.code == "NOT_ALLOWED"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_answers_come_between_packets_and_in_any_pieces(size: int) -> None:
    desk = desk_of_policies()
    desk.said()
    desk.hears(KNOWS, ECHO)
    desk.session.take()
    stream = b"ERR INVALID_POLICY attempts=0:+write+1+to+1000\r\n" + assigned(b"H:1", workload=b"OK\r\n") + b"OK\n"
    events = []
    for start in range(0, len(stream), size):
        events += desk.session.receive(stream[start : start + size])
    refusal, job = events
    assert isinstance(refusal, PolicyRefusal)
    assert refusal.text == "refused the policy of reverse: INVALID_POLICY attempts=0: write 1 to 1000"
    assert isinstance(job, AssignedJob)
    assert job.workload == b"OK\r\n"


def test_answers_that_were_not_asked_for_are_errors() -> None:
    desk = desk_of_policies()
    desk.said()
    desk.hears(KNOWS, ECHO)
    with pytest.raises(RemoteProtocolError, match="reverse by b'WHAT'"):
        desk.hears(b"WHAT\r\n")
    desk.session.lost()
    desk.said()
    desk.hears(KNOWS, b"OK\r\n", b"OK\r\n")
    with pytest.raises(RemoteProtocolError, match="a text line"):
        desk.hears(b"OK\r\n")
    desk.session.lost()
    desk.said()
    with pytest.raises(RemoteProtocolError, match="OPTION_RES"):
        desk.hears(pack_response(OPTION_RES, b"exceptions"))


def test_an_exception_is_all_that_a_job_server_with_policies_needs() -> None:
    """The job may be here again by the time it could say that it still exists."""
    desk = Desk()
    desk.registers(KNOWS)
    desk.said()
    desk.session.raised(desk.job(assigned(b"H:1")), b"ValueError: no")
    assert desk.said() == [Packet(WORK_EXCEPTION, (b"H:1", b"ValueError: no")), Packet(GRAB_JOB_UNIQ, ())]
    again = desk.job(assigned(b"H:1"))
    desk.session.complete(again, b"")
    assert desk.types() == [WORK_COMPLETE, GRAB_JOB_UNIQ]
    desk.session.drain()
    desk.hears(pack_response(NO_JOB))
    assert desk.session.is_idle


@pytest.mark.parametrize("verdict", [b"retry", b"retry=30.000", b"reject"])
def test_a_verdict_goes_to_a_job_server_that_knows_policies(verdict: bytes) -> None:
    desk = Desk()
    desk.registers(KNOWS)
    desk.said()
    desk.session.declined(desk.job(assigned(b"H:1")), verdict, b"b\0ad")
    assert desk.said() == [Packet(WORK_FAIL, (b"H:1\0" + verdict + b"\0b\0ad",)), Packet(GRAB_JOB_UNIQ, ())]
    desk.session.declined(desk.job(assigned(b"H:2")), verdict, b"")
    assert desk.said() == [Packet(WORK_FAIL, (b"H:2\0" + verdict + b"\0",)), Packet(GRAB_JOB_UNIQ, ())]
    lost = desk.job(assigned(b"H:3"))
    desk.session.lost()
    desk.session.declined(lost, verdict, b"bad")
    assert WORK_FAIL not in desk.types()
    assert desk.slots.used == 0


def test_elsewhere_a_verdict_is_a_failure_and_that_is_told_once() -> None:
    desk = Desk()
    desk.registers()
    desk.said()
    desk.session.declined(desk.job(assigned(b"H:1")), b"retry=30.000", b"busy")
    assert desk.said() == [
        Packet(WORK_EXCEPTION, (b"H:1", b"busy")),
        Packet(GET_STATUS, (b"H:1",)),
        Packet(GRAB_JOB_UNIQ, ()),
    ]
    gone = pack_response(STATUS_RES, b"H:1", b"0", b"0", b"0", b"0")
    refusal, job = desk.hears(gone, assigned(b"H:2"))
    assert isinstance(refusal, PolicyRefusal)
    assert refusal.text == "knows no policies: a job with a verdict, Retry or Reject, just fails there"
    assert isinstance(job, AssignedJob)
    desk.session.declined(job, b"reject", b"")
    assert desk.said() == [Packet(WORK_FAIL, (b"H:2",)), Packet(GRAB_JOB_UNIQ, ())]
    assert desk.refusals(assigned(b"H:3")) == []
