"""The handful of byte operations that the hot path is made of.

Compiled, each is a short loop over native integers; interpreted, the same question is put to a method of ``bytes``,
which is several times faster there. Both answers are always the same, and nobody else needs to know which one ran.
"""

from __future__ import annotations

from typing import Final

from geartrain.native import i64

COMPILED: Final = not __file__.endswith(".py")


def read_u32(data: bytes, at: i64) -> i64:
    """The unsigned big-endian 32-bit number at ``at``; the four bytes must be there."""
    if COMPILED:
        b0: i64 = data[at]
        b1: i64 = data[at + 1]
        b2: i64 = data[at + 2]
        b3: i64 = data[at + 3]
        return (b0 << 24) | (b1 << 16) | (b2 << 8) | b3
    return int.from_bytes(data[at : at + 4], "big")


def find_nul(data: bytes, start: i64, end: i64) -> i64:
    """The index of the first NUL in ``data[start:end]``, or -1."""
    if COMPILED:
        at: i64 = start
        while at < end:
            if data[at] == 0:
                return at
            at += 1
        return -1
    return data.find(0, start, end)


def matches(data: bytes, start: i64, end: i64, expected: bytes) -> bool:
    """Whether ``data[start:end] == expected``."""
    if COMPILED:
        size: i64 = len(expected)
        if end - start != size:
            return False
        i: i64 = 0
        while i < size:
            if data[start + i] != expected[i]:
                return False
            i += 1
        return True
    return data[start:end] == expected


def parse_number(data: bytes, start: i64, end: i64) -> i64:
    """The decimal number that fills ``data[start:end]``, or -1 if it is not one of 1 to 18 plain digits."""
    size: i64 = end - start
    if size < 1 or size > 18:
        return -1
    if COMPILED:
        value: i64 = 0
        at: i64 = start
        while at < end:
            digit: i64 = data[at]
            if digit < 48 or digit > 57:
                return -1
            value = value * 10 + (digit - 48)
            at += 1
        return value
    digits = data[start:end]
    return int(digits) if digits.isdigit() else -1


def parse_handle(data: bytes, start: i64, end: i64, prefix: bytes) -> i64:
    """The number of the handle in ``data[start:end]``, or -1 if it does not read ``prefix`` and a number.

    A number with a leading zero is nobody's handle.
    """
    cut: i64 = start + len(prefix)
    if cut >= end or not matches(data, start, cut, prefix):
        return -1
    if data[cut] == 48:
        return -1
    return parse_number(data, cut, end)
