"""Type hints as checks: what passes, what it becomes, and what is said of what does not."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import enum
import json
import pathlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired, Optional, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geartrain.worker.hints import Mismatch, check_for, plain


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Point:
    x: int
    y: float = 0.0
    near: list[Point] = field(default_factory=list)


class Movie(TypedDict):
    name: str
    year: NotRequired[int]


NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
ID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, 5, 5),
        (float, 5, 5.0),
        (float, 5.5, 5.5),
        (bool, True, True),
        (str, "a", "a"),
        (None, None, None),
        (type(None), None, None),
        (Any, {"a": [1]}, {"a": [1]}),
        (object, 3, 3),
        (bytes, "aGVsbG8=", b"hello"),
        (bytes, b"hello", b"hello"),
        (list, [1, "a"], [1, "a"]),
        (list[int], [1, 2], [1, 2]),
        (Sequence[int], [1, 2], [1, 2]),
        (set[int], [1, 1], {1}),
        (frozenset[str], ["a"], frozenset("a")),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
        (tuple[()], [], ()),
        (tuple, [1, "a"], (1, "a")),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict[int, str], {"1": "a", "-2": "b"}, {1: "a", -2: "b"}),
        (Mapping[str, Any], {"a": None}, {"a": None}),
        (int | None, None, None),
        (Optional[int], 3, 3),  # noqa: UP045 - the older spelling
        (int | str, "3", "3"),
        (datetime.datetime | str, "2026-01-02T03:04:05+00:00", NOW),
        (Literal["a", 1], 1, 1),
        (Colour, "blue", Colour.BLUE),
        (Level, 1, Level.LOW),
        (datetime.datetime, NOW.isoformat(), NOW),
        (datetime.date, "2026-01-02", datetime.date(2026, 1, 2)),
        (datetime.time, "03:04:05", datetime.time(3, 4, 5)),
        (decimal.Decimal, "1.10", decimal.Decimal("1.10")),
        (uuid.UUID, str(ID), ID),
        (pathlib.Path, "/a/b", pathlib.Path("/a/b")),
        (Annotated[int, "doc"], 3, 3),
        (Point, {"x": 1}, Point(1)),
        (Point, {"x": 1, "near": [{"x": 2, "y": 3}]}, Point(1, 0.0, [Point(2, 3.0)])),
        (Movie, {"name": "M"}, {"name": "M"}),
        (Movie, {"name": "M", "year": 1931}, {"name": "M", "year": 1931}),
    ],
)
def test_what_fits(hint: Any, value: Any, expected: Any) -> None:
    check = check_for(hint)
    became = check(value)
    assert became == expected
    assert type(became) is type(expected)
    # What it became passes too, and travels.
    assert check(became) == expected
    assert check(json.loads(json.dumps(expected, default=plain))) == expected


@pytest.mark.parametrize(
    ("hint", "value", "said"),
    [
        (int, "5", "x must be int, not '5' (str)"),
        (int, True, "x must be int, not True (bool)"),
        (int, 5.0, "x must be int, not 5.0 (float)"),
        (bool, 1, "x must be bool, not 1 (int)"),
        (float, True, "x must be float, not True (bool)"),
        (str, None, "x must be str, not None (NoneType)"),
        (None, 1, "x must be None, not 1 (int)"),
        (bytes, "?", "x must be bytes (as a text in base64), not '?' (str)"),
        (bytes, 1, "x must be bytes (as a text in base64), not 1 (int)"),
        (list[int], [1, "a"], "x[1] must be int, not 'a' (str)"),
        (list[int], "abc", "x must be list[int], not 'abc' (str)"),
        (tuple[int, int], [1], "x must be tuple[int, int], not [1] (list)"),
        (dict[str, list[int]], {"a": [None]}, "x['a'][0] must be int, not None (NoneType)"),
        (dict[int, int], {"a": 1}, "x key must be int, not 'a' (str)"),
        (dict[str, int], [], "x must be dict[str, int], not [] (list)"),
        (int | None, "a", "x must be int | None, not 'a' (str)"),
        (Literal["a", 1], True, "x must be one of 'a', 1, not True (bool)"),
        (Colour, "green", "x must be Colour, not 'green' (str)"),
        (datetime.datetime, "yesterday", "x must be datetime, not 'yesterday' (str)"),
        (decimal.Decimal, "a", "x must be Decimal, not 'a' (str)"),
        (Point, {"x": "1"}, "x.x must be int, not '1' (str)"),
        (Point, {"x": 1, "z": 1}, "x must be Point, not {'x': 1, 'z': 1} (dict)"),
        (Movie, {}, "x must be Movie, which can't be without name, not {} (dict)"),
        (Movie, {"name": "M", "z": 1}, "x must be Movie, which can't be with z, not {'name': 'M', 'z': 1} (dict)"),
    ],
)
def test_what_does_not_fit_is_told(hint: Any, value: Any, said: str) -> None:
    with pytest.raises(Mismatch) as raised:
        check_for(hint)(value)
    assert raised.value.told("x") == said


def test_a_dataclass_without_a_field_it_needs() -> None:
    with pytest.raises(Mismatch) as raised:
        check_for(Point)({})
    assert "missing" in raised.value.told("x")


class Own:
    pass


def test_a_class_that_can_not_travel_is_refused_when_declared() -> None:
    with pytest.raises(TypeError, match="Own can't travel"):
        check_for(list[Own])
    own = Own()
    assert check_for(list[Own], strict=False)([own]) == [own]
    with pytest.raises(Mismatch):
        check_for(Own, strict=False)({})
    with pytest.raises(TypeError, match="can't travel"):
        plain(own)


def test_a_pydantic_model() -> None:
    pytest.importorskip("pydantic")
    from pydantic import BaseModel

    class Order(BaseModel):
        id: int
        at: datetime.datetime

    check = check_for(Order)
    order = check({"id": "7", "at": NOW.isoformat()})
    assert order == Order(id=7, at=NOW)
    assert check(json.loads(json.dumps(order, default=plain))) == order
    with pytest.raises(Mismatch):
        check({"id": "x"})


ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
HINTS = (int, str, list[int], dict[str, int], tuple[int, str], Point, Movie, Colour, uuid.UUID, bytes, datetime.date)


@given(ANY_VALUE)
def test_any_value_fits_or_is_told_why_not(value: Any) -> None:
    for hint in HINTS:
        with contextlib.suppress(Mismatch):
            check_for(hint)(value)
