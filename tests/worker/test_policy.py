"""What a worker declares of its functions for job servers to keep to."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
from typing import Any

import pytest

from geartrain.worker import AsyncWorker, Worker
from geartrain.worker.once import Once
from geartrain.worker.policy import Policy


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ""),
        ({"retries": 5, "backoff": "exponential"}, "attempts=6 backoff=exponential"),
        ({"retries": 0}, "attempts=1"),
        ({"attempts": 1000}, "attempts=1000"),
        ({"retry_on": "timeout"}, "retry_on=timeout"),
        ({"retry_on": ("lost", "fail", "lost")}, "retry_on=lost,fail"),
        ({"delay": 90, "max_delay": "2h"}, "delay=90s max_delay=2h"),
        ({"delay": 0, "jitter": 0, "expires": datetime.timedelta(minutes=1.5)}, "delay=0s jitter=0 expires=90s"),
        ({"delay": 0.25, "jitter": 0.1}, "delay=250ms jitter=0.1"),
        ({"jitter": 1e-5}, "jitter=0.00001"),
        ({"total_concurrency": 2, "key_concurrency": 1, "key_separator": "é%"},
         "concurrency=2 key_concurrency=1 key_separator=é%"),
        ({"rate": "10/s", "burst": 5, "key_rate": "100/min", "key_burst": 1},
         "rate=10/s burst=5 key_rate=100/min key_burst=1"),
        ({"queue": 2**32, "when_full": "drop-oldest"}, "queue=4294967296 when_full=drop-oldest"),
        ({"weight": 3, "ageing": "5m"}, "weight=3 ageing=5m"),
        ({"results": "1d", "result_size": "64KiB", "stale": 30}, "results=1d result_size=64KiB stale=30s"),
        ({"result_size": 1000}, "result_size=1000"),
    ],
)  # fmt: skip
def test_options_become_the_words_of_policy_set(options: Any, words: str) -> None:
    assert Policy(**options).words == words


@pytest.mark.parametrize(
    "options",
    [
        {"retries": -1},
        {"retries": 1000},
        {"attempts": 0},
        {"attempts": 1001},
        {"retry_on": ()},
        {"retry_on": "never"},
        {"backoff": "fast"},
        {"delay": -1},
        {"delay": math.nan},
        {"max_delay": "soon"},
        {"max_delay": "4000d"},
        {"jitter": 1.1},
        {"jitter": math.nan},
        {"expires": 0},
        {"total_concurrency": 0},
        {"key_separator": ""},
        {"key_separator": "123456789"},
        {"key_separator": "\n"},
        {"key_separator": "a b"},
        {"rate": "10"},
        {"rate": "0/s"},
        {"rate": "1.5/s"},
        {"rate": "10/day"},
        {"queue": 0},
        {"when_full": "wait"},
        {"weight": 1001},
        {"results": "0s"},
        {"result_size": 0},
        {"result_size": "5GiB"},
    ],
)
def test_a_value_that_can_not_be_is_refused_by_its_name(options: Any) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"^{name}=") as caught:
        Policy(**options)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"retries": True},
        {"retries": "5"},
        {"attempts": 2.0},
        {"retry_on": 5},
        {"delay": None},
        {"jitter": "0.1"},
        {"key_separator": b":"},
        {"rate": 10},
        {"result_size": 1.5},
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_its_name(options: Any) -> None:
    (name,) = options
    with pytest.raises(TypeError, match=f"^{name}="):
        Policy(**options)


@pytest.mark.parametrize("kind", [Worker, AsyncWorker])
def test_what_is_wrong_is_told_where_it_is_declared(kind: type[Worker | AsyncWorker]) -> None:
    worker = kind()
    for declare in (worker.function, worker.batch):
        with pytest.raises(TypeError, match=r"no option 'retrys'; .* retries, attempts"):
            declare("f", retrys=5)  # type: ignore[call-arg]
        with pytest.raises(ValueError, match="give one of them"):
            declare("f", retries=5, attempts=6)
    for name in ("all.*", "two words", "two\nlines"):
        with pytest.raises(ValueError, match="can't have a policy"):
            worker.function(name, retries=5)(lambda job: b"")
        assert name not in worker.functions
        worker.function(name)(lambda job: b"")


def test_a_policy_is_a_functions_and_does_not_change() -> None:
    worker = Worker()

    @worker.function(retries=5)
    def resize(size: int) -> int:
        return size

    @worker.batch(rate="10/s")
    def store(values: list[int]) -> None:
        pass

    assert (resize.policy.words, store.policy.words) == ("attempts=6", "rate=10/s")
    with pytest.raises(dataclasses.FrozenInstanceError):
        resize.policy.words = ""  # type: ignore[misc]


def test_what_was_said_is_known_in_every_process() -> None:
    once = Once()
    assert once.is_new("a")
    child = os.fork()
    if not child:
        os._exit(0 if not once.is_new("a") and once.is_new("b") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not once.is_new("b")
    assert [once.is_new(str(number)) for number in range(511)] == [True] * 510 + [False]  # there is no room for more
