"""Submissions as bytes, and handles as text."""

from __future__ import annotations

import datetime
import pickle
import time
from typing import Any

import pytest

from geartrain.client.submission import JobHandle, Submission, epoch_of
from geartrain.errors import LocalProtocolError
from geartrain.link import Address
from geartrain.wire.packets import (
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_EPOCH,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW,
    SUBMIT_JOB_LOW_BG,
    pack_request,
)


@pytest.mark.parametrize(
    ("background", "priority", "type"),
    [
        (False, "high", SUBMIT_JOB_HIGH),
        (False, "normal", SUBMIT_JOB),
        (False, "low", SUBMIT_JOB_LOW),
        (True, "high", SUBMIT_JOB_HIGH_BG),
        (True, "normal", SUBMIT_JOB_BG),
        (True, "low", SUBMIT_JOB_LOW_BG),
    ],
)
def test_the_six_ways_to_submit(background: bool, priority: Any, type: int) -> None:
    submission = Submission(b"f", b"w\0w", unique=b"u", priority=priority, background=background)
    assert submission.packet == pack_request(type, b"f", b"u", b"w\0w")


def test_a_job_for_later() -> None:
    submission = Submission(b"f", b"w", unique=b"u", background=True, when=1234567890)
    assert submission.packet == pack_request(SUBMIT_JOB_EPOCH, b"f", b"u", b"1234567890", b"w")


def test_times_become_whole_seconds_and_never_too_early() -> None:
    utc = datetime.UTC
    assert epoch_of(datetime.datetime(2030, 1, 1, tzinfo=utc)) == 1893456000
    assert epoch_of(datetime.datetime(2030, 1, 1, 0, 0, 0, 1, tzinfo=utc)) == 1893456001
    assert epoch_of(datetime.datetime(2030, 1, 1)) == datetime.datetime(2030, 1, 1).timestamp()
    assert epoch_of(17.01) == 18
    before = time.time()
    assert before + 60 <= epoch_of(datetime.timedelta(minutes=1)) <= time.time() + 61


@pytest.mark.parametrize("when", [-1, 1e30, float("nan"), float("inf"), datetime.timedelta(days=-99999)])
def test_a_time_that_can_not_be_is_refused(when: Any) -> None:
    with pytest.raises(LocalProtocolError, match="no Unix time"):
        epoch_of(when)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"function": b""}, "needs the name of a function"),
        ({"function": b"a\0b"}, "function"),
        ({"unique": b"a\0b"}, "unique"),
        ({"unique": b"u" * 65}, "longer than 64 bytes"),
        ({"priority": "urgent"}, "no priority 'urgent'"),
        ({"priority": "high", "when": 5}, "normal priority, not high"),
    ],
)
def test_what_has_no_place_in_the_protocol_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(LocalProtocolError, match=why):
        Submission(**{"function": b"f", "workload": b"", **options})


def test_text_as_workload_is_refused_with_advice() -> None:
    with pytest.raises(TypeError, match="encode"):
        Submission(b"f", "text")  # type: ignore[arg-type]


@pytest.mark.parametrize("workload", [b"w", bytearray(b"w"), memoryview(b"w")])
def test_anything_like_bytes_is_a_workload(workload: Any) -> None:
    assert Submission(b"f", workload).packet == pack_request(SUBMIT_JOB, b"f", b"", b"w")


def test_a_hyphen_makes_the_workload_the_key() -> None:
    one, same, other = (Submission(b"f", workload, unique=b"-").key for workload in (b"x", b"x", b"y"))
    assert one == same != other
    assert Submission(b"f", b"x", unique=b"u").key == b"u"
    assert Submission(b"f", b"x").key is None


def test_a_handle_is_bytes_that_know_their_server() -> None:
    handle = JobHandle(b"H:box:17", Address("127.0.0.1"))
    assert handle == b"H:box:17"
    assert str(handle) == "127.0.0.1:4730//H:box:17"
    for twin in (JobHandle.parse(str(handle)), pickle.loads(pickle.dumps(handle))):
        assert twin == handle
        assert twin.address == handle.address
    assert JobHandle.parse("H:box:17").address is None
    assert JobHandle.parse(str(JobHandle(b"H:1", Address(path="/run/s")))).address == Address(path="/run/s")
