"""The parser: the same bytes give the same messages, however the network cuts them, and never an exception.

What they must be is said by ``read_plainly``, which sees all bytes at once and wastes time and memory freely.
"""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conversation import PACKETS
from geartrain.errors import PacketTooLargeError, RemoteProtocolError
from geartrain.wire import LAYOUTS, Packet, Parser, pack_request, pack_response, packet_name
from geartrain.wire.packets import (
    ABOUT_A_JOB,
    ECHO_REQ,
    FROM_SERVER,
    JOB_ASSIGN,
    LENIENT,
    NOOP,
    SUBMIT_JOB,
    SUBMIT_REDUCE_JOB,
    TO_SERVER,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_STATUS,
)
from geartrain.wire.parser import BROKEN, LARGE, LINE, MORE, TOO_LARGE, WORTH_A_PLACE

EVERY_TYPE = pytest.mark.parametrize("number", LAYOUTS, ids=packet_name)
Message = tuple[object, ...]


def packet(number: int, body: bytes, magic: bytes = b"\0REQ") -> bytes:
    return struct.pack(">4sII", magic, number, len(body)) + body


def is_about_a_job(magic: bytes, number: int) -> bool:
    return number in ABOUT_A_JOB and bool(LAYOUTS[number][1] & (TO_SERVER if magic == b"\0REQ" else FROM_SERVER))


def read_plainly(data: bytes, max_body: int = 1 << 30, max_line: int = 8192) -> list[Message]:
    """Every whole message in ``data``, the last one being ("broken", code) where the stream can't be followed."""
    found: list[Message] = []
    while data:
        if data[0]:
            line, newline, rest = data.partition(b"\n")
            if len(line) + 1 > max_line or (not newline and len(data) >= max_line):
                return [*found, ("broken", "LINE_TOO_LONG")]
            if not newline:
                break
            found.append(("line", line.removesuffix(b"\r")))
        else:
            if len(data) < 12:
                break
            magic, number, size = struct.unpack(">4sII", data[:12])
            if magic not in (b"\0REQ", b"\0RES"):
                return [*found, ("broken", "INVALID_MAGIC")]
            if size > max_body and not is_about_a_job(magic, number):
                return [*found, ("broken", "ARGUMENT_TOO_LARGE")]
            if size > max_body:
                names = len(LAYOUTS[number][2]) - 1
                head = data[12 : min(12 + size, LARGE)]
                is_known = head.count(b"\0") >= names or len(head) == min(size, LARGE - 12)
                if is_known:
                    found.append(("too large", magic, number, size, head.split(b"\0")[:names]))
            if len(data) < 12 + size:
                break
            if size <= max_body:
                found.append(("packet", magic, number, data[12 : 12 + size]))
            rest = data[12 + size :]
        data = rest
    return found


def read(parser: Parser) -> Iterator[Message]:
    """Every message that the parser has whole now."""
    while True:
        type = parser.advance()
        if type == MORE:
            return
        if type == BROKEN:
            assert parser.trouble
            yield "broken", parser.trouble_code
            return
        if type == TOO_LARGE:
            assert parser.trouble_code == "ARGUMENT_TOO_LARGE"
            size, number = parser.end - parser.body, parser.type
            head = parser.data[parser.body : min(parser.end, parser.body - 12 + LARGE)]
            assert parser.argument_end(parser.body) == (head.index(b"\0") + parser.body if b"\0" in head else -1)
            names = head.split(b"\0")[: len(LAYOUTS[number][2]) - 1]
            yield "too large", int(parser.magic).to_bytes(4, "big"), number, size, names
            parser.skip()
            continue
        if type == LINE:
            yield "line", parser.data[parser.body : parser.end]
        else:
            yield "packet", int(parser.magic).to_bytes(4, "big"), type, parser.last_argument(parser.body)


def read_pieces(parser: Parser, pieces: Iterable[bytes]) -> list[Message]:
    found: list[Message] = []
    for piece in pieces:
        parser.feed(piece)
        found += read(parser)
        if found and found[-1][0] == "broken":
            break
    return found


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]


# ── every packet ────────────────────────────────────────────────────────────────────────────────────────────────────


def example_of(number: int) -> tuple[bytes, ...]:
    names = LAYOUTS[number][2]
    return (*[name.encode() for name in names[:-1]], b"la\0st\0") if names else ()


@EVERY_TYPE
@pytest.mark.parametrize("pack", [pack_request, pack_response])
def test_every_packet_whole_byte_by_byte_and_with_a_tail(number: int, pack: Callable[..., bytes]) -> None:
    arguments = example_of(number)
    data = pack(number, *arguments)
    tail = pack(NOOP)

    parser = Parser()
    parser.feed(data)
    assert parser.waiting
    assert parser.next_packet() == Packet(number, arguments)
    assert not parser.waiting
    assert parser.next_packet() is None

    for at in range(len(data)):
        assert parser.next_packet() is None
        parser.feed(data[at : at + 1])
        assert parser.waiting
    assert parser.next_packet() == Packet(number, arguments)

    parser.feed(data + tail[:5])
    assert parser.next_packet() == Packet(number, arguments)
    assert parser.next_packet() is None
    assert parser.waiting
    parser.feed(tail[5:] + data)
    assert parser.next_packet() == Packet(NOOP, ())
    assert parser.next_packet() == Packet(number, arguments)
    assert parser.next_packet() is None


@EVERY_TYPE
def test_every_packet_that_lacks_arguments_is_malformed_and_does_not_eat_the_next(number: int) -> None:
    count = len(LAYOUTS[number][2])
    for given_arguments in range(1, count):
        parser = Parser()
        parser.feed(packet(number, b"\0".join([b"x"] * given_arguments)) + packet(ECHO_REQ, b"next"))
        if number in LENIENT and given_arguments == count - 1:
            assert parser.next_packet() == Packet(number, (*[b"x"] * given_arguments, b""))
        else:
            with pytest.raises(
                RemoteProtocolError,
                match=f"{packet_name(number)} carries {count} arguments, but only {given_arguments} came",
            ):
                parser.next_packet()
        assert parser.next_packet() == Packet(ECHO_REQ, (b"next",))


def test_a_packet_without_arguments_ignores_its_body() -> None:
    parser = Parser()
    parser.feed(packet(NOOP, b"stray") + packet(NOOP, b""))
    assert parser.next_packet() == Packet(NOOP, ())
    assert parser.next_packet() == Packet(NOOP, ())


@pytest.mark.parametrize("number", [0, 5, 43, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_type_that_does_not_exist(number: int) -> None:
    assert number not in LAYOUTS
    parser = Parser()
    parser.feed(packet(number, b"abc"))
    with pytest.raises(RemoteProtocolError, match=f"there is no packet type {number}"):
        parser.next_packet()


def test_known_types_are_those_of_the_table() -> None:
    assert sorted(LAYOUTS) == [number for number in range(1, 43) if number != 5]


def test_a_line_among_packets_is_an_error_for_a_client() -> None:
    parser = Parser()
    parser.feed(b"OK " + b"x" * 200 + b"\n")
    with pytest.raises(RemoteProtocolError, match=r"text line instead of a packet: b'OK x{77}'"):
        parser.next_packet()


# ── any bytes, any cuts ─────────────────────────────────────────────────────────────────────────────────────────────

header = st.builds(
    lambda magic, number, size: struct.pack(">4sII", magic, number, size),
    st.sampled_from([b"\0REQ", b"\0RES", b"\0REQ", b"\0ABC"]),
    st.integers(0, 50) | st.integers(0, 2**32 - 1),
    st.integers(0, 20) | st.integers(0, 2**32 - 1),
)
good_packet = st.builds(
    packet,
    st.sampled_from(sorted({number for number, _ in PACKETS.values()})),
    st.binary(max_size=60),
    st.sampled_from([b"\0REQ", b"\0RES"]),
)
line = st.binary(max_size=40).map(lambda data: b"x" + data.replace(b"\n", b"") + b"\n")
stream = st.lists(good_packet | line | header | st.binary(max_size=10), max_size=8).map(b"".join)
places = st.lists(st.integers(0, 10**6), max_size=12)


@given(stream, places, st.integers(0, 70), st.integers(1, 50))
@settings(max_examples=500)
@example(b"status\r\n\r\n\n", [], 10, 10)
@example(b"\0", [], 10, 10)
@example(b"x" * 9 + b"\n" + b"y" * 10, [], 10, 10)
def test_any_bytes_give_messages_or_the_one_trouble(
    data: bytes, places: list[int], max_body: int, max_line: int
) -> None:
    expected = read_plainly(data, max_body, max_line)
    assert read_pieces(Parser(max_body, max_line), cut(data, places)) == expected
    assert read_pieces(Parser(max_body, max_line), [data[at : at + 1] for at in range(len(data))]) == expected


@given(stream, places)
@settings(max_examples=300)
def test_a_client_gets_packets_or_the_one_error(data: bytes, places: list[int]) -> None:
    parser = Parser(max_body=1000, max_line=100)
    for piece in cut(data, places):
        parser.feed(piece)
        with suppress(RemoteProtocolError):
            while (got := parser.next_packet()) is not None:
                assert len(got.arguments) == len(LAYOUTS[got.type][2])


@pytest.mark.parametrize("number", ABOUT_A_JOB, ids=packet_name)
@pytest.mark.parametrize("step", [1, 7, 1000, LARGE, 1 << 20])
@pytest.mark.parametrize("size", [200, 5000, LARGE - 12, LARGE, 100_000])
def test_a_packet_about_a_job_above_the_limit_is_told_and_skipped(number: int, step: int, size: int) -> None:
    names = [name.encode() for name in LAYOUTS[number][2][:-1]]
    body = (b"\0".join([*names, b""]) + pattern(size, 1))[:size]
    magic = b"\0REQ" if LAYOUTS[number][1] & TO_SERVER else b"\0RES"
    large = packet(number, body, magic)
    data = packet(ECHO_REQ, b"before") + large + packet(ECHO_REQ, b"behind") + large
    parser = Parser(max_body=150)
    found = read_pieces(parser, cut(data, range(0, len(data), step)))
    told = ("too large", magic, number, size, names)
    assert found == [
        ("packet", b"\0REQ", ECHO_REQ, b"before"),
        told,
        ("packet", b"\0REQ", ECHO_REQ, b"behind"),
        told,
    ]
    assert not parser.waiting
    assert not parser.skipping


def test_what_is_skipped_is_not_kept() -> None:
    parser = Parser(max_body=1000)
    tracemalloc.start()
    try:
        parser.feed(packet(WORK_DATA, b"H:t:1\0" + bytes(64_000_000))[: 1 << 16])
        assert parser.advance() == TOO_LARGE
        assert parser.advance() == TOO_LARGE, "until it is skipped"
        parser.skip()
        tracemalloc.reset_peak()
        for _ in range(900):
            parser.feed(bytes(1 << 16))
            assert parser.advance() == MORE
            assert parser.waiting
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000


def test_a_client_is_told_of_a_packet_above_its_limit_and_goes_on() -> None:
    parser = Parser(max_body=100)
    parser.feed(packet(JOB_ASSIGN, b"H:t:1\0f\0" + bytes(1000), b"\0RES") + packet(NOOP, b""))
    with pytest.raises(
        PacketTooLargeError, match="JOB_ASSIGN of 1008 bytes for H:t:1 is above the limit of 100"
    ) as told:
        parser.next_packet()
    assert (told.value.arguments, told.value.size, told.value.limit) == ((b"H:t:1", b"f"), 1008, 100)
    assert parser.next_packet() == Packet(NOOP, ())
    parser.feed(packet(ECHO_REQ, bytes(101)))
    with pytest.raises(RemoteProtocolError) as broken:
        parser.next_packet()
    assert not isinstance(broken.value, PacketTooLargeError)


def test_a_broken_stream_stays_broken() -> None:
    parser = Parser()
    parser.feed(b"\0XYZ" + bytes(8))
    assert parser.advance() == BROKEN
    parser.feed(packet(NOOP, b""))
    assert parser.advance() == BROKEN
    assert parser.trouble_code == "INVALID_MAGIC"


# ── large bodies ────────────────────────────────────────────────────────────────────────────────────────────────────

SIZES = [0, 1, LARGE - 13, LARGE - 12, LARGE - 11, LARGE, LARGE + 1, 2 * LARGE, 65_536, 65_537, 200_000]


def pattern(size: int, seed: int) -> bytes:
    return bytes((seed + at * 7) & 0xFF for at in range(256)) * (size // 256 + 1)


@st.composite
def large_stream(draw: st.DrawFn) -> bytes:
    parts = []
    for seed in range(draw(st.integers(1, 4))):
        size = draw(st.sampled_from(SIZES) | st.integers(0, 100_000))
        head = draw(st.sampled_from([b"", b"function\0unique\0", b"H:t:1\0"]))
        parts.append(packet(draw(st.sampled_from([SUBMIT_JOB, WORK_COMPLETE])), head + pattern(size, seed)[:size]))
        parts.extend(draw(st.lists(good_packet | line, max_size=3)))
    return b"".join(parts)


@given(large_stream(), st.lists(st.integers(0, 10**6), max_size=20) | st.just(list(range(0, 500_000, 4096))))
@settings(max_examples=200)
def test_large_bodies_in_any_pieces(data: bytes, places: list[int]) -> None:
    assert read_pieces(Parser(), cut(data, places)) == read_plainly(data)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [1000, 16 * 1024, 64 * 1024, 1 << 20])
def test_two_large_ones_back_to_back_and_a_tail_behind(size: int, step: int) -> None:
    tail = packet(ECHO_REQ, b"a") + b"status\n" + packet(NOOP, b"") + packet(ECHO_REQ, b"half")[:-2]
    data = packet(WORK_COMPLETE, pattern(size, 1)[:size]) + packet(SUBMIT_JOB, pattern(size, 2)[:size]) + tail
    parser = Parser()
    assert read_pieces(parser, cut(data, range(0, len(data), step))) == read_plainly(data)
    assert parser.waiting
    parser.feed(b"lf")
    assert list(read(parser)) == [("packet", b"\0REQ", ECHO_REQ, b"half")]
    assert not parser.waiting


def test_a_large_body_that_trickles_byte_by_byte_is_kept_in_few_pieces() -> None:
    body = pattern(150_000, 3)[:150_000]
    data = packet(WORK_COMPLETE, b"H:t:1\0" + body)
    parser = Parser()
    parser.feed(data[:LARGE])
    assert parser.advance() == MORE
    for at in range(LARGE, len(data)):
        assert parser.waiting
        parser.feed(data[at : at + 1])
        if at % 1000 == 0 and at < len(data) - 1:
            assert parser.advance() == MORE
    assert parser.pieces is not None
    assert len(parser.pieces) <= 4
    assert parser.next_packet() == Packet(WORK_COMPLETE, (b"H:t:1", body))


def test_what_follows_a_large_body_is_not_lost_before_it_is_asked_for() -> None:
    """A peer's messages wait in the parser while its output is full, and the network goes on delivering."""
    body = pattern(40_000, 5)[:40_000]
    parser = Parser()
    data = packet(ECHO_REQ, body)
    parser.feed(data[:20_000])
    assert parser.advance() == MORE
    parser.feed(data[20_000:] + packet(ECHO_REQ, b"1"))
    parser.feed(packet(ECHO_REQ, b"2")[:7])
    parser.feed(packet(ECHO_REQ, b"2")[7:])
    bodies = [message[3] for message in read(parser)]
    assert bodies == [body, b"1", b"2"]


@pytest.mark.parametrize("size", [LARGE - 100, LARGE, 100_000])
def test_a_far_argument_is_found_or_not_whatever_the_network_does(size: int) -> None:
    """All arguments but the last must end within the first LARGE bytes of a packet."""
    data = packet(JOB_ASSIGN, b"H:t:1\0" + b"f" * size + b"\0workload")

    def outcome(pieces: list[bytes]) -> str:
        parser = Parser()
        for piece in pieces:
            parser.feed(piece)
            try:
                got = parser.next_packet()
            except RemoteProtocolError as error:
                return str(error)
        return repr(got)

    outcomes = {outcome(cut(data, range(0, len(data), step))) for step in (100, 4096, LARGE, LARGE + 50, 1 << 20)}
    assert len(outcomes) == 1
    assert ("carries 3 arguments" in outcomes.pop()) == (size >= LARGE)


def test_an_announced_length_allocates_nothing() -> None:
    tracemalloc.start()
    try:
        parser = Parser(max_body=2**32 - 1)
        parser.feed(struct.pack(">4sII", b"\0REQ", SUBMIT_JOB, 2**32 - 1) + b"f\0u\0" + b"x" * 50_000)
        assert parser.advance() == MORE
        parser.feed(b"y" * 50_000)
        assert parser.advance() == MORE
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000


def test_nothing_read_is_kept_once_it_has_been_given_out() -> None:
    parser = Parser()
    body = bytes(1_000_000)
    for pieces in ([packet(ECHO_REQ, body)], cut(packet(ECHO_REQ, body), range(0, 1_000_000, 50_000))):
        assert len(read_pieces(parser, pieces)) == 1
        assert parser.data == b""
        assert parser.pieces is None


# ── limits ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("limit", [0, 1, 100, LARGE, 50_000])
def test_the_limit_of_a_body_is_exact(limit: int) -> None:
    parser = Parser(max_body=limit)
    parser.feed(packet(ECHO_REQ, b"x" * limit))
    assert list(read(parser)) == [("packet", b"\0REQ", ECHO_REQ, b"x" * limit)]
    parser.feed(packet(ECHO_REQ, b"x" * (limit + 1))[:12])  # the header alone is enough
    assert list(read(parser)) == [("broken", "ARGUMENT_TOO_LARGE")]
    assert parser.trouble == f"a packet of {limit + 1} bytes is above the limit of {limit}"


@pytest.mark.parametrize("limit", [1, 2, 100, 8192])
def test_the_limit_of_a_line_is_exact_and_counts_its_end(limit: int) -> None:
    fits = b"x" * (limit - 1) + b"\n"
    parser = Parser(max_line=limit)
    assert read_pieces(parser, cut(fits, range(limit))) == [("line", fits[:-1])]
    assert read_pieces(parser, [fits + fits]) == [("line", fits[:-1])] * 2
    assert read_pieces(parser, [b"x" * limit]) == [("broken", "LINE_TOO_LONG")]
    parser = Parser(max_line=limit)
    assert read_pieces(parser, [b"x" * limit + b"\n"]) == [("broken", "LINE_TOO_LONG")]


def test_both_line_ends() -> None:
    parser = Parser()
    parser.feed(b"a\r\nb\n\r\n\n" + b"c\r\r\n" + b"half\r")
    assert list(read(parser)) == [("line", text) for text in (b"a", b"b", b"", b"", b"c\r")]
    parser.feed(b"\n")
    assert list(read(parser)) == [("line", b"half")]


# ── the packet object ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_packet_shows_its_name_and_equals_its_like() -> None:
    status = Packet(WORK_STATUS, (b"H:t:1", b"1", b"2"))
    assert repr(status) == "WORK_STATUS(b'H:t:1', b'1', b'2')"
    assert status == Packet(WORK_STATUS, (b"H:t:1", b"1", b"2"))
    assert len({status, Packet(WORK_STATUS, (b"H:t:1", b"1", b"2"))}) == 1
    assert status != Packet(WORK_STATUS, (b"H:t:1", b"1", b"3"))
    assert status != "WORK_STATUS"


def read_into_place(parser: Parser, stream: bytes, cut: Callable[[int], int]) -> list[Packet]:
    """The packets of a stream, read as a driver does that makes a place for the last argument of a large one."""
    found: list[Packet] = []
    at = 0
    while at < len(stream):
        if parser.wanted:
            place = bytearray(parser.begun)
            size = parser.wanted
            while len(place) < size:
                count = min(cut(size - len(place)), size - len(place))
                place += stream[at : at + count]
                at += count
                parser.came(count)
                assert parser.waiting
                if len(place) < size:
                    assert parser.advance() == MORE
            parser.complete(bytes(place))
        else:
            count = cut(len(stream) - at)
            parser.feed(stream[at : at + count])
            at += count
        while (packet := parser.next_packet()) is not None:
            found.append(packet)
    return found


@given(
    packets=st.lists(
        st.tuples(
            st.sampled_from([ECHO_REQ, SUBMIT_JOB, SUBMIT_REDUCE_JOB, WORK_COMPLETE]),
            st.sampled_from([0, 100, LARGE, WORTH_A_PLACE - 20, WORTH_A_PLACE, WORTH_A_PLACE + 1, 2 * WORTH_A_PLACE]),
        ),
        max_size=5,
    ),
    cuts=st.lists(st.sampled_from([1, 100, LARGE - 1, LARGE + 50, WORTH_A_PLACE, 1 << 20]), min_size=1, max_size=5),
)
@settings(max_examples=50)
def test_a_last_argument_may_be_read_into_place(packets: list[tuple[int, int]], cuts: list[int]) -> None:
    expected = [
        Packet(type, (*(b"name",) * (len(LAYOUTS[type][2]) - 1), bytes([1 + at]) * size))
        for at, (type, size) in enumerate(packets)
    ]
    stream = b"".join(pack_request(each.type, *each.arguments) for each in expected)
    sizes = iter(range(1 << 30))
    assert read_into_place(Parser(), stream, lambda _: cuts[next(sizes) % len(cuts)]) == expected


def test_a_packet_whose_names_never_end_is_not_read_into_place() -> None:
    parser = Parser()
    parser.feed(packet(SUBMIT_JOB, b"x" * WORTH_A_PLACE)[: 2 * LARGE])
    assert parser.advance() == MORE
    assert parser.wanted == 0


def test_lines_are_told_from_packets_by_who_waits_for_them() -> None:
    """A packet with a large body, lines before and behind it, in two pieces each."""
    large = pack_response(WORK_DATA, b"H:1", b"x" * 3 * LARGE)
    parser = Parser()
    stream = [b"O", b"K\r\n", large[: 2 * LARGE], large[2 * LARGE :] + b"ERR", b" WHY\n" + pack_response(NOOP)]
    lines = []
    packets = []
    for piece in stream:
        parser.feed(piece)
        while True:
            line = parser.next_line()
            packet = None if line is not None else parser.next_packet()
            if line is None and packet is None:
                break
            lines += [line] if line is not None else []
            packets += [packet.type] if packet is not None else []
    assert lines == [b"OK", b"ERR WHY"]
    assert packets == [WORK_DATA, NOOP]
