"""The byte primitives: the body for the compiler and the one for the interpreter, against the plain meaning."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import geartrain.wire
from geartrain.wire import primitives

SOURCE = Path(geartrain.wire.__file__).with_name("primitives.py")


def body_for(suffix: str) -> SimpleNamespace:
    """The module as it is when its file ends in ``suffix``: the source decides by that which body to run."""
    names = {"__file__": f"primitives{suffix}", "__name__": "primitives"}
    exec(compile(SOURCE.read_text(), str(SOURCE), "exec"), names)
    return SimpleNamespace(**names)


BODIES: dict[str, ModuleType | SimpleNamespace] = {
    "installed": primitives,
    "interpreted": body_for(".py"),
    "compiled": body_for(".so"),
}
EVERY_BODY = pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)

mostly_nuls_and_digits = st.binary(max_size=24) | st.text("\0019 -+_", max_size=24).map(str.encode)


def part_of(draw: st.DataObject, data: bytes) -> tuple[int, int]:
    start = draw.draw(st.integers(0, len(data)))
    return start, draw.draw(st.integers(start, len(data)))


def test_the_two_bodies_are_two() -> None:
    assert BODIES["compiled"].COMPILED
    assert not BODIES["interpreted"].COMPILED


@EVERY_BODY
@given(number=st.integers(0, 2**32 - 1), before=st.binary(max_size=3), after=st.binary(max_size=3))
def test_read_u32(body: SimpleNamespace, number: int, before: bytes, after: bytes) -> None:
    assert body.read_u32(before + struct.pack(">I", number) + after, len(before)) == number


@EVERY_BODY
@given(data=mostly_nuls_and_digits, draw=st.data())
def test_find_nul(body: SimpleNamespace, data: bytes, draw: st.DataObject) -> None:
    start, end = part_of(draw, data)
    assert body.find_nul(data, start, end) == next((at for at in range(start, end) if data[at] == 0), -1)


@EVERY_BODY
@given(data=mostly_nuls_and_digits, draw=st.data())
def test_matches(body: SimpleNamespace, data: bytes, draw: st.DataObject) -> None:
    start, end = part_of(draw, data)
    expected = draw.draw(st.just(data[start:end]) | st.just(data[start : end + 1]) | mostly_nuls_and_digits)
    assert body.matches(data, start, end, expected) == (data[start:end] == expected)


@EVERY_BODY
@given(text=mostly_nuls_and_digits | st.integers(0, 10**20).map(lambda number: b"%d" % number))
@example(b"9" * 18)
@example(b"9" * 19)
@example(b"000000000000000001")
@example("\N{ARABIC-INDIC DIGIT ONE}".encode())
@example(b"\xb2")
def test_parse_number(body: SimpleNamespace, text: bytes) -> None:
    expected = int(text) if re.fullmatch(rb"[0-9]{1,18}", text) else -1
    assert body.parse_number(b"7" + text + b"7", 1, 1 + len(text)) == expected


@EVERY_BODY
@given(text=st.sampled_from([b"H:t:", b"H:t", b"h:t:", b""]), number=mostly_nuls_and_digits, tail=st.binary(max_size=2))
@example(b"H:t:", b"0", b"")
@example(b"H:t:", b"01", b"")
@example(b"H:t:", b"9" * 18, b"")
@example(b"H:t:", b"9" * 19, b"")
@example(b"H:t:", b"", b"5")
def test_parse_handle(body: SimpleNamespace, text: bytes, number: bytes, tail: bytes) -> None:
    handle = text + number
    found = re.fullmatch(rb"H:t:([1-9][0-9]{0,17})", handle)
    assert body.parse_handle(b"\0" + handle + tail, 1, 1 + len(handle), b"H:t:") == (int(found[1]) if found else -1)
