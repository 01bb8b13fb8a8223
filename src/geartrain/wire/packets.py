"""The packets of the Gearman protocol: their numbers, what each carries, and how one is packed.

A packet is a 12-byte header (magic, type, length of the body; both numbers big-endian) and a body of arguments joined
by single NULs; the last argument runs to the end of the body and may hold anything (sections 1.2 and 1.3). The table
``LAYOUTS`` is the one place that says which type carries what; the parser, the documentation and the tests read it.
"""

from __future__ import annotations

from typing import Final

from geartrain.errors import LocalProtocolError
from geartrain.native import i64
from geartrain.wire.primitives import find_nul

HEADER_SIZE: Final = 12
REQUEST_MAGIC: Final = 0x00524551
RESPONSE_MAGIC: Final = 0x00524553

CAN_DO: Final = 1
CANT_DO: Final = 2
RESET_ABILITIES: Final = 3
PRE_SLEEP: Final = 4
NOOP: Final = 6
SUBMIT_JOB: Final = 7
JOB_CREATED: Final = 8
GRAB_JOB: Final = 9
NO_JOB: Final = 10
JOB_ASSIGN: Final = 11
WORK_STATUS: Final = 12
WORK_COMPLETE: Final = 13
WORK_FAIL: Final = 14
GET_STATUS: Final = 15
ECHO_REQ: Final = 16
ECHO_RES: Final = 17
SUBMIT_JOB_BG: Final = 18
ERROR: Final = 19
STATUS_RES: Final = 20
SUBMIT_JOB_HIGH: Final = 21
SET_CLIENT_ID: Final = 22
CAN_DO_TIMEOUT: Final = 23
ALL_YOURS: Final = 24
WORK_EXCEPTION: Final = 25
OPTION_REQ: Final = 26
OPTION_RES: Final = 27
WORK_DATA: Final = 28
WORK_WARNING: Final = 29
GRAB_JOB_UNIQ: Final = 30
JOB_ASSIGN_UNIQ: Final = 31
SUBMIT_JOB_HIGH_BG: Final = 32
SUBMIT_JOB_LOW: Final = 33
SUBMIT_JOB_LOW_BG: Final = 34
SUBMIT_JOB_SCHED: Final = 35
SUBMIT_JOB_EPOCH: Final = 36
SUBMIT_REDUCE_JOB: Final = 37
SUBMIT_REDUCE_JOB_BACKGROUND: Final = 38
GRAB_JOB_ALL: Final = 39
JOB_ASSIGN_ALL: Final = 40
GET_STATUS_UNIQUE: Final = 41
STATUS_RES_UNIQUE: Final = 42
LAST_TYPE: Final = 42

TO_SERVER: Final = 1
FROM_SERVER: Final = 2

_JOB: Final = ("function", "unique", "workload")
_WORK: Final = ("handle", "data")
_REDUCE: Final = ("function", "unique", "reducer", "aggregator", "workload")

# type: (name, who may send it, its arguments in order)
LAYOUTS: Final[dict[int, tuple[str, int, tuple[str, ...]]]] = {
    CAN_DO: ("CAN_DO", TO_SERVER, ("function",)),
    CANT_DO: ("CANT_DO", TO_SERVER, ("function",)),
    RESET_ABILITIES: ("RESET_ABILITIES", TO_SERVER, ()),
    PRE_SLEEP: ("PRE_SLEEP", TO_SERVER, ()),
    NOOP: ("NOOP", FROM_SERVER, ()),
    SUBMIT_JOB: ("SUBMIT_JOB", TO_SERVER, _JOB),
    JOB_CREATED: ("JOB_CREATED", FROM_SERVER, ("handle",)),
    GRAB_JOB: ("GRAB_JOB", TO_SERVER, ()),
    NO_JOB: ("NO_JOB", FROM_SERVER, ()),
    JOB_ASSIGN: ("JOB_ASSIGN", FROM_SERVER, ("handle", "function", "workload")),
    WORK_STATUS: ("WORK_STATUS", TO_SERVER | FROM_SERVER, ("handle", "numerator", "denominator")),
    WORK_COMPLETE: ("WORK_COMPLETE", TO_SERVER | FROM_SERVER, _WORK),
    WORK_FAIL: ("WORK_FAIL", TO_SERVER | FROM_SERVER, ("handle",)),
    GET_STATUS: ("GET_STATUS", TO_SERVER, ("handle",)),
    ECHO_REQ: ("ECHO_REQ", TO_SERVER, ("data",)),
    ECHO_RES: ("ECHO_RES", FROM_SERVER, ("data",)),
    SUBMIT_JOB_BG: ("SUBMIT_JOB_BG", TO_SERVER, _JOB),
    ERROR: ("ERROR", FROM_SERVER, ("code", "text")),
    STATUS_RES: ("STATUS_RES", FROM_SERVER, ("handle", "known", "running", "numerator", "denominator")),
    SUBMIT_JOB_HIGH: ("SUBMIT_JOB_HIGH", TO_SERVER, _JOB),
    SET_CLIENT_ID: ("SET_CLIENT_ID", TO_SERVER, ("id",)),
    CAN_DO_TIMEOUT: ("CAN_DO_TIMEOUT", TO_SERVER, ("function", "timeout")),
    ALL_YOURS: ("ALL_YOURS", TO_SERVER, ()),
    WORK_EXCEPTION: ("WORK_EXCEPTION", TO_SERVER | FROM_SERVER, _WORK),
    OPTION_REQ: ("OPTION_REQ", TO_SERVER, ("option",)),
    OPTION_RES: ("OPTION_RES", FROM_SERVER, ("option",)),
    WORK_DATA: ("WORK_DATA", TO_SERVER | FROM_SERVER, _WORK),
    WORK_WARNING: ("WORK_WARNING", TO_SERVER | FROM_SERVER, _WORK),
    GRAB_JOB_UNIQ: ("GRAB_JOB_UNIQ", TO_SERVER, ()),
    JOB_ASSIGN_UNIQ: ("JOB_ASSIGN_UNIQ", FROM_SERVER, ("handle", "function", "unique", "workload")),
    SUBMIT_JOB_HIGH_BG: ("SUBMIT_JOB_HIGH_BG", TO_SERVER, _JOB),
    SUBMIT_JOB_LOW: ("SUBMIT_JOB_LOW", TO_SERVER, _JOB),
    SUBMIT_JOB_LOW_BG: ("SUBMIT_JOB_LOW_BG", TO_SERVER, _JOB),
    SUBMIT_JOB_SCHED: (
        "SUBMIT_JOB_SCHED",
        TO_SERVER,
        ("function", "unique", "minute", "hour", "day of month", "month", "day of week", "workload"),
    ),
    SUBMIT_JOB_EPOCH: ("SUBMIT_JOB_EPOCH", TO_SERVER, ("function", "unique", "epoch", "workload")),
    SUBMIT_REDUCE_JOB: ("SUBMIT_REDUCE_JOB", TO_SERVER, _REDUCE),
    SUBMIT_REDUCE_JOB_BACKGROUND: ("SUBMIT_REDUCE_JOB_BACKGROUND", TO_SERVER, _REDUCE),
    GRAB_JOB_ALL: ("GRAB_JOB_ALL", TO_SERVER, ()),
    JOB_ASSIGN_ALL: (
        "JOB_ASSIGN_ALL",
        FROM_SERVER,
        ("handle", "function", "unique", "reducer", "workload"),
    ),
    GET_STATUS_UNIQUE: ("GET_STATUS_UNIQUE", TO_SERVER, ("unique",)),
    STATUS_RES_UNIQUE: (
        "STATUS_RES_UNIQUE",
        FROM_SERVER,
        ("unique", "known", "running", "numerator", "denominator", "clients"),
    ),
}

# Workers that leave out the last, empty argument of these together with the NUL before it are understood
# (the Perl library sends such packets).
LENIENT: Final = frozenset((WORK_STATUS, WORK_COMPLETE, WORK_EXCEPTION, WORK_DATA, WORK_WARNING))

# Packets that carry a job or a part of its result, its handle first: of one that is too large the job is known.
ABOUT_A_JOB: Final = frozenset(
    (
        JOB_ASSIGN,
        JOB_ASSIGN_UNIQ,
        JOB_ASSIGN_ALL,
        WORK_STATUS,
        WORK_COMPLETE,
        WORK_EXCEPTION,
        WORK_DATA,
        WORK_WARNING,
    )
)

_REQUEST_HEADS: Final[list[bytes]] = [b"\0REQ" + number.to_bytes(4, "big") for number in range(LAST_TYPE + 1)]
_RESPONSE_HEADS: Final[list[bytes]] = [b"\0RES" + number.to_bytes(4, "big") for number in range(LAST_TYPE + 1)]
_SIZES: Final[list[bytes]] = [size.to_bytes(4, "big") for size in range(1024)]


def pack_size(size: i64) -> bytes:
    """The four bytes that announce a body of ``size`` bytes."""
    if size < 1024:
        return _SIZES[size]
    return int(size).to_bytes(4, "big")


def request_head(type: i64, size: i64) -> bytes:
    """The 12-byte header of a packet towards the job server."""
    return _REQUEST_HEADS[type] + pack_size(size)


def response_head(type: i64, size: i64) -> bytes:
    """The 12-byte header of a packet from the job server."""
    return _RESPONSE_HEADS[type] + pack_size(size)


def pack_request(type: int, *arguments: bytes) -> bytes:
    """A whole packet towards the job server.

    Raises LocalProtocolError if the count of arguments does not fit the type, if one that must not hold a NUL does, or
    if the body is longer than its 32-bit length can say.
    """
    return _pack(_REQUEST_HEADS, type, arguments)


def pack_response(type: int, *arguments: bytes) -> bytes:
    """A whole packet from the job server; raises as ``pack_request``."""
    return _pack(_RESPONSE_HEADS, type, arguments)


def _pack(heads: list[bytes], type: int, arguments: tuple[bytes, ...]) -> bytes:
    layout = LAYOUTS.get(type)
    if layout is None:
        raise LocalProtocolError(f"there is no packet type {type}")
    name, _, names = layout
    if len(arguments) != len(names):
        raise LocalProtocolError(f"{name} takes {len(names)} arguments, not {len(arguments)}")
    for index in range(len(arguments) - 1):
        argument = arguments[index]
        if find_nul(argument, 0, len(argument)) >= 0:
            raise LocalProtocolError(f"{name}: the {names[index]} {argument!r} holds a NUL")
    body = b"\0".join(arguments)
    if len(body) > 0xFFFFFFFF:
        raise LocalProtocolError(f"{name}: a body of {len(body)} bytes is longer than a packet can be")
    return heads[type] + pack_size(len(body)) + body


def packet_name(type: int) -> str:
    """The name of a packet type, or its number where it has none."""
    layout = LAYOUTS.get(type)
    return layout[0] if layout else f"type {type}"
