"""The client's side of one connection, in memory: what it sends, and what it makes of what comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geartrain.client.request import (
    EchoRequest,
    HandleStatusRequest,
    JobStatus,
    OptionRequest,
    Request,
    UniqueStatusRequest,
)
from geartrain.client.session import ClientSession
from geartrain.client.submission import DataEvent, JobEvent, StatusEvent, Submission, WarningEvent
from geartrain.errors import (
    ConnectionLostError,
    JobFailedError,
    JobRaisedError,
    PacketTooLargeError,
    QueueFullError,
    RemoteProtocolError,
    ServerError,
)
from geartrain.wire.packets import (
    ECHO_RES,
    ERROR,
    GET_STATUS,
    JOB_ASSIGN,
    JOB_CREATED,
    NOOP,
    OPTION_REQ,
    OPTION_RES,
    STATUS_RES,
    STATUS_RES_UNIQUE,
    SUBMIT_JOB,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
    pack_request,
    pack_response,
)

Feed = Callable[[ClientSession, bytes], list[Request[Any]]]


def whole(session: ClientSession, data: bytes) -> list[Request[Any]]:
    return session.receive(data)


def byte_by_byte(session: ClientSession, data: bytes) -> list[Request[Any]]:
    return [request for byte in data for request in session.receive(bytes([byte]))]


def with_a_tail(session: ClientSession, data: bytes) -> list[Request[Any]]:
    """The start of a further packet comes along; its end comes at last."""
    echo = EchoRequest(b"")
    session.send(echo)
    tail = pack_response(ECHO_RES, b"tail")
    touched = session.receive(data + tail[:7])
    assert session.receive(tail[7:]) == [echo]
    return touched


@pytest.fixture(params=[whole, byte_by_byte, with_a_tail])
def feed(request: pytest.FixtureRequest) -> Feed:
    feed: Feed = request.param
    return feed


def quiet() -> ClientSession:
    """A session that asks for no option."""
    return ClientSession(exceptions=False)


def job(workload: bytes = b"", **options: Any) -> Submission:
    return Submission(b"f", workload, **options)


def sent(session: ClientSession, *requests: Request[Any]) -> None:
    for request in requests:
        session.send(request)


def events(submission: Submission) -> list[JobEvent]:
    taken = list(submission.events)
    submission.events.clear()
    return taken


def test_it_asks_for_exceptions_first() -> None:
    session = ClientSession()
    submission = job(b"x")
    sent(session, submission)
    assert session.take() == pack_request(OPTION_REQ, b"exceptions") + pack_request(SUBMIT_JOB, b"f", b"", b"x")
    assert session.take() == b""
    session.receive(pack_response(OPTION_RES, b"exceptions") + pack_response(JOB_CREATED, b"H:a:1"))
    assert submission.handle == b"H:a:1"


def test_a_server_without_exceptions_is_fine() -> None:
    session = ClientSession()
    submission = job()
    sent(session, submission)
    session.receive(pack_response(ERROR, b"UNKNOWN_OPTION", b"?") + pack_response(JOB_CREATED, b"H:a:1"))
    assert submission.handle == b"H:a:1"
    assert submission.error is None


def test_a_job_from_submission_to_result(feed: Feed) -> None:
    session, submission = quiet(), job()
    sent(session, submission)
    touched = feed(session, pack_response(JOB_CREATED, b"H:a:1") + pack_response(WORK_COMPLETE, b"H:a:1", b"a\0b"))
    assert touched == [submission, submission]
    assert submission.outcome() == b"a\0b"
    assert session.is_idle


def test_events_arrive_in_order_and_unread_data_is_part_of_the_result(feed: Feed) -> None:
    session, submission = quiet(), job()
    sent(session, submission)
    feed(session, pack_response(JOB_CREATED, b"H:a:1"))
    feed(
        session,
        pack_response(WORK_DATA, b"H:a:1", b"one ")
        + pack_response(WORK_STATUS, b"H:a:1", b"1", b"2")
        + pack_response(WORK_WARNING, b"H:a:1", b"careful"),
    )
    assert events(submission) == [DataEvent(b"one "), StatusEvent(1, 2), WarningEvent(b"careful")]
    assert submission.progress == (1, 2)
    feed(session, pack_response(WORK_DATA, b"H:a:1", b"two ") + pack_response(WORK_DATA, b"H:a:1", b"three "))
    feed(session, pack_response(WORK_COMPLETE, b"H:a:1", b"end"))
    assert submission.outcome() == b"two three end"
    assert submission.outcome() == b"two three end"
    assert not submission.events


def test_of_unread_statuses_only_the_last_is_kept() -> None:
    session, submission = quiet(), job()
    sent(session, submission)
    session.receive(pack_response(JOB_CREATED, b"H:a:1"))
    for done in range(1000):
        session.receive(pack_response(WORK_STATUS, b"H:a:1", b"%d" % done, b"1000"))
    assert events(submission) == [StatusEvent(999, 1000)]


def test_a_status_that_is_no_number_counts_as_nothing() -> None:
    session, submission = quiet(), job()
    sent(session, submission)
    session.receive(pack_response(JOB_CREATED, b"H:a:1") + pack_response(WORK_STATUS, b"H:a:1", b"half", b""))
    assert submission.progress == (0, 0)


@pytest.mark.parametrize("handle", [b"H:a:1", b"H:a:1\0", b"H:a:1\0more"])
def test_a_failure_may_carry_something_behind_its_handle(handle: bytes, feed: Feed) -> None:
    """gearmand puts a NUL behind the handle where it hides an exception."""
    session, submission = quiet(), job()
    sent(session, submission)
    feed(session, pack_response(JOB_CREATED, b"H:a:1") + pack_response(WORK_FAIL, handle))
    with pytest.raises(JobFailedError) as caught:
        submission.outcome()
    assert caught.value.handle == b"H:a:1"
    assert session.is_idle


def test_an_exception_carries_the_workers_text(feed: Feed) -> None:
    session, submission = quiet(), job()
    sent(session, submission)
    feed(session, pack_response(JOB_CREATED, b"H:a:1") + pack_response(WORK_EXCEPTION, b"H:a:1", "zu groß".encode()))
    with pytest.raises(JobRaisedError, match="zu groß") as caught:
        submission.outcome()
    assert caught.value.data == "zu groß".encode()
    # The Perl server passes on the failure that its workers send after an exception.
    assert feed(session, pack_response(WORK_FAIL, b"H:a:1")) == []


def test_answers_belong_to_requests_in_the_order_of_sending(feed: Feed) -> None:
    session = quiet()
    echo, first, second = EchoRequest(b"e"), job(), job(background=True)
    status, unique, option = (
        HandleStatusRequest(b"H:a:9", None),
        UniqueStatusRequest(b"u"),
        OptionRequest(b"exceptions"),
    )
    sent(session, first, echo, second, status, unique, option)
    feed(
        session,
        pack_response(JOB_CREATED, b"H:a:1")
        + pack_response(ECHO_RES, b"e")
        + pack_response(JOB_CREATED, b"H:a:2")
        + pack_response(STATUS_RES, b"H:a:9", b"1", b"0", b"3", b"4")
        + pack_response(STATUS_RES_UNIQUE, b"u", b"1", b"1", b"0", b"0", b"2")
        + pack_response(OPTION_RES, b"exceptions"),
    )
    assert (first.handle, first.done) == (b"H:a:1", False)
    assert (second.handle, second.outcome()) == (b"H:a:2", b"H:a:2")
    assert echo.outcome() == b"e"
    assert status.outcome() == JobStatus(known=True, running=False, numerator=3, denominator=4)
    assert status.outcome().fraction == 0.75
    assert unique.outcome() == JobStatus(known=True, running=True, clients=2)
    assert unique.outcome().fraction is None
    assert option.outcome() == b"exceptions"


def test_an_error_fails_one_request_and_no_other(feed: Feed) -> None:
    session = quiet()
    jobs = [job(), job(), job(background=True), job()]
    sent(session, *jobs)
    feed(
        session,
        pack_response(JOB_CREATED, b"H:a:1")
        + pack_response(ERROR, b"QUEUE_ERROR", b"Job queue is full")
        + pack_response(ERROR, b"ARGUMENT_TOO_LARGE", b"Unique value too large")
        + pack_response(JOB_CREATED, b"H:a:2"),
    )
    assert [job.handle for job in jobs] == [b"H:a:1", None, None, b"H:a:2"]
    with pytest.raises(QueueFullError, match="Job queue is full"):
        jobs[1].outcome()
    with pytest.raises(ServerError) as caught:
        jobs[2].outcome()
    assert (caught.value.code, caught.value.text) == ("ARGUMENT_TOO_LARGE", "Unique value too large")


def test_coalesced_submissions_share_an_end_and_take_the_rest_in_turn(feed: Feed) -> None:
    """A job server sends each packet once for each submission, also where they are on one connection."""
    session = quiet()
    one, two = job(unique=b"u"), job(unique=b"u")
    sent(session, one)
    feed(session, pack_response(JOB_CREATED, b"H:a:1") + pack_response(WORK_DATA, b"H:a:1", b"only one"))
    sent(session, two)
    feed(session, pack_response(JOB_CREATED, b"H:a:1"))
    feed(session, pack_response(WORK_DATA, b"H:a:1", b"1") * 2 + pack_response(WORK_DATA, b"H:a:1", b"2") * 2)
    feed(session, pack_response(WORK_COMPLETE, b"H:a:1", b"!") * 2)
    assert one.outcome() == b"only one12!"
    assert two.outcome() == b"12!"
    assert session.is_idle


def test_a_given_up_submission_still_takes_its_turn() -> None:
    session = quiet()
    one, two = job(unique=b"u"), job(unique=b"u")
    sent(session, one, two)
    session.receive(pack_response(JOB_CREATED, b"H:a:1"))
    one.fail(ConnectionLostError())
    session.receive(pack_response(JOB_CREATED, b"H:a:1"))
    session.receive(pack_response(WORK_DATA, b"H:a:1", b"x") * 2 + pack_response(WORK_COMPLETE, b"H:a:1", b"y") * 2)
    assert two.outcome() == b"xy"
    assert not one.events


def test_a_job_given_up_before_its_answer_does_not_shift_the_others() -> None:
    session = quiet()
    one, two = job(), job()
    sent(session, one, two)
    one.fail(ConnectionLostError())
    session.receive(pack_response(JOB_CREATED, b"H:a:1") + pack_response(JOB_CREATED, b"H:a:2"))
    session.receive(pack_response(WORK_COMPLETE, b"H:a:1", b"1") + pack_response(WORK_COMPLETE, b"H:a:2", b"2"))
    assert two.outcome() == b"2"
    assert isinstance(one.error, ConnectionLostError)
    assert session.is_idle


def test_packets_for_jobs_that_are_nobodys_are_passed_over() -> None:
    session = quiet()
    for packet in (
        pack_response(WORK_DATA, b"H:a:7", b"x"),
        pack_response(WORK_STATUS, b"H:a:7", b"1", b"2"),
        pack_response(WORK_COMPLETE, b"H:a:7", b"x"),
        pack_response(WORK_FAIL, b"H:a:7"),
    ):
        assert session.receive(packet) == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (pack_response(NOOP), "NOOP, which is not for clients"),
        (pack_response(JOB_ASSIGN, b"H:a:1", b"f", b""), "JOB_ASSIGN, which is not for clients"),
        (pack_response(ECHO_RES, b"x"), "sent ECHO_RES where JOB_CREATED was due"),
        (b"HTTP/1.1 400 Bad Request\r\n", "a text line"),
        (b"\0XYZ\0\0\0\1\0\0\0\0", "does not start a packet"),
        (b"\0RES\0\0\0\x14\0\0\0\1x", "STATUS_RES carries 5"),
    ],
)
def test_what_has_no_place_ends_the_connection(data: bytes, why: str, feed: Feed) -> None:
    session = quiet()
    sent(session, job())
    with pytest.raises(RemoteProtocolError, match=why):
        feed(session, data)


def test_an_answer_to_nothing_ends_the_connection() -> None:
    with pytest.raises(RemoteProtocolError, match="nothing was asked"):
        quiet().receive(pack_response(ECHO_RES, b"x"))


def test_a_packet_above_the_limit_ends_the_connection() -> None:
    session = ClientSession(exceptions=False, max_body=1000)
    with pytest.raises(RemoteProtocolError, match="1001 bytes is above the limit of 1000"):
        session.receive(pack_response(ECHO_RES, b"x" * 1001))


@pytest.mark.parametrize("type", [WORK_DATA, WORK_COMPLETE])
def test_a_report_above_the_limit_fails_its_job_alone(type: int) -> None:
    session = ClientSession(exceptions=False, max_body=1000)
    large, other = job(), job()
    sent(session, large, other)
    session.receive(b"".join(pack_response(JOB_CREATED, b"H:a:%d" % number) for number in (1, 2)))
    too_much = pack_response(type, b"H:a:1", b"x" * 5000)
    touched = session.receive(too_much[:2000])
    assert touched == [large]
    with pytest.raises(PacketTooLargeError, match="of 5006 bytes for H:a:1 is above the limit of 1000"):
        large.outcome()
    rest = b"" if type == WORK_COMPLETE else pack_response(WORK_COMPLETE, b"H:a:1", b"rest")
    assert session.receive(too_much[2000:] + rest + pack_response(WORK_COMPLETE, b"H:a:2", b"done")) == [other]
    assert other.outcome() == b"done"
    assert session.is_idle


def test_what_is_open_when_the_connection_ends() -> None:
    session = quiet()
    done, running, given_up, unanswered = job(), job(), job(), job(background=True)
    sent(session, done, running, given_up)
    session.receive(b"".join(pack_response(JOB_CREATED, b"H:a:%d" % number) for number in (1, 2, 3)))
    session.receive(pack_response(WORK_COMPLETE, b"H:a:1", b""))
    given_up.fail(ConnectionLostError())
    sent(session, unanswered)
    assert session.lost() == [running, unanswered]
    assert session.take() == b""
    assert session.lost() == []


def test_silence_is_measured_from_what_last_moved() -> None:
    session = ClientSession(exceptions=False, answer_seconds=30)
    assert session.tick(0) is None
    sent(session, job(), job())
    assert session.tick(100) == 130
    assert session.tick(129) == 130
    session.receive(pack_response(JOB_CREATED, b"H:a:1"))
    assert session.tick(129) == 159  # the second answer is still owed, but the server lives
    session.moved()
    assert session.tick(150) == 180
    with pytest.raises(ConnectionLostError, match="silent for 30 s"):
        session.tick(180)


def test_a_server_that_owes_only_results_is_asked_for_an_echo() -> None:
    session = ClientSession(exceptions=False, answer_seconds=30)
    sent(session, job())
    session.take()
    session.receive(pack_response(JOB_CREATED, b"H:a:1"))
    assert session.tick(0) == 30
    assert session.take() == b""
    assert session.tick(30) == 60
    assert session.take() == EchoRequest(b"").packet
    session.receive(pack_response(ECHO_RES, b""))
    assert session.tick(31) == 61
    assert session.tick(61) == 91
    with pytest.raises(ConnectionLostError):
        session.tick(91)


def test_a_request_that_may_not_be_sent_again_lets_go_of_its_bytes() -> None:
    session = quiet()
    once, twice = job(resends=0), job(resends=1)
    packet = twice.packet
    sent(session, once, twice)
    assert session.take() == packet * 2
    assert (once.packet, twice.packet) == (b"", packet)


def test_thousands_underway_end_in_any_order() -> None:
    session = quiet()
    jobs = [job() for _ in range(5000)]
    sent(session, *jobs)
    session.receive(b"".join(pack_response(JOB_CREATED, b"H:a:%d" % number) for number in range(5000)))
    session.receive(
        b"".join(pack_response(WORK_COMPLETE, b"H:a:%d" % number, b"%d" % number) for number in reversed(range(5000)))
    )
    assert [submission.outcome() for submission in jobs] == [b"%d" % number for number in range(5000)]
    assert session.is_idle


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(
                lambda type, body: b"\0RES" + type.to_bytes(4, "big") + len(body).to_bytes(4, "big") + body,
                st.integers(0, 45),
                st.lists(st.sampled_from([b"H:a:1", b"H:a:2", b"", b"7", b"x" * 70]), max_size=6).map(b"\0".join),
            ),
        ),
        max_size=12,
    )
)
def test_any_bytes_give_packets_or_the_one_error(chunks: list[bytes]) -> None:
    session = ClientSession()
    requests: list[Request[Any]] = [
        job(),
        job(unique=b"u"),
        EchoRequest(b""),
        HandleStatusRequest(b"H:a:1", None),
        job(background=True),
    ]
    sent(session, *requests)
    try:
        for chunk in chunks:
            session.receive(chunk)
    except RemoteProtocolError:
        pass
    open_requests = session.lost()
    assert {request for request in requests if not request.done} == set(open_requests) & set(requests)


def test_a_handle_is_the_servers_own_and_knows_packets_only_by_type() -> None:
    session = quiet()
    sent(session, HandleStatusRequest(b"H:a:1", None))
    assert session.take() == pack_request(GET_STATUS, b"H:a:1")
