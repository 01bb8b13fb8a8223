"""The layout table against the protocol reference's, and packing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation import PACKETS
from geartrain.errors import LocalProtocolError
from geartrain.wire import packets
from geartrain.wire.packets import (
    LAYOUTS,
    pack_request,
    pack_response,
    pack_size,
    packet_name,
    request_head,
    response_head,
)

EVERY_TYPE = pytest.mark.parametrize("number", LAYOUTS, ids=packet_name)


def arguments_of(number: int) -> st.SearchStrategy[tuple[bytes, ...]]:
    """Arguments that fit the packet: only the last may hold NULs."""
    count = len(LAYOUTS[number][2])
    if count == 0:
        return st.just(())
    plain = st.binary(max_size=40).map(lambda data: data.replace(b"\0", b"0"))
    return st.tuples(*[plain] * (count - 1), st.binary(max_size=40))


def test_the_table_is_that_of_the_reference() -> None:
    ours = {name: (number, len(arguments)) for number, (name, _, arguments) in LAYOUTS.items()}
    theirs = {name: layout for name, layout in PACKETS.items() if name != "UNUSED"}
    assert ours == theirs


@EVERY_TYPE
def test_every_number_has_its_name(number: int) -> None:
    assert getattr(packets, packet_name(number)) == number


def test_a_number_without_a_name_is_shown_as_one() -> None:
    assert packet_name(5) == "type 5"
    assert packet_name(4711) == "type 4711"


@EVERY_TYPE
@given(data=st.data())
def test_a_packet_is_a_header_and_arguments_joined_by_nuls(number: int, data: st.DataObject) -> None:
    arguments = data.draw(arguments_of(number))
    body = b"\0".join(arguments)
    rest = struct.pack(">II", number, len(body)) + body
    assert pack_request(number, *arguments) == b"\0REQ" + rest
    assert pack_response(number, *arguments) == b"\0RES" + rest
    assert request_head(number, len(body)) + body == b"\0REQ" + rest
    assert response_head(number, len(body)) + body == b"\0RES" + rest


@pytest.mark.parametrize("size", [0, 1, 255, 256, 1023, 1024, 1025, 65535, 65536, 2**24, 2**31, 2**32 - 1])
def test_sizes_on_both_sides_of_the_ready_made_ones(size: int) -> None:
    assert pack_size(size) == struct.pack(">I", size)


@EVERY_TYPE
def test_a_wrong_count_of_arguments_is_told_with_both_counts(number: int) -> None:
    count = len(LAYOUTS[number][2])
    with pytest.raises(LocalProtocolError, match=f"{packet_name(number)} takes {count} arguments, not {count + 1}"):
        pack_request(number, *[b"x"] * (count + 1))
    if count:
        with pytest.raises(LocalProtocolError, match=f"takes {count} arguments, not {count - 1}"):
            pack_response(number, *[b"x"] * (count - 1))


@EVERY_TYPE
def test_a_nul_in_any_argument_but_the_last_is_refused_by_its_name(number: int) -> None:
    names = LAYOUTS[number][2]
    for place, name in enumerate(names[:-1]):
        arguments = [b"x"] * len(names)
        arguments[place] = b"a\0b"
        with pytest.raises(LocalProtocolError, match=f"the {name} .* holds a NUL"):
            pack_request(number, *arguments)


@pytest.mark.parametrize("number", [0, 5, 43, -1, 2**32])
def test_there_are_no_other_packets(number: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"there is no packet type {number}"):
        pack_request(number)
