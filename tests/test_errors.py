"""The tree of errors: its drawing shows every one of them, and the package exports them."""

from __future__ import annotations

import datetime
import math
import re
from typing import Any

import pytest

import geartrain
from geartrain import errors

TREE = {
    name: error
    for name, error in vars(errors).items()
    if isinstance(error, type) and issubclass(error, geartrain.GeartrainError)
}

VERDICTS = ("Verdict", "Retry", "Reject")
"""What a function raises to say what is to become of its job, which is no error: ``raise Retry(after=30)``."""


def drawn() -> dict[str, str]:
    """Each error of the drawing, and the one it hangs on."""
    parents: list[tuple[int, str]] = []
    found = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"(    [│├└─ ]*)((?:[A-Z]\w+Error|Verdict|Retry|Reject)\b)", line)
        if match is None:
            continue
        depth = len(match[1])
        while parents and parents[-1][0] >= depth:
            parents.pop()
        found[match[2]] = parents[-1][1] if parents else "Exception"
        parents.append((depth, match[2]))
    return found


def test_the_drawing_shows_every_error_where_it_hangs() -> None:
    assert drawn() == {name: error.__bases__[0].__name__ for name, error in TREE.items()}


@pytest.mark.parametrize("name", TREE)
def test_each_ends_in_error_has_a_remedy_and_is_at_hand(name: str) -> None:
    assert name.endswith("Error") or name in VERDICTS
    assert TREE[name].__doc__
    assert getattr(geartrain, name) is TREE[name]
    assert name in geartrain.__all__


@pytest.mark.parametrize(
    ("after", "seconds"),
    [(0, 0), (30, 30), (0.25, 0.25), ("5m", 300), (datetime.timedelta(hours=1), 3600), (None, None)],
)
def test_a_retry_waits_as_long_as_it_is_told(after: float | str | datetime.timedelta | None, seconds: float) -> None:
    assert geartrain.Retry(after).after == seconds


@pytest.mark.parametrize(
    "after", [-1, -0.001, math.nan, math.inf, "soon", "-1s", "", "9" * 400, 10**400, datetime.timedelta(seconds=-1)]
)
def test_a_retry_waits_for_a_time_that_comes(after: float | str | datetime.timedelta) -> None:
    with pytest.raises(ValueError, match="time"):
        geartrain.Retry(after=after)


@pytest.mark.parametrize("after", [True, b"30s", [30]])
def test_a_retry_is_not_told_nonsense(after: object) -> None:
    with pytest.raises(TypeError, match="is no time"):
        geartrain.Retry(after=after)  # type: ignore[arg-type]


def rejected(reason: str = "", *, cause: Exception | None = None, is_hidden: bool = False) -> None:
    try:
        raise KeyError("x")
    except KeyError as error:
        if is_hidden:
            raise geartrain.Reject(reason) from None
        raise geartrain.Reject(reason) from cause or error


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"reason": "bad input"}, "bad input"),
        ({}, "KeyError: 'x'"),
        ({"cause": OSError("disk")}, "OSError: disk"),
        ({"is_hidden": True}, ""),
    ],
)
def test_a_verdict_tells_its_reason_or_what_led_to_it(how: dict[str, Any], text: str) -> None:
    with pytest.raises(geartrain.Verdict) as caught:
        rejected(**how)
    assert caught.value.text == text
    assert str(caught.value) == (text or "The job is never to be tried again, whatever its function's policy says.")
